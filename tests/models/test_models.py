"""What every architecture of the zoo must do; a new file in `eqxcnn/models` is tested here by itself.

Most is told by `eqx.filter_eval_shape` without computing anything, of every variant, or of one for each kind of images
that a family takes. What takes numbers is computed for the smallest variant of each family,
where that takes long to compile only by `-m exhaustive`.
"""

import contextlib
import inspect
import re
from functools import cache
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn import forward, zoo
from eqxcnn.errors import InputError
from eqxcnn.layers import Dropout, DropPath
from eqxcnn.registry import build, families, family, variant
from eqxcnn.runtime.compile import jit_once
from eqxcnn.weights import from_tensors, load_safetensors, save_safetensors, to_tensors
from eqxcnn.weights.names import names_of
from eqxcnn.weights.tensors import tensor_shapes


def fewest_parameters(kind):
    """Of each kind of variant, told by its family and row, the one with the fewest parameters."""
    kinds = {}
    for name, (its, row) in sorted(families().items(), key=lambda item: -item[1][1].params):
        kinds[kind(its, row)] = name
    return sorted(kinds.values())


KINDS = fewest_parameters(lambda its, row: (its, row.task, row.smallest))
every_kind = pytest.mark.parametrize("name", KINDS)
every_model = pytest.mark.parametrize(
    "name", [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in zoo.list_models()]
)

CLASSES, BATCH = 7, 2


@cache
def abstract(name, **arguments):
    """The shapes of a model and its state."""
    return eqx.filter_eval_shape(build, name, key=jax.random.key(0), **arguments)


def scores(model, state, size, channels, dtype=jnp.float32, key=None):
    """The shape of what a model gives for two images, and of its new state."""
    images = jax.ShapeDtypeStruct((BATCH, *size, channels), dtype)
    return eqx.filter_eval_shape(forward, model, state, images, key=key)


def drop_rates(name):
    """A rate for all that a model can drop."""
    return {word: 0.2 for word in inspect.signature(variant(name).make).parameters if re.search("drop.*_rate$", word)}


@cache
def traced_in_bfloat16(name):
    """A training step's operations, and its scores and state, at the smallest size and with the model cast."""
    row = variant(name)
    model, state = abstract(name, image_size=row.smallest, num_classes=CLASSES, **drop_rates(name))
    model = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16) if is_abstract_float(leaf) else leaf, model
    )
    images = jax.ShapeDtypeStruct((BATCH, row.smallest, row.smallest, row.input[2]), jnp.bfloat16)
    step = eqx.filter_make_jaxpr(lambda *all, key: forward(*all, key=key))
    operations, (logits, new), _ = step(model, state, images, key=jax.random.key(1))
    return operations, state, logits, new


@cache
def trained_bare(name):
    """The size, and a training step's pooled features, of a model without head, on oblong images of two channels."""
    smallest = variant(name).smallest
    arguments = {"num_classes": 0, "in_channels": 2}
    size = (smallest + 3, smallest + 6)
    try:
        model, state = abstract(name, image_size=size, **arguments)
        return model, state, scores(model, state, size, 2, key=jax.random.key(1))[0]
    except InputError as error:
        # Where images are cut into patches, sides are multiples of one.
        assert_one_sentence(error, "multiple")
    size = (2 * smallest, 3 * smallest)
    model, state = abstract(name, image_size=size, **arguments)
    return model, state, scores(model, state, size, 2, key=jax.random.key(1))[0]


def is_abstract_float(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)


def assert_one_sentence(error, *words):
    text = str(error)
    assert all(word in text for word in ("image", *words))
    assert "\n" not in text
    assert ". " not in text.rstrip(".")


@every_model
def test_parameter_count_is_the_published_one(name):
    model, _ = abstract(name)
    count = sum(leaf.size for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.ShapeDtypeStruct))
    assert count == variant(name).params


@every_model
def test_the_smallest_size_trains_and_gives_a_score_a_class(name):
    _, old, logits, new = traced_in_bfloat16(name)
    assert logits.shape == (BATCH, CLASSES)
    assert jax.tree.structure(old) == jax.tree.structure(new)
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(old)] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(new)
    ]


