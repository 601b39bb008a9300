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


def start(channels=3):
    model, state = eqx.nn.make_with_state(Net)(channels)
    opt_state = optax.adam(1e-3).init(eqx.filter(model, eqx.is_inexact_array))
    sums = {"correct": jnp.asarray(7, jnp.int32), "none yet": jnp.zeros((0, 2))}
    return TrainState(model, state, opt_state, jnp.asarray(0, jnp.int32), sums, "net")


def after(steps, tree=None):
    """A state that differs in every array from the one of any other step."""
    leaves, structure = jax.tree.flatten(start() if tree is None else tree)
    moved = [(leaf + steps * 0.3).astype(leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if eqx.is_array(a):
            assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert a == b


def files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def restore_silently(folder, like):
    told = []
    found = Checkpoints(folder).restore_latest(like, told.append)
    assert told == []
    return found


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A folder with checkpoints of steps 9 and 10; to be copied."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(9, after(9))
    checkpoints.save(10, after(10))
    return folder


@pytest.fixture
def folder(two_steps, tmp_path):
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))


def test_round_trip_is_exact(folder):
    step, tree = restore_silently(folder, start())
    assert step == 10
    same(tree, after(10))


def test_abstract_trees_are_filled_too(folder):
    _, tree = restore_silently(folder, eqx.filter_eval_shape(start))
    same(tree, after(10))


def test_no_checkpoint_yet(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.steps() == ()
    assert checkpoints.restore_latest(start()) is None


def test_only_the_newest_are_kept_in_the_order_of_numbers(tmp_path):
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


def test_later_steps_of_another_run_are_left_alone(folder):
    Checkpoints(folder, keep=1).save(5, after(5))
    assert Checkpoints(folder).steps() == (5, 9, 10)


def test_a_step_saved_twice_is_replaced(folder):
    Checkpoints(folder).save(10, after(11))
    assert sorted(os.listdir(folder)) == ["10", "9"]
    same(restore_silently(folder, start())[1], after(11))


def test_other_recipes_are_refused_by_name(folder):
    with pytest.raises(
        InputError, match=r"/10` does not fit .* with another shape .*`model.weight` is \[5, 3\], expected \[5, 4\]"
    ):
        Checkpoints(folder).restore_latest(start(4))
    with pytest.raises(InputError, match=r"missing \(`extra`\).* unexpected .*`model.weight`"):
        Checkpoints(folder).restore_latest({"extra": jnp.ones(1)})


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_one_byte(path):
    os.truncate(path, path.stat().st_size - 1)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [halve, cut_one_byte, zero, flip_a_bit, Path.unlink])
def test_damage_to_any_file_is_noticed_and_the_one_before_used(folder, tmp_path, damage):
    names = files(folder / "10")
    assert len(names) >= 6
    for name in names:
        broken = Path(shutil.copytree(folder, tmp_path / "broken"))
        damage(broken / "10" / name)
        told = []
        step, tree = Checkpoints(broken).restore_latest(start(), told.append)
        assert step == 9, name
        same(tree, after(9))
        assert len(told) == 1
        assert f"`{broken / '10'}` is damaged" in told[0]
        assert "SHA256SUMS" in told[0]
        assert name.name == "SHA256SUMS" or f"(`{name}` does not match" in told[0]
        assert "\n" not in told[0]
        shutil.rmtree(broken)


def test_without_a_listener_damage_is_a_warning(folder):
    shutil.rmtree(folder / "10" / "d")
    with pytest.warns(UserWarning, match=r"/10` is damaged"):
        Checkpoints(folder).restore_latest(start())


def test_when_all_are_damaged_the_folder_is_named(folder):
    for step in ("9", "10"):
        (folder / step / "SHA256SUMS").unlink()
    told = []
    with pytest.raises(InputError, match=rf"^every checkpoint in `{folder}` is damaged"):
        Checkpoints(folder).restore_latest(start(), told.append)
    assert len(told) == 2


def test_damaged_ones_do_not_count_among_those_kept(folder):
    halve(folder / "10" / "_METADATA")
    checkpoints = Checkpoints(folder, keep=2)
    assert checkpoints.restore_latest(start(), lambda line: None)[0] == 9
    checkpoints.save(12, after(12))
    assert checkpoints.steps() == (9, 12)
    same(restore_silently(folder, start())[1], after(12))


def test_a_damaged_one_is_replaced_when_its_step_comes_again(folder):
    halve(folder / "10" / "_METADATA")
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.restore_latest(start(), lambda line: None)
    checkpoints.save(10, after(10))
    checkpoints.save(11, after(11))
    assert checkpoints.steps() == (10, 11)


def test_a_full_disk_is_told_before_anything_is_written(folder, monkeypatch, capfd):
    full = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(
        InputError,
        match=rf"step 11 cannot be written to `{folder}`: No space left on device; .* of step 10 is still there$",
    ):
        Checkpoints(folder).save(11, after(11))
    assert sorted(os.listdir(folder)) == ["10", "9"]
    same(restore_silently(folder, start())[1], after(10))
    assert capfd.readouterr().err == ""


def test_a_disk_that_fills_up_meanwhile_leaves_the_others(folder):
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
    same(restore_silently(folder, start())[1], after(10))
    Checkpoints(folder).save(11, after(11))
    same(restore_silently(folder, start())[1], after(11))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/checkpoints`: Not a directory; there is no earlier one$"):
        Checkpoints(tmp_path / "file" / "checkpoints").save(1, {"a": jnp.ones(1)})


def run(code, *arguments):
    """Runs code in a process of its own, without the tests' import hook."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


FRESH = """
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


def test_a_fresh_process_reads_them_says_nothing_and_ends(tmp_path):
    Checkpoints(tmp_path).save(1, {"a": jnp.array([1.0, 2.0, 3.0]), "b": [jnp.asarray(4, jnp.int32)]})
    ended = run(FRESH, tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert Checkpoints(tmp_path).steps() == (5, 6)


# Forks a process for each of the file operations of a save, which kills itself just before that operation.
KILLED = """
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


def test_a_killed_save_leaves_whole_checkpoints_only(tmp_path):
    origin, out = tmp_path / "origin", tmp_path / "out"
    out.mkdir()
    like = {"a": np.zeros(3000, int), "b": np.asarray(0)}
    checkpoints = Checkpoints(origin)
    for step in (8, 9):
        checkpoints.save(step, {"a": np.full(3000, step), "b": np.asarray(step)})
    ended = run(KILLED, origin, out, 4)
    assert ended.returncode == 0, ended.stderr
    seen = set()
    for folder in sorted(out.iterdir(), key=lambda path: int(path.name)):
        step, tree = restore_silently(folder, like)
        assert (tree["a"] == step).all()
        assert tree["b"] == step
        seen.add(step)
        Checkpoints(folder).save(11, {"a": np.full(3000, 11), "b": np.asarray(11)})
        assert restore_silently(folder, like)[0] == 11
        assert sorted(os.listdir(folder)) == sorted([str(step), "11"])
    assert seen == {9, 10}
    assert len(list(out.iterdir())) >= 6
