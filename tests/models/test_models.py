"""Tests that every architecture in the zoo must pass; a new file in `eqxcnn/models` is tested automatically.

Most tests only trace, with `eqx.filter_eval_shape`. Parameter counts are tested for every variant. Tests that trace a
forward pass run for one variant per family, and for the others with `-m exhaustive`. Tests that compute numbers run for
one variant per family. Both kinds of tests use shallow networks where the constructor allows them, because all blocks
of a stage are alike.
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

#: Preferred over variants of their kind that have fewer parameters but many more layers, which take longer to trace.
SHALLOW = ("densenet_40_12", "wrn_16_4")


def choose_cheapest(kind):
    """Returns one variant for each value of `kind(family, row)`.

    Variants in `SHALLOW` are preferred; otherwise, the variant with the fewest parameters is chosen.
    """
    chosen = {}
    for name, (its_family, row) in sorted(families().items(), key=lambda item: -item[1][1].params):
        chosen[kind(its_family, row)] = name
    for name in SHALLOW:
        chosen[kind(*families()[name])] = name
    return sorted(chosen.values())


KINDS = choose_cheapest(lambda its_family, row: (its_family, row.task, row.smallest, row.strides))
ONE_PER_FAMILY = choose_cheapest(lambda its_family, _: its_family)


def with_marks(names, choose_mark):
    """Returns a pytest parameter for each name, with the mark that `choose_mark(name)` returns, if any."""
    marks = {name: choose_mark(name) for name in names}
    return [pytest.param(name, marks=[mark] if mark else []) for name, mark in marks.items()]


def mark_others_slow(name):
    return None if name in ONE_PER_FAMILY else pytest.mark.slow


def mark_counted(name):
    """Marks models with a torch twin as exhaustive: `weights/test_torch.py` compares their shapes with the twin's."""
    if name in ONE_PER_FAMILY:
        return None
    return pytest.mark.exhaustive if variant(name).torch_twin else pytest.mark.slow


def mark_others_exhaustive(name):
    return None if name in ONE_PER_FAMILY else pytest.mark.exhaustive


every_variant = pytest.mark.parametrize("name", with_marks(zoo.list_models(), mark_others_slow))
every_kind = pytest.mark.parametrize("name", with_marks(KINDS, mark_others_exhaustive))
every_family_others_exhaustive = pytest.mark.parametrize("name", with_marks(zoo.list_models(), mark_others_exhaustive))

CLASSES, BATCH = 7, 2


def shallow(name):
    """Returns constructor arguments for a shallow network that still has every kind of layer, if possible."""
    stages = len(variant(name).strides)
    match family(name):
        case "convnext" | "preact_resnet" | "resnet" | "se_resnet":
            return {"depths": (1,) * stages}
        case "convmixer" | "resnet_cifar":
            return {"depth": 1}
        case "densenet":
            return {"layers": (2,) * stages}
        case "efficientnet":
            rows = inspect.signature(variant(name).make).parameters["stages"].default
            return {"stages": tuple(row._replace(blocks=1) for row in rows)}
        case "shufflenet_v2":
            return {"depths": (2, 1, 1)}
        case "swin":
            return {"depths": (2, 1, 1, 1)}  # only every second block shifts its windows
        case "vit":
            return {"depth": 2}
    return {}


@cache
def build_abstract(name, **arguments):
    """Returns the shapes of a model and its state."""
    return eqx.filter_eval_shape(build, name, key=jax.random.key(0), **arguments)


def drop_rates(name):
    """Returns a positive value for every drop-rate argument of a model."""
    return {word: 0.2 for word in inspect.signature(variant(name).make).parameters if re.search("drop.*_rate$", word)}


@cache
def trace_training_in_bfloat16(name):
    """Traces a training forward pass at the smallest size; returns operations, old state, logits and new state."""
    row = variant(name)
    arguments = {"image_size": row.smallest, "num_classes": CLASSES, **drop_rates(name), **shallow(name)}
    model, state = build_abstract(name, **arguments)
    model = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16) if is_abstract_float(leaf) else leaf, model
    )
    images = jax.ShapeDtypeStruct((BATCH, row.smallest, row.smallest, row.input[2]), jnp.bfloat16)
    step = eqx.filter_make_jaxpr(lambda *arguments, key: forward(*arguments, key=key))
    operations, (logits, new), _ = step(model, state, images, key=jax.random.key(1))
    return operations, state, logits, new


def is_abstract_float(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)


def eval_features(model, state, size):
    """Returns the shape of the pooled features of two images with two channels."""
    images = jax.ShapeDtypeStruct((BATCH, *size, 2), jnp.float32)
    return eqx.filter_eval_shape(forward, eqx.nn.inference_mode(model), state, images, key=None)[0]


def assert_one_sentence(error, *words):
    text = str(error)
    assert all(word in text for word in ("image", *words))
    assert "\n" not in text
    assert ". " not in text.rstrip(".")


@pytest.mark.parametrize("name", with_marks(zoo.list_models(), mark_counted))
def test_parameter_count_is_the_published_one(name):
    model, _ = build_abstract(name)
    count = sum(leaf.size for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.ShapeDtypeStruct))
    assert count == variant(name).params


