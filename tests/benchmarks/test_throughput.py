import json
import os
import sys

import jax
import pytest

from benchmarks import gpu_tables, throughput, trainer_step
from benchmarks.peers import flax_steps
from benchmarks.timing import ResultTable
from benchmarks.worker_process import WorkerProcess
from benchmarks.workloads import SUITES, Workload
from eqxcnn import zoo
from eqxcnn.errors import InputError

try:
    from flax import nnx
except AttributeError:
    # Flax 0.12 uses a name that JAX 0.12 has removed; with an older JAX this is an error.
    if jax.__version_info__ < (0, 12):
        raise
    nnx = None
needs_nnx = pytest.mark.skipif(nnx is None, reason="the installed Flax NNX cannot be imported with this JAX")
#: Flax's APIs that can be imported, and their names in the results.
FLAX = {"linen": "Flax linen"} | ({} if nnx is None else {"nnx": "Flax NNX"})


@pytest.fixture(autouse=True)
def default_allocator(monkeypatch):
    """Prevents the benchmark from changing the allocator of the test process."""
    monkeypatch.setattr(trainer_step, "keep_freed_memory", lambda: None)


@pytest.fixture
def in_process(monkeypatch):
    """Builds the steps of all libraries in this process, which saves the imports of one process per library."""

    class InProcess:
        def build(self, builder, *arguments):
            return builder(*arguments)

        def close(self):
            pass

    monkeypatch.setattr(throughput, "WorkerProcess", InProcess)


@pytest.mark.parametrize(("step", "lead"), [(0.05, [4]), (3.0, [])])
def test_a_case_takes_some_steps_before_those_that_are_timed(step, lead, monkeypatch):
    taken = []
    monkeypatch.setattr(throughput, "perf_counter", lambda: step * sum(taken))
    case = throughput._make_case(taken.append, seconds=0.4, steps=1)
    taken.clear()
    if case.before is not None:
        case.before()
    assert taken == lead
    case.call()
    assert taken[len(lead) :] == [round(1 / case.scale)] == [8 if lead else 1]


