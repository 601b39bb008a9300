import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import PyTree

from eqxcnn.errors import InputError
from eqxcnn.runs.checkpoints import Checkpoints


class Net(eqx.Module):
    weight: jax.Array
    half: jax.Array
    running_mean: eqx.nn.StateIndex
    moments: eqx.nn.StateIndex
    activation: Callable

    def __init__(self, channels):
        self.weight = jnp.linspace(-1, 1, 5 * channels).reshape(5, channels)
        self.half = jnp.linspace(-1, 1, channels).astype(jnp.bfloat16)
        self.running_mean = eqx.nn.StateIndex(jnp.full(channels, 0.1))
        self.moments = eqx.nn.StateIndex((jnp.zeros(channels), jnp.ones(channels)))
        self.activation = jax.nn.relu


class TrainState(eqx.Module):
    model: Net
    state: eqx.nn.State
    opt_state: PyTree
    step: jax.Array
    sums: dict
    name: str


def make_state(channels=3):
    model, state = eqx.nn.make_with_state(Net)(channels)
    opt_state = optax.adam(1e-3).init(eqx.filter(model, eqx.is_inexact_array))
    sums = {"correct": jnp.asarray(7, jnp.int32), "none yet": jnp.zeros((0, 2))}
    return TrainState(model, state, opt_state, jnp.asarray(0, jnp.int32), sums, "net")