@pytest.mark.parametrize("name", with_marks(zoo.list_models(), mark_counted))
def test_tensor_names_are_unique_here_and_in_torch(name):
    ours = tensor_shapes(*build_abstract(name))
    assert len({names_of(family(name)).torch_name(tensor) for tensor in ours}) == len(ours)


@every_variant
def test_images_below_the_smallest_size_are_refused(name):
    if (smallest := variant(name).smallest) > 1:
        with pytest.raises(InputError, match=f"too small for `{name}`.*{smallest}x{smallest}"):
            zoo.create_model(name, image_size=smallest - 1, key=jax.random.key(0))


@every_family_others_exhaustive
def test_training_at_the_smallest_size_returns_logits_and_a_state_of_the_same_shapes(name):
    _, old, logits, new = trace_training_in_bfloat16(name)
    assert logits.shape == (BATCH, CLASSES)
    assert jax.tree.structure(old) == jax.tree.structure(new)
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(old)] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(new)
    ]


@every_family_others_exhaustive
def test_bfloat16_models_and_images_give_bfloat16_logits(name):
    assert trace_training_in_bfloat16(name)[2].dtype == jnp.bfloat16


@every_family_others_exhaustive
def test_only_models_that_drop_use_the_key(name):
    assert ("random_bits" in str(trace_training_in_bfloat16(name)[0])) == bool(drop_rates(name))


