"""Compiled classifiers: convolutions fused with what follows them, on a CPU with oneDNN."""

import gc
import weakref
from collections import Counter

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.cost import _iterate_equations
from eqxcnn.fused_jit import FusedJit
from eqxcnn.layers import BatchNorm, Conv
from eqxcnn.layers.cpu import onednn
from eqxcnn.registry import build, variant
from eqxcnn.views import eval_logits
from eqxcnn.weights.tensors import from_tensors, tensor_slots

pytestmark = pytest.mark.skipif(not onednn.is_available(), reason="convolutions are fused only with oneDNN")
KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).random((3, 8, 8, 4), np.float32)


def gate_by_image(x, image):
    gate = jnp.asarray(IMAGES[0])
    return jax.jit(lambda y: y * jax.nn.sigmoid(gate))(x)


def randomize(model):
    """Returns the model with random numbers in place of its arrays, so that no scale is 1 and no offset is 0."""
    rng = np.random.default_rng(1)
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    arrays = jax.tree.map(lambda x: x + jnp.asarray(rng.uniform(0.05, 0.2, x.shape), x.dtype), arrays)
    return eqx.combine(arrays, static)


class Net(eqx.Module):
    """A convolution and BatchNorm in eval mode, followed by any function of the result and of the image."""

    conv: Conv
    norm: BatchNorm
    state: eqx.nn.State
    then: object = eqx.field(static=True)

    def __init__(self, then, channels=4, **conv):
        keywords = {"use_bias": False, "key": KEY, **conv}
        (self.conv, self.norm), self.state = eqx.nn.make_with_state(
            lambda: randomize((Conv(channels, channels, 3, **keywords), BatchNorm(channels, inference=True)))
        )()
        self.then = then

    def __call__(self, image):
        return self.then(self.norm(self.conv(image), self.state)[0], image)


def apply(net, images):
    return jax.vmap(net)(images)


def programs(function, net, images):
    """Returns the result, and the number of operations of each kind in the fused program."""
    call = FusedJit(function)
    result = call(net, images)
    program, constants = call._trees[id(net)].calls[images.shape, images.dtype]
    equations = _iterate_equations(jax.make_jaxpr(program.run)(constants, images).jaxpr, "")
    return result, Counter(
        f"{equation.primitive.name} {equation.params.get('activation', equation.params.get('name', ''))}".strip()
        for _, equation in equations
    )


FUSED, WINOGRAD = "eqxcnn_fused_convolution", "jit convolve_by_winograd"


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (lambda x, image: x, {f"{FUSED} None": 1}),
        (lambda x, image: jax.nn.relu(x), {f"{FUSED} relu": 1}),
        (lambda x, image: jax.nn.relu6(x), {f"{FUSED} relu6": 1}),
        (lambda x, image: jax.nn.silu(x), {f"{FUSED} silu": 1}),
        (lambda x, image: jax.nn.relu(image + x), {f"{FUSED} relu": 1}),
        (lambda x, image: (2 * x - 1) / 3, {f"{FUSED} None": 1}),
        # The following operations are similar to those above, but cannot be fused.
        (lambda x, image: jax.nn.relu(x) + image[..., ::-1], {f"{FUSED} relu": 1, "add": 1}),
        (gate_by_image, {f"{FUSED} None": 1, "logistic": 1, "mul": 1}),
        (lambda x, image: jax.nn.sigmoid(x) * image, {f"{FUSED} None": 1, "logistic": 1, "mul": 1}),
        (lambda x, image: 1 - x, {f"{FUSED} None": 1, "sub": 1}),
        (lambda x, image: jnp.maximum(x, 0.1), {f"{FUSED} None": 1, "max": 1}),
        (lambda x, image: jnp.minimum(jax.nn.relu(x), 0.2), {f"{FUSED} relu": 1, "min": 1}),
        (lambda x, image: jax.nn.relu(x) + image, {f"{FUSED} relu": 1, "add": 1}),
        (lambda x, image: (x + image) * 2, {f"{FUSED} None": 1, "mul": 1}),
        (lambda x, image: x + x, {f"{FUSED} None": 1, "add": 1}),
        (lambda x, image: jnp.where(x > 0, x, 0.5), {f"{FUSED} None": 1, "gt": 1}),
        (lambda x, image: x + image[:1], {f"{FUSED} None": 1, "add": 1}),
        (lambda x, image: x.reshape(16, 4, 4) + 1, {f"{FUSED} None": 1, "add": 1}),
        (lambda x, image: x.transpose(1, 0, 2), {f"{FUSED} None": 1, "transpose": 1}),
        (lambda x, image: x + jnp.arange(8.0)[:, None, None], {f"{FUSED} None": 1, "add": 1}),
    ],
)  # fmt: skip
def test_what_is_fused_and_that_scores_stay_the_same(then, expected):
    net = Net(then)
    found, counts = programs(apply, net, IMAGES)
    np.testing.assert_allclose(found, apply(net, IMAGES), rtol=1e-5, atol=1e-6)
    arithmetic = ("add", "div", "eqxcnn_convolution", "gt", "logistic", "max", "min", "mul", "sub", "transpose")
    assert {name: n for name, n in counts.items() if name in arithmetic or FUSED in name} == expected


