"""The zoo matches recorded results of torchvision and timm (`golden/make_zoo.py`), and weights convert by name."""

import hashlib
import io
import json
import os
import re
import runpy
import struct
import sys
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from eqxcnn import forward, zoo
from eqxcnn.errors import InputError
from eqxcnn.layers import Dropout, DropPath
from eqxcnn.registry import build, family, variant
from eqxcnn.runtime.compile import jit_once
from eqxcnn.weights import from_torch, save_safetensors, to_torch
from eqxcnn.weights.names import Names, names_of
from eqxcnn.weights.tensors import tensor_shapes
from eqxcnn.weights.torch import convert_from_torch, read_torch, torch_shape

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "zoo.json").read_text(encoding="utf-8"))
seeded = SimpleNamespace(**runpy.run_path(str(GOLDEN / "seeded.py")))

every_twin = pytest.mark.parametrize("name", [name for name in zoo.list_models() if variant(name).torch_twin])
#: Models whose layers all occur in another model of their family.
ALIKE = frozenset({
    "convmixer_1024_20_ks9_p14", "convnext_small", "densenet169", "mnasnet0_75", "mobilenet_v3_large", "resnet50",
    "se_resnet34", "shufflenet_v2_x1_0", "swin_s", "vgg11", "vit_b_16",
})  # fmt: skip
#: Families whose layers all occur in others with fewer layers to compile, or have tests of their gradients.
SLOW_GRADIENTS = frozenset(
    {
        "convmixer",
        "convnext",
        "densenet",
        "efficientnet",
        "googlenet",
        "inception_v3",
        "mnasnet",
        "mobilenet_v2",
        "regnet",
        "vgg",
        "vit",
    }
)


@cache
def torch_shapes(name, **arguments):
    """The shape of each tensor in torch, by torch's name."""
    abstract = eqx.filter_eval_shape(build, name, key=jax.random.key(0), **arguments)
    names = names_of(family(name))
    ours = tensor_shapes(*abstract)
    return {names.torch_name(path): torch_shape(path, shape, names) for path, shape in ours.items()}


def seeded_model(name, size):
    """Returns the model with the weights that the recorded twin had."""
    arguments = {} if (size, size) == variant(name).input[:2] else {"image_size": size}
    shapes = torch_shapes(name, **arguments)
    return from_torch(name, seeded.weights(shapes, tame=FACTS[name]["tame"]), **arguments)


LENET = seeded.weights(torch_shapes("lenet"))


@pytest.fixture
def clear_compiled_programs():
    """Frees the compiled programs after each test; the programs of all families would take several gigabytes."""
    yield
    jax.clear_caches()


