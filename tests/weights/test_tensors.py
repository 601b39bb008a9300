import contextlib
import json
import resource
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors

from eqxcnn.errors import InputError
from eqxcnn.weights import from_tensors, load_safetensors, save_safetensors, to_tensors, write_text_atomically


class Norm(eqx.Module):
    scale: jax.Array
    running_mean: eqx.nn.StateIndex
    moments: eqx.nn.StateIndex

    def __init__(self, channels):
        self.scale = jnp.ones(channels, jnp.bfloat16)
        self.running_mean = eqx.nn.StateIndex(jnp.zeros(channels))
        self.moments = eqx.nn.StateIndex({"count": jnp.zeros((), jnp.int32), "var": [jnp.ones(channels)]})


class Net(eqx.Module):
    weight: jax.Array
    blocks: list
    temperature: jax.Array
    table: np.ndarray
    bias: None
    activation: Callable
    rate: float
    training: bool
    width: int = eqx.field(static=True)

    def __init__(self, key):
        self.weight = jax.random.normal(key, (2, 3))
        self.blocks = [Norm(3), Norm(2)]
        self.temperature = jnp.asarray(1.5)
        self.table = np.arange(4, dtype=np.int32)
        self.bias, self.activation, self.rate, self.training, self.width = None, jax.nn.relu, 0.5, True, 3


NAMES = [
    "weight",
    "blocks.0.scale",
    "blocks.0.running_mean",
    "blocks.0.moments.count",
    "blocks.0.moments.var.0",
    "blocks.1.scale",
    "blocks.1.running_mean",
    "blocks.1.moments.count",
    "blocks.1.moments.var.0",
    "temperature",
    "table",
]


def make(seed=0):
    return eqx.nn.make_with_state(Net)(jax.random.key(seed))


def make_trained():
    """Returns a net with different values in every array."""
    leaves, structure = jax.tree.flatten(make())
    numbers = [leaf + (i + 1) if eqx.is_array(leaf) else leaf for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, numbers)


