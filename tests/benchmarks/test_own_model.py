"""`benchmarks.own_model`."""

import json

import equinox as eqx
import jax
import pytest

from benchmarks import own_model
from eqxcnn import zoo
from eqxcnn.cost import count_parameters


def test_own_network_has_the_parameters_of_the_zoos():
    own = own_model.OwnNetwork(key=jax.random.key(0))
    assert count_parameters(own) == zoo.card("mnist_cnn").params
    assert isinstance(own, eqx.Module)


@pytest.mark.slow
def test_both_networks_are_timed(tmp_path):
    own_model.main(["--steps", "2", "--rounds", "2", "--out", f"{tmp_path}/own.json"])
    record = json.loads((tmp_path / "own.json").read_text())
    assert set(record["times"]) == {"own", "zoo"}
