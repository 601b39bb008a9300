import json
import sys

import jax
import pytest

from benchmarks import throughput
from eqxcnn import zoo
from eqxcnn.errors import InputError

try:
    from flax import nnx
except (ImportError, AttributeError):
    nnx = None
needs_nnx = pytest.mark.skipif(nnx is None, reason="Flax NNX, as installed, cannot be imported beside this JAX")


@pytest.fixture(autouse=True)
def memory_as_it_is(monkeypatch):
    """What the benchmark asks of the allocator would hold for all tests behind it in this process."""
    monkeypatch.setattr(throughput, "keep_freed_memory", lambda: None)


@needs_nnx
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({each.net for each in throughput.WORKLOADS.values()}))
def test_the_peers_in_nnx_are_the_same_networks(name):
    from benchmarks.peers.nnx import NETS

    params = nnx.eval_shape(lambda: nnx.state(NETS[name](nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == zoo.card(name).params


@needs_nnx
def test_the_throughput_benchmark_from_end_to_end(tmp_path, capsys):
    out = tmp_path / "throughput.json"
    options = ["--only", "mlp_64", "--peers", "linen", "nnx", "--rounds", "2", "--seconds", "0.01"]
    throughput.main([*options, "--out", str(out)])
    written = json.loads(out.read_text())
    assert list(written["times"]) == ["mlp_64, eqxcnn", "mlp_64, Flax linen", "mlp_64, Flax NNX"]
    assert list(written["ratios"]) == ["mlp_64, the best Flax / mlp_64, eqxcnn"]
    # A step that is not waited for would be there in microseconds.
    assert all(low > 0.1 for _, low, _ in written["times"].values())


def test_what_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no workload `mlp`, only mlp_64"):
        throughput.main(["--only", "mlp"])
    monkeypatch.setitem(sys.modules, "benchmarks.peers.nnx", None)
    with pytest.raises(InputError, match="Flax NNX cannot be imported"):
        throughput.main(["--only", "mlp_64", "--peers", "nnx"])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="pip install torch"):
        throughput.main(["--only", "mlp_64", "--peers", "torch"])
