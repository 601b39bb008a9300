"""Preprocessing and logits compared with recorded pipelines of torchvision and timm (`golden/make_preprocess.py`)."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from eqxcnn import forward, normalize, zoo
from eqxcnn.registry import build, family, variant
from eqxcnn.runtime.compile import jit_once
from eqxcnn.weights import from_torch
from eqxcnn.weights.names import names_of
from eqxcnn.weights.presets import IMAGENET, PRESETS
from eqxcnn.weights.published import ON_HUB
from eqxcnn.weights.tensors import tensor_shapes
from eqxcnn.weights.torch import torch_shape

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "preprocess.json").read_text(encoding="utf-8"))
PIXELS = safetensors.numpy.load_file(GOLDEN / "preprocess.safetensors")
ZOO = json.loads((GOLDEN / "zoo.json").read_text(encoding="utf-8"))
photographs = SimpleNamespace(**runpy.run_path(str(GOLDEN / "photographs.py")))
seeded = SimpleNamespace(**runpy.run_path(str(GOLDEN / "seeded.py")))

PIPELINES = {"torchvision": IMAGENET, "timm": replace(IMAGENET, crop_fraction=0.9, interpolation="bicubic")}
pipelines = pytest.mark.parametrize("name", PIPELINES)


def largest_difference(name, what, images):
    """Returns the largest difference in gray levels between eqxcnn's pixels and the recorded pixels of a pipeline."""
    ours = np.stack([photographs.keep(PIPELINES[name](image)) for image in images])
    return np.abs(ours.astype(int) - PIXELS[f"{name}.{what}"]).max()


@pipelines
def test_pixels_of_large_and_long_photographs_are_the_pipelines(name):
    assert largest_difference(name, "parts", photographs.parts()) <= 1


@pipelines
def test_pixels_of_cats_and_dogs_are_the_pipelines(name, cats_vs_dogs):
    files = photographs.cats_and_dogs(cats_vs_dogs)
    assert len(PIXELS["rows"]) == 200
    assert largest_difference(name, "rows", [files[row] for row in PIXELS["rows"]]) <= 1


def test_presets_are_those_that_timm_publishes():
    ours = {row.repository: row.preprocess for row in ON_HUB.values() if not row.repository.endswith("tv_in1k")}
    ours |= {twin: preset for twin, preset in PRESETS.items() if twin.startswith("timm/")}
    assert ours.keys() == FACTS["timm"].keys()
    for name, facts in FACTS["timm"].items():
        preset = ours[name]
        assert (*preset.size, preset.interpolation) == (*facts["size"], facts["interpolation"]), name
        assert (preset.mean, preset.std) == (tuple(facts["mean"]), tuple(facts["std"])), name
        assert int(preset.size[0] / preset.crop_fraction + 1e-6) == facts["resized"], name


def test_copies_of_torchvisions_weights_have_torchvisions_preset():
    copies = {name: row for name, row in ON_HUB.items() if row.repository.endswith("tv_in1k")}
    assert "densenet121" in copies
    for name, row in copies.items():
        assert row.preprocess == PRESETS[variant(name).torch_twin], name


def seeded_model(name):
    names, abstract = names_of(family(name)), eqx.filter_eval_shape(build, name, key=jax.random.key(0))
    ours = tensor_shapes(*abstract)
    shapes = {names.torch_name(path): torch_shape(path, shape, names) for path, shape in ours.items()}
    return from_torch(name, seeded.weights(shapes, tame=ZOO[name].get("tame", 1.0)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("resnet18", "mobilenet_v2", "swin_t") else pytest.mark.exhaustive)
        for name in FACTS["logits"]
    ],
)
def test_logits_of_photographs_are_the_pipelines(name, monkeypatch):
    monkeypatch.setattr(zoo, "_count_multiply_adds", lambda *_: 0)  # takes seconds
    model, state = seeded_model(name)
    preprocess = zoo.card.__wrapped__(name).preprocess
    pixels = jnp.stack([preprocess(image) for image in photographs.samples()])
    images = normalize(pixels, jnp.asarray(preprocess.mean), jnp.asarray(preprocess.std))
    logits, _ = jit_once(forward)(eqx.nn.inference_mode(model), state, images, key=None)
    facts = FACTS["logits"][name]
    first = np.array(facts["first"])
    np.testing.assert_allclose(logits[:, : first.shape[1]], first, rtol=0, atol=1e-3 * facts["largest"])
    np.testing.assert_allclose(np.linalg.norm(logits, axis=1), facts["norm"], rtol=1e-3)
