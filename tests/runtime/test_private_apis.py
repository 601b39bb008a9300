"""The package works without those parts of JAX that have no compatibility guarantee."""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqxcnn
from eqxcnn.layers import Conv, Linear, batch_moments
from eqxcnn.layers.cpu import availability
from eqxcnn.layers.norm import BatchNorm
from eqxcnn.runtime.compile import jit_once

ROOT = Path(eqxcnn.__file__).parent
#: https://docs.jax.dev/en/latest/api_compatibility.html lists the public modules; these are none of them.
PRIVATE = (
    *("jax._src", "jax.core", "jax.custom_batching", "jax.experimental", "jax.extend", "jax.interpreters"),
    "jaxlib.version",
)
#: Every use in the package. docs/architecture.md has what happens without each.
USES = {
    "export/onnx/converting.py": {"jax.extend.core.ClosedJaxpr", "jax.extend.core.Jaxpr", "jax.extend.core.Literal"},
    "layers/cpu/barrier_primitive.py": {"jax.interpreters.ad"},
    "layers/cpu/biased_convolution.py": {"jax.interpreters.ad"},
    "layers/cpu/convolution.py": {"jax.interpreters.ad"},
    "layers/cpu/fusion.py": {"jax.extend.core.ClosedJaxpr", "jax.extend.core.Literal"},
    "layers/cpu/primitive.py": {
        "jax.core.ShapedArray",
        "jax.extend.core.Primitive",
        "jax.interpreters.batching",
        "jax.interpreters.mlir",
    },
    "layers/cpu/product.py": {"jax.interpreters.ad"},
    "runtime/processes.py": {"jax._src.clusters.ClusterEnv"},
    "runs/shared.py": {"jax.experimental.multihost_utils.broadcast_one_to_all"},
    "layers/batch_moments.py": {"jax.custom_batching.custom_vmap"},
    "zoo/by_layer.py": {"jax.custom_batching.custom_vmap"},
}


def private_names(source):
    """The names that a source imports from private modules, or reaches as attributes of `jax`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {f"{module}.{alias.name}" for alias in names}
            case ast.Attribute(value=ast.Name(id="jax"), attr=name):
                found.add(f"jax.{name}")
    return {name for name in found if any(f"{name}.".startswith(f"{module}.") for module in PRIVATE)}


def test_the_list_of_private_apis_is_complete():
    found = {str(path.relative_to(ROOT)): private_names(path.read_text()) for path in ROOT.rglob("*.py")}
    assert {file: names for file, names in found.items() if names} == USES


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import jax\njax.core.Tracer", {"jax.core"}),
        ("from jax.core import Tracer as T", {"jax.core.Tracer"}),
        ("from jax.interpreters import ad, mlir", {"jax.interpreters.ad", "jax.interpreters.mlir"}),
        ("from jax import core, lax", {"jax.core"}),
        ("import jaxlib.version", {"jaxlib.version"}),
        ("import jax._src.core", {"jax._src.core"}),
        ("import jaxlib\nfrom .core import x\njax.lax.add", set()),
    ],
)
def test_the_search_finds_each_way_to_a_private_api(source, names):
    assert private_names(source) == names


HIDDEN = """
import builtins, sys

importer = builtins.__import__

def import_public(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and (globals or {}).get("__name__", "").startswith("eqxcnn"):
        for full in (name, *(f"{name}.{each}" for each in fromlist or ())):
            if full.startswith(PRIVATE):
                hidden.add(full)
                raise ImportError(f"{full} is hidden")
    return importer(name, globals, locals, fromlist, level)

hidden = set()
builtins.__import__ = import_public

import equinox as eqx, jax, jax.numpy as jnp
import eqxcnn, eqxcnn.train, eqxcnn.training
from eqxcnn import forward, zoo
from eqxcnn.layers import BatchNorm, Conv, ConvNorm, global_avg_pool
from eqxcnn.runtime.compile import async_jit


class Net(eqx.Module):
    first: ConvNorm
    depthwise: Conv
    norm: BatchNorm

    def __init__(self, *, key):
        self.first = ConvNorm(1, 4, 3, key=key)
        self.depthwise = Conv(4, 4, 3, groups=4, key=key)
        self.norm = BatchNorm(4)

    def __call__(self, image, state, *, key):
        x, state = self.first(image, state)
        x, state = self.norm(self.depthwise(x), state)
        return global_avg_pool(x), state

    def features(self, image, state, *, key):
        return (), state

@async_jit
def step(model, state, images):
    def loss(model):
        logits, new = forward(model, state, images, key=None)
        return (logits**2).mean(), new
    (value, new), gradients = eqx.filter_value_and_grad(loss, has_aux=True)(model)
    return value, eqx.apply_updates(model, jax.tree.map(lambda gradient: -0.1 * gradient, gradients)), new

images = jnp.linspace(0, 1, 2 * 28 * 28).reshape(2, 28, 28, 1) ** 2
lenet = zoo.create_model("lenet", key=jax.random.key(0))
net = eqx.nn.make_with_state(Net)(key=jax.random.key(0))
for model, state in (lenet, net):
    value, model, state = step(model, state, images)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
print(*sorted({".".join(name.split(".")[:2]) for name in hidden}))
"""


@pytest.mark.slow
def test_import_and_training_work_without_any_of_them():
    code = f"PRIVATE = {PRIVATE!r}\n{HIDDEN}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The import of the primitives ends at the first private name.
    assert set(done.stdout.split()) == {"jax.custom_batching", "jax.interpreters"}


def test_batch_norm_without_custom_vmap_is_the_same(monkeypatch):
    norm = BatchNorm(2)
    x, weight = jnp.float32(np.random.RandomState(0).normal(size=(2, 4, 3, 5, 2)))

    def results(x, weight):
        def total(x, scale, bias):
            run = lambda x: batch_moments.normalize_batch(x, scale, bias, 1e-5, "batch")  # noqa: E731
            out, mean, var = jax.vmap(run, axis_name="batch", out_axes=(0, None, None))(x)
            # As in `BatchNorm`, no gradient passes through the statistics: newer JAX does not support one.
            return (out * weight).sum(), (out, mean, var)

        return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(x, norm.weight, norm.bias)

    expected = jit_once(results)(x, weight)
    monkeypatch.setattr(batch_moments, "custom_vmap", None)
    found = jit_once(lambda *values: results(*values))(x, weight)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", ["barrier_primitive", "biased_convolution", "convolution", "product"])
def test_layers_are_plain_without_the_private_apis_of_primitives(module, monkeypatch):
    assert availability.can_use_primitives()
    monkeypatch.setattr(availability, "_has_primitives", availability._has_primitives.__wrapped__)
    monkeypatch.setitem(sys.modules, f"eqxcnn.layers.cpu.{module}", None)
    monkeypatch.delattr(f"eqxcnn.layers.cpu.{module}")
    images = jax.ShapeDtypeStruct((2, 8, 8, 5), jnp.float32)
    layer = Conv(5, 6, 3, key=jax.random.key(0))
    jaxpr = str(jax.make_jaxpr(jax.vmap(lambda image: Linear(6, 2, key=jax.random.key(0))(layer(image)[0, 0])))(images))
    assert "eqxcnn" not in jaxpr
    traced = jax.jit(jax.vmap(layer)).trace(images)
    for platform, has_barrier in (("cpu", True), ("cuda", False)):
        assert ("optimization_barrier" in traced.lower(lowering_platforms=(platform,)).as_text()) == has_barrier