@every_family_others_exhaustive
def test_features_have_the_documented_strides(name):
    row = variant(name)
    model, state = build_abstract(name, **shallow(name))
    image = jax.ShapeDtypeStruct(row.input, jnp.float32)
    features = eqx.nn.inference_mode(model).features
    maps, _ = eqx.filter_eval_shape(features, image, state, key=None)
    assert len(maps) == len(row.strides)
    for output, stride in zip(maps, row.strides, strict=True):
        # VALID convolutions lose the edges, so the map may be a little smaller than size / stride, never larger.
        assert row.input[0] / stride - 4 <= output.shape[0] <= -(-row.input[0] // stride)
        assert row.input[1] / stride - 4 <= output.shape[1] <= -(-row.input[1] // stride)


@every_kind
def test_without_classes_any_images_give_the_input_of_the_head_or_a_refusal(name):
    smallest, arguments = variant(name).smallest, {"num_classes": 0, "in_channels": 2, **shallow(name)}
    model, state = build_abstract(name, image_size=smallest, **arguments)
    try:
        features = eval_features(model, state, (smallest + 3, smallest + 6))
    except InputError as error:
        # The model takes only images of the size that it was built for. Patches need multiples of their size.
        assert_one_sentence(error)
        size = (2 * smallest, 3 * smallest)
        model, state = build_abstract(name, image_size=size, **arguments)
        features = eval_features(model, state, size)
    with_head = build_abstract(name, **shallow(name))
    head = with_head[0].head
    assert isinstance(model.head, eqx.nn.Identity)
    assert features.shape == (BATCH, head.in_features if isinstance(head, eqx.nn.Linear) else head.in_channels)
    assert features.dtype == jnp.float32
    whole = tensor_shapes(*with_head)
    assert set(whole) - set(tensor_shapes(model, state)) == {tensor for tensor in whole if tensor.startswith("head.")}


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_patch4_32", 4), ("vit_b_32", 32)])
def test_images_that_are_not_whole_patches_are_refused(name, patch):
    with pytest.raises(InputError, match=r"`image_size` .*multiple of `patch`") as raised:
        build_abstract(name, image_size=(2 * patch, 2 * patch + 3))
    assert_one_sentence(raised.value, "multiple")


#: The families whose numbers the fast part of the suite tests: BatchNorm, dropout, drop path and attention among them.
FAST = {"lenet", "mlp", "resnet_cifar", "simple_cnn", "vit"}
#: Slow to compile, or large. `test_torch.py` compares their logits with torch's, and their gradients, some of them
#: with `-m exhaustive`.
EXHAUSTIVE = {
    "alexnet", "convnext", "efficientnet", "googlenet", "inception_v3", "mnasnet", "mobilenet_v2", "mobilenet_v3",
    "regnet", "resnet", "se_resnet", "shufflenet_v2", "squeezenet", "swin", "vgg",
}  # fmt: skip


def mark_by_cost(name):
    if family(name) in FAST:
        return None
    return pytest.mark.exhaustive if family(name) in EXHAUSTIVE else pytest.mark.slow


@contextlib.contextmanager
def less_compilation():
    """Skips XLA's optimizations, because the programs run only once or twice and compilation takes most of the time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


# One function per name, so that it is compiled once for all seeds.
@cache
def compile_shallow(name):
    arguments = {"num_classes": CLASSES, "image_size": side(name), **drop_rates(name), **shallow(name)}
    return eqx.filter_jit(lambda key: build(name, key=key, **arguments))


def build_shallow(name, seed=0):
    """Builds a shallow model with positive drop rates."""
    # A generator that compiles faster than JAX's default one.
    return compile_shallow(name)(jax.random.key(seed, impl="unsafe_rbg"))


def side(name):
    """Returns the height and width of the test images."""
    return max(variant(name).smallest, 16)


@pytest.fixture(scope="module", params=with_marks(ONE_PER_FAMILY, mark_by_cost))
def compiled(request):
    """A model, four images, the compiled training step (cached by seed) and forward pass, and the eval logits."""
    with less_compilation():
        model, state = build_shallow(request.param)
    size = side(request.param)
    images = jax.random.normal(jax.random.key(1), (4, size, size, variant(request.param).input[2]))

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
            eval_model=eqx.nn.inference_mode(model),
            evaluate=evaluate,
            logits=evaluate(eqx.nn.inference_mode(model), images)[0],
        )
    # Compiled programs stay in memory otherwise: several gigabytes for all families.
    jax.clear_caches()


@pytest.mark.slow
def test_every_parameter_has_a_finite_gradient(compiled):
    (loss, _), gradients = compiled.step(2)
    assert jnp.isfinite(loss)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        array = np.asarray(leaf)
        assert np.isfinite(array).all(), jax.tree_util.keystr(path)
        assert array.any(), jax.tree_util.keystr(path)


def test_training_updates_all_running_statistics_and_eval_mode_none(compiled):
    (_, (_, trained)), _ = compiled.step(2)
    _, evaluated = compiled.evaluate(compiled.eval_model, compiled.images)
    for leaves in zip(*map(jax.tree.leaves, (compiled.state, trained, evaluated)), strict=True):
        old, new, kept = map(np.asarray, leaves)
        assert np.isfinite(new).all()
        assert (new != old).any()
        np.testing.assert_array_equal(kept, old)


def test_dropping_depends_only_on_the_key(compiled):
    first, again, other = (np.asarray(compiled.step(seed)[0][1][0]) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    leaves = jax.tree.leaves(compiled.model, is_leaf=lambda leaf: isinstance(leaf, Dropout | DropPath))
    has_drops = any(isinstance(leaf, Dropout | DropPath) for leaf in leaves)
    assert has_drops == (first != other).any()


def test_eval_mode_is_deterministic_and_independent_of_the_order_of_the_batch(compiled):
    np.testing.assert_array_equal(compiled.evaluate(compiled.eval_model, compiled.images)[0], compiled.logits)
    swapped, _ = compiled.evaluate(compiled.eval_model, compiled.images[::-1])
    assert_close(swapped, compiled.logits[::-1], 1e-5)
    assert np.ptp(compiled.logits, axis=0).any()  # the images have different logits


def test_bfloat16_is_close_to_float32(compiled):
    model = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, compiled.eval_model
    )
    logits, _ = compiled.evaluate(model, compiled.images.astype(jnp.bfloat16))
    assert_close(logits.astype(jnp.float32), compiled.logits, 0.05)


# `test_every_variant.py` compares the two for all variants. Eagerly, each operation is compiled for each shape.
@pytest.mark.parametrize("compiled", ["lenet", "resnet20", "vit_tiny_patch4_32"], indirect=True)
def test_jit_and_eager_mode_agree(compiled):
    eager, _ = forward(compiled.eval_model, compiled.state, compiled.images, key=None)
    assert_close(compiled.logits, eager, 1e-4)


def test_saving_and_loading_is_exact(compiled, tmp_path):
    tensors = to_tensors(compiled.model, compiled.state)
    save_safetensors(tmp_path / "model.safetensors", tensors, {})
    empty = eqx.filter_eval_shape(build_shallow, compiled.name)
    loaded = to_tensors(*from_tensors(*empty, load_safetensors(tmp_path / "model.safetensors")))
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor, strict=True)


def test_the_key_determines_the_initial_weights(compiled):
    tensors = to_tensors(compiled.model, compiled.state)
    again, other = (to_tensors(*build_shallow(compiled.name, seed)) for seed in (0, 1))
    assert all(np.array_equal(again[name], tensor) for name, tensor in tensors.items())
    # Some weights start constant: zeros, ones, the identity.
    random = [name for name, tensor in tensors.items() if len(np.unique(tensor.ravel()[:999])) > 3]
    assert random
    assert [name for name in random if np.array_equal(other[name], tensors[name])] == []


def assert_close(actual, wanted, tolerance):
    """Compares arrays up to a tolerance relative to the largest logit."""
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert np.isfinite(actual).all()
    assert np.abs(actual - wanted).max() <= tolerance * np.abs(wanted).max()


def test_lenet_refuses_images_of_another_size():
    model, state = zoo.create_model("lenet", key=jax.random.key(0))
    with pytest.raises(InputError, match=r"maps of shape \(6, 6, 16\) have 576 values .* takes 400"):
        forward(model, state, jnp.zeros((1, 32, 32, 1)), key=None)


def test_simple_cnn_refuses_widths_that_leave_no_pixels():
    with pytest.raises(InputError, match=r"`widths` .* each number halves height and width of the image \(8x8\)"):
        zoo.create_model("cifar_cnn", image_size=8, widths=(8, 8, 8, 8), key=jax.random.key(0))
