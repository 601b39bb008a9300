"""`python -m benchmarks.throughput`: training steps beside the same networks in Flax linen, Flax NNX and PyTorch.

Each library trains the same network with the same batch, optimizer and precision, written as a competent user of it
would, in a process of its own that has done nothing else; PyTorch eager and compiled, channels first and last. Ours is
the whole step of the trainer, in memory that the trainer sets up: it takes the batch from the images on the device,
divides and normalizes its bytes, and sums the metrics; the others are given floating point images that are ready. Each
runs for a moment before it is timed.

`--suite gpu` is for accelerators: larger networks in bfloat16, ten steps of ours in one call, beside PyTorch with
channels last and autocast; images a second, and their share of the chip's peak. It has been tried on a CPU at small
sizes only: all figures below are a CPU's.
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
import jax.numpy as jnp
import numpy as np
import tyro

from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.runtime.compile import async_jit
from eqxcnn.runtime.memory import keep_freed_memory
from eqxcnn.training.step import train_steps

from .apart import Apart
from .markdown import number
from .our_step import our_step
from .peers import flax_steps
from .timing import RESULTS, Benchmark, Case, Ratio, Rows, check, measure, tell
from .workloads import FLAX_TARGET_NEWEST, SUITES, Workload

#: Seconds that a case runs before it is timed, roughly; one whose step takes much longer does not.
_LEAD = 0.2
#: Images that batches are taken from.
_IMAGES = 2048
#: Dense bfloat16 TFLOP/s by the start of a device's name, from the makers' data sheets.
_PEAKS = {
    "NVIDIA H200": 989, "NVIDIA H100 PCIe": 756, "NVIDIA H100": 989, "NVIDIA A100": 312, "NVIDIA L40S": 362,
    "NVIDIA L4": 121, "TPU v6 lite": 918, "TPU v5 lite": 197, "TPU v5": 459, "TPU v4": 275,
}  # fmt: skip


class Maker(NamedTuple):
    """What a case is called, and what makes a function that takes so many steps and waits for the last."""

    words: str
    make: Callable[[Workload], Callable[[int], None]]


@dataclass(frozen=True)
class Options:
    """Times training steps of the same networks in several libraries; needs Flax and PyTorch."""

    suite: Literal["cpu", "gpu"] = "cpu"
    """Small networks in float32, or large ones in bfloat16."""
    only: tuple[str, ...] = ()
    """The workloads, `network_batch`; by default all of the suite."""
    peers: tuple[str, ...] | None = None
    """What to compare with, of linen, nnx, torch and torch_compiled; by default all, in `gpu` both forms of torch."""
    batch: int | None = None
    """Images a step; by default the workload's."""
    image_size: int | None = None
    """Side of the images in pixels; by default the network's."""
    rounds: int = 5
    """How often everything is timed."""
    seconds: float = 0.4
    """How long a case runs in a round, roughly."""
    out: Path | None = None
    """The file that the results go to; by default `throughput.json`, or `throughput_gpu.json`."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.throughput", args=arguments)
    if options.suite == "gpu":
        # All libraries share the accelerator, so none may take most of it at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    out = options.out or RESULTS / f"throughput{'_gpu' * (options.suite == 'gpu')}.json"
    check(options.rounds, out)
    workloads, peers = _chosen(options), _peers(options)
    seconds: dict[str, list[float]] = {}
    ratios: list[Ratio] = []
    for workload in workloads:
        cases = _cases(workload, peers, options.seconds)
        ratios += _ratios(workload, list(cases.values.keys()))
        try:
            seconds |= measure(cases.values, options.rounds, warm_up=False)
        finally:
            cases.close()
    title = "Milliseconds of a training step of the same network in several libraries"
    tables = partial(_shares, workloads) if options.suite == "gpu" else None
    tell(Benchmark("throughput", title, arguments, "ms", {}, ratios, tables=tables), seconds, out)


def _chosen(options: Options) -> list[Workload]:
    """The suite's workloads, as the options change them."""
    known = SUITES[options.suite]
    for name in options.only:
        if name not in known:
            raise InputError(f"`only`: there is no workload `{name}` in `{options.suite}`, only {', '.join(known)}")
    changes = {name: getattr(options, name) for name in ("batch", "image_size") if getattr(options, name) is not None}
    for name, value in changes.items():
        if not 0 < value <= _IMAGES:
            raise InputError(f"`{name}` (={value}) must be from 1 to {_IMAGES}")
    if options.suite == "gpu" and jax.default_backend() == "cpu":
        # Loops around convolutions are slow there.
        changes["steps"] = 1
    return [known[name]._replace(**changes) for name in options.only or known]


