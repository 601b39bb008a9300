import dataclasses
import hashlib
import json
import pickletools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import eqxcnn
from eqxcnn import registry, zoo
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier
from eqxcnn.saved_classifier import save
from eqxcnn.types import Variant
from eqxcnn.weights.tensors import from_tensors, tensor_shapes

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)


class Tiny(eqx.Module):
    """Each score is `scale` times the sum of the image's mean and a class offset; `scale` and `offsets` are static."""

    weight: jax.Array
    offsets: tuple[int, ...] = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __init__(
        self,
        num_classes=3,
        in_channels=1,
        image_size=(2, 2),
        offsets: tuple[int, ...] = (0, 0, 0),
        scale: float = 1.0,
        *,
        key,
    ):
        self.weight, self.offsets, self.scale = jnp.full(4, 0.25), offsets, scale

    def features(self, image, state, *, key):
        return (), state

    def __call__(self, image, state, *, key):
        return (image.ravel() @ self.weight + jnp.array(self.offsets, jnp.float32)) * self.scale, state


@pytest.fixture(scope="module")
def classifier():
    """A small network in eval mode with three classes."""
    # Weights from NumPy: JAX would compile a program for each shape of random numbers.
    empty = eqx.filter_eval_shape(zoo.create_model, "mlp", num_classes=3, widths=(8,), key=jax.random.key(0))
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in tensor_shapes(*empty).items()}
    model, state = from_tensors(*empty, weights)
    mean, std = jnp.array([0.25]), jnp.array([0.5])
    classes = ("ant", "bee", "cat")
    model = eqx.nn.inference_mode(model)
    return ImageClassifier(model, state, mean, std, "mlp", (28, 28), classes, (("widths", (8,)),))


def test_a_loaded_classifier_gives_the_same_bits(tmp_path, classifier):
    save(tmp_path / "model", classifier)
    for folder in (tmp_path, tmp_path / "model", str(tmp_path)):
        loaded = eqxcnn.load(folder)
        np.testing.assert_array_equal(loaded(PIXELS), classifier(PIXELS))
        assert loaded.class_names == ("ant", "bee", "cat")


def test_config_file_in_full(tmp_path, classifier):
    save(tmp_path, classifier)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "format": 1,
        "model": "mlp",
        "in_channels": 1,
        "image_size": [28, 28],
        "class_names": ["ant", "bee", "cat"],
        "mean": [0.25],
        "std": [0.5],
        "resize": "stretch",
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
        "architecture": {"widths": [8]},
        "sha256": hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest(),
    }


def test_scores_are_those_of_forward_on_normalized_images(classifier):
    images = eqxcnn.normalize(jnp.asarray(PIXELS), classifier.mean, classifier.std)
    expected, _ = eqxcnn.forward(classifier.model, classifier.state, images, key=None)
    np.testing.assert_allclose(classifier(PIXELS), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classifier(PIXELS.astype(np.float32) / 255), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classifier(PIXELS[1]), expected[1], rtol=1e-4, atol=1e-5)


def test_top_k_names_the_most_probable_classes_first(classifier):
    (row,) = classifier.top_k(PIXELS[0], k=3)
    probabilities = np.asarray(jax.nn.softmax(classifier(PIXELS[0])))
    order = np.argsort(-probabilities)
    assert [name for name, _ in row] == [("ant", "bee", "cat")[i] for i in order]
    np.testing.assert_allclose([value for _, value in row], probabilities[order], rtol=1e-5)
    assert classifier.top_k(PIXELS[0], k=1) == [row[:1]]
    assert len(classifier.top_k(PIXELS, k=99)[2]) == 3
    for k in (0, -1, True):
        with pytest.raises(InputError, match=rf"`k` \(={k}\) must be an integer, 1 or more"):
            classifier.top_k(PIXELS, k=k)


def test_prepare_resizes_any_image(classifier):
    array = classifier.prepare(Image.new("RGB", (50, 40), (255, 0, 0)))
    assert (array.shape, array.dtype) == ((28, 28, 1), np.uint8)
    assert classifier(array).shape == (3,)


def test_arrays_are_contiguous(classifier):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8).T)
    for array in (classifier.prepare(picture), np.asarray(classifier(PIXELS)), np.asarray(classifier(PIXELS[0]))):
        assert array.flags.c_contiguous


