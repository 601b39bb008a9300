"""The example of docs/add_a_model.md is complete and does what the page says."""

import re
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from eqxcnn import forward, models, registry, zoo
from eqxcnn.training import load_recipe
from eqxcnn.weights import names
from eqxcnn.weights.tensors import tensor_shapes

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "add_a_model.md").read_text(encoding="utf-8")


def code_blocks(language):
    """Returns the page's fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Adds the page's two files to the package."""
    assert "mobilenet_v1" not in zoo.list_models(), "the zoo has this model now: choose another example for the page"
    for package, block in zip((models, names), code_blocks("python")[:2], strict=True):
        folder = tmp_path / package.__name__.rpartition(".")[2]
        folder.mkdir()
        (folder / "mobilenet_v1.py").write_text(block)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    registry.families.cache_clear()
    yield
    registry.families.cache_clear()
    names.names_of.cache_clear()
    zoo.card.cache_clear()
    for package in (models, names):
        sys.modules.pop(f"{package.__name__}.mobilenet_v1", None)


@pytest.mark.slow
@pytest.mark.usefixtures("added")
def test_the_example_has_its_published_parameters_and_multiply_adds():
    assert zoo.list_models("mobilenet_v1*") == ["mobilenet_v1", "mobilenet_v1_x0_5"]
    # Table 6 of the paper: 4.2 and 1.3 million parameters, 569 and 149 million multiply-adds.
    for name, cost in (("mobilenet_v1", 569), ("mobilenet_v1_x0_5", 149)):
        rows = zoo.summary(name)
        assert sum(row.params for row in rows) == zoo.card(name).params
        assert sum(row.multiply_adds for row in rows) == zoo.card(name).multiply_adds
        assert round(zoo.card(name).multiply_adds / 1e6) == cost
    assert rows[0].path == "stem.conv"
    assert rows[-1] == zoo.LayerRow("head", "Linear", (1000,), 1, 513_000, 512_000)


@pytest.mark.slow
@pytest.mark.usefixtures("added")
def test_the_example_takes_images_of_any_size():
    def compute_logits_and_maps(images):
        size = images.shape[1:3]
        model, state = zoo.create_model("mobilenet_v1_x0_5", num_classes=3, image_size=size, key=jax.random.key(0))
        logits, state = forward(model, state, images, key=jax.random.key(1))
        return logits, eqx.nn.inference_mode(model).features(images[0], state, key=None)[0]

    for height, width in ((1, 1), (64, 96)):
        images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
        logits, maps = eqx.filter_eval_shape(compute_logits_and_maps, images)
        assert logits.shape == (2, 3)
    strides = zoo.card("mobilenet_v1_x0_5").strides
    assert [image_map.shape[:2] for image_map in maps] == [(64 // stride, 96 // stride) for stride in strides]


@pytest.mark.usefixtures("added")
def test_the_rules_of_the_example_give_timms_names():
    built = eqx.filter_eval_shape(zoo.create_model, "mobilenet_v1", key=jax.random.key(0))
    theirs = {names.names_of("mobilenet_v1").torch_name(ours) for ours in tensor_shapes(*built)}
    places = [f"blocks.{stage}.{at}" for stage, depth in enumerate((1, 2, 2, 6, 2)) for at in range(depth)]
    convs = {f"{place}.conv_{kind}.weight" for place in places for kind in ("dw", "pw")}
    norms = {f"{place}.bn{at}" for place in places for at in (1, 2)} | {"bn1"}
    parts = ("weight", "bias", "running_mean", "running_var")
    norms = {f"{norm}.{part}" for norm in norms for part in parts}
    assert theirs == convs | norms | {"conv_stem.weight", "classifier.weight", "classifier.bias"}


@pytest.mark.usefixtures("added")
def test_the_recipe_of_the_example_loads(tmp_path):
    (recipe,) = code_blocks("yaml")
    (tmp_path / "example.yaml").write_text(recipe)
    assert load_recipe(tmp_path / "example.yaml").image_size == (128, 128)