def random_tensor(rng, slot):
    """Returns a positive vector, or a kernel that keeps the magnitude of its input."""
    if len(slot.shape) < 2:
        return rng.uniform(0.5, 1.5, slot.shape).astype(slot.dtype)
    return (rng.standard_normal(slot.shape, np.float32) / np.prod(slot.shape[:-1]) ** 0.5).astype(slot.dtype)


class Pair(eqx.Module):
    """A network of the zoo, in eval mode, and its state."""

    model: eqx.Module
    state: eqx.nn.State

    def __call__(self, images):
        mean = jnp.full(images.shape[-1], 0.5)
        return eval_logits(self.model, self.state, images, mean, mean)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", {f"{FUSED} relu": 19}),
        ("mobilenet_v2_x0_5", {f"{FUSED} relu6": 35, f"{FUSED} None": 17}),
        # By Winograd's algorithm, ReLU is a separate operation: three of eight. The others have no ReLU.
        ("preact_resnet18", {f"{FUSED} relu": 5, f"{FUSED} None": 14, WINOGRAD: 7}),
        ("lenet", {f"{FUSED} relu": 2}),
    ],
)
def test_networks_of_the_zoo_keep_their_scores(name, expected):
    size, channels = max(variant(name).smallest, 32), variant(name).input[2]
    model, state = eqx.filter_eval_shape(build, name, num_classes=7, image_size=size, key=KEY)
    rng = np.random.default_rng(0)
    # Faster than the initialization, which would have to be compiled.
    tensors = {each: random_tensor(rng, slot) for each, slot in tensor_slots(model, state).items()}
    model, state = from_tensors(model, state, tensors)
    net = Pair(eqx.nn.inference_mode(model), state)
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, channels), np.uint8)
    found, counts = programs(lambda net, images: net(images), net, images)
    reference = np.asarray(jax.jit(lambda images: net(images))(images))
    np.testing.assert_allclose(found, reference, atol=2e-5 * np.abs(reference).max())
    assert {name: n for name, n in counts.items() if FUSED in name or name == WINOGRAD} == expected


def test_trees_share_programs_but_not_weights_and_are_forgotten_when_deleted():
    traced = []

    def scores(net, images):
        traced.append(net.conv.weight.dtype)
        return apply(net, images)

    def identity(x, image):
        return x

    call, nets = FusedJit(scores), [Net(identity, key=jax.random.key(seed)) for seed in (0, 1)]
    for net in (*nets, nets[0]):
        np.testing.assert_allclose(call(net, IMAGES), apply(net, IMAGES), rtol=1e-5, atol=1e-6)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) and x.ndim > 1 else x, nets[0])
    call(half, IMAGES)
    assert traced == [jnp.float32, jnp.bfloat16]
    call(nets[0], IMAGES[:1])
    calls = call._trees[id(nets[0])].calls
    # Programs for different batch sizes share folded kernels.
    (_, three), (_, one) = calls[IMAGES.shape, IMAGES.dtype], calls[IMAGES[:1].shape, IMAGES.dtype]
    assert three[0] is one[0]
    assert len(call._trees) == 3
    trees, folded = call._trees, weakref.ref(three[0])
    del net, nets, calls, three, one
    gc.collect()
    assert len(trees) == 1
    assert folded() is None
    # A deleted function does not keep what it knows about trees that live on.
    known = weakref.ref(trees.popitem()[1])
    del call, trees
    gc.collect()
    assert known() is None