def state_at(steps, tree=None):
    """Returns a state whose arrays all differ from those of any other step."""
    leaves, structure = jax.tree.flatten(make_state() if tree is None else tree)
    shifted = [(leaf + steps * 0.3).astype(leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves]
    return jax.tree.unflatten(structure, shifted)


def assert_identical(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if eqx.is_array(a):
            assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert a == b


def list_files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def restore_without_warning(folder, like):
    messages = []
    restored = Checkpoints(folder).restore_latest(like, messages.append)
    assert messages == []
    return restored


@pytest.fixture(scope="module")
def saved_folder(tmp_path_factory):
    """A folder with checkpoints of steps 9 and 10; the fixture `folder` copies it for each test."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(9, state_at(9))
    checkpoints.save(10, state_at(10))
    return folder


@pytest.fixture
def folder(saved_folder, tmp_path):
    return Path(shutil.copytree(saved_folder, tmp_path / "checkpoints"))


def test_round_trip_is_exact(folder):
    step, tree = restore_without_warning(folder, make_state())
    assert step == 10
    assert_identical(tree, state_at(10))


def test_abstract_trees_are_restored(folder):
    _, tree = restore_without_warning(folder, eqx.filter_eval_shape(make_state))
    assert_identical(tree, state_at(10))


def test_folder_without_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.steps() == ()
    assert checkpoints.restore_latest(make_state()) is None


def test_only_the_highest_steps_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "two", keep=2)
    one = Checkpoints(tmp_path / "one", keep=1)
    for step in (8, 9, 10, 100):
        checkpoints.save(step, {"a": jnp.asarray(step)})
        one.save(step, {"a": jnp.asarray(step)})
    assert checkpoints.steps() == (10, 100)
    assert one.steps() == (100,)
    assert sorted(os.listdir(tmp_path / "two")) == ["10", "100"]
    with pytest.raises(InputError, match=r"`keep` \(=0\) must be at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_later_steps_are_not_deleted(folder):
    Checkpoints(folder, keep=1).save(5, state_at(5))
    assert Checkpoints(folder).steps() == (5, 9, 10)


def test_saving_a_step_again_replaces_it(folder):
    Checkpoints(folder).save(10, state_at(11))
    assert sorted(os.listdir(folder)) == ["10", "9"]
    assert_identical(restore_without_warning(folder, make_state())[1], state_at(11))


def test_mismatched_trees_are_refused_with_the_tensor_names(folder):
    with pytest.raises(
        InputError, match=r"/10` does not fit .* with a wrong shape .*`model.weight` is \[5, 3\], expected \[5, 4\]"
    ):
        Checkpoints(folder).restore_latest(make_state(4))
    with pytest.raises(InputError, match=r"missing \(`extra`\).* unexpected .*`model.weight`"):
        Checkpoints(folder).restore_latest({"extra": jnp.ones(1)})


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_one_byte(path):
    os.truncate(path, path.stat().st_size - 1)


def fill_with_zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [halve, cut_one_byte, fill_with_zeros, flip_a_bit, Path.unlink])
def test_damage_to_any_file_falls_back_to_the_previous_checkpoint(folder, tmp_path, damage):
    names = list_files(folder / "10")
    assert len(names) >= 6
    for name in names:
        broken = Path(shutil.copytree(folder, tmp_path / "broken"))
        damage(broken / "10" / name)
        messages = []
        step, tree = Checkpoints(broken).restore_latest(make_state(), messages.append)
        assert step == 9, name
        assert_identical(tree, state_at(9))
        assert len(messages) == 1
        assert f"`{broken / '10'}` is damaged" in messages[0]
        assert "SHA256SUMS" in messages[0]
        assert name.name == "SHA256SUMS" or f"(`{name}` does not match" in messages[0]
        assert "\n" not in messages[0]
        shutil.rmtree(broken)


def write_checksums(checkpoint):
    lines = [
        f"{hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()}  {name.as_posix()}\n"
        for name in list_files(checkpoint)
        if name.name != "SHA256SUMS"
    ]
    (checkpoint / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"tree_metadata": 5}', '{"tree_metadata": {"a": {}}}', "[" * 100_000]
)
def test_metadata_that_orbax_does_not_understand_is_damage(folder, text):
    (folder / "10" / "_METADATA").write_text(text)
    write_checksums(folder / "10")
    messages = []
    step, tree = Checkpoints(folder).restore_latest(make_state(), messages.append)
    assert step == 9
    assert_identical(tree, state_at(9))
    assert len(messages) == 1
    assert f"`{folder / '10'}` is damaged" in messages[0]


def test_arrays_of_another_shape_are_named_without_being_read(folder, monkeypatch):
    import orbax.checkpoint as ocp

    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda *_: pytest.fail("an array was read"))
    with pytest.raises(InputError, match=r"`model.weight` is \[5, 3\], expected \[5, 4\]"):
        Checkpoints(folder).restore_latest(make_state(channels=4))


def test_damage_without_a_callback_is_a_warning(folder):
    shutil.rmtree(folder / "10" / "d")
    with pytest.warns(UserWarning, match=r"/10` is damaged"):
        Checkpoints(folder).restore_latest(make_state())


def test_error_names_the_folder_if_every_checkpoint_is_damaged(folder):
    for step in ("9", "10"):
        (folder / step / "SHA256SUMS").unlink()
    messages = []
    with pytest.raises(InputError, match=rf"^every checkpoint in `{folder}` is damaged"):
        Checkpoints(folder).restore_latest(make_state(), messages.append)
    assert len(messages) == 2


def test_damaged_checkpoints_do_not_count_towards_keep(folder):
    halve(folder / "10" / "_METADATA")
    checkpoints = Checkpoints(folder, keep=2)
    assert checkpoints.restore_latest(make_state(), lambda line: None)[0] == 9
    checkpoints.save(12, state_at(12))
    assert checkpoints.steps() == (9, 12)
    assert_identical(restore_without_warning(folder, make_state())[1], state_at(12))


def test_damaged_checkpoint_is_replaced_when_its_step_is_saved_again(folder):
    halve(folder / "10" / "_METADATA")
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.restore_latest(make_state(), lambda line: None)
    checkpoints.save(10, state_at(10))
    checkpoints.save(11, state_at(11))
    assert checkpoints.steps() == (10, 11)


def test_full_disk_is_reported_before_anything_is_written(folder, monkeypatch, capfd):
    full = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(
        InputError,
        match=rf"step 11 cannot be written to `{folder}`: No space left on device; .* of step 10 is still there$",
    ):
        Checkpoints(folder).save(11, state_at(11))
    assert sorted(os.listdir(folder)) == ["10", "9"]
    assert_identical(restore_without_warning(folder, make_state())[1], state_at(10))
    assert capfd.readouterr().err == ""


def test_disk_that_fills_up_during_a_save_keeps_earlier_checkpoints(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"a": np.random.default_rng(0).standard_normal(100_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(
            InputError, match=r"step 11 cannot be written .*: File too large; .* step 10 is still there$"
        ):
            Checkpoints(folder).save(11, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(folder)) == ["10", "9"]
    assert_identical(restore_without_warning(folder, make_state())[1], state_at(10))
    Checkpoints(folder).save(11, state_at(11))
    assert_identical(restore_without_warning(folder, make_state())[1], state_at(11))


def test_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/checkpoints`: Not a directory; there is no earlier one$"):
        Checkpoints(tmp_path / "file" / "checkpoints").save(1, {"a": jnp.ones(1)})


def run_python(code, *arguments):
    """Runs code in a separate process, without the import hook of the tests."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


RESTORE_SCRIPT = """
import sys
from pathlib import Path
import jax.numpy as jnp
from eqxcnn.runs.checkpoints import Checkpoints

assert not any(name.startswith("orbax") for name in sys.modules)
checkpoints = Checkpoints(Path(sys.argv[1]))
step, tree = checkpoints.restore_latest({"a": jnp.zeros(3), "b": [jnp.zeros((), jnp.int32)]})
assert tree["a"].tolist() == [1, 2, 3] and tree["b"][0] == 4
for step in range(2, 7):
    checkpoints.save(step, tree)
"""


def test_new_process_restores_and_saves_without_output(tmp_path):
    Checkpoints(tmp_path).save(1, {"a": jnp.array([1.0, 2.0, 3.0]), "b": [jnp.asarray(4, jnp.int32)]})
    process = run_python(RESTORE_SCRIPT, tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert Checkpoints(tmp_path).steps() == (5, 6)


# Forks one process per file operation of a save; each process kills itself just before that operation.
KILL_SCRIPT = """
import os, shutil, signal, sys
from pathlib import Path
import numpy as np
import orbax.checkpoint
from eqxcnn.runs.checkpoints import Checkpoints

origin, out, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

def save(number):
    folder = Path(shutil.copytree(origin, out / str(number)))
    left = number
    def count(event, arguments):
        nonlocal left
        if event in EVENTS or (event == "open" and "r" not in str(arguments[1]) and str(out) in str(arguments[0])):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    Checkpoints(folder).save(10, {"a": np.full(3000, 10), "b": np.asarray(10)})

for number in range(0, 1000, stride):
    child = os.fork()
    if child == 0:
        save(number)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.mark.slow
def test_killed_save_leaves_only_complete_checkpoints(tmp_path):
    origin, out = tmp_path / "origin", tmp_path / "out"
    out.mkdir()
    like = {"a": np.zeros(3000, int), "b": np.asarray(0)}
    checkpoints = Checkpoints(origin)
    for step in (8, 9):
        checkpoints.save(step, {"a": np.full(3000, step), "b": np.asarray(step)})
    process = run_python(KILL_SCRIPT, origin, out, 4)
    assert process.returncode == 0, process.stderr
    restored_steps = set()
    for folder in sorted(out.iterdir(), key=lambda path: int(path.name)):
        step, tree = restore_without_warning(folder, like)
        assert (tree["a"] == step).all()
        assert tree["b"] == step
        restored_steps.add(step)
        Checkpoints(folder).save(11, {"a": np.full(3000, 11), "b": np.asarray(11)})
        assert restore_without_warning(folder, like)[0] == 11
        assert sorted(os.listdir(folder)) == sorted([str(step), "11"])
    assert restored_steps == {9, 10}
    assert len(list(out.iterdir())) >= 6
