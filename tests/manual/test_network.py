import ast
from functools import cache, partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from eqxcnn import manual
from eqxcnn.errors import InputError
from eqxcnn.forward_pass import forward
from eqxcnn.layers import Conv
from eqxcnn.training.setup import Setup
from eqxcnn.training.state import TrainState
from eqxcnn.training.step import autodiff, train_steps

pytestmark = pytest.mark.usefixtures("fast_compilation")

SOURCES = {path.name: path.read_text(encoding="utf-8") for path in Path(manual.__file__).parent.glob("*.py")}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
IMAGES = np.random.default_rng(0).normal(size=(6, 9, 8, 2))
LABELS = np.array([0, 3, 1, 1, 2, 0], np.int32)


class Averaged(manual.HandDerived):
    """Has the layers that `Scratch` lacks: a strided convolution with padding and an overlapping average pool."""

    conv: Conv
    fc: eqx.nn.Linear

    def __init__(self, *, key):
        self.conv, self.fc = Conv(2, 3, 3, stride=2, key=key), eqx.nn.Linear(18, 4, key=key)

    def features(self, image, state, *, key):
        raise NotImplementedError

    def __call__(self, image, state, *, key):
        return self.forward(image[None])[0][0], state

    def forward(self, images):
        x, conv = manual.conv_forward(images, self.conv.weight, self.conv.bias, 2, "SAME")
        x, pool = manual.avg_pool_forward(x, 3, 2, "SAME")
        x, flat = manual.flatten_forward(x)
        x, fc = manual.dense_forward(x, self.fc.weight, self.fc.bias)
        return x, (conv, pool, flat, fc)

    def backward(self, caches, dlogits):
        conv, pool, flat, fc = caches
        dx, *dfc = manual.dense_backward(fc, dlogits)
        dx = manual.avg_pool_backward(pool, manual.flatten_backward(flat, dx))
        _, *dconv = manual.conv_backward(conv, dx)
        return jax.tree.unflatten(jax.tree.structure(self), (*dconv, *dfc))


MAKERS = {
    "scratch": partial(manual.Scratch, num_classes=4, in_channels=2, image_size=(9, 8)),
    "averaged": Averaged,
}


@cache
def make(name):
    with jax.enable_x64(False):
        # A generator that compiles faster than the default one.
        key = jax.random.key(0, impl="unsafe_rbg")
        return eqx.filter_jit(eqx.nn.make_with_state(MAKERS[name]))(key=key)


def build(name, dtype):
    model, state = make(name)
    model = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), model)
    return model, state, jnp.asarray(IMAGES, dtype), jnp.asarray(LABELS)


@cache
def compiled_value_and_grad(label_smoothing):
    return eqx.filter_jit(partial(manual.value_and_grad, label_smoothing=label_smoothing))


def test_parameter_shapes_match_the_write_up():
    model = eqx.filter_eval_shape(manual.Scratch, key=jax.random.key(0))
    assert [leaf.shape for leaf in jax.tree.leaves(model)] == [(3, 3, 1, 5), (5,), (64, 845), (64,), (10, 64), (10,)]
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == 54_844


@pytest.mark.parametrize(
    ("name", "label_smoothing", "dtype"),
    [("scratch", 0.0, "float64"), ("scratch", 0.1, "float32"), ("averaged", 0.0, "float64")],
)
def test_loss_logits_and_gradients_match_autodiff_of_the_ordinary_layers(name, label_smoothing, dtype):
    with jax.enable_x64(dtype == "float64"):
        arguments = build(name, dtype)

        def mean_loss(model, state, images, labels):
            logits, state = forward(model, state, images, key=None)
            targets = optax.smooth_labels(jax.nn.one_hot(labels, 4, dtype=dtype), label_smoothing)
            return optax.softmax_cross_entropy(logits, targets).mean(), (state, logits)

        wanted = eqx.filter_jit(eqx.filter_value_and_grad(mean_loss, has_aux=True))(*arguments)
        got = compiled_value_and_grad(label_smoothing)(*arguments)
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            assert one.dtype == other.dtype == dtype
            assert np.abs(np.asarray(one) - np.asarray(other)).max() <= TOLERANCE[dtype] * np.abs(other).max()


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_match_finite_differences_of_the_loss(name):
    with jax.enable_x64(True):
        model, state, images, labels = build(name, "float64")
        value_and_grad = compiled_value_and_grad(0.0)
        loss = lambda model: value_and_grad(model, state, images, labels)[0][0]  # noqa: E731
        arrays, structure = jax.tree.flatten(model)
        gradients = jax.tree.leaves(value_and_grad(model, state, images, labels)[1])
        for i, gradient in enumerate(gradients):
            direction = np.random.default_rng(i).normal(size=gradient.shape)
            moved = [
                jax.tree.unflatten(structure, [*arrays[:i], arrays[i] + step * direction, *arrays[i + 1 :]])
                for step in (1e-6, -1e-6)
            ]
            difference = (loss(moved[0]) - loss(moved[1])) / 2e-6
            np.testing.assert_allclose(np.vdot(gradient, direction), difference, rtol=1e-6)


