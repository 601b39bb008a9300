import math
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from eqxcnn.errors import InputError
from eqxcnn.runs.environment import environment
from eqxcnn.runs.folder import Run, create_folder, read_metrics, run_name
from eqxcnn.training import Recipe


def test_environment_has_no_version_without_package_metadata(monkeypatch):
    def version_or_missing(name):
        if name == "eqxcnn":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("eqxcnn.runs.environment.version", version_or_missing)
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


@pytest.mark.parametrize(
    "text", ["", "5", "[]", "{}", '{"fingerprint": 5}', '{"fingerprint": "a", "fingerprint": "b"}']
)
def test_damaged_data_file_is_refused(tmp_path, text):
    with Run.create(tmp_path, Recipe(), "digits", "run", fingerprint="a") as run:
        (run.folder / "data.json").write_text(text)
        with pytest.raises(
            InputError, match=r"data\.json` (cannot be read as JSON|does not hold the data's fingerprint)"
        ):
            run.check_data("a")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON: it has more than 50 levels"),
        ('{"epoch": 1, "epoch": 2}', "`epoch` appears twice"),
        (f'{{"epoch": {"1" * 5000}}}', "a number has 5000 characters"),
        ("[1]", "must be a JSON object of numbers"),
        ('{"epoch": "1"}', "must be a JSON object of numbers"),
        ('{"epoch": true}', "must be a JSON object of numbers"),
        ('{"test_accuracy": [0.5]}', "must be a JSON object of numbers"),
        ('{"seconds": [0.5]}', "must be a JSON object of numbers"),
        ('{"test_per_class": [0.5, "x"]}', "must be a JSON object of numbers"),
        ('{"test_count": 0.5}', "`test_count` .=0.5. must be a whole number from 0 to"),
        ('{"test_accuracy": -1}', "`test_accuracy` .=-1. must be from 0 to 1"),
        ('{"train_accuracy": 1.25}', "`train_accuracy` .=1.25. must be from 0 to 1"),
        ('{"epoch": 1.5}', "`epoch` .=1.5. must be a whole number from 0 to"),
        ('{"epoch": 1, "step": -1}', "`step` .=-1. must be a whole number"),
        ('{"epoch": 1, "step": 99999999999}', "`step` .* must be a whole number"),
    ],
)
def test_damaged_metrics_are_refused_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"epoch": 1, "train_loss": NaN}}\n{line}\n')
    with pytest.raises(InputError, match=rf"line 2 of `{path}`.*{message}"):
        read_metrics(tmp_path)


def test_metrics_may_be_lists_of_numbers(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "validation_per_class_accuracy": [0.5, null]}\n')
    assert read_metrics(tmp_path) == [{"epoch": 1, "validation_per_class_accuracy": [0.5, None]}]


def test_metrics_with_a_loss_that_is_not_finite_are_read(tmp_path):
    with Run.create(tmp_path, Recipe(), "digits", "run") as run:
        run.log({"epoch": 1, "train_loss": math.nan, "validation_loss": math.inf})
        (row,) = run.metrics
    assert math.isnan(row["train_loss"])
    assert row["validation_loss"] == math.inf


def test_metrics_are_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match="is not a regular file"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udce9", "/dev/null"])
def test_a_name_that_no_run_can_have_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not a run folder"):
        Run.open(Path(name))


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("x" * 300, "File name too long"),
        ("a\0b", "embedded null"),
        ("/dev/null", "cannot"),
        ("/proc/runs", "cannot be made"),
    ],
)
def test_a_folder_that_cannot_hold_runs_is_refused(runs, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        create_folder(Path(runs), "run")


def test_run_names_are_short_and_printable():
    name = run_name("lenet", "é" * 200 + "/\x1b[31m\n")
    assert len(name.encode()) < 255
    assert run_name("lenet", "a/b\x1b\n\udce9").startswith("lenet-a_b\\x1b\\n?-")


def test_a_run_whose_lock_cannot_be_opened_is_refused(tmp_path):
    folder = create_folder(tmp_path, "run")
    (folder / ".lock").mkdir()
    with pytest.raises(InputError, match="cannot be locked: Is a directory"):
        Run(folder, Recipe())


def test_folders_with_the_same_name_are_numbered(tmp_path):
    assert [create_folder(tmp_path, "run").name for _ in range(3)] == ["run", "run-2", "run-3"]


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "a/b", "two\nlines", "\x1b[31m"])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"^`name` \(=.*\) must be the name of a folder"):
        Run.create(tmp_path / "runs", Recipe(model="mlp"), "digits", name)
    assert list(tmp_path.iterdir()) == []
