"""Augmentations of other packages: registered at run time, or found by the entry points of an installed package."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from eqxcnn import plugins
from eqxcnn.augment import AUGMENTS, build, register
from eqxcnn.errors import InputError
from eqxcnn.recipe import Recipe

IMAGE = jnp.full((4, 4, 1), 0.25)


def invert(strength=1.0):
    """Returns a transform that moves each pixel towards its negative."""
    return lambda image, key: image + strength * (1 - 2 * image)


@pytest.fixture(autouse=True)
def clean():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eqxcnn.augment.policy.AUGMENTS", dict(AUGMENTS))
        clear()
        yield
    clear()


def clear():
    plugins.entry_points.cache_clear()
    plugins.all_entry_points.cache_clear()


def apply(entry):
    """Returns the value of all pixels of the uniform image after one augmentation."""
    augment = build([entry])
    assert augment is not None
    pixels = augment(IMAGE, jax.random.key(0))
    assert (pixels == pixels[0, 0]).all()
    return float(pixels[0, 0, 0])


def test_a_registered_augmentation_works_in_recipes():
    with pytest.raises(InputError, match=r"no augmentation `invert`: .* If another package defines it, install or"):
        build(["invert"])
    register("invert", invert)
    assert apply("invert") == 0.75
    assert apply("invert(0.5)") == apply("invert(strength=0.5)") == 0.5
    assert Recipe(model="lenet", augment=("random_rot90", "invert(0.5)")).augment[1] == "invert(0.5)"
    with pytest.raises(InputError, match=r"unexpected keyword argument 'strong'; write `invert\(strength.*1\.0\)`"):
        build(["invert(strong=1)"])


def test_a_name_that_exists_or_is_no_identifier_is_refused():
    register("invert", invert)
    register("invert", invert)  # as when a module is imported under two names
    for name in ("invert", "cutout", "flip_horizontal"):
        with pytest.raises(InputError, match=f"augmentation `{name}` exists already"):
            register(name, partial(invert))
    with pytest.raises(InputError, match="'two words' must be a Python identifier"):
        register("two words", invert)


def test_a_function_that_returns_no_augmentation_is_refused():
    register("nothing", lambda: None)
    with pytest.raises(InputError, match="augmentation `nothing` is a `NoneType`, but must be a function of"):
        build(["nothing"])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Returns a function that installs the package `augment_plugin` with an entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(entry, source):
        record = tmp_path / "augment_plugin-1.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text("Metadata-Version: 2.1\nName: augment_plugin\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(f"[eqxcnn.augments]\n{entry}\n")
        (tmp_path / "augment_plugin.py").write_text(source)

    yield install
    sys.modules.pop("augment_plugin", None)


def test_the_augmentations_of_an_installed_package_are_imported_when_used(install):
    install("half = augment_plugin:half", "def half():\n    return lambda image, key: image / 2")
    assert apply("brightness(0.25)") == 0.5
    assert "augment_plugin" not in sys.modules
    assert apply("half") == 0.125
    with pytest.raises(InputError, match=r"no augmentation `hall`: did you mean .*`half`"):
        build(["hall"])
    with pytest.raises(InputError, match="augmentation `half` exists already"):
        register("half", invert)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module_anywhere", "package `augment_plugin` cannot be imported .ModuleNotFoundError"),
        ("half = 3", "`half` in `eqxcnn.augments` must name a function"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_when_its_name_is_used(install, source, message):
    install("half = augment_plugin:half", source)
    assert apply("brightness(0.25)") == 0.5
    with pytest.raises(InputError, match=message):
        build(["half"])


def test_a_package_cannot_replace_an_augmentation(install):
    install("brightness = augment_plugin:half", "def half():\n    return lambda image, key: image / 2")
    with pytest.warns(
        UserWarning, match="`brightness` of the package `augment_plugin` is ignored: the name exists already"
    ):
        assert apply("brightness(0.25)") == 0.5