@every_model
def test_a_model_and_images_in_bfloat16_give_scores_in_bfloat16(name):
    assert traced_in_bfloat16(name)[2].dtype == jnp.bfloat16


@every_model
def test_a_key_is_used_by_what_drops_and_by_nothing_else(name):
    assert ("random_bits" in str(traced_in_bfloat16(name)[0])) == bool(drop_rates(name))


@every_model
def test_a_smaller_size_than_the_smallest_is_refused_by_name(name):
    if (smallest := variant(name).smallest) > 1:
        with pytest.raises(InputError, match=f"too small for `{name}`.*{smallest}x{smallest}"):
            zoo.create_model(name, image_size=smallest - 1, key=jax.random.key(0))


@every_kind
def test_zero_classes_give_what_the_head_would_have_seen_of_any_images(name):
    model, state, features = trained_bare(name)
    head = abstract(name)[0].head
    assert isinstance(model.head, eqx.nn.Identity)
    assert features.shape == (BATCH, head.in_features if isinstance(head, eqx.nn.Linear) else head.in_channels)
    assert features.dtype == jnp.float32
    whole = tensor_shapes(*abstract(name))
    assert set(whole) - set(shapes(model, state)) == {tensor for tensor in whole if tensor.startswith("head.")}


@every_kind
def test_images_of_another_size_are_taken_or_refused_in_one_sentence(name):
    row = variant(name)
    model, state = abstract(name, image_size=row.smallest, num_classes=CLASSES)
    try:
        logits, _ = scores(eqx.nn.inference_mode(model), state, (row.smallest + 9,) * 2, row.input[2])
        assert logits.shape == (BATCH, CLASSES)
    except InputError as error:
        assert_one_sentence(error)


