import json

import jax
import pytest

from benchmarks import compile
from benchmarks.peers import linen
from eqxcnn import zoo
from eqxcnn.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize("name", linen.NETS)
def test_the_peers_are_the_same_networks(name):
    images = jax.ShapeDtypeStruct((2, *zoo.card(name).input), "float32")
    variables = jax.eval_shape(linen.NETS[name].init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == zoo.card(name).params


def test_a_network_without_a_peer_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no peer of `googlenet`, only of mlp"):
        compile.main(["--nets", "googlenet", "--out", str(tmp_path / "compile.json")])


@pytest.mark.slow
def test_the_compile_benchmark_from_end_to_end(tmp_path, capsys):
    compile.main(["--nets", "resnet20", "--rounds", "2", "--out", str(tmp_path / "compile.json")])
    written = json.loads((tmp_path / "compile.json").read_text())
    assert written["targets"] == {"resnet20, eqxcnn / resnet20, Flax linen": "<= 1.5"}
    # A step that Equinox or JAX remembered would be there in a hundredth of that.
    assert all(low > 0.5 for _, low, _ in written["times"].values())