def assert_identical(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert one[name].shape == other[name].shape, name
        assert one[name].tobytes() == other[name].tobytes(), name


def test_names_are_the_paths_of_arrays_and_state_values():
    assert list(to_tensors(*make())) == NAMES


def test_values_come_from_the_state_and_not_from_the_initial_values():
    model, state = make()
    state = state.set(model.blocks[1].running_mean, jnp.array([3.0, 4.0]))
    assert to_tensors(model, state)["blocks.1.running_mean"].tolist() == [3.0, 4.0]


def test_tensors_stay_when_the_device_buffer_is_donated():
    array = jax.jit(lambda x: x * 2)(jnp.ones(1000))
    tensors = to_tensors({"a": array}, eqx.nn.State({}))
    jax.jit(lambda x: x - 1, donate_argnums=0)(array).block_until_ready()
    assert (tensors["a"] == 2).all()


def test_tensors_are_contiguous():
    columns = np.arange(6.0).reshape(2, 3).T
    tensors = to_tensors({"columns": columns, "scalar": np.float32(3)}, eqx.nn.State({}))
    assert tensors["columns"].flags.c_contiguous
    assert tensors["columns"].tolist() == columns.tolist()
    assert tensors["scalar"].shape == ()


@pytest.mark.parametrize("abstract", [False, True])
def test_round_trip(abstract):
    model, state = make_trained()
    tensors = to_tensors(model, state)
    # Weak types must be kept and never introduced, because they decide the dtype of later arithmetic.
    empty = eqx.filter_eval_shape(eqx.nn.make_with_state(Net), jax.random.key(1)) if abstract else make(1)
    new_model, new_state = from_tensors(*empty, tensors)
    assert_identical(to_tensors(new_model, new_state), tensors)
    assert new_model.activation is jax.nn.relu
    assert new_model.rate == 0.5
    assert jax.tree.structure((new_model, new_state)) == jax.tree.structure((model, state))
    assert new_state.get(new_model.blocks[0].running_mean).tolist() == state.get(model.blocks[0].running_mean).tolist()
    assert isinstance(new_model.weight, jax.Array)
    assert new_model.temperature.weak_type
    assert not new_model.weight.weak_type
    assert not new_state.get(new_model.blocks[0].moments)["count"].weak_type


def aligned(size):
    """Returns zeros at an address that JAX on a CPU would use without copying."""
    memory = np.zeros(4 * size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + 4 * size].view(np.float32)


def test_the_filled_model_does_not_share_memory_with_the_tensors():
    tensors = {"jax": aligned(4096), "numpy": aligned(4)}
    model, _ = from_tensors({"jax": jnp.ones(4096), "numpy": np.ones(4, np.float32)}, eqx.nn.State({}), tensors)
    for array in tensors.values():
        array.fill(7)
    assert not model["jax"].any()
    assert not model["numpy"].any()


def test_restored_arrays_stay_on_the_device_they_were_put_on():
    device = jax.devices()[0]
    model, state = eqx.filter_shard(make(), device)
    put, _ = from_tensors(model, state, to_tensors(model, state))
    assert put.weight.committed
    assert put.weight.sharding == model.weight.sharding
    free, _ = from_tensors(*make(), to_tensors(*make()))
    assert not free.weight.committed


def test_a_model_can_be_filled_while_tracing():
    tensors = to_tensors(*make_trained())
    model, _ = eqx.filter_eval_shape(lambda seed: from_tensors(*make(seed), tensors), 0)
    assert model.weight.shape == (2, 3)


def test_model_without_arrays():
    model, state = eqx.nn.make_with_state(lambda: eqx.nn.Identity())()
    assert to_tensors(model, state) == {}
    assert from_tensors(model, state, {})[0] == model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("blocks.1.scale"), r"1 missing \(`blocks.1.scale`\)$"),
        (lambda t: t.update(extra=np.zeros(1)), r"1 unexpected \(`extra`\)$"),
        (
            lambda t: t.update({"weight": np.zeros((2, 1), np.float32)}),
            r"1 with a wrong shape \(`weight` is \[2, 1\], expected \[2, 3\]\)$",
        ),
        (
            lambda t: t.update({"blocks.0.scale": np.zeros(3, np.float32)}),
            r"1 with a wrong dtype \(`blocks.0.scale` is float32, expected bfloat16\)$",
        ),
        (
            lambda t: t.update({"weight": np.zeros((2, 3), np.float16)}),
            r"1 with a wrong dtype \(`weight` is float16, expected float32\)$",
        ),
        (lambda t: [t.pop(name) for name in NAMES[:5]], r"5 missing \((`[\w.]+`, ){4}`[\w.]+`\)$"),
        (lambda t: t.clear(), r"11 missing \((`[\w.]+`, ){5}\.\.\.\)$"),
        (
            lambda t: (t.pop("temperature"), t.update(extra=np.zeros(1))),
            r"1 missing \(`temperature`\); 1 unexpected \(`extra`\)$",
        ),
    ],
)
def test_mismatched_tensors_are_named(change, words):
    tensors = to_tensors(*make())
    change(tensors)
    with pytest.raises(InputError, match=words):
        from_tensors(*make(), tensors)


def test_duplicate_names_are_refused():
    with pytest.raises(InputError, match=r"two arrays have the name a\.b"):
        to_tensors({"a.b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}, eqx.nn.State({}))


TENSORS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.asarray(7, np.int32),
    "brain": np.array([1.5, -2.0, 3e38], ml_dtypes.bfloat16),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 3), np.float32),
}


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    save_safetensors(path, TENSORS, {"model": "lenet5"})
    assert_identical(load_safetensors(path), TENSORS)
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"model": "lenet5"}


def test_equal_contents_give_equal_bytes(tmp_path):
    metadata = {f"key {i}": "é" * i for i in range(8)}
    files = set()
    for i in range(6):
        mixed = dict(sorted(TENSORS.items(), reverse=i % 2 == 1))
        save_safetensors(tmp_path / f"{i}", mixed, dict(sorted(metadata.items(), reverse=i % 2 == 1)))
        files.add((tmp_path / f"{i}").read_bytes())
    assert len(files) == 1
    assert_identical(load_safetensors(tmp_path / "0"), TENSORS)


