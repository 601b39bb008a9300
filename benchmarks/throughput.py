"""`python -m benchmarks.throughput`: training steps of the same networks in eqxcnn, Flax linen, Flax NNX and PyTorch.

Every library trains the same network with the same batch size, optimizer and precision, in a fresh process of its own,
with the code that an experienced user would write. PyTorch runs eagerly and compiled, with channels first and with
channels last. Each case runs briefly before it is timed. Our case is the trainer's whole step, with the trainer's
memory settings: the step gathers the batch from the images on the device, normalizes the `uint8` pixels and sums the
metrics. The other libraries get floating-point images that are already normalized.

`--suite gpu` is for accelerators. It compares eqxcnn with PyTorch on larger networks in bfloat16. PyTorch uses channels
last and autocast; each call of our trainer runs ten steps. The suite reports images per second, the fraction of the
chip's peak, and the peak device memory of each library's process. `benchmarks/gpu.sh` first trains `airbench94` with
five seeds, and then runs this suite. So far, the suite has been run only on a CPU at small sizes: all figures below are
from a CPU.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Literal, NamedTuple

import jax
import tyro

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError

from .gpu_tables import build_memory_reader, make_gpu_tables
from .peers import flax_steps
from .timing import RESULTS, Benchmark, Case, Ratio, check_options, measure, report
from .torch_loader import TORCH_PACKAGES
from .trainer_step import NUM_IMAGES, build_trainer_steps
from .worker_process import WorkerProcess
from .workloads import FLAX_TARGET_NEWEST, SUITES, Workload

#: Approximate seconds that a case runs before it is timed; cases with much longer steps skip this.
_LEAD_SECONDS = 0.2
#: Larger images would not fit: `NUM_IMAGES` RGB images of this side take 6 GiB.
_MAX_IMAGE_SIZE = 1024
#: A function that runs a number of training steps and waits for the last one.
RunSteps = Callable[[int], None]


class StepBuilder(NamedTuple):
    """A case's name in the results, and a function that builds the steps of a workload."""

    label: str
    build: Callable[[Workload], RunSteps]


@dataclass(frozen=True)
class Options:
    """Measure training steps of the same networks in several libraries; needs Flax and PyTorch."""

    suite: Literal["cpu", "gpu"] = "cpu"
    """Small networks in float32, or large ones in bfloat16."""
    only: tuple[str, ...] = ()
    """Workloads, named `network_batch`; by default all of the suite."""
    peers: tuple[str, ...] | None = None
    """Libraries to compare with: linen, nnx, torch and torch_compiled in `cpu`, only the last two in `gpu`; by default
    all of the suite."""
    batch: int | None = None
    """Images per step; by default the workload's."""
    image_size: int | None = None
    """Side of the images in pixels; by default the network's."""
    rounds: int = 5
    """Measurements of each case."""
    seconds: float = 0.4
    """Approximate duration of one measurement."""
    out: Path | None = None
    """Path of the results file; by default `throughput.json` or `throughput_gpu.json`."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.throughput", args=arguments)
    if options.suite == "gpu":
        # The libraries share the accelerator, so JAX must not reserve most of its memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    out = options.out or RESULTS / f"throughput{'_gpu' * (options.suite == 'gpu')}.json"
    check_options(options.rounds, out)
    workloads, builders = _select_workloads(options), _select_builders(options)
    seconds: dict[str, list[float]] = {}
    ratios: list[Ratio] = []
    memory: dict[str, int | None] = {}
    for workload in workloads:
        cases = _start_cases(workload, builders, options.seconds)
        ratios += _make_ratios(workload, list(cases.by_name))
        try:
            seconds |= measure(cases.by_name, options.rounds, warm_up=False)
            memory |= cases.read_memory()
        finally:
            cases.close()
    title = "Milliseconds per training step of the same network in several libraries"
    make_tables = partial(make_gpu_tables, workloads, memory) if options.suite == "gpu" else None
    report(Benchmark("throughput", title, arguments, "ms", {}, ratios, make_tables=make_tables), seconds, out)


def _select_workloads(options: Options) -> list[Workload]:
    """Returns the selected workloads of the suite, with the options applied."""
    known = SUITES[options.suite]
    for name in options.only:
        if name not in known:
            raise InputError(f"`only` (={name!r}) must be among the workloads of `{options.suite}`: {', '.join(known)}")
    changes = {name: getattr(options, name) for name in ("batch", "image_size") if getattr(options, name) is not None}
    limits = {"batch": NUM_IMAGES, "image_size": _MAX_IMAGE_SIZE}
    for name, value in changes.items():
        if not 0 < value <= limits[name]:
            raise InputError(f"`{name}` (={value}) must be from 1 to {limits[name]}")
    if options.suite == "gpu" and jax.default_backend() == "cpu":
        # On a CPU, loops around convolutions are slow.
        changes["steps"] = 1
    return [known[name]._replace(**changes) for name in options.only or known]


def _select_builders(options: Options) -> dict[str, list[StepBuilder]]:
    """Returns the step builders of each library, ours first; builders of one library share a process."""
    by_suite = {"cpu": ("linen", "nnx", "torch", "torch_compiled"), "gpu": ("torch", "torch_compiled")}
    known = by_suite[options.suite]
    selected = known if options.peers is None else options.peers
    for name in selected:
        if name not in known:
            raise InputError(f"`peers` (={name!r}) must be among the peers of `{options.suite}`: {', '.join(known)}")
    builders = {"ours": [StepBuilder("eqxcnn", build_trainer_steps)]}
    for name, label, build in (("linen", "Flax linen", flax_steps.linen), ("nnx", "Flax NNX", flax_steps.nnx)):
        if name in selected:
            builders[name] = [StepBuilder(label, build)]
    if forms := [form for form, name in (("eager", "torch"), ("compiled", "torch_compiled")) if name in selected]:
        if find_spec("torch") is None or find_spec("torchvision") is None:
            raise InputError(f"`peers` includes PyTorch, which is not installed: run `pip install {TORCH_PACKAGES}`")
        builders["torch"] = [
            StepBuilder(
                f"torch {form}{' channels last' * (channels == 'last')}", partial(_build_torch_steps, form, channels)
            )
            for channels in (("first", "last") if options.suite == "cpu" else ("last",))
            for form in forms
        ]
    return builders


def _build_torch_steps(form: str, channels: str, workload: Workload) -> RunSteps:
    # Imported only in the worker process.
    from .peers.torch_steps import torch_step

    return torch_step(workload, form, channels)


class Cases(NamedTuple):
    """A workload's cases by name, and functions that read the memory of the processes and end the processes."""

    by_name: dict[str, Case]
    read_memory: Callable[[], dict[str, int | None]]
    close: Callable[[], None]