def _peers(options: Options) -> dict[str, list[Maker]]:
    """What makes the steps that are compared with, those of a library together; ours is the first."""
    by_suite = {"cpu": ("linen", "nnx", "torch", "torch_compiled"), "gpu": ("torch", "torch_compiled")}
    known = by_suite[options.suite]
    asked = known if options.peers is None else options.peers
    for name in asked:
        if name not in known:
            raise InputError(f"`peers`: `{options.suite}` knows no `{name}`, only {', '.join(known)}")
    found = {"ours": [Maker("eqxcnn", _ours)]}
    for name, words, maker in (("linen", "Flax linen", flax_steps.linen), ("nnx", "Flax NNX", flax_steps.nnx)):
        if name in asked:
            found[name] = [Maker(words, maker)]
    if forms := [form for form, name in (("eager", "torch"), ("compiled", "torch_compiled")) if name in asked]:
        if find_spec("torch") is None or find_spec("torchvision") is None:
            raise InputError("`peers`: PyTorch is not installed: `pip install torch==2.13.0 torchvision==0.28.0`")
        found["torch"] = [
            Maker(f"torch {form}{' channels last' * (channels == 'last')}", partial(_torch_step, form, channels))
            for channels in (("first", "last") if options.suite == "cpu" else ("last",))
            for form in forms
        ]
    return found


def _torch_step(form: str, channels: str, workload: Workload) -> Callable[[int], None]:
    # Imported in its own process only.
    from .peers.torch_steps import torch_step

    return torch_step(workload, form, channels)


class Cases(NamedTuple):
    """What is timed of a workload, by name, and what ends its processes."""

    values: dict[str, Case]
    close: Callable[[], None]


def _cases(workload: Workload, peers: Mapping[str, Sequence[Maker]], seconds: float) -> Cases:
    """Each library's steps of a workload, in a process that has done nothing else."""
    processes = {library: Apart() for library in peers}

    def close() -> None:
        for each in processes.values():
            each.close()

    # Dense networks have no channels to put last.
    makers = [
        (processes[library], maker)
        for library, each in peers.items()
        for maker in each
        if workload.net != "mlp" or "channels last" not in maker.words
    ]
    try:
        with ThreadPoolExecutor(len(processes)) as pool:
            takes = list(pool.map(lambda pair: pair[0].make(pair[1].make, workload), makers))
        return Cases(
            {
                f"{workload.name}, {maker.words}": _repeated(
                    take, seconds, workload.steps if maker.make is _ours else 1
                )
                for (_, maker), take in zip(makers, takes, strict=True)
            },
            close,
        )
    except BaseException:
        close()
        raise


def _ratios(workload: Workload, names: Sequence[str]) -> list[Ratio]:
    """The best of each other library over ours."""
    found = []
    # From JAX 0.12 on its convolutions are threaded as they come, for Flax as well.
    flax_target = workload.flax_target if jax.__version_info__ < (0, 12) else FLAX_TARGET_NEWEST
    for library, target in (("torch", workload.torch_target), ("Flax", flax_target)):
        over = tuple(name for name in names if f", {library}" in name)
        if over:
            wanted = None if target is None else f">= {target}"
            found.append(Ratio(over, f"{workload.name}, eqxcnn", wanted, f"{workload.name}, the best {library}"))
    return found


def _repeated(take: Callable[[int], None], seconds: float, steps: int) -> Case:
    """As many calls of `steps` as take about so long, told as the time of one step; compiled and warm before that."""
    take(steps)
    # The first one after compilation is often slow.
    for tries in (1, 2):
        started = perf_counter()
        take(tries * steps)
        took = (perf_counter() - started) / tries
        if took > seconds:
            break
    count = steps * max(1, round(seconds / took))
    # Caches hold what ran before, and a core that was idle is slow at first: neither is this case's own.
    lead = steps * round(_LEAD / took)
    return Case(lambda: take(count), 1 / count, (lambda: take(lead)) if lead else None)


def _ours(workload: Workload) -> Callable[[int], None]:
    """The trainer's own step, its images on the device, in memory set up as the trainer does."""
    keep_freed_memory()
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.integers(0, 256, (_IMAGES, *workload.input), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, _IMAGES, dtype=np.int32))
    setup, train = our_step(workload.net, workload.optax(), (pixels, labels), workload.precision, workload.image_size)
    carried = [train]
    call = async_jit(train_steps, donate=True)
    rows = np.stack([rng.permutation(_IMAGES)[: workload.batch] for _ in range(workload.steps)]).astype(np.int32)

    def take(steps: int) -> None:
        for _ in range(steps // workload.steps):
            carried[0] = call(setup, carried[0], rows)
        jax.block_until_ready(carried[0].sums.loss)

    return take


def _shares(workloads: Sequence[Workload], seconds: Mapping[str, Sequence[float]]) -> list[Rows]:
    """Images a second, and the share of the chip's peak: forward's multiply-adds, and twice as many backward."""
    kind = jax.devices()[0].device_kind
    peak = next((peak for start, peak in _PEAKS.items() if kind.startswith(start)), None)
    lines = []
    for workload in workloads:
        for name, values in seconds.items():
            if name.startswith(f"{workload.name}, "):
                speed = workload.batch / float(np.median(values))
                share = "-"
                if peak is not None and workload.image_size is None:
                    share = f"{6 * zoo.card(workload.net).multiply_adds * speed / (peak * 1e12):.1%}"
                lines.append((name, number(speed), share))
    told = "unknown" if peak is None else f"{peak} TFLOP/s"
    return [Rows((f"{kind} (peak: {told})", "images/s", "share of the peak"), lines)]


if __name__ == "__main__":
    run_command(main)
