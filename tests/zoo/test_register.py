"""Models of other packages: registered at run time, or found by the entry points of an installed package."""

import dataclasses
import sys
import warnings
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.zoo_pages.page import format_page
from benchmarks.zoo_pages.rows import Speeds, make_rows
from eqxcnn import ImageClassifier, catalog, plugins, registry, saved_classifier, zoo
from eqxcnn.errors import InputError
from eqxcnn.models.lenet import LeNet
from eqxcnn.recipe import Recipe
from eqxcnn.weights import to_tensors
from eqxcnn.weights.torch import from_torch, to_torch

ROW = dataclasses.replace(registry.variant("lenet"), recipe=None, task="own task", source="")


class Wide(eqx.Module):
    """A dense layer on all pixels, with a constructor argument `scale` whose default is 0."""

    head: eqx.nn.Linear | eqx.nn.Identity
    scale: float = eqx.field(static=True)

    def __init__(self, num_classes=10, in_channels=1, image_size=(8, 8), scale: float = 0.0, *, key):
        size = image_size[0] * image_size[1] * in_channels
        self.head = eqx.nn.Linear(size, num_classes, key=key) if num_classes else eqx.nn.Identity()
        self.scale = scale

    def features(self, image, state, *, key):
        return (), state

    def __call__(self, image, state, *, key):
        return self.head(image.reshape(-1) * (1 + self.scale)), state


WIDE = dataclasses.replace(ROW, make=Wide, input=(8, 8, 1), params=650, smallest=1, strides=())