def digest(shapes):
    lines = [f"{name} {list(shapes[name])}" for name in sorted(shapes)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_every_twin_is_recorded():
    assert sorted(FACTS) == [name for name in zoo.list_models() if variant(name).torch_twin]
    families = {family(name) for name in FACTS}
    assert {family(name) for name in FACTS if "logits" in FACTS[name]} == families
    assert {family(name) for name in FACTS if "gradients" in FACTS[name]} == families


@every_twin
def test_names_and_shapes_are_those_of_the_twin(name):
    shapes = torch_shapes(name)
    assert len(shapes) == FACTS[name]["tensors"]
    assert digest(shapes) == FACTS[name]["digest"]


@every_twin
def test_the_published_parameter_count_is_the_twins(name):
    assert FACTS[name]["params"] == variant(name).params


def recorded_scores():
    """Yields models and image sizes with recorded scores; marks larger sizes and models in `ALIKE` as exhaustive."""
    for name, facts in FACTS.items():
        for index, size in enumerate(sorted(map(int, facts.get("logits", ())))):
            marks = [pytest.mark.exhaustive] if index or name in ALIKE else []
            yield pytest.param(name, size, marks=marks)


def recorded_gradients():
    """Yields the models with recorded gradients; marks the models that take longest to compile as exhaustive."""
    for name in (name for name, facts in FACTS.items() if "gradients" in facts):
        yield pytest.param(name, marks=[pytest.mark.exhaustive] if family(name) in SLOW_GRADIENTS else [])


@pytest.mark.slow
@pytest.mark.usefixtures("clear_compiled_programs")
@pytest.mark.parametrize(("name", "size"), list(recorded_scores()))
def test_scores_are_the_twins(name, size):
    model, state = seeded_model(name, size)
    images = seeded.images(2, size, size)
    logits, _ = jit_once(forward)(eqx.nn.inference_mode(model), state, jnp.asarray(images), key=None)
    facts = FACTS[name]["logits"][str(size)]
    first = np.array(facts["first"])
    np.testing.assert_allclose(logits[:, : first.shape[1]], first, rtol=0, atol=1e-5 * facts["largest"])
    np.testing.assert_allclose(np.linalg.norm(logits, axis=1), facts["norm"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("clear_compiled_programs")
@pytest.mark.parametrize("name", list(recorded_gradients()))
def test_gradients_in_training_are_the_twins(name):
    facts = FACTS[name]["gradients"]
    size = facts["size"]
    model, state = seeded_model(name, size)
    model = disable_dropout(model)
    images = jnp.asarray(seeded.images(2, size, size))

    # Compiled with JAX's defaults: with other convolutions one ReLU input of RegNet rounds to the other side of zero.
    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(model):
        logits, _ = forward(model, state, images, key=None)
        return (logits * seeded.loss_factors(*logits.shape)).sum(1).mean()

    gradient = gradients(model)
    # Running statistics have no gradient.
    ours = to_torch(name, gradient, state)
    ours = {theirs: tensor for theirs, tensor in ours.items() if "running_" not in theirs}
    norms = np.array([np.linalg.norm(ours[theirs].astype(np.float64)) for theirs in sorted(ours)])
    exact = np.array(facts["norms"])
    # Some gradients are only rounding errors: those of a bias whose effect the next norm cancels.
    errors = np.abs(norms - exact) / (exact + 0.01 * exact.max())
    assert errors.max() <= max(1e-3, 4 * facts["lost"]), sorted(ours)[errors.argmax()]


def disable_dropout(model):
    def is_dropout(leaf):
        return isinstance(leaf, Dropout | DropPath)

    return jax.tree.map(
        lambda leaf: eqx.nn.inference_mode(leaf) if is_dropout(leaf) else leaf, model, is_leaf=is_dropout
    )


@pytest.mark.parametrize(
    "name", ["lenet", "densenet121", "efficientnet_b0", "mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t"]
)
def test_round_trip_is_exact(name):
    weights = seeded.weights(torch_shapes(name, num_classes=3))
    back = to_torch(name, *from_torch(name, weights, num_classes=3))
    assert back.keys() == weights.keys()
    for theirs, tensor in weights.items():
        np.testing.assert_array_equal(back[theirs], tensor, strict=True)


def test_the_state_dict_survives_a_safetensors_file(tmp_path):
    # The library writes the memory of an array in order, whatever its strides: a transposed view would be corrupted.
    safetensors.numpy.save_file(to_torch("lenet", *from_torch("lenet", LENET)), tmp_path / "lenet.safetensors")
    back = safetensors.numpy.load_file(tmp_path / "lenet.safetensors")
    assert back.keys() == LENET.keys()
    for theirs, tensor in LENET.items():
        np.testing.assert_array_equal(back[theirs], tensor, strict=True)


def test_kernels_are_transposed_and_matrices_are_not():
    model, _ = from_torch("lenet", LENET)
    assert model.conv2.weight[1, 2, 3, 4] == LENET["conv2.weight"][4, 3, 1, 2]
    np.testing.assert_array_equal(model.fc2.weight, LENET["fc2.weight"])


def test_a_dense_layer_on_flattened_maps_is_reordered():
    # Two channels of 2x3 pixels: torch flattens the first channel, then the second.
    names = Names(FLATTENED={"fc.weight": (2, 3)})
    matrix = np.arange(12, dtype=np.float32)[None] + [[0], [20]]
    (ours,) = convert_from_torch("net", names, {"fc.weight": (2, 12)}, {"fc.weight": matrix}).values()
    row = np.array([0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11])
    np.testing.assert_array_equal(ours, [row, row + 20])


def test_axes_of_length_one_are_removed():
    names = Names(AXES={"token$": (2, 0), "scale$": (0, 2)})
    tensors = {"token": np.ones((1, 1, 3)), "a.scale": np.ones((4, 1, 1))}
    ours = convert_from_torch("net", names, {"token": (3,), "a.scale": (4,)}, tensors)
    assert {name: array.shape for name, array in ours.items()} == {"token": (3,), "a.scale": (4,)}
    with pytest.raises(InputError, match=r"1 with a wrong shape \(`token` is \[3\], expected \[1, 1, 3\]\)$"):
        convert_from_torch("net", names, {"token": (3,), "a.scale": (4,)}, tensors | {"token": np.ones(3)})


def test_the_number_of_classes_must_be_the_files():
    model, _ = from_torch("lenet", seeded.weights(torch_shapes("lenet", num_classes=3)), num_classes=3)
    assert model.head.weight.shape == (3, 84)
    message = r"2 with a wrong shape \(`head.weight` is \[10, 84\], expected \[3, 84\], `head.bias` is \[10\]"
    with pytest.raises(InputError, match=message):
        from_torch("lenet", LENET, num_classes=3)


def test_densenets_legacy_names_are_accepted():
    weights = seeded.weights(torch_shapes("densenet121", num_classes=2))
    legacy = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): tensor for name, tensor in weights.items()}
    assert "features.denseblock4.denselayer16.norm.2.running_mean" in legacy
    back = to_torch("densenet121", *from_torch("densenet121", legacy, num_classes=2))
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_auxiliary_heads_and_counters_are_ignored():
    weights = seeded.weights(torch_shapes("googlenet", num_classes=2))
    more = {"aux1.fc1.weight": np.ones(3), "conv1.bn.num_batches_tracked": np.array(7)}
    from_torch("googlenet", weights | more, num_classes=2)
    with pytest.raises(InputError, match=r"1 unexpected \(`aux3.fc1.weight`\)$"):
        from_torch("googlenet", weights | {"aux3.fc1.weight": np.ones(3)}, num_classes=2)


def test_tensors_that_do_not_fit_are_named():
    tensors = LENET | {"extra": np.ones(1), "conv1.weight": np.ones((6, 1, 5, 4))}
    del tensors["fc1.bias"]
    with pytest.raises(InputError) as caught:
        from_torch("lenet", tensors)
    assert str(caught.value) == (
        "the tensors do not fit `lenet` with these settings: 1 missing (`fc1.bias`); 1 unexpected (`extra`); "
        "1 with a wrong shape (`conv1.weight` is [6, 1, 5, 4], expected [6, 1, 5, 5])"
    )
    with pytest.raises(InputError, match=r"10 missing \((`[\w.]+`, ){5}\.\.\.\)$"):
        from_torch("lenet", {})


@pytest.mark.parametrize("wrap", ["state_dict", "model_state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", ""])
def test_wrappers_and_prefixes_are_removed(wrap, prefix):
    tensors = {prefix + name: tensor for name, tensor in LENET.items()}
    assert_lenet(*from_torch("lenet", {wrap: tensors, "epoch": 3} if wrap else tensors))


def test_a_tensor_with_the_name_of_a_wrapper_is_a_tensor():
    with pytest.raises(InputError, match=r"1 unexpected \(`model`\)$"):
        from_torch("lenet", LENET | {"model": np.ones(1)})


def test_a_prefix_of_only_some_names_is_kept():
    some = {("module." if name == "fc2.bias" else "") + name: tensor for name, tensor in LENET.items()}
    with pytest.raises(InputError, match=r"1 missing \(`fc2.bias`\); 1 unexpected \(`module.fc2.bias`\)$"):
        from_torch("lenet", some)


def test_a_safetensors_file_is_read(tmp_path):
    save_safetensors(tmp_path / "lenet.safetensors", LENET, {"format": "pt"})
    for path in (tmp_path / "lenet.safetensors", str(tmp_path / "lenet.safetensors")):
        assert_lenet(*from_torch("lenet", path))
    with pytest.raises(InputError, match=r"nothing.safetensors` cannot be read: No such file"):
        from_torch("lenet", tmp_path / "nothing.safetensors")


class Tensor:
    """The part of a torch tensor's interface that eqxcnn uses."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def is_floating_point(self):
        return self.array.dtype.kind != "i"

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def numpy(self):
        assert self.array.dtype != ml_dtypes.bfloat16, "which NumPy lacks"
        return self.array


def test_torch_tensors_of_any_precision_are_accepted():
    tensors = {name: Tensor(tensor.astype(ml_dtypes.bfloat16)) for name, tensor in LENET.items()}
    model, _ = from_torch("lenet", tensors | {"norm.num_batches_tracked": Tensor(np.array(3))})
    assert model.fc2.weight.dtype == jnp.float32
    np.testing.assert_array_equal(model.fc2.weight, LENET["fc2.weight"].astype(ml_dtypes.bfloat16).astype(np.float32))


def test_double_precision_arrays_become_float32():
    model, _ = from_torch("lenet", {name: tensor.astype(np.float64) for name, tensor in LENET.items()})
    np.testing.assert_array_equal(model.fc2.weight, LENET["fc2.weight"])
    assert model.fc2.weight.dtype == jnp.float32


def test_values_that_are_not_tensors_are_refused_by_name():
    with pytest.raises(InputError, match=r"`epoch` has type int, not a tensor"):
        from_torch("lenet", LENET | {"epoch": 3})


def test_a_pth_file_is_read_with_weights_only(tmp_path, monkeypatch):
    def load(path, map_location, weights_only):
        assert (path, map_location, weights_only) == (tmp_path / "lenet.pth", "cpu", True)
        return {name: Tensor(tensor) for name, tensor in LENET.items()}

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=load))
    (tmp_path / "lenet.pth").touch()
    assert_lenet(*from_torch("lenet", tmp_path / "lenet.pth"))


def raise_on_load(error):
    def load(*_, **__):
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (raise_on_load(PermissionError(13, "Permission denied")), r"a.pt` cannot be read: Permission denied$"),
        (
            raise_on_load(ValueError("set weights_only=False\nMore.")),
            r"weights_only=True \(ValueError\): the file is dam",
        ),
        (
            raise_on_load(MemoryError()),
            r"\(MemoryError\): the file is damaged, or it contains objects other than tensors",
        ),
        (lambda *_, **__: [1, 2], r"a.pt` is a list, not named tensors: give `model.state_dict\(\)`$"),
        (lambda *_, **__: {"a": [1, 2]}, r"`a` has type list, not a tensor: give a `state_dict`$"),
    ],
)
def test_files_without_weights_are_refused_in_one_sentence(tmp_path, monkeypatch, load, message):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=load))
    (tmp_path / "a.pt").touch()
    with pytest.raises(InputError, match=message) as caught:
        from_torch("lenet", tmp_path / "a.pt")
    assert "weights_only=False" not in str(caught.value)


def zip_file(content: bytes, **options) -> bytes:
    """Returns a zip file with the layout of files from `torch.save`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("archive/data/0", content)
    return file.getvalue()


def overlapping() -> bytes:
    """A zip file whose directory lists one part a hundred times."""
    data = zip_file(bytes(1000))
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    listed = data[start:end] * 100
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 100, 100, len(listed), start, 0)
    return data[:start] + listed + tail


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            zip_file(b"\1" * 100).replace(b"\1" * 4, b"\1\1\2\1", 1),
            "is damaged: the checksum of `archive/data/0` is wrong",
        ),
        (zip_file(bytes(1000), compression=zipfile.ZIP_DEFLATED), "is compressed: unpack it"),
        (overlapping(), "is damaged, because its parts overlap"),
        (zip_file(bytes(1000)).replace(b"PK\3\4", b"PK\3\5"), "is damaged"),
    ],
    ids=["a changed byte", "compressed", "overlapping", "no part"],
)
def test_a_damaged_pth_file_is_refused_before_torch_reads_it(tmp_path, monkeypatch, data, message):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=lambda *_, **__: pytest.fail("it was read")))
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(InputError, match=message):
        from_torch("lenet", tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_pipe_is_refused_at_once(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=lambda *_, **__: pytest.fail("it was opened")))
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}` is not a regular file"):
        from_torch("lenet", tmp_path / name)


class Unusual(Tensor):
    """A torch tensor of an unsupported kind, or a tensor that cannot become a NumPy array."""

    def __init__(self, **attributes):
        super().__init__(np.ones(2, np.float32))
        vars(self).update(attributes)

    def float(self):
        return self

    def numpy(self):
        raise RuntimeError("negative bit")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({0: np.ones(1)}, "the `state_dict` has the key 0, not the name of a tensor"),
        ({"net": {"a": np.ones(1)}}, "`net` is a dict, not a tensor: pass only this entry if it holds the weights"),
        ([np.ones(1)], "the `state_dict` is a list, not named tensors"),
        (None, "the `state_dict` is a NoneType, not named tensors"),
        ({"a": Unusual(layout="torch.sparse_coo")}, "`a` is a sparse coo tensor: convert it"),
        ({"a": Unusual(is_quantized=True)}, "`a` is a quantized tensor"),
        ({"a": Unusual(is_complex=lambda: True)}, "`a` is a complex tensor"),
        ({"a": Unusual(is_meta=True)}, "`a` is a meta tensor"),
        ({"a": Unusual()}, "`a` has no values that NumPy can hold"),
        ({"a": Unusual(shape=(10**6, 10**6))}, "has 1,000,000,000,000 values, more than a model can have"),
        ({"a": np.broadcast_to(np.float16(1), (10**6, 10**6))}, "has 1,000,000,000,000 values"),
        ({"a": np.array([1, np.nan])}, r"has NaN or infinite values in 1 tensors \(`a`\)"),
        ({"a": np.array([1e300])}, r"has NaN or infinite values in 1 tensors \(`a`\)"),
    ],
)
def test_a_state_dict_of_anything_but_dense_tensors_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        read_torch(source)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, bool, object, "datetime64[s]", np.complex64])
def test_weights_that_are_not_floats_are_refused(dtype):
    weights = LENET | {"fc2.bias": np.ones(84, np.int64).astype(dtype)}
    with pytest.raises(InputError, match=r"1 with a wrong dtype \(`fc2.bias` is .*, expected float32\)$"):
        from_torch("lenet", weights)


def test_a_pth_file_needs_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # makes the import fail
    with pytest.raises(InputError, match=r"reading `a.pth` needs torch, which is not installed"):
        from_torch("lenet", "a.pth")


def assert_lenet(model, state):
    ours = to_torch("lenet", model, state)
    assert ours.keys() == LENET.keys()
    for name, tensor in LENET.items():
        np.testing.assert_array_equal(ours[name], tensor)