@every_model
def test_features_have_the_documented_strides(name):
    row = variant(name)
    model, state = abstract(name)
    image = jax.ShapeDtypeStruct(row.input, jnp.float32)
    features = eqx.nn.inference_mode(model).features
    maps, _ = eqx.filter_eval_shape(features, image, state, key=None)
    assert len(maps) == len(row.strides)
    for each, stride in zip(maps, row.strides, strict=True):
        # VALID convolutions lose an edge, so the map may be smaller than the stride says, never larger.
        assert row.input[0] / stride - 4 <= each.shape[0] <= -(-row.input[0] // stride)
        assert row.input[1] / stride - 4 <= each.shape[1] <= -(-row.input[1] // stride)


@every_model
def test_every_array_has_a_name_of_its_own_here_and_in_torch(name):
    ours = tensor_shapes(*abstract(name))
    assert len({names_of(family(name)).torch_name(tensor) for tensor in ours}) == len(ours)


#: With more tensors than these a network takes long to compile; `test_torch.py` has scores and gradients of most such.
MOST_TENSORS = 130
SMALLEST = [
    pytest.param(name, marks=[pytest.mark.exhaustive] if len(tensor_shapes(*abstract(name))) > MOST_TENSORS else [])
    for name in fewest_parameters(lambda its, _: its)
]


@contextlib.contextmanager
def less_compilation():
    """Most of the time is compilation, of programs that run once or twice."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def made(name, seed=0):
    """A small model, with all that it can drop being dropped now and then."""
    row = variant(name)
    # Drawn by a generator that compiles faster than JAX's default one.
    key = jax.random.key(seed, impl="unsafe_rbg")
    return build(name, num_classes=CLASSES, image_size=max(row.smallest, 32), key=key, **drop_rates(name))


@pytest.fixture(scope="module", params=SMALLEST)
def ready(request):
    """A model with four images; what a training step gives by the seed of its key, and its scores in eval mode."""
    model, state = made(request.param)
    side = max(variant(request.param).smallest, 32)
    images = jax.random.normal(jax.random.key(1), (4, side, side, variant(request.param).input[2]))

    @jit_once
    @eqx.filter_value_and_grad(has_aux=True)
    def step(model, key):
        logits, new = forward(model, state, images, key=key)
        return -jax.nn.log_softmax(logits)[:, 1].mean(), (logits, new)

    evaluate = jit_once(lambda model, images: forward(model, state, images, key=None))
    with less_compilation():
        yield SimpleNamespace(
            name=request.param,
            model=model,
            state=state,
            images=images,
            step=cache(lambda seed: step(model, jax.random.key(seed))),
            evaluating=eqx.nn.inference_mode(model),
            evaluate=evaluate,
            logits=evaluate(eqx.nn.inference_mode(model), images)[0],
        )
    # A program that was compiled stays in memory otherwise, those of all families several gigabytes.
    jax.clear_caches()


def test_every_parameter_has_a_finite_gradient(ready):
    (loss, _), gradients = ready.step(2)
    assert jnp.isfinite(loss)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert (leaf != 0).any(), jax.tree_util.keystr(path)


def test_training_moves_every_running_statistic_and_eval_none(ready):
    (_, (_, trained)), _ = ready.step(2)
    _, evaluated = ready.evaluate(ready.evaluating, ready.images)
    for old, new, kept in zip(*map(jax.tree.leaves, (ready.state, trained, evaluated)), strict=True):
        assert jnp.isfinite(new).all()
        assert (new != old).any()
        np.testing.assert_array_equal(kept, old)


def test_dropping_depends_on_the_key_alone(ready):
    first, again, other = (ready.step(seed)[0][1][0] for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    drops = [
        leaf
        for leaf in jax.tree.leaves(ready.model, is_leaf=lambda leaf: isinstance(leaf, Dropout | DropPath))
        if isinstance(leaf, Dropout | DropPath)
    ]
    assert bool(drops) == bool((first != other).any())


def test_eval_is_deterministic_and_permuting_a_batch_permutes_its_scores(ready):
    np.testing.assert_array_equal(ready.evaluate(ready.evaluating, ready.images)[0], ready.logits)
    swapped, _ = ready.evaluate(ready.evaluating, ready.images[::-1])
    assert_close(swapped, ready.logits[::-1], 1e-5)
    assert np.ptp(ready.logits, axis=0).any()  # else nothing was permuted


def test_bfloat16_is_close_to_float32(ready):
    model = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, ready.evaluating
    )
    logits, _ = ready.evaluate(model, ready.images.astype(jnp.bfloat16))
    assert_close(logits.astype(jnp.float32), ready.logits, 0.05)


def test_jit_gives_what_eager_gives(ready):
    eager, _ = forward(ready.evaluating, ready.state, ready.images, key=None)
    assert_close(ready.logits, eager, 1e-4)


def test_saving_and_loading_is_exact(ready, tmp_path):
    tensors = to_tensors(ready.model, ready.state)
    save_safetensors(tmp_path / "model.safetensors", tensors, {})
    empty = eqx.filter_eval_shape(made, ready.name)
    loaded = to_tensors(*from_tensors(*empty, load_safetensors(tmp_path / "model.safetensors")))
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor, strict=True)


def test_the_same_key_makes_the_same_model_and_another_key_another(ready):
    tensors = to_tensors(ready.model, ready.state)
    again, other = (to_tensors(*made(ready.name, seed)) for seed in (0, 1))
    assert all(np.array_equal(again[name], tensor) for name, tensor in tensors.items())
    # Some start at constants: zeros, ones, the identity.
    random = [name for name, tensor in tensors.items() if len(np.unique(tensor.ravel()[:999])) > 3]
    assert random
    assert [name for name in random if np.array_equal(other[name], tensors[name])] == []


def assert_close(actual, wanted, tolerance):
    """To a share of the largest score."""
    assert np.isfinite(actual).all()
    assert np.abs(actual - wanted).max() <= tolerance * np.abs(wanted).max()


def test_lenet_refuses_images_of_another_size():
    model, state = zoo.create_model("lenet", key=jax.random.key(0))
    with pytest.raises(InputError, match=r"maps of shape \(6, 6, 16\) have 576 values .* takes 400"):
        forward(model, state, jnp.zeros((1, 32, 32, 1)), key=None)


@pytest.mark.parametrize("widths", [(), (8, 8, 8, 8)])
def test_the_simple_cnn_refuses_convolutions_that_leave_no_map(widths):
    with pytest.raises(InputError, match=r"`widths` .* each halves the image \(8x8\)"):
        zoo.create_model("cifar_cnn", image_size=8, widths=widths, key=jax.random.key(0))
