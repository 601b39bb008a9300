import hashlib
import json
import re
from math import prod
from pathlib import Path

import equinox as eqx
import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub.errors import RemoteEntryNotFoundError
from PIL import Image

from eqxcnn import forward, hub_connection, zoo
from eqxcnn.errors import InputError
from eqxcnn.registry import build, family
from eqxcnn.training import Recipe, prepare
from eqxcnn.weights import save_safetensors, to_tensors, to_torch
from eqxcnn.weights.names import names_of
from eqxcnn.weights.published import ON_HUB, PUBLISHED, Published
from eqxcnn.weights.tensors import from_tensors, tensor_shapes

KEY = jax.random.key(7)
#: Written by golden/make_timm.py.
TIMM = json.loads((Path(__file__).parents[1] / "golden" / "timm.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cifar_cnn():
    """`cifar_cnn` with weights from NumPy: drawing them with JAX would compile a program per shape."""
    empty = eqx.filter_eval_shape(zoo.create_model, "cifar_cnn", key=jax.random.key(0))
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in tensor_shapes(*empty).items()}
    return from_tensors(*empty, weights)


@pytest.fixture
def published(cifar_cnn, tmp_path, monkeypatch):
    """`cifar_cnn`, its state and a published file of its weights in the Hub's cache."""
    model, state = cifar_cnn
    path = tmp_path / "model.safetensors"
    save_safetensors(path, to_torch("cifar_cnn", model, state), {})
    row = Published("someone/weights", "0" * 40, hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(PUBLISHED, "cifar_cnn", row)

    def from_cache(repository, file, revision):
        assert (repository, file, revision) == ("someone/weights", "model.safetensors", "0" * 40)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", from_cache)
    monkeypatch.setattr(hub_connection, "why_unreachable", lambda: pytest.fail("the network was used"))
    return model, state, path


def test_each_entry_is_pinned_and_in_the_zoo():
    for name, row in ON_HUB.items():
        assert zoo.list_models(name) == [name]
        assert re.fullmatch(r"timm/[a-z0-9_.]+", row.repository)
        assert re.fullmatch(r"[0-9a-f]{40}", row.revision)
        assert re.fullmatch(r"[0-9a-f]{64}", row.sha256)
    assert len({row.sha256 for row in ON_HUB.values()}) == len(ON_HUB)


@pytest.mark.parametrize("name", ON_HUB)
def test_our_tensors_have_timms_names_and_sizes(name):
    abstract = eqx.filter_eval_shape(build, name, key=KEY)
    names = names_of(family(name)).for_timm()
    sizes = {names.torch_name(ours): prod(shape) for ours, shape in tensor_shapes(*abstract).items()}
    digest = hashlib.sha256("\n".join(f"{name} {sizes[name]}" for name in sorted(sizes)).encode()).hexdigest()
    assert {"tensors": len(sizes), "digest": digest} == TIMM[name]


@pytest.mark.slow
def test_published_weights_are_loaded_exactly(published):
    model, state, _ = published
    loaded, loaded_state = zoo.create_model("cifar_cnn", pretrained=True, key=KEY)
    want, got = to_tensors(model, state), to_tensors(loaded, loaded_state)
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.slow
def test_another_number_of_classes_gets_a_random_head(published):
    model, _, _ = published
    loaded, _ = zoo.create_model("cifar_cnn", pretrained=True, num_classes=3, key=KEY)
    fresh, _ = zoo.create_model("cifar_cnn", num_classes=3, key=KEY)
    np.testing.assert_array_equal(loaded.head.weight, fresh.head.weight)
    np.testing.assert_array_equal(loaded.fc1.weight, model.fc1.weight)
    bare, _ = zoo.create_model("cifar_cnn", pretrained=True, num_classes=0, key=KEY)
    np.testing.assert_array_equal(bare.fc1.weight, model.fc1.weight)


@pytest.mark.slow
def test_a_one_channel_stem_responds_to_gray_images_as_the_published_one(published):
    model, state, _ = published
    loaded, loaded_state = zoo.create_model("cifar_cnn", pretrained=True, in_channels=1, key=KEY)
    gray = jax.random.normal(KEY, (2, 32, 32, 1))
    want, _ = forward(model, state, jnp.tile(gray, 3), key=None)
    got, _ = forward(loaded, loaded_state, gray, key=None)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_a_stem_with_more_channels_repeats_the_published_kernels(published, channels):
    model, _, _ = published
    loaded, _ = zoo.create_model("cifar_cnn", pretrained=True, in_channels=channels, key=KEY)
    for channel in range(channels):
        want = model.convs[0].weight[:, :, channel % 3] * (3 / channels)
        np.testing.assert_allclose(loaded.convs[0].weight[:, :, channel], want, rtol=1e-6)


def test_a_file_with_another_hash_is_refused(published):
    _, _, path = published
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(InputError, match=r"is not the recorded file of someone/weights .*: delete it"):
        zoo.create_model("cifar_cnn", pretrained=True, key=KEY)


def test_settings_that_change_other_tensors_are_refused(published):
    with pytest.raises(
        InputError, match=r"do not fit `cifar_cnn` .*`fc1.weight` is \[256, 4096\], expected \[32, 4096\]"
    ):
        zoo.create_model("cifar_cnn", pretrained=True, hidden=32, key=KEY)


def test_a_model_without_trained_weights_says_so():
    with pytest.raises(InputError, match=r"there are no trained weights for `nin`, only for .*resnet18"):
        zoo.create_model("nin", pretrained=True, key=KEY)
    with pytest.raises(InputError, match="no model named `lenett`"):
        zoo.create_model("lenett", pretrained=True, key=KEY)


def test_without_a_network_the_error_is_one_sentence(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(hub_connection, "why_unreachable", lambda: OSError("Name or service not known"))
    with pytest.raises(InputError) as caught:
        zoo.create_model("resnet18", pretrained=True, key=KEY)
    assert "\n" not in str(caught.value)
    assert "`resnet18` cannot be downloaded from the Hugging Face Hub (timm/resnet18.tv_in1k: Name" in str(caught.value)


def test_without_a_copy_offline_mode_is_named(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_connection, "why_unreachable", lambda: pytest.fail("the network was used"))
    with pytest.raises(InputError, match=r"resnet18.tv_in1k: `HF_HUB_OFFLINE` is set\) and this machine has no copy"):
        zoo.create_model("resnet18", pretrained=True, key=KEY)


def test_errors_of_the_hub_are_reported_in_one_sentence(monkeypatch):
    import httpx2 as httpx

    def gone(*args, **keywords):
        response = httpx.Response(404, request=httpx.Request("GET", "https://example.org"))
        raise RemoteEntryNotFoundError("404: the file is gone\nsee there", response=response)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(hub_connection, "why_unreachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gone)
    with pytest.raises(InputError, match=r"resnet18.tv_in1k: 404: the file is gone\) and this machine has no copy"):
        zoo.create_model("resnet18", pretrained=True, key=KEY)


def test_a_recipe_can_start_from_published_weights(published, tmp_path):
    model, state, _ = published
    rng = np.random.default_rng(0)
    for number in range(24):
        picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        (tmp_path / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "data" / "ab"[number % 2] / f"{number}.png")
    job = prepare(Recipe(model="cifar_cnn", data=str(tmp_path / "data"), batch_size=4, epochs=1, pretrained=True))
    found, expected = to_tensors(job.make_start().model, job.make_start().state), to_tensors(model, state)
    assert found["head.weight"].shape[0] == 2
    for name in expected.keys() - {"head.weight", "head.bias"}:
        np.testing.assert_array_equal(found[name], expected[name])
    # The published normalization is used.
    assert job.recipe.mean == (0.485, 0.456, 0.406)