@needs_nnx
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(net, marks=pytest.mark.slow if net == "mobilenet_v2_cifar" else ())
        for net in sorted({workload.net for workload in SUITES["cpu"].values()})
    ],
)
def test_the_nnx_networks_have_the_published_parameter_counts(name):
    from benchmarks.peers.nnx import NETS

    params = nnx.eval_shape(lambda: nnx.state(NETS[name](nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == zoo.card(name).params


@pytest.mark.slow
def test_the_throughput_benchmark_from_end_to_end(tmp_path, in_process):
    out = tmp_path / "throughput.json"
    options = ["--only", "mlp_64", "--peers", *FLAX, "--rounds", "2", "--seconds", "0.01"]
    throughput.main([*options, "--out", str(out)])
    written = json.loads(out.read_text())
    assert list(written["times"]) == [f"mlp_64, {label}" for label in ("eqxcnn", *FLAX.values())]
    assert list(written["ratios"]) == ["mlp_64, fastest Flax / mlp_64, eqxcnn"]
    # A step that is not waited for would take microseconds.
    assert all(low > 0.1 for _, low, _ in written["times"].values())


def test_unknown_names_and_missing_libraries_are_refused(monkeypatch):
    with pytest.raises(InputError, match=r"`only` \(='mlp'\) must be among the workloads of `cpu`: mlp_64"):
        throughput.main(["--only", "mlp"])
    with pytest.raises(InputError, match=r"`peers` \(='linen'\) must be among the peers of `gpu`: torch, torch_comp"):
        throughput.main(["--suite", "gpu", "--peers", "linen"])
    with pytest.raises(InputError, match=r"`batch` \(=0\) must be from 1 to 2048"):
        throughput.main(["--only", "mlp_64", "--batch", "0"])
    with pytest.raises(InputError, match=r"`image_size` \(=1025\) must be from 1 to 1024"):
        throughput.main(["--only", "mlp_64", "--image-size", "1025"])
    monkeypatch.setitem(sys.modules, "benchmarks.peers.nnx", None)
    with pytest.raises(InputError, match="Flax NNX, which cannot be imported"):
        flax_steps.nnx(SUITES["cpu"]["mlp_64"])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="pip install torch"):
        throughput.main(["--only", "mlp_64", "--peers", "torch"])


def record_calls(path):
    """Builds a function that appends its argument to a file; the worker process calls the builder and the function."""

    def run_steps(count):
        if count < 0:
            raise ValueError("a count is never negative")
        path.write_text(f"{path.read_text() if path.exists() else ''}{count} ")
        return 10 * count

    return run_steps


def refuse():
    raise InputError("no such thing")


@pytest.mark.slow
def test_functions_built_in_a_worker_process_are_called_there(tmp_path):
    worker = WorkerProcess()
    first, second = (worker.build(record_calls, tmp_path / name) for name in ("first", "second"))
    for run_steps, count in ((first, 3), (second, 5), (first, 2)):
        assert run_steps(count) == 10 * count
    # Each call has returned after the function.
    assert (tmp_path / "first").read_text() == "3 2 "
    assert (tmp_path / "second").read_text() == "5 "
    with pytest.raises(RuntimeError, match=r"(?s)in run_steps\n.*ValueError: a count is never negative"):
        first(-1)
    with pytest.raises(InputError, match="no such thing"):
        worker.build(refuse)
    with pytest.raises(InputError, match=r"worker process of a compared library has died.*memory"):
        worker.build(os._exit, 1)


def test_the_fraction_of_the_peak_counts_three_forward_passes(monkeypatch):
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(gpu_tables._PEAK_TFLOPS, kind, 100)
    workloads = [Workload("wrn_28_10", 256, "momentum"), Workload("resnet18", 8, "momentum", image_size=32)]
    seconds = {"wrn_28_10_256, eqxcnn": [0.2, 0.1, 9.0], "wrn_28_10_256, torch": [0.4], "resnet18_8, eqxcnn": [2.0]}
    # The median step of 0.2 s has 1280 images/s, each of 3 * 5.24 billion multiply-adds of two operations.
    rows = [
        ("wrn_28_10_256, eqxcnn", "1,280", "40.3%"),
        ("wrn_28_10_256, torch", "640", "20.1%"),
        ("resnet18_8, eqxcnn", "4.00", "-"),
    ]
    head = (f"{kind} (peak: 100 TFLOP/s)", "images/s", "fraction of peak")
    speeds, memory = gpu_tables.make_gpu_tables(workloads, {"a_1, ours": 3 * 2**29, "a_1, torch": None}, seconds)
    assert speeds == ResultTable(head, rows)
    assert memory.lines == [("a_1, ours", "1.50"), ("a_1, torch", "unknown")]


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA L4", 121), ("NVIDIA L40", None), ("NVIDIA L40S", 362), ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 80GB HBM3", 989), ("TPU v5 lite", 197), ("cpu", None),
    ],
)  # fmt: skip
def test_the_peak_is_found_by_whole_words(kind, peak):
    assert gpu_tables.find_peak(kind) == peak


def test_batch_and_image_size_of_a_workload_are_options():
    options = throughput.Options(suite="gpu", only=("resnet18_256",), batch=2, image_size=32)
    (workload,) = throughput._select_workloads(options)
    assert (workload.name, workload.input) == ("resnet18_2", (32, 32, 3))


# `test_beside_torch.py` runs the suite together with PyTorch, with a smaller network.
@pytest.mark.exhaustive
def test_the_gpu_suite_runs_at_a_small_size(tmp_path, in_process):
    out = tmp_path / "gpu.json"
    options = ["--suite", "gpu", "--only", "resnet18_256", "--batch", "2", "--image-size", "32", "--rounds", "2"]
    throughput.main([*options, "--seconds", "0.01", "--peers", "--out", str(out)])
    written = json.loads(out.read_text())
    assert list(written["times"]) == ["resnet18_2, eqxcnn"]
    assert [row[0] for row in written["tables"][0]["lines"]] == ["resnet18_2, eqxcnn"]


@pytest.mark.slow
def test_a_bfloat16_step_keeps_its_weights_in_float32():
    run_steps = trainer_step.build_trainer_steps(
        Workload("lenet", 4, "momentum", precision="bf16", image_size=20, steps=2)
    )
    run_steps(4)
    train = next(cell.cell_contents for cell in run_steps.__closure__ if isinstance(cell.cell_contents, list))[0]
    assert int(train.step) == 4
    assert {leaf.dtype.name for leaf in jax.tree.leaves(train.model) if leaf.ndim} == {"float32"}