@pytest.mark.parametrize(
    "config",
    [
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.numpy_rank_promotion("raise"),
        lambda: jax.disable_jit(),
    ],
    ids=["strict dtypes", "no rank promotion", "no jit"],
)
def test_jaxs_strict_settings_change_nothing(tmp_path, config):
    model, state = eqx.nn.make_with_state(Tiny)(offsets=(1, 2, 0), key=jax.random.key(0))
    classifier = ImageClassifier(model, state, jnp.zeros(1), jnp.ones(1), "tiny", (2, 2), ("ant", "bee", "cat"))
    image = np.array([[[0], [0]], [[0], [255]]], np.uint8)
    with config():
        np.testing.assert_allclose(classifier(image), [1.25, 2.25, 0.25], rtol=1e-6)
        np.testing.assert_allclose(classifier((image / 255).astype(np.float32)), [1.25, 2.25, 0.25], rtol=1e-6)
        assert [name for name, _ in classifier.top_k(image)[0]] == ["bee", "ant", "cat"]
        save(tmp_path, classifier)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 28, 28), np.uint8), r"`images` of shape \(1, 28, 28\) must be .*channels last"),
        (np.zeros((2, 32, 32, 1), np.uint8), r"\(2, 32, 32, 1\) must be \(batch, 28, 28, 1\)"),
        (np.zeros((28, 28, 1), np.int32), "dtype int32 must be uint8, or floating point"),
        (PIXELS.astype(np.float32), "values from 0 to 255, not from 0 to 1: divide them by 255, or give uint8"),
        (PIXELS / 255 - 1, "values from -1 to 0, not from 0 to 1: scale or replace them"),
        (np.where(PIXELS > 250, np.nan, 0.5), "values from nan to nan, not from 0 to 1"),
        (np.where(PIXELS > 250, np.inf, 0.5), "values from 0.5 to inf, not from 0 to 1"),
        (np.ma.masked_array(PIXELS, PIXELS > 250), "`images` contain masked values: replace them"),
        ("image.png", "`images` of type str are not an array of numbers"),
        ("9" * 5000, "`images` of type str are not an array of numbers"),
        ([[1.0], [1.0, 2.0]], "`images` of type list are not an array of numbers"),
    ],
)
def test_images_of_the_wrong_shape_or_dtype_are_refused(classifier, images, message):
    with pytest.raises(InputError, match=message):
        classifier(images)


def test_values_are_not_checked_while_tracing_and_may_overshoot_by_rounding(classifier):
    images = PIXELS.astype(np.float32)
    assert jax.jit(lambda images: classifier(images))(images).shape == (3, 3)
    assert jax.vmap(classifier)(jnp.asarray(images)).shape == (3, 3)
    assert classifier(np.full((1, 28, 28, 1), 1.0001, np.float32)).shape == (1, 3)


def test_no_images_have_no_scores(classifier):
    assert classifier(PIXELS[:0]).shape == (0, 3)
    assert classifier.top_k(PIXELS[:0]) == []


@pytest.mark.parametrize("image", [3, None, PIXELS[0], ["a.png"]], ids=repr)
def test_what_is_no_image_is_not_prepared(classifier, image):
    with pytest.raises(InputError, match=r"an image of type \w+ cannot be decoded: give a path"):
        classifier.prepare(image)


def test_architecture_settings_are_saved_and_loaded(tmp_path, monkeypatch):
    row = Variant(Tiny, (2, 2, 1), num_classes=3, params=4, source="https://example.org", task="mnist")
    monkeypatch.setattr(registry, "find", lambda name: ("lenet", row))
    settings = {"offsets": (1, 2, 3), "scale": 0.5}
    model, state = zoo.create_model("tiny", key=jax.random.key(0), **settings)
    half = jnp.full(1, 0.5)
    saved = ImageClassifier(model, state, half, half, "tiny", (2, 2), ("a", "b", "c"), tuple(settings.items()))
    save(tmp_path, saved)
    loaded = eqxcnn.load(tmp_path)
    assert loaded.architecture == tuple(settings.items())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 1), np.uint8)
    np.testing.assert_array_equal(loaded(pixels), saved(pixels))
    np.testing.assert_allclose(loaded(np.zeros((2, 2, 1), np.uint8)), [0, 0.5, 1], atol=1e-6)