def test_sgd_updates_against_the_gradient():
    init, update = manual.sgd(0.5)
    params, gradients = (
        {"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)},
        {"w": jnp.array([2.0, -4.0]), "b": jnp.array(1.0)},
    )
    updates, state = update(gradients, init(params), params)
    assert state == ()
    assert jax.tree.map(lambda leaf: leaf.tolist(), updates) == {"w": [-1.0, 2.0], "b": -0.5}


def test_training_steps_match_autodiff_and_optax():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 8, 2), np.uint8)
    data = jnp.asarray(pixels), jnp.asarray(LABELS)
    batches = jnp.array([[0, 1, 2], [3, 4, 5]], jnp.int32)
    by_hand = optax.GradientTransformation(*manual.sgd(0.1))
    ends = []
    for value_and_grad, optimizer in ((manual.value_and_grad, by_hand), (autodiff(), optax.sgd(0.1))):
        setup = Setup(value_and_grad, optimizer, None, None, 1, jax.random.key(1), jnp.zeros(2), jnp.ones(2), data)
        model, state = make("scratch")
        ends.append(eqx.filter_jit(train_steps)(setup, TrainState.start(model, state, optimizer), batches))
    ours, theirs = ends
    assert ours.step == 2
    for one, other in zip(jax.tree.leaves(ours.model), jax.tree.leaves(theirs.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.sums.loss, theirs.sums.loss, rtol=1e-5)


def test_scratch_learns_digits_with_batches_of_one():
    digits = load_digits()
    images, labels = jnp.asarray(digits.images[..., None] / 16, jnp.float32), jnp.asarray(digits.target, jnp.int32)
    model, state = eqx.filter_jit(eqx.nn.make_with_state(manual.Scratch))(image_size=(8, 8), key=jax.random.key(0))
    _, update = manual.sgd(0.05)

    def step(model, row):
        _, gradients = manual.value_and_grad(model, state, images[row][None], labels[row][None])
        return eqx.apply_updates(model, update(gradients, ())[0]), None

    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(1_500) for _ in range(2)])
    model, _ = eqx.filter_jit(jax.lax.scan)(step, model, rows)
    scores, _ = eqx.filter_jit(forward)(model, state, images[1_500:], key=None)
    assert (scores.argmax(-1) == labels[1_500:]).mean() > 0.85


def test_without_classes_scratch_returns_features_and_refuses_to_train():
    def run(key):
        model, state = eqx.nn.make_with_state(manual.Scratch)(num_classes=0, key=key)
        images, labels = jnp.ones((2, 28, 28, 1)), jnp.array([0, 1], jnp.int32)
        with pytest.raises(InputError, match=r"`num_classes` \(=0\) must be at least 1 to train"):
            manual.value_and_grad(model, state, images, labels)
        return forward(model, state, images, key=None)[0], model.features(images[0], state, key=None)[0]

    pooled, maps = jax.eval_shape(run, jax.random.key(0))
    assert (pooled.shape, [each.shape for each in maps]) == ((2, 64), [(13, 13, 5)])


FORBIDDEN = {
    *("grad", "value_and_grad", "vjp", "jvp", "linearize", "jacfwd", "jacrev", "jacobian", "hessian", "optax"),
    *("custom_vjp", "custom_jvp", "custom_gradient", "linear_transpose", "fwd_and_bwd", "closure_convert"),
    # Other ways to reach them, and our package that uses them.
    *("ad", "interpreters", "experimental", "extend", "_src", "getattr", "__import__", "importlib", "training"),
}


def find_differentiators(source):
    """Returns the forbidden names that a source imports, looks up or calls, but not the names that it defines."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {part for alias in names for part in alias.name.split(".")}
            case ast.ImportFrom(module=module, names=names, level=level) if level != 1:
                found |= {*(module or "").split("."), *(alias.name for alias in names)}
            case ast.Attribute(attr=name) | ast.Call(func=ast.Name(id=name)):
                found.add(name)
    return sorted(found & (FORBIDDEN | {f"filter_{name}" for name in FORBIDDEN}))


def test_manual_never_differentiates_automatically():
    assert {"conv.py", "network.py", "optimizer.py"} <= SOURCES.keys()
    assert {name: find_differentiators(text) for name, text in SOURCES.items() if find_differentiators(text)} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import jax\njax.grad(f)", ["grad"]),
        ("from jax import grad as slope", ["grad"]),
        ("import equinox as eqx\nstep = eqx.filter_value_and_grad", ["filter_value_and_grad"]),
        ("import optax.losses", ["optax"]),
        ("from ..training.step import autodiff", ["training"]),
        ("@jax.custom_vjp\ndef f(x): ...", ["custom_vjp"]),
        ("getattr(jax, name)", ["getattr"]),
        ("def value_and_grad(x): ...", []),
        ("from .network import value_and_grad", []),
    ],
)
def test_find_differentiators(source, found):
    assert find_differentiators(source) == found
