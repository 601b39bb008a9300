import json
import os
import sys

import jax
import pytest

from benchmarks import throughput
from benchmarks.apart import Apart
from benchmarks.peers import flax_steps
from benchmarks.workloads import SUITES, Workload
from eqxcnn import zoo
from eqxcnn.errors import InputError

try:
    from flax import nnx
except AttributeError:
    # Flax 0.12 asks JAX for a name that it no longer has from 0.12 on; before that, this is a fault.
    if jax.__version_info__ < (0, 12):
        raise
    nnx = None
needs_nnx = pytest.mark.skipif(nnx is None, reason="Flax NNX, as installed, cannot be imported beside this JAX")
#: Flax's forms that can be imported, and what they are called in the results.
FLAX = {"linen": "Flax linen"} | ({} if nnx is None else {"nnx": "Flax NNX"})


@pytest.fixture(autouse=True)
def memory_as_it_is(monkeypatch):
    """What the benchmark asks of the allocator would hold for all tests behind it in this process."""
    monkeypatch.setattr(throughput, "keep_freed_memory", lambda: None)


@pytest.mark.parametrize(("step", "lead"), [(0.05, [4]), (3.0, [])])
def test_a_case_takes_some_steps_before_those_that_are_timed(step, lead, monkeypatch):
    taken = []
    monkeypatch.setattr(throughput, "perf_counter", lambda: step * sum(taken))
    case = throughput._repeated(taken.append, seconds=0.4, steps=1)
    taken.clear()
    if case.before is not None:
        case.before()
    assert taken == lead
    case.call()
    assert taken[len(lead) :] == [round(1 / case.scale)] == [8 if lead else 1]


@needs_nnx
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({each.net for each in SUITES["cpu"].values()}))
def test_the_peers_in_nnx_are_the_same_networks(name):
    from benchmarks.peers.nnx import NETS

    params = nnx.eval_shape(lambda: nnx.state(NETS[name](nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == zoo.card(name).params


def test_the_throughput_benchmark_from_end_to_end(tmp_path, capsys):
    out = tmp_path / "throughput.json"
    options = ["--only", "mlp_64", "--peers", *FLAX, "--rounds", "2", "--seconds", "0.01"]
    throughput.main([*options, "--out", str(out)])
    written = json.loads(out.read_text())
    assert list(written["times"]) == [f"mlp_64, {words}" for words in ("eqxcnn", *FLAX.values())]
    assert list(written["ratios"]) == ["mlp_64, the best Flax / mlp_64, eqxcnn"]
    # A step that is not waited for would be there in microseconds.
    assert all(low > 0.1 for _, low, _ in written["times"].values())


def test_what_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no workload `mlp` in `cpu`, only mlp_64"):
        throughput.main(["--only", "mlp"])
    with pytest.raises(InputError, match="`gpu` knows no `linen`, only torch, torch_compiled"):
        throughput.main(["--suite", "gpu", "--peers", "linen"])
    with pytest.raises(InputError, match=r"`batch` \(=0\) must be from 1 to 2048"):
        throughput.main(["--only", "mlp_64", "--batch", "0"])
    monkeypatch.setitem(sys.modules, "benchmarks.peers.nnx", None)
    with pytest.raises(InputError, match="Flax NNX cannot be imported"):
        flax_steps.nnx(SUITES["cpu"]["mlp_64"])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="pip install torch"):
        throughput.main(["--only", "mlp_64", "--peers", "torch"])


def counting(path):
    """Made in another process: writes down there how often it is called for how much."""

    def take(count):
        if count < 0:
            raise ValueError("it cannot go back")
        path.write_text(f"{path.read_text() if path.exists() else ''}{count} ")

    return take


def refused():
    raise InputError("no such thing")


def test_what_is_made_in_a_process_apart_is_called_there(tmp_path):
    apart = Apart()
    first, second = (apart.make(counting, tmp_path / name) for name in ("first", "second"))
    for take, count in ((first, 3), (second, 5), (first, 2)):
        take(count)
    # It has been waited for.
    assert (tmp_path / "first").read_text() == "3 2 "
    assert (tmp_path / "second").read_text() == "5 "
    with pytest.raises(RuntimeError, match=r"(?s)in take\n.*ValueError: it cannot go back"):
        first(-1)
    with pytest.raises(InputError, match="no such thing"):
        apart.make(refused)
    with pytest.raises(InputError, match=r"a process that was compared with has died.*memory"):
        apart.make(os._exit, 1)


@pytest.mark.slow
def test_the_suite_for_accelerators_at_a_small_size(tmp_path, monkeypatch):
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(throughput._PEAKS, kind, 0.001)
    out = tmp_path / "gpu.json"
    options = ["--suite", "gpu", "--only", "wrn_28_10_256", "--batch", "1", "--rounds", "2", "--seconds", "0.01"]
    throughput.main([*options, "--peers", "--out", str(out)])
    written = json.loads(out.read_text())
    ((head, ((name, speed, share),)),) = ((each["head"], each["lines"]) for each in written["tables"])
    assert head == [f"{kind} (peak: 0.001 TFLOP/s)", "images/s", "share of the peak"]
    assert name == "wrn_28_10_1, eqxcnn"
    # A step of one image takes three times the 5.24 billion multiply-adds of its forward pass, of two operations each.
    expected = float(speed) * 6 * 5.24e9 / 1e9
    assert float(share.rstrip("%")) / 100 == pytest.approx(expected, rel=0.01)


def test_a_step_in_bfloat16_keeps_its_weights_in_float32():
    steps = throughput._ours(Workload("lenet", 4, "momentum", precision="bf16", image_size=20, steps=2))
    steps(4)
    train = next(cell.cell_contents for cell in steps.__closure__ if isinstance(cell.cell_contents, list))[0]
    assert int(train.step) == 4
    assert {leaf.dtype.name for leaf in jax.tree.leaves(train.model) if leaf.ndim} == {"float32"}
