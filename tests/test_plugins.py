"""Entry points of other packages, and `--import`."""

import sys

import pytest

from eqxcnn import plugins
from eqxcnn.errors import InputError

GROUP = "eqxcnn.tests"


def install(folder, package, entries, modules):
    """Writes modules into a folder, and beside them the metadata of a package whose entry points name the modules."""
    record = folder / f"{package}-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *(f"{key} = {at}" for key, at in entries)]))
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of installed packages; modules imported from it are forgotten afterwards."""
    before = set(sys.modules)
    clear()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    clear()


def clear():
    plugins.entry_points.cache_clear()
    plugins.all_entry_points.cache_clear()


def test_entry_points_are_found_by_name_and_imported_when_loaded(folder):
    modules = {"plugin_one": "value = 3", "plugin_two": "value = 4"}
    install(folder, "one-package", [("b", "plugin_one:value"), ("a", "plugin_two")], modules)
    points = plugins.entry_points(GROUP)
    assert list(points) == ["a", "b"]
    assert not {"plugin_one", "plugin_two"} & set(sys.modules)
    assert plugins.package(points["a"]) == "one-package"
    assert plugins.load(points["b"]) == 3
    assert plugins.load(points["a"]).value == 4
    assert not plugins.entry_points("eqxcnn.nothing")


def test_installed_packages_are_scanned_once(folder, monkeypatch):
    install(folder, "one-package", [("a", "plugin_one")], {})
    plugins.entry_points(GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: pytest.fail("scanned again"))
    assert list(plugins.entry_points(GROUP)) == ["a"]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", r"ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise RuntimeError('no license')", r"RuntimeError: no license"),
        ("import sys; sys.exit(3)", r"SystemExit: 3"),
        ("other = 1", r"AttributeError: module 'plugin_one' has no attribute 'value'"),
    ],
)
def test_an_entry_point_that_cannot_be_imported_is_one_sentence(folder, source, cause):
    install(folder, "one-package", [("a", "plugin_one:value")], {"plugin_one": source})
    (point,) = plugins.entry_points(GROUP).values()
    with pytest.raises(InputError, match=rf"^`plugin_one:value` of the package `one-package` cannot .*{cause}"):
        plugins.load(point)


def test_two_packages_with_the_same_entry_are_both_refused(folder):
    for package in ("one-package", "two-package"):
        install(folder, package, [("a", "plugin_one")], {"plugin_one": ""})
    with pytest.raises(
        InputError, match=r"packages `one-package`, `two-package` all have an entry `a` in `eqxcnn.tests`"
    ):
        plugins.load(plugins.entry_points(GROUP)["a"])
    packages = [plugins.package(point) for point in plugins.all_entry_points(GROUP)]
    assert packages == ["one-package", "two-package"]


def test_import_flags_are_imported_and_taken_away(folder):
    install(folder, "one-package", [], {"plugin_one": "", "plugin_two": ""})
    given = ["card", "--import", "plugin_one", "lenet", "--import=plugin_two", "--important"]
    assert plugins.take_imports(given) == ["card", "lenet", "--important"]
    assert {"plugin_one", "plugin_two"} <= set(sys.modules)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--import", "no_such_module_anywhere"],
            "`no_such_module_anywhere`, given with `--import`, cannot be imported",
        ),
        (["--import", "../plugin.py"], r"`\.\./plugin\.py`, given with `--import`, cannot be imported"),
        *((given, "`--import` needs the name") for given in (["--import"], ["--import="], ["--import", "--data"])),
    ],
)
def test_an_import_flag_that_names_no_module_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        plugins.take_imports(arguments)
