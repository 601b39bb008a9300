"""What every architecture of the zoo must do; a new file in `eqxcnn/models` is tested here by itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn import forward, zoo
from eqxcnn.errors import InputError

every_model = pytest.mark.parametrize("name", zoo.list_models())


def made(name, **arguments):
    """A model with its state and two random images of its size."""
    model, state = zoo.create_model(name, key=jax.random.key(0), **arguments)
    size = arguments.get("image_size", zoo.card(name).input[:2])
    channels = arguments.get("in_channels", zoo.card(name).input[2])
    height, width = (size, size) if isinstance(size, int) else size
    images = jax.random.normal(jax.random.key(1), (2, height, width, channels))
    return model, state, images


@every_model
def test_parameter_count_is_the_published_one(name):
    model, _ = eqx.filter_eval_shape(zoo.create_model, name, key=jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.ShapeDtypeStruct))
    assert count == zoo.card(name).params


@every_model
def test_a_batch_gives_a_row_of_scores_an_image(name):
    model, state, images = made(name, num_classes=7)
    logits, _ = forward(model, state, images, key=jax.random.key(2))
    assert logits.shape == (2, 7)
    assert logits.dtype == jnp.float32


@every_model
def test_any_size_from_the_smallest_on_and_any_channels(name):
    smallest = zoo.card(name).smallest
    for size in (smallest, (smallest + 3, smallest + 6)):
        model, state, images = made(name, image_size=size, in_channels=2)
        assert forward(model, state, images, key=jax.random.key(2))[0].shape == (2, zoo.card(name).num_classes)


@every_model
def test_a_smaller_size_than_the_smallest_is_refused_by_name(name):
    if (smallest := zoo.card(name).smallest) > 1:
        with pytest.raises(InputError, match=f"too small for `{name}`.*{smallest}x{smallest}"):
            zoo.create_model(name, image_size=smallest - 1, key=jax.random.key(0))


@every_model
def test_images_of_another_size_are_taken_or_refused_in_one_sentence(name):
    model, state, images = made(name)
    larger = jnp.pad(images, ((0, 0), (0, 9), (0, 9), (0, 0)))
    refusal = None
    try:
        logits, _ = forward(model, state, larger, key=jax.random.key(2))
        assert logits.shape == (2, zoo.card(name).num_classes)
    except InputError as error:
        refusal = str(error)
    assert refusal is None or "not of the size that the model was built for" in refusal


def test_lenet_refuses_images_of_another_size():
    model, state, _ = made("lenet")
    with pytest.raises(InputError, match=r"maps of shape \(6, 6, 16\) have 576 values .* takes 400"):
        forward(model, state, jnp.zeros((1, 32, 32, 1)), key=None)


@every_model
def test_zero_classes_gives_what_the_head_would_have_seen(name):
    model, _, images = made(name)
    bare, bare_state, _ = made(name, num_classes=0)
    features, _ = forward(bare, bare_state, images, key=jax.random.key(2))
    assert features.ndim == 2
    assert features.shape[1] == model.head.in_features
    parameters = [sum(leaf.size for leaf in jax.tree.leaves(each) if eqx.is_array(leaf)) for each in (model, bare)]
    assert parameters[0] - parameters[1] == sum(leaf.size for leaf in jax.tree.leaves(model.head))


@every_model
def test_features_have_the_documented_strides(name):
    model, state, images = made(name)
    maps, _ = model.features(images[0], state, key=jax.random.key(2))
    assert len(maps) == len(zoo.card(name).strides)
    for each, stride in zip(maps, zoo.card(name).strides, strict=True):
        # VALID convolutions lose an edge, so the map may be smaller than the stride says, never larger.
        assert images.shape[1] / stride - 4 <= each.shape[0] <= -(-images.shape[1] // stride)


@every_model
def test_every_parameter_has_a_finite_gradient(name):
    model, state, images = made(name)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(model):
        logits, _ = forward(model, state, images, key=jax.random.key(2))
        return -jax.nn.log_softmax(logits)[:, 1].mean()

    for path, leaf in jax.tree.leaves_with_path(gradients(model)):
        assert jnp.isfinite(leaf).all(), path
        assert (leaf != 0).any(), path


@every_model
def test_eval_is_deterministic_and_permuting_a_batch_permutes_its_scores(name):
    model, state, images = made(name)
    model = eqx.nn.inference_mode(model)
    logits, _ = forward(model, state, images, key=None)
    np.testing.assert_array_equal(logits, forward(model, state, images, key=None)[0])
    swapped, _ = forward(model, state, images[::-1], key=None)
    np.testing.assert_allclose(swapped, logits[::-1], rtol=1e-5, atol=1e-6)


@every_model
def test_jit_gives_what_eager_gives(name):
    model, state, images = made(name)
    eager, _ = forward(model, state, images, key=jax.random.key(2))
    jitted, _ = eqx.filter_jit(forward)(model, state, images, key=jax.random.key(2))
    np.testing.assert_allclose(jitted, eager, rtol=1e-4, atol=1e-5)


@every_model
def test_the_same_key_makes_the_same_model_and_another_key_another(name):
    first, again = (zoo.create_model(name, key=jax.random.key(0))[0] for _ in range(2))
    other = zoo.create_model(name, key=jax.random.key(1))[0]
    assert eqx.tree_equal(first, again)
    assert not eqx.tree_equal(first, other)


@pytest.mark.parametrize("widths", [(), (8, 8, 8, 8)])
def test_the_simple_cnn_refuses_convolutions_that_leave_no_map(widths):
    with pytest.raises(InputError, match=r"`widths` .* each halves the image \(8x8\)"):
        zoo.create_model("cifar_cnn", image_size=8, widths=widths, key=jax.random.key(0))
