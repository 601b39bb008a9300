"""Features of whole data sets, from runs, classifiers and users' networks."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn import ChannelsFirst, ImageClassifier, data, extract, features, forward, normalize, saved_classifier, zoo
from eqxcnn.errors import InputError
from eqxcnn.views import eval_logits
from eqxcnn.weights import from_tensors, to_tensors
from eqxcnn.weights.presets import IMAGENET
from eqxcnn.weights.published import PUBLISHED, Published

MEAN, STD = (0.25,), (0.5,)


def make_classifier(name="lenet", size=12, **arguments):
    model, state = zoo.create_model(name, num_classes=3, in_channels=1, image_size=size, key=jax.random.key(0))
    return ImageClassifier(
        model=model, state=state, mean=jnp.asarray(MEAN), std=jnp.asarray(STD), name=name, image_size=(size, size),
        class_names=("a", "b", "c"), **arguments,
    )  # fmt: skip


def make_images(count=5, size=12):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 1), np.uint8)


LABELS = np.arange(5) % 3


@pytest.fixture(scope="module")
def lenet():
    return make_classifier()


def headless_scores(classifier, images):
    """Computes features with the zoo's model without a head, after giving this model the classifier's weights."""
    built = zoo.create_model(
        classifier.name, num_classes=0, in_channels=1, image_size=classifier.image_size, key=jax.random.key(1)
    )
    tensors = to_tensors(classifier.model, classifier.state)
    model, state = from_tensors(*built, {name: each for name, each in tensors.items() if not name.startswith("head.")})
    inputs = normalize(images, jnp.asarray(MEAN), jnp.asarray(STD))
    return forward(eqx.nn.inference_mode(model), state, inputs, key=None)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet", "scratch", "resnet20"])
def test_features_are_the_input_of_the_head(name):
    classifier, images = make_classifier(name), make_images()
    found = extract(classifier, (images, LABELS))
    np.testing.assert_allclose(found.features, headless_scores(classifier, images), rtol=1e-5, atol=1e-5)
    head = classifier.model.head
    scores = found.features @ np.asarray(head.weight).T + np.asarray(head.bias)
    np.testing.assert_allclose(scores, classifier(images), rtol=1e-4, atol=1e-4)
    assert found.features.dtype == np.float32
    assert (found.labels == LABELS).all()
    assert found.labels.dtype == np.int32
    assert found.class_names == ()


def test_batches_are_padded_under_one_program(lenet, monkeypatch):
    whole, traced = extract(lenet, (make_images(), LABELS)).features, []

    def count_traces(*arguments):
        traced.append(arguments[2].shape[0])
        return eval_logits(*arguments)

    monkeypatch.setattr(features, "eval_logits", count_traces)
    for batch_size in (2, 3, 2, 5, 100):
        found = extract(lenet, (make_images(), LABELS), batch_size=batch_size).features
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)
    assert traced == [2, 3]  # Batches of five were compiled before.


def test_a_run_and_a_named_data_set(lenet, tmp_path):
    saved_classifier.save(tmp_path / "model", lenet)
    (tmp_path / "recipe.yaml").touch()
    split = data.load("digits", "test", image_size=(12, 12), channels=1)
    found = extract(tmp_path, "digits")
    assert found.features.shape == (len(split.labels), 84)
    assert (found.labels == split.labels).all()
    assert found.class_names == split.class_names
    for same in (extract(str(tmp_path / "model"), split), extract(lenet, data.open_source("digits"))):
        np.testing.assert_array_equal(same.features, found.features)
    assert len(extract(lenet, "digits", split="train").labels) > len(found.labels)


def test_a_model_and_its_state_with_a_normalization(lenet):
    given = (make_images(), LABELS)
    pair = (lenet.model, lenet.state)
    np.testing.assert_array_equal(extract(pair, given, mean=MEAN, std=STD).features, extract(lenet, given).features)
    for arguments in ({}, {"mean": MEAN}, {"std": STD}):
        with pytest.raises(InputError, match=r"`mean` and `std` are needed with `\(model, state\)`"):
            extract(pair, given, **arguments)
    with pytest.raises(InputError, match="a classifier has its own"):
        extract(lenet, given, mean=MEAN)


@pytest.mark.slow
def test_dropout_and_batch_statistics_are_in_eval_mode():
    model, state = zoo.create_model("cifar_cnn", in_channels=1, image_size=12, key=jax.random.key(0))
    given, moments = (make_images(), LABELS), {"mean": MEAN, "std": STD}
    one = extract((model, state), (make_images()[:1], LABELS[:1]), **moments).features
    np.testing.assert_allclose(extract((model, state), given, **moments).features[:1], one, rtol=1e-4, atol=1e-5)


class Net(eqx.Module):
    """A user's network without state and key, whose last layer is `last`."""

    first: eqx.nn.Conv2d
    last: eqx.Module

    def __init__(self, key):
        self.first = eqx.nn.Conv2d(1, 4, 3, key=key)
        self.last = eqx.nn.Linear(4, 2, key=key)

    def __call__(self, x):
        return self.last(self.first(x).mean((1, 2)))


