"""Grad-CAM and saliency compared with their formulas, and the networks that Grad-CAM does not support."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqxcnn
from eqxcnn import explain, zoo
from eqxcnn.errors import InputError
from eqxcnn.explain import grad_cam, saliency
from eqxcnn.inference import ImageClassifier
from eqxcnn.layers import flatten_for

pytestmark = pytest.mark.usefixtures("fast_compilation")

#: Rows: classes `a`, `b` and `c`; columns: the weights of the two channels.
WEIGHTS = [[2.0, -1.0], [-1.0, 3.0], [-1.0, -1.0]]


class PooledNet(eqx.Module):
    """A network whose last feature map has the channels `image` and `1 - image`; pooling and a dense layer follow.

    The map is averaged over `step` pixels.
    """

    weights: jax.Array
    step: int = eqx.field(static=True, default=1)

    def features(self, image, state, *, key):
        height, width, _ = image.shape
        small = image.reshape(height, width // self.step, self.step).mean(2)
        return (image, jnp.stack([small, 1 - small], -1)), state

    def __call__(self, image, state, *, key):
        maps, state = self.features(image, state, key=key)
        return self.weights @ maps[-1].mean((0, 1)), state


def make_classifier(model, size=(1, 4), state=None, mean=(0.0,), std=(1.0,), name="own"):
    return ImageClassifier(
        model=model, state=state, mean=jnp.asarray(mean), std=jnp.asarray(std), name=name, image_size=size,
        class_names=("a", "b", "c"),
    )  # fmt: skip


IMAGE = np.array([[[0.0], [0.2], [0.6], [1.0]]], np.float32)


def test_grad_cam_of_pooled_maps_is_the_weighted_sum_of_the_maps():
    classifier = make_classifier(PooledNet(jnp.asarray(WEIGHTS)))
    # The gradient of a score is its weight divided by the number of positions, a factor that the scaling removes. So
    # the heat of `a` is relu(2 x - (1 - x)) = relu(3 x - 1), and that of `b` is relu(-x + 3 (1 - x)).
    np.testing.assert_allclose(grad_cam(classifier, IMAGE, "a"), [[0, 0, 0.8 / 2, 1]], atol=1e-6)
    np.testing.assert_allclose(grad_cam(classifier, IMAGE, "b"), [[1, 2.2 / 3, 0.6 / 3, 0]], atol=1e-6)
    # Scores: 2 * 0.45 - 0.55 = 0.35 and -0.45 + 3 * 0.55 = 1.2, so `b` is the most probable class.
    np.testing.assert_array_equal(grad_cam(classifier, IMAGE), grad_cam(classifier, IMAGE, 1))
    # Both weights of `c` are negative: no position raises its score.
    np.testing.assert_array_equal(grad_cam(classifier, IMAGE, "c"), [[0, 0, 0, 0]])


class Derived(PooledNet):
    """A network that calls the `__call__` of its base class."""

    def __call__(self, image, state, *, key):
        return super().__call__(image, state, key=key)


def test_a_network_may_call_its_base_class():
    heat = grad_cam(make_classifier(Derived(jnp.asarray(WEIGHTS))), IMAGE, "a")
    np.testing.assert_allclose(heat, [[0, 0, 0.8 / 2, 1]], atol=1e-6)


def test_heat_of_smaller_maps_is_resized_to_the_image():
    classifier = make_classifier(PooledNet(jnp.asarray(WEIGHTS), step=2))
    # The first channel is 0.1 and 0.8, so the heat of `a` is relu(3 x - 1) = 0 and 1.4; bilinear weights are 1/4, 3/4.
    heat = grad_cam(classifier, IMAGE, "a")
    np.testing.assert_allclose(heat, [[0, 0.25, 0.75, 1]], atol=1e-6)
    assert heat.dtype == np.float32


@pytest.mark.slow
def test_grad_cam_of_lenet_equals_the_gradient_through_its_written_out_head():
    classifier = eqxcnn.load("lenet")
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    model, inputs = classifier.model, (image / np.float32(255) - np.asarray(classifier.mean)) / classifier.std
    maps = np.asarray(model.features(inputs, classifier.state, key=None)[0][-1])
    x = flatten_for(model.fc1, jnp.asarray(maps))
    first = model.fc1.weight @ x + model.fc1.bias
    second = model.fc2.weight @ jax.nn.relu(first) + model.fc2.bias
    # Backward, from the score of the 3 to the maps.
    gradient = (np.asarray(model.head.weight[3]) * (second > 0)) @ model.fc2.weight
    gradient = (gradient * (first > 0)) @ model.fc1.weight
    (by_map,) = jax.vjp(lambda maps: flatten_for(model.fc1, maps), jnp.asarray(maps))[1](gradient)
    heat = np.maximum((maps * np.asarray(by_map).mean((0, 1))).sum(-1), 0)
    resized = np.asarray(jax.image.resize(heat, (28, 28), "bilinear"))
    assert resized.max() > 0
    np.testing.assert_allclose(grad_cam(classifier, image, "3"), resized / resized.max(), atol=1e-4)


class DenseNet(eqx.Module):
    """One dense layer on all pixels, without a method `features`."""

    weights: jax.Array

    def __call__(self, image):
        return self.weights @ image.reshape(-1)


def test_saliency_is_the_largest_gradient_over_the_channels_with_respect_to_pixels():
    weights = np.array([[1, -4, 0.5, 2], [0, 0, 0, 0], [0, 0, 0, 0]], np.float32)  # two pixels of two channels
    classifier = make_classifier(DenseNet(jnp.asarray(weights)), (1, 2), mean=(0.5, 0.5), std=(0.5, 0.1))
    # With respect to pixels, the gradient is the weight divided by the standard deviation: (2, -40) and (1, 20).
    np.testing.assert_allclose(saliency(classifier, np.ones((1, 2, 2), np.uint8), "a"), [[1, 0.5]], atol=1e-6)
    np.testing.assert_array_equal(saliency(classifier, np.ones((1, 2, 2), np.uint8), "b"), [[0, 0]])


def test_networks_without_maps_have_a_saliency_only():
    with pytest.raises(InputError, match="a `DenseNet` has no feature maps: use `saliency`"):
        grad_cam(make_classifier(DenseNet(jnp.ones((3, 4)))), IMAGE)
    perceptron = eqxcnn.load("mlp")
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    with pytest.raises(InputError, match="a `MLP` has no feature maps"):
        grad_cam(perceptron, image)
    assert saliency(perceptron, image).max() == pytest.approx(1)


def abstract_classifier(name):
    size = zoo.card(name).input[:2]
    build = eqx.filter_eval_shape(lambda key: zoo.create_model(name, num_classes=3, key=key), jax.random.key(0))
    channels = zoo.card(name).input[2]
    return make_classifier(*build[:1], size, build[1], (0.5,) * channels, (0.5,) * channels, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nin", "resnet20", "densenet_40_12", "mobilenet_v3_small", "swin_t"])
def test_every_kind_of_head_is_traced(name):
    classifier = abstract_classifier(name)
    image = jax.ShapeDtypeStruct((*classifier.image_size, classifier.in_channels), jnp.float32)
    heat = eqx.filter_eval_shape(explain._grad_cam, classifier, image, jnp.asarray(-1))
    assert heat.shape == classifier.image_size


def test_a_head_that_does_not_use_the_maps_is_refused():
    classifier = abstract_classifier("vit_tiny_patch4_32")
    image = jax.ShapeDtypeStruct((32, 32, 3), jnp.float32)
    with pytest.raises(InputError, match="a `ViT` does not compute its scores from the maps of its `features`"):
        eqx.filter_eval_shape(explain._grad_cam, classifier, image, jnp.asarray(-1))


@pytest.mark.parametrize(
    ("image", "target", "message"),
    [
        (IMAGE[0], None, r"`image` of shape \(4, 1\) must be \(1, 4, 1\), channels last"),
        (IMAGE * 255, None, "the pixels of `image` in floating point have values from 0 to 255"),
        (np.ma.masked_array(IMAGE, IMAGE > 0.5), None, "the pixels of `image` contain masked values: replace them"),
        ("image.png", None, "the pixels of `image` of type str are not an array of numbers"),
        ([[0.0], [0.0, 1.0]], None, "the pixels of `image` of type list are not an array of numbers"),
        (IMAGE, "d", "there is no class `d`; known: `a`, `b`, `c`."),
        (IMAGE, 3, r"`target` \(=3\) must be the name of a class, or its index from 0 to 2"),
        (IMAGE, -1, r"`target` \(=-1\)"),
        (IMAGE, True, r"`target` \(=True\)"),
    ],
)
def test_other_arguments_are_refused(image, target, message):
    classifier = make_classifier(PooledNet(jnp.asarray(WEIGHTS)))
    for function in (grad_cam, saliency):
        with pytest.raises(InputError, match=message):
            function(classifier, image, target)