def test_programs_share_packed_kernels_until_the_tree_is_deleted():
    conv, images = Conv(256, 256, 3, use_bias=False, key=KEY), np.ones((2, 6, 6, 256), np.float32)
    call = FusedJit(lambda conv, images: jax.vmap(conv)(images))
    shapes = []
    for count in (1, 2):
        np.testing.assert_allclose(call(conv, images[:count]), jax.vmap(conv)(images[:count]), rtol=1e-4, atol=1e-5)
        _, (kernel, _) = call._trees[id(conv)].calls[images[:count].shape, images.dtype]
        shapes.append(kernel.shape)
    # The size of the blocks may depend on the batch size.
    assert [len(shape) for shape in shapes] == [5, 5]
    assert len(call._trees[id(conv)].folded) == len(set(shapes))
    forgotten = weakref.ref(kernel)
    del conv, kernel, _
    gc.collect()
    assert forgotten() is None


def test_weights_of_another_shape_have_their_own_program():
    call = FusedJit(lambda weights, images: (images.reshape(3, -1) @ weights["w"]).mean(-1))
    fused = FusedJit(lambda net, images: (images.reshape(3, -1) @ net.weight).mean(-1))
    for width in (8, 16):
        weight = jnp.ones((256, width))
        # Without a weak reference, a dictionary cannot be remembered.
        np.testing.assert_allclose(call({"w": weight}, IMAGES), IMAGES.reshape(3, -1).sum(1), rtol=1e-5)
        net = eqx.tree_at(lambda net: net.weight, eqx.nn.Linear(1, 1, key=KEY), weight)
        np.testing.assert_allclose(fused(net, IMAGES), IMAGES.reshape(3, -1).sum(1), rtol=1e-5)
    assert not call._trees


def test_traced_arguments_get_the_plain_program():
    net, call = Net(lambda x, image: jax.nn.relu(x)), FusedJit(apply)

    def total(net, images):
        return call(net, images).sum()

    expected = eqx.filter_grad(lambda net, images: apply(net, images).sum())(net, IMAGES)
    found = eqx.filter_grad(total)(net, IMAGES)
    np.testing.assert_allclose(found.conv.weight, expected.conv.weight, rtol=1e-5)
    gradient = jax.grad(lambda images: total(net, images))(jnp.asarray(IMAGES))
    np.testing.assert_allclose(gradient, jax.grad(lambda x: apply(net, x).sum())(jnp.asarray(IMAGES)), rtol=1e-5)
    np.testing.assert_allclose(eqx.filter_jit(call)(net, IMAGES), call(net, IMAGES), rtol=1e-5)


@pytest.mark.parametrize("reason", ["no oneDNN", "NaN", "negative variance", "half precision"])
def test_what_cannot_be_fused_gets_the_plain_program(reason, monkeypatch):
    net = Net(lambda x, image: jax.nn.relu(x))
    if reason == "no oneDNN":
        monkeypatch.setenv("EQXCNN_ONEDNN", "0")
    elif reason == "NaN":
        # oneDNN's ReLU would return 0 for NaN.
        net = eqx.tree_at(lambda net: net.conv.weight, net, net.conv.weight.at[0, 0, 0, 0].set(jnp.nan))
    elif reason == "negative variance":
        state = jax.tree.map(lambda x: x, net.state)  # a copy, since Equinox lets a state be changed only once
        net = eqx.tree_at(lambda net: net.state, net, state.set(net.norm.running_var, -jnp.ones(4)))
    else:
        net = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) and x.ndim > 1 else x, net)
    images = jnp.asarray(IMAGES, net.conv.weight.dtype)
    call = FusedJit(apply)
    found = call(net, images)
    np.testing.assert_allclose(found, eqx.filter_jit(apply)(net, images), rtol=1e-2)
    assert np.isnan(found).any() == (reason in ("NaN", "negative variance"))
    if reason == "half precision":
        ((program, constants),) = call._trees[id(net)].calls.values()
        assert "fused" not in str(jax.make_jaxpr(program.run)(constants, images))


def test_a_product_with_the_logistic_function_of_another_array_is_not_silu():
    net, gate = Net(lambda x, image: x), jnp.asarray(IMAGES)

    # Not under `vmap`, which would add operations to the inner function.
    def gated(net, images):
        return jax.jit(lambda y: y * jax.nn.sigmoid(gate))(apply(net, images))

    found, _ = programs(gated, net, IMAGES)
    np.testing.assert_allclose(found, gated(net, IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", [lambda x: x, jax.nn.relu, jax.nn.relu6, jax.nn.silu])
def test_what_follows_a_convolution_by_winograd_is_kept(activation):
    net = Net(lambda x, image: activation(x + image), channels=64)
    images = np.random.default_rng(0).standard_normal((4, 14, 14, 64), np.float32)
    found, counts = programs(apply, net, images)
    expected = np.asarray(apply(net, images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert counts[WINOGRAD] == 1
