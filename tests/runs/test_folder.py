from importlib.metadata import PackageNotFoundError, version

import pytest

from eqxcnn.errors import InputError
from eqxcnn.runs import folder
from eqxcnn.runs.folder import Run, create_folder, environment
from eqxcnn.training import Recipe


def test_environment_has_no_version_without_package_metadata(monkeypatch):
    def version_or_missing(name):
        if name == "eqxcnn":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(folder, "version", version_or_missing)
    result = environment()
    assert result["eqxcnn"] is None
    assert result["jax"] == version("jax")


def test_run_is_not_resumed_on_changed_data(tmp_path):
    with Run.create(tmp_path, Recipe(), "digits", "run", fingerprint="one") as run:
        run.check_data("one")
        with pytest.raises(InputError, match=r"the images of `data` .='digits'. have changed since the run"):
            run.check_data("two")


def test_run_without_a_fingerprint_resumes(tmp_path):
    with Run.create(tmp_path, Recipe(), "digits", "run") as run:
        run.check_data(None)
        (run.folder / "data.json").unlink()  # runs before version 0.2 have no such file
        run.check_data("any")


def test_folders_with_the_same_name_are_numbered(tmp_path):
    assert [create_folder(tmp_path, "run").name for _ in range(3)] == ["run", "run-2", "run-3"]