def test_an_own_network():
    net, given = Net(jax.random.key(0)), (make_images(), LABELS)
    own = {"mean": MEAN, "std": STD}
    with pytest.raises(
        InputError, match="a `ChannelsFirst` has no field `head` that holds its last layer: name that field with"
    ):
        extract((ChannelsFirst(net), None), given, **own)
    found = extract((ChannelsFirst(net), None), given, head="net.last", **own).features
    assert found.shape == (5, 4)
    backbone = ChannelsFirst(eqx.tree_at(lambda tree: tree.last, net, eqx.nn.Identity()))
    np.testing.assert_array_equal(extract((backbone, None), given, head=None, **own).features, found)
    assert extract((ChannelsFirst(net), None), given, head=None, **own).features.shape == (5, 2)
    with pytest.raises(InputError, match=r"`backbone` of type Net must be a run's folder, .* or `\(model, state\)`"):
        features._open_backbone(net, None, None)  # `extract` itself has checked types here


@pytest.mark.slow
def test_the_name_of_a_model_loads_published_weights(monkeypatch):
    with pytest.raises(InputError, match="no trained weights for `nin`"):
        extract("nin", "digits")
    built = zoo.create_model("cifar_cnn", key=jax.random.key(3))
    preset = replace(IMAGENET, size=(32, 32), mean=(0.1, 0.2, 0.3))
    monkeypatch.setitem(PUBLISHED, "cifar_cnn", Published("timm/x", "0", "0", preset))
    monkeypatch.setattr("eqxcnn.weights.published.load_published_tensors", lambda *_, **__: to_tensors(*built))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    found = extract("cifar_cnn", (images, LABELS[:2]))
    moments = {"mean": (0.1, 0.2, 0.3), "std": (0.229, 0.224, 0.225)}
    np.testing.assert_array_equal(found.features, extract(built, (images, LABELS[:2]), **moments).features)
    # The images of a data set are cropped as the preset says.
    wide = np.random.default_rng(0).integers(0, 256, (4, 40, 64, 3), np.uint8)
    rows = data.from_arrays(wide, LABELS[:4], test=(wide, LABELS[:4]))
    cropped = np.stack([preset(Image.fromarray(image)) for image in wide])
    found = extract("cifar_cnn", rows).features
    np.testing.assert_array_equal(found, extract(built, (cropped, LABELS[:4]), **moments).features)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (make_images(size=13), LABELS, r"images of shape \(5, 13, 13, 1\), but the model takes \(number, 12, 12, 1\)"),
        (make_images()[0], LABELS, r"images of shape \(12, 12, 1\)"),
        (make_images().repeat(3, -1), LABELS, r"images of shape \(5, 12, 12, 3\)"),
        (make_images(), LABELS[:4], "one label per image: it has 5 images and 4 labels"),
        (make_images()[:0], LABELS[:0], "it has 0 images and 0 labels"),
        (make_images(), LABELS.astype(float), r"labels of `data` \(float64, shape \(5,\)\) must be one integer"),
        (make_images(), LABELS[:, None], r"labels of `data` \(int64, shape \(5, 1\)\)"),
        (make_images().astype(np.int32), LABELS, "images in `data` of dtype int32 must be uint8, or floating point"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(lenet, images, labels, message):
    with pytest.raises(InputError, match=message):
        extract(lenet, (images, labels))


def test_other_arguments_that_do_not_fit_are_refused(lenet):
    with pytest.raises(InputError, match=r"`batch_size` .=0. must be at least 1"):
        extract(lenet, "digits", batch_size=0)
    with pytest.raises(InputError, match="there is no folder `no_such_run`"):
        extract("no_such_run", "digits")