def _start_cases(workload: Workload, builders: Mapping[str, Sequence[StepBuilder]], seconds: float) -> Cases:
    """Builds the steps of a workload in every library, in a fresh process for each library."""
    processes = {library: WorkerProcess() for library in builders}

    def close() -> None:
        for process in processes.values():
            process.close()

    def read_memory() -> dict[str, int | None]:
        peaks = {library: process.build(build_memory_reader, library) for library, process in processes.items()}
        return {f"{workload.name}, {library}": read(0) for library, read in peaks.items()}

    # A network without convolutions has no channel layout.
    selected = [
        (processes[library], builder)
        for library, of_library in builders.items()
        for builder in of_library
        if workload.net != "mlp" or "channels last" not in builder.label
    ]
    try:
        with ThreadPoolExecutor(len(processes)) as pool:
            steps = list(pool.map(lambda pair: pair[0].build(pair[1].build, workload), selected))
        cases = {}
        for (_, builder), run_steps in zip(selected, steps, strict=True):
            per_call = workload.steps if builder.build is build_trainer_steps else 1
            cases[f"{workload.name}, {builder.label}"] = _make_case(run_steps, seconds, per_call)
        return Cases(cases, read_memory, close)
    except BaseException:
        close()
        raise


def _make_ratios(workload: Workload, names: Sequence[str]) -> list[Ratio]:
    """Returns the ratio of each other library's fastest case to our case."""
    ratios = []
    # From version 0.12 on, JAX runs convolutions in several threads, for Flax as well.
    flax_target = workload.flax_target if jax.__version_info__ < (0, 12) else FLAX_TARGET_NEWEST
    for library, target in (("torch", workload.torch_target), ("Flax", flax_target)):
        cases = tuple(name for name in names if f", {library}" in name)
        if cases:
            label = f"{workload.name}, fastest {library}"
            ratios.append(Ratio(cases, f"{workload.name}, eqxcnn", None if target is None else f">= {target}", label))
    return ratios


def _make_case(run_steps: RunSteps, seconds: float, steps: int) -> Case:
    """Compiles and warms up the steps, then returns a case that reports the time per step.

    One call of the case runs a multiple of `steps` steps, and takes about `seconds` seconds.
    """
    run_steps(steps)
    # The first call after compilation is often slow.
    for tries in (1, 2):
        started = perf_counter()
        run_steps(tries * steps)
        call_seconds = (perf_counter() - started) / tries
        if call_seconds > seconds:
            break
    count = steps * max(1, round(seconds / call_seconds))
    # The caches hold another case's data, and an idle core starts slowly; neither belongs to this case's time.
    lead = steps * round(_LEAD_SECONDS / call_seconds)
    return Case(lambda: run_steps(count), 1 / count, (lambda: run_steps(lead)) if lead else None)


if __name__ == "__main__":
    run_command(main)
