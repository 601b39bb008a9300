"""Data sets that a program or another package adds under a name."""

import datasets
import numpy as np
import pytest

from eqxcnn import data, plugins
from eqxcnn.data import Source, from_dataset, open_source, register, sources
from eqxcnn.errors import InputError


def make_cells():
    images = [np.full((4, 6), 10 * index, np.uint8).tolist() for index in range(8)]
    return datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 4})


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(sources, "_registered", {})


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package with a module and entry points."""

    def install(module: str, **points: str) -> None:
        (tmp_path / "cell_data.py").write_text(module)
        info = tmp_path / "cell_data-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cell-data\nVersion: 1.0\n")
        lines = "".join(f"{name} = cell_data:{value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[eqxcnn.data]\n{lines}")
        monkeypatch.syspath_prepend(tmp_path)
        _forget()

    _forget()
    yield install
    _forget()


def _forget():
    import sys

    sys.modules.pop("cell_data", None)
    plugins.entry_points.cache_clear()
    plugins.all_entry_points.cache_clear()


def test_a_function_is_called_when_its_data_are_opened():
    calls = []

    def load():
        calls.append(1)
        return datasets.DatasetDict(train=make_cells(), fold=make_cells())

    register("cells", load)
    assert calls == []
    opened = open_source("cells", test_split="fold")
    assert calls == [1]
    assert (opened.info.name, opened.info.source, opened.info.splits) == ("cells", "cells", {"train": 8, "fold": 8})
    assert opened.info.fingerprint == from_dataset(load(), test_split="fold").info.fingerprint
    assert data.load("cells", "test", test_split="fold", progress=False).labels.tolist() == [0, 1] * 4


def test_a_source_with_its_own_choices(tmp_path):
    table = make_cells().rename_column("label", "kind").add_column("grade", [0] * 8)
    datasets.DatasetDict(train=table, fold=table).save_to_disk(tmp_path / "set")
    register("cells", Source(folder=tmp_path / "set", label_column="kind", test_split="fold"))
    assert open_source("cells").info.test_split == "fold"
    register("again", Source(rows=lambda: table, label_column="kind"))
    assert open_source("again").info.class_names == ("0", "1")


def test_a_stream_of_a_function_is_read(capsys):
    register("cells", lambda: make_cells().to_iterable_dataset())
    assert open_source("cells").info.splits == {"train": 8}


@pytest.mark.parametrize("name", ["mnist", "own", "a/b", "my cells", "1st", "", "x" * 41, "cells:small"])
def test_names_that_exist_or_are_no_names_are_refused(name):
    with pytest.raises(
        InputError, match=r"exists already" if name in ("mnist", "own") else "of a data set must have at most 40"
    ):
        register(name, make_cells)


def test_a_name_is_registered_once():
    register("cells", make_cells)
    register("cells", make_cells)
    with pytest.raises(InputError, match=r"the data set `cells` exists already: choose another name"):
        register("cells", lambda: make_cells())


@pytest.mark.parametrize("source", [Source(), Source(image_size=(4, 4))])
def test_a_source_without_rows_is_refused(source):
    with pytest.raises(InputError, match=r"the data set `cells` must be an `eqxcnn.data.Source` with `hub`"):
        register("cells", source)


def test_a_function_that_fails_or_returns_something_else_is_named():
    register("broken", lambda: 1 / 0)
    with pytest.raises(InputError, match=r"function `.*<lambda>` failed \(ZeroDivisionError: .*\)") as caught:
        open_source("broken")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    register("three", lambda: 3)
    with pytest.raises(InputError, match=r"<lambda>` must be a `Dataset` or `DatasetDict` of `datasets`, not a `int`"):
        open_source("three")


def test_added_names_are_suggested():
    register("my_cells", make_cells)
    with pytest.raises(
        InputError, match=r"unknown data set `my_cell`.*did you mean `my_cells`; if a module registers it, `--import`"
    ):
        open_source("my_cell")


MODULE = """
import datasets
from eqxcnn.data import Source

def load():
    images = [[[10 * index] * 6] * 4 for index in range(8)]
    return datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 4})

table = Source(rows=load)
number = 3
"""


def test_another_package_adds_data_sets(installed):
    installed(MODULE, cells="load", more_cells="table", bad="number")
    assert open_source("cells").info.fingerprint == open_source("more_cells").info.fingerprint
    assert open_source("cells").info.source == "cells"
    with pytest.raises(InputError, match=r"`bad` of the package `cell-data` must be an `eqxcnn.data.Source`"):
        open_source("bad")
    with pytest.raises(InputError, match=r"did you mean .*`more_cells`"):
        open_source("more_cell")


def test_a_broken_package_matters_only_when_its_name_is_used(installed):
    installed("import no_such_module", cells="load", mnist="load")
    register("fine", make_cells)
    assert open_source("fine").info.splits == {"train": 8}
    assert sources.find_source("mnist")[1].hub == "ylecun/mnist"
    with pytest.raises(
        InputError, match=r"`cell_data:load` of the package `cell-data` cannot be imported .*no_such_mod"
    ):
        open_source("cells")


def test_an_entry_point_cannot_take_the_place_of_a_hub_id(installed):
    installed("raise SystemExit", **{"org/cells": "load"})
    assert sources.find_source("org/cells")[1].hub == "org/cells"