def test_no_file_is_a_pickle_and_the_model_is_looked_up_by_name(tmp_path, classifier):
    save(tmp_path, classifier)
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"."):
            list(pickletools.genops(path.read_bytes()))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model": "os.system"}))
    with pytest.raises(InputError, match=r"with `os\.system`, which is not from the zoo"):
        eqxcnn.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": "ant"}, "must contain `class_names` of type"),
        ({"mean": None}, "must contain `mean` of type"),
        ({"format": 2}, "has format 2, but this version of eqxcnn reads format 1"),
        ({"std": [1.0, 1.0]}, "one number per channel in `mean` and `std`"),
        ({"image_size": [28]}, "two numbers in `image_size`"),
        ({"architecture": [8]}, r"`architecture` in `.*config\.json` must be of type dict"),
        ({"class_names": ["ant", "bee"]}, r"head\.weight.*expected"),
        ({"class_names": ["ant"] * 500 + [1]}, "must contain `class_names` of type"),
        ({"class_names": []}, "`class_names` must have from 1 to 1000000 names"),
        ({"class_names": ["ant", "bee", "ant"]}, "`class_names` has `ant` 2 times"),
        ({"class_names": ["ant", "", "cat"]}, "`class_names` has an empty name at position 1"),
        ({"std": [0.0]}, r"has an invalid value: `std` \(=\[0.0\]\) must be above 0 and finite"),
        ({"std": [-1.0]}, r"`std` \(=\[-1.0\]\) must be above 0"),
        ({"std": [1e-60]}, "`std` .* must be above 0"),
        ({"std": [float("nan")]}, "the number nan is not finite"),
        ({"mean": [float("inf")]}, "the number inf is not finite"),
        ({"mean": [1e300]}, "`mean` .* must be finite"),
        ({"image_size": [10**6, 10**6]}, "invalid value: `size` .* must be height and width"),
        ({"image_size": [-1, 28]}, "invalid value: `size` .* must be height and width"),
        ({"format": True}, "must contain `format` of type int"),
        ({"sha256": 7}, "`sha256` in .* must be of type"),
        ({"sha25": "0" * 64}, "unknown entry `sha25`; did you mean `sha256`"),
        ({"architecturf": {}}, "unknown entry `architecturf`; did you mean `architecture`"),
        ({"sha256": "0" * 64}, "has changed since it was saved"),
        *[
            ({"architecture": architecture}, f"does not describe a model: `{subject}")
            for architecture, subject in (
                ({"pretrained": True}, "mlp` has no argument `pretrained`"),
                ({"key": 0}, "mlp` has no argument `key`"),
                ({"name": "lenet"}, "mlp` has no argument `name`"),
                ({"in_channels": 3}, "mlp` has no argument `in_channels`"),
                ({"widths": [10**9]}, "widths` .* must be at most 65536"),
                ({"widths": [60_000] * 2}, "mlp` with these settings has .* parameters"),
            )
        ],
    ],
)
def test_an_invalid_config_is_refused(tmp_path, classifier, change, message):
    save(tmp_path, classifier)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        eqxcnn.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "has more than 50 levels"),
        ('{"format": 1, "format": 1}', "`format` appears twice"),
        ("[]", "must contain `format`"),
        ("", "cannot be read as JSON"),
    ],
)
def test_a_hostile_config_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        eqxcnn.load(tmp_path)


def test_a_pretrained_setting_in_the_folder_does_not_use_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("the network was used"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: pytest.fail("the Hub was used"))
    config = {
        "format": 1, "model": "resnet18", "in_channels": 3, "image_size": [224, 224], "class_names": ["a", "b"],
        "mean": [0, 0, 0], "std": [1, 1, 1], "architecture": {"pretrained": True},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"`resnet18` has no argument `pretrained`"):
        eqxcnn.load(tmp_path)


def test_a_changed_bit_of_the_weights_is_noticed(tmp_path, classifier):
    save(tmp_path, classifier)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors` has changed since it was saved"):
        eqxcnn.load(tmp_path)


def test_a_folder_without_a_digest_is_loaded(tmp_path, classifier):
    save(tmp_path, classifier)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(eqxcnn.load(tmp_path)(PIXELS), classifier(PIXELS))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_unless_asked_for(tmp_path, classifier, value):
    broken = eqx.tree_at(lambda each: each.model.head.bias, classifier, jnp.full(3, value))
    save(tmp_path, broken)
    with pytest.raises(
        InputError, match=r"has NaN or infinite values in 1 tensors \(`head\.bias`\), so its training dive"
    ):
        eqxcnn.load(tmp_path)
    assert not np.isfinite(eqxcnn.load(tmp_path, allow_non_finite=True)(PIXELS)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": jnp.array([jnp.nan])}, "`mean` .* must be finite"),
        ({"std": jnp.zeros(1)}, "`std` .* must be above 0"),
        ({"class_names": ()}, "`class_names` must be a tuple of one string per class"),
        ({"image_size": (0, 28)}, r"`image_size` \(=\(0, 28\)\) must be"),
    ],
)
def test_an_invalid_classifier_is_refused(classifier, change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(classifier, **change)


def test_settings_that_json_lacks_are_refused_before_anything_is_written(tmp_path, classifier):
    odd = dataclasses.replace(classifier, architecture=(("activation", jax.nn.relu),))
    with pytest.raises(InputError, match="the settings of `mlp` cannot be written as JSON"):
        save(tmp_path / "model", odd)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"the folder .*file` cannot be created: File exists"):
        save(tmp_path / "file", classifier)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"contains no trained model: it has no config"):
        eqxcnn.load(tmp_path)
    with pytest.raises(InputError, match=r"there is no folder"):
        eqxcnn.load(tmp_path / "nowhere")
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(InputError, match=r"its training has not finished"):
        eqxcnn.load(tmp_path)


def test_numpy_arrays_that_a_compiled_function_does_not_take():
    classifier, images = eqxcnn.load("lenet"), np.zeros((1, 28, 28, 1), np.uint8)
    for other in (images.astype(np.longdouble), np.ma.array(images)):
        with pytest.raises(InputError, match="are not an array of numbers"):
            classifier(other)