@pytest.fixture(autouse=True)
def clean():
    """Forgets the registered models and entry points before and after each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "_added", {})
        clear()
        yield
    clear()


def clear():
    for cached in (
        plugins.entry_points, plugins.all_entry_points, catalog.plugin_problems, catalog.families, zoo.card,
    ):  # fmt: skip
        cached.cache_clear()


def test_a_registered_model_is_in_the_zoo():
    assert "wide" not in zoo.list_models()
    zoo.register("wide", WIDE)
    assert zoo.list_models("w*de", task="own task") == ["wide"]
    model, state = zoo.create_model("wide", num_classes=3, scale=2.0, key=jax.random.key(0))
    assert model(jnp.ones((8, 8, 1)), state, key=None)[0].shape == (3,)
    card = zoo.card("wide")
    assert (card.params, card.multiply_adds, card.family) == (650, 640, f"{__name__}/Wide")
    assert [(row.path, row.params) for row in zoo.summary("wide")] == [("head", 650)]
    assert Recipe(model="wide", architecture=("scale=3.0",)).architecture_arguments == {"scale": 3.0}


def test_arguments_of_registered_models_are_checked_as_those_of_the_zoo():
    zoo.register("wide", WIDE)
    # 0 is a default of the family.
    zoo.create_model("wide", scale=0.0, key=jax.random.key(0))
    for given, message in (
        ({"scale": -1.0}, "at least 0"),
        ({"scale": "a"}, "type `float`"),
        ({"scael": 1}, "`scale`"),
    ):
        with pytest.raises(InputError, match=message):
            zoo.create_model("wide", key=jax.random.key(0), **given)


def test_partials_of_one_class_are_one_family():
    zoo.register("wide", WIDE)
    zoo.register("wide2", dataclasses.replace(WIDE, make=partial(Wide, scale=2.0)))
    assert registry.family("wide2") == registry.family("wide")
    zoo.create_model("wide2", scale=0.0, key=jax.random.key(0))


def test_a_registered_model_is_saved_and_loaded(tmp_path):
    zoo.register("wide", WIDE)
    built, state = zoo.create_model("wide", num_classes=2, scale=2.0, key=jax.random.key(0))
    classifier = ImageClassifier(
        model=built, state=state, mean=jnp.zeros(1), std=jnp.ones(1), name="wide", image_size=(8, 8),
        class_names=("a", "b"), architecture=(("scale", 2.0),),
    )  # fmt: skip
    saved_classifier.save(tmp_path, classifier)
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    assert (saved_classifier.load(tmp_path)(images) == classifier(images)).all()
    catalog._added.clear()
    clear()
    with pytest.raises(
        InputError, match=r"no model named `wide`.*; if another package defines it, install or `--import`"
    ):
        saved_classifier.load(tmp_path)


def test_torch_names_and_published_weights_of_a_registered_model():
    zoo.register("wide", WIDE)
    model, state = zoo.create_model("wide", key=jax.random.key(0))
    tensors = to_torch("wide", model, state)
    assert set(tensors) == {"head.weight", "head.bias"}
    again = from_torch("wide", tensors)
    np.testing.assert_array_equal(to_tensors(*again)["head.weight"], to_tensors(model, state)["head.weight"])
    with pytest.raises(InputError, match="no trained weights for `wide`"):
        zoo.create_model("wide", pretrained=True, key=jax.random.key(0))


def test_the_page_describes_registered_models(monkeypatch):
    zoo.register("wide", WIDE)
    monkeypatch.setattr("benchmarks.zoo_pages.rows.families", lambda: {"wide": registry.families()["wide"]})
    text = format_page(make_rows({"wide": 640}, Speeds()), Speeds())
    summary = "A dense layer on all pixels, with a constructor argument `scale` whose default is 0."
    assert f"### {__name__}/Wide\n\n{summary}\n" in text
    assert "| `wide` | 8x8x1 | 650 | 0.00 | 1 | - | - | - |" in text


def test_a_name_that_exists_is_refused():
    with pytest.raises(InputError, match="model `lenet` exists already, in `lenet`: choose another name"):
        zoo.register("lenet", WIDE)
    zoo.register("wide", WIDE)
    zoo.register("wide", WIDE)  # the same row, as when a module is imported under two names
    with pytest.raises(InputError, match="model `wide` exists already"):
        zoo.register("wide", dataclasses.replace(WIDE, smallest=2))
    assert registry.variant("wide") is WIDE


@pytest.mark.parametrize("name", ["", "a/b", "../up", "own", "-x", "a b", "x" * 61, "näme", "a\n"])
def test_a_name_that_cannot_be_part_of_a_file_is_refused(name):
    with pytest.raises(InputError, match=r"the model name .* must have at most 60"):
        zoo.register(name, WIDE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"make": None}, "must be an `eqxcnn.types.Variant` whose `make` builds"),
        ({"input": (8, 8)}, r"`\(height, width, channels\)` as `input` \(=\(8, 8\)\)"),
        ({"input": (8, 8, 0)}, "integers above 0"),
        ({"input": [8, 8, 1]}, "integers above 0"),
        ({"smallest": 9}, "at least `smallest` .=9."),
        ({"strides": (2, -1)}, "integers above 0"),
        ({"num_classes": 0}, "`num_classes` .=0."),
        ({"params": 1.5}, "`params` .=1.5."),
        ({"task": ""}, "non-empty string as `task` .=''."),
    ],
)
def test_an_invalid_row_is_refused(change, message):
    row = dataclasses.replace(WIDE)
    for field, value in change.items():
        object.__setattr__(row, field, value)  # The constructor's types are checked only in these tests.
    with pytest.raises(InputError, match=message):
        zoo.register("wide", row)
    assert "wide" not in zoo.list_models()


def test_a_constructor_of_another_signature_is_refused():
    class Plain(eqx.Module):
        layer: eqx.nn.Linear

        def __init__(self, num_classes, in_channels, image_size, *, key):
            self.layer = eqx.nn.Linear(in_channels, num_classes, key=key)

    zoo.register("plain", dataclasses.replace(ROW, make=Plain))
    with pytest.raises(InputError, match=r"must return an Equinox module with .* `features` of .*Plain`"):
        zoo.create_model("plain", key=jax.random.key(0))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Returns a function that installs a package of one module with an entry point for models."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def install(package, source, value=None):
        record = tmp_path / f"{package}-1.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(f"[eqxcnn.models]\nnets = {value or package}\n")
        (tmp_path / f"{package}.py").write_text(source)
        names.append(package)

    yield install
    for name in names:
        sys.modules.pop(name, None)


TABLE = """
import dataclasses
from eqxcnn.models.lenet import variants as lenet
variants = {{"{name}": dataclasses.replace(lenet["lenet"], recipe=None)}}
"""


@pytest.mark.parametrize("value", ["plugin_one", "plugin_one:variants"])
def test_the_models_of_an_installed_package_are_in_the_zoo(install, value):
    install("plugin_one", TABLE.format(name="first_net"), value)
    assert "plugin_one" not in sys.modules
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "first_net" in zoo.list_models()
    model, _ = eqx.filter_eval_shape(zoo.create_model, "first_net", key=jax.random.key(0))
    assert isinstance(model, LeNet)
    assert registry.family("first_net") == "plugin_one/nets"
    with pytest.raises(InputError, match="model `first_net` exists already, in `plugin_one/nets`"):
        zoo.register("first_net", WIDE)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import no_such_module_anywhere", "`broken` of the package `broken` cannot be imported .ModuleNotFoundError"),
        ("variants = [1]", "`broken/nets` in `eqxcnn.models` must name a module with a `variants` table"),
        ("variants = {'x': 1}", "the variant `x` of `broken/nets` must be an `eqxcnn.types.Variant`"),
        (TABLE.format(name="lenet"), "the model `lenet` of `broken/nets` exists already, in `lenet`"),
        (TABLE.format(name="first_net"), "the model `first_net` of `broken/nets` exists already, in `a_good/nets`"),
    ],
)
def test_a_package_that_cannot_be_used_breaks_no_other_model(install, source, problem):
    install("a_good", TABLE.format(name="first_net"))
    install("broken", source)
    with pytest.warns(UserWarning, match=problem):
        assert {"first_net", "lenet"} <= set(zoo.list_models())
    assert zoo.create_model("lenet", key=jax.random.key(0))
    with pytest.raises(InputError, match=rf"no model named `x_net`.*{problem}"):
        zoo.create_model("x_net", key=jax.random.key(0))