@pytest.mark.parametrize("length", range(8))
def test_data_starts_at_a_multiple_of_eight_bytes(tmp_path, length):
    save_safetensors(tmp_path / "a", TENSORS, {"note": "x" * length})
    assert int.from_bytes((tmp_path / "a").read_bytes()[:8], "little") % 8 == 0
    assert_identical(load_safetensors(tmp_path / "a"), TENSORS)


def test_no_tensors(tmp_path):
    save_safetensors(tmp_path / "a", {}, {})
    assert load_safetensors(tmp_path / "a") == {}


def test_unreadable_files_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    save_safetensors(path, TENSORS, {})
    whole = path.read_bytes()
    for cut in (0, 4, 8, 50, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"model\.safetensors` is not a complete safetensors file"):
            load_safetensors(path)
    path.write_text("torch, as a pickle " * 9)
    with pytest.raises(InputError, match=r"model\.safetensors` is not a complete safetensors file"):
        load_safetensors(path)
    with pytest.raises(InputError, match=r"nothing` cannot be read: No such file or directory$"):
        load_safetensors(tmp_path / "nothing")
    with pytest.raises(InputError, match=r" is not a regular file"):
        load_safetensors(tmp_path)


def write_header(path, header, data=b"", length=None):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(content) if length is None else length).to_bytes(8, "little") + content + data)


def describe(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ((b"{}", b"", 10**12), "header too large"),
        ((TWICE, b"abcd"), "the header of .* `a` appears twice"),
        (({"a": describe([1], [0, 4]), "b": describe([1], [0, 4])}, b"abcd"), "invalid offset"),
        (({"a": describe([2**63, 2], [0, 4])}, b"abcd"), "overflow"),
        (({"a": describe([0, 2**62, 2**62], [0, 0])},), "is not a complete safetensors file"),
        (({"a": describe([1] * 100, [0, 4])}, b"abcd"), "is not a complete safetensors file"),
        (({"a": describe([4], [0, 4], "F8_E4M3")}, b"abcd"), "a tensor of a type that NumPy lacks"),
        ((b'{"a":' * 100_000,), "recursion limit"),
    ],
)
def test_hostile_headers_are_refused(tmp_path, written, message):
    path = tmp_path / "model.safetensors"
    write_header(path, *written)
    with pytest.raises(InputError, match=message):
        load_safetensors(path)


def test_a_sparse_file_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(10**11)
    with pytest.raises(InputError, match="has 100000000000 bytes: the limit is"):
        load_safetensors(path)


@contextlib.contextmanager
def largest_file(size):
    """Makes writing fail after `size` bytes of a file, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path, big: bool):
    if path.suffix == ".safetensors":
        save_safetensors(path, {"a": np.zeros(100_000 if big else 1)}, {})
    else:
        write_text_atomically(path, "ü" * (100_000 if big else 1))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_failed_write_keeps_the_old_file(tmp_path, name):
    path = tmp_path / name
    write(path, big=False)
    old = path.read_bytes()
    with largest_file(4096), pytest.raises(InputError, match=rf"{name}` cannot be written: File too large$"):
        write(path, big=True)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    write(path, big=True)
    assert path.stat().st_size > 100_000


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_files_are_replaced_in_one_step(tmp_path, name):
    path = tmp_path / name
    write(path, big=False)
    with path.open("rb") as reader:
        old = path.read_bytes()
        write(path, big=True)
        assert reader.read() == old


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no/config\.json` cannot be written: No such file or directory$"):
        write_text_atomically(tmp_path / "no" / "config.json", "{}")


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text_atomically(tmp_path / "text", "größer\n")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "größer\n"
    assert (tmp_path / "text").stat().st_mode == (tmp_path / "plain").stat().st_mode
