"""Checkpoints of several processes; threads of this process stand for the processes."""

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from eqxcnn.errors import InputError
from eqxcnn.recipe import Recipe
from eqxcnn.runs.checkpoints import Checkpoints
from eqxcnn.runs.shared import _SharedCheckpoints, check_same_data, check_same_recipe
from eqxcnn.runtime.peers import Peers


@pytest.fixture
def peers():
    """The two processes of a run."""
    sockets = socket.socketpair()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda index: Peers(index, 2, {1 - index: sockets[index]}), range(2)))
    yield found
    for each in found:
        # `leave` would end this process after a test that failed.
        each._left.update((0, 1))


def call_both(function, peers):
    """Calls a function in each process; returns each call's result or `InputError`."""

    def call(each):
        try:
            return function(each)
        except InputError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(call, peers))


def save(folder, trees, steps=(3, 3)):
    def call(each):
        own = Checkpoints(folder) if each.is_first else None
        shared = _SharedCheckpoints(each, own)
        shared.save(steps[each.index], trees[each.index])
        return shared.steps()

    return call


def test_a_checkpoint_is_saved_once_if_all_have_the_same_weights(tmp_path, peers):
    tree = {"weight": np.arange(6.0).reshape(2, 3)}
    assert call_both(save(tmp_path / "all", (tree, {"weight": tree["weight"].copy()})), peers) == [(3,), (3,)]
    ((step, found), _) = (Checkpoints(tmp_path / "all").restore_latest(tree), None)
    assert step == 3
    np.testing.assert_array_equal(found["weight"], tree["weight"])


@pytest.mark.parametrize("difference", ["weights", "step"])
def test_a_checkpoint_is_not_saved_if_a_process_differs(tmp_path, peers, difference):
    tree = {"weight": np.arange(6.0)}
    other = {"weight": np.nextafter(tree["weight"], 9.0)} if difference == "weights" else tree
    found = call_both(save(tmp_path / "all", (tree, other), (3, 4 if difference == "step" else 3)), peers)
    for error in found:
        assert "process 1 has other weights than process 0 after step" in str(error)
    assert not (tmp_path / "all").exists()


def test_all_processes_hear_that_a_checkpoint_cannot_be_written(tmp_path, peers):
    (tmp_path / "all").write_text("no folder")
    tree = {"weight": np.arange(6.0)}
    for error in call_both(save(tmp_path / "all", (tree, tree)), peers):
        assert "the checkpoint of step 3 cannot be written" in str(error)


def test_other_recipes_and_data_are_refused_by_name(peers):
    recipes = (Recipe(model="mlp", seed=1), Recipe(model="mlp", seed=2))
    for error in call_both(lambda each: check_same_recipe(each, recipes[each.index], {}), peers):
        assert str(error).startswith("process 1 has a different recipe than process 0: `seed` (2 and 1);")
    for error in call_both(lambda each: check_same_data(each, "ab"[each.index]), peers):
        assert str(error).startswith("the `data` of process 1 differ from those of process 0")
    assert call_both(lambda each: check_same_recipe(each, recipes[0], {}), peers) == [None, None]
