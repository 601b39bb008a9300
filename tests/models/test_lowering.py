"""Programs for accelerators, lowered on any machine: the training step contains no implementation for CPUs.

Nothing is compiled or run, so no accelerator is needed.
"""

import re
import sys
from collections import Counter
from functools import cache
from math import prod
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from eqxcnn.augment import build as build_augment
from eqxcnn.layers.cpu import availability, onednn
from eqxcnn.recipe import Recipe
from eqxcnn.registry import build, variant
from eqxcnn.training.builders import build_average, build_mix, build_optimizer, build_value_and_grad
from eqxcnn.training.setup import Setup
from eqxcnn.training.state import TrainState
from eqxcnn.training.step import train_steps

sys.path.append(str(Path(__file__).parent))
from test_models import ONE_PER_FAMILY, shallow

ACCELERATORS = ("cuda", "tpu")
#: JAX's own custom calls: random bits on an NVIDIA GPU.
ALLOWED_CALLS = {"cu_threefry2x32_ffi"}
BATCH = 4
RICH = {
    "optimizer": "muon", "average": "ema", "mixup": 0.2, "cutmix": 1.0, "clip_norm": 1.0,
    "augment": ("random_crop(padding=2)", "flip_horizontal", "random_erasing"),
}  # fmt: skip
#: Together, these have every kind of layer; the other families combine the same layers differently.
SOME_FAMILIES = ("alexnet", "convnext_tiny", "lenet", "resnet9", "shufflenet_v2_x0_5", "swin_t")


@cache
def trace_step(name, steps=1, precision="float32", **settings):
    """Traces the training step of a shallow network at its smallest image size, with a donated train state."""
    recipe = Recipe(model=name, **{"optimizer": "sgd", "precision": precision, **settings})
    size, channels = variant(name).smallest, variant(name).input[2]
    optimizer = build_optimizer(recipe, 10, 5)

    def start(key):
        model, state = build(name, key=key, image_size=size, num_classes=10, **shallow(name))
        return TrainState.start(model, state, optimizer, use_average=recipe.average != "none")

    train = eqx.filter_eval_shape(start, jax.random.key(0))
    augment = build_augment(list(recipe.augment)) if recipe.augment else None
    setup = Setup(
        build_value_and_grad(recipe, train.model, ()), optimizer, augment, None, 5, jax.random.key(0),
        jnp.full(channels, 0.5), jnp.full(channels, 0.25), None, build_mix(recipe), build_average(recipe, 10, 5),
    )  # fmt: skip
    numbers = jax.ShapeDtypeStruct((steps, BATCH), jnp.int32)
    batches = jax.ShapeDtypeStruct((steps, BATCH, size, size, channels), jnp.uint8), numbers, numbers
    arrays, rest = eqx.partition(train, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def run(arrays, batches):
        return eqx.filter(train_steps(setup, eqx.combine(arrays, rest), batches), eqx.is_array)

    return jax.jit(run, donate_argnums=0).trace(arrays, batches)


def lower(traced, platform):
    return traced.lower(lowering_platforms=(platform,)).as_text()


def list_calls(text):
    """Returns the targets of a program's custom calls."""
    return set(re.findall(r"custom_call @([^( ]+)", text))


def assert_is_for_accelerators(text):
    assert list_calls(text) <= ALLOWED_CALLS
    # `jax.lax.platform_dependent` would leave a conditional.
    assert "optimization_barrier" not in text
    assert "stablehlo.case" not in text


def count_products(text):
    """Counts equal operations: convolutions by their text, and matrix products by the sorted sizes of their arrays."""
    found = Counter()
    for line in text.splitlines():
        if "stablehlo.convolution" in line:
            found[re.sub(r"%\S+", "", line).strip()] += 1
        elif "stablehlo.dot_general" in line:
            shapes = re.findall(r"tensor<([\dx]+)x", line.rpartition(" : ")[2])
            found[tuple(sorted(prod(map(int, shape.split("x"))) for shape in shapes))] += 1
    return found


def choose(names, *tested):
    """Returns pytest parameters: CI runs the names in `tested`, and `-m exhaustive` the other names."""
    return [pytest.param(name, marks=pytest.mark.slow if name in tested else pytest.mark.exhaustive) for name in names]


@pytest.mark.parametrize("name", choose(ONE_PER_FAMILY, *SOME_FAMILIES))
def test_steps_contain_no_implementation_for_cpus(name):
    for platform in ACCELERATORS:
        assert_is_for_accelerators(lower(trace_step(name), platform))


@pytest.mark.parametrize("name", choose(SOME_FAMILIES, "lenet", "shufflenet_v2_x0_5"))
def test_implementations_depend_on_the_platform_and_not_on_the_machine_that_traces(name, monkeypatch):
    here = trace_step(name)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = trace_step.__wrapped__(name)
    programs = {platform: lower(here, platform) for platform in ("cpu", "cuda")}
    assert programs == {platform: lower(on_gpu, platform) for platform in programs}
    assert "optimization_barrier" in programs["cpu"]
    assert any("onednn" in each for each in list_calls(programs["cpu"])) == onednn.is_available()


@pytest.mark.parametrize("name", choose(SOME_FAMILIES, "lenet", "shufflenet_v2_x0_5"))
def test_convolutions_and_products_are_those_of_plain_layers(name, monkeypatch):
    found = count_products(lower(trace_step(name), "cuda"))
    monkeypatch.setattr(availability, "_has_primitives", lambda: False)
    assert found == count_products(lower(trace_step.__wrapped__(name), "cuda"))


@pytest.mark.parametrize("name", [pytest.param("lenet"), pytest.param("resnet9", marks=pytest.mark.exhaustive)])
def test_several_steps_in_bfloat16_with_donated_state(name):
    traced = trace_step(name, steps=3, precision="bf16", **RICH)
    for platform in ACCELERATORS:
        text = lower(traced, platform)
        assert list_calls(text) <= ALLOWED_CALLS
        assert "optimization_barrier" not in text
        assert "stablehlo.while" in text
        assert re.search("tf.aliasing_output|jax.buffer_donor", text)
        convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        assert convolutions
        assert all("bf16" in line for line in convolutions)
