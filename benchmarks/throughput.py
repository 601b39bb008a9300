"""`python -m benchmarks.throughput`: training steps beside the same networks in Flax linen, Flax NNX and PyTorch.

Each library trains the same network with the same batch, optimiser and precision, written as a competent user of it
would, in a process of its own; PyTorch eager and compiled, channels first and last. Ours is the whole step of the
trainer, in memory that the trainer sets up: it takes the batch from the images on the device, divides and normalises
its bytes, and sums the metrics; the others are given floating point images that are ready.

`--suite gpu` is for accelerators: larger networks in bfloat16, ten steps of ours in one call, beside PyTorch with
channels last and autocast; images a second, and their share of the chip's peak. It has been tried on a CPU at small
sizes only: all figures below are a CPU's.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.training.compile import compiled
from eqxcnn.training.memory import keep_freed_memory
from eqxcnn.training.step import train_steps

from .apart import Apart
from .markdown import number
from .our_step import our_step
from .peers import flax_steps
from .timing import RESULTS, Benchmark, Case, Ratio, Rows, run
from .workloads import SUITES, Workload

#: Images that batches are taken from.
_IMAGES = 2048
#: Dense bfloat16 TFLOP/s by the start of a device's name, from the makers' data sheets.
_PEAKS = {
    "NVIDIA H200": 989, "NVIDIA H100 PCIe": 756, "NVIDIA H100": 989, "NVIDIA A100": 312, "NVIDIA L40S": 362,
    "NVIDIA L4": 121, "TPU v6 lite": 918, "TPU v5 lite": 197, "TPU v5": 459, "TPU v4": 275,
}  # fmt: skip


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
    # As the trainer does.
    keep_freed_memory()
    workloads = _chosen(options)
    peers = _peers(options)
    cases: dict[str, Case] = {}
    ratios: list[Ratio] = []
    for workload in workloads:
        _add(workload, peers, options.seconds, cases, ratios)
    title = "Milliseconds of a training step of the same network in several libraries"
    benchmark = Benchmark("throughput", title, arguments, "ms", cases, ratios, warm_up=False)
    if options.suite == "gpu":
        benchmark = replace(benchmark, tables=partial(_shares, workloads))
    out = options.out or RESULTS / f"throughput{'_gpu' * (options.suite == 'gpu')}.json"
    run(benchmark, options.rounds, out)


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


def _peers(options: Options) -> dict[str, Callable[[Workload], Callable[[int], None]]]:
    """What makes the step of each library, in that library's own process."""
    by_suite = {"cpu": ("linen", "nnx", "torch", "torch_compiled"), "gpu": ("torch", "torch_compiled")}
    known = by_suite[options.suite]
    asked = known if options.peers is None else options.peers
    for name in asked:
        if name not in known:
            raise InputError(f"`peers`: `{options.suite}` knows no `{name}`, only {', '.join(known)}")
    found = {}
    for name, words, maker in (("linen", "Flax linen", flax_steps.linen), ("nnx", "Flax NNX", flax_steps.nnx)):
        if name in asked:
            found[words] = partial(Apart().make, maker)
    if forms := [form for form, name in (("eager", "torch"), ("compiled", "torch_compiled")) if name in asked]:
        found |= _torch(forms, ("first", "last") if options.suite == "cpu" else ("last",))
    return found


def _torch(forms: Sequence[str], orders: Sequence[str]) -> dict[str, Callable[[Workload], Callable[[int], None]]]:
    """Each form of torch; they share a process."""
    if find_spec("torch") is None or find_spec("torchvision") is None:
        raise InputError("`peers`: PyTorch is not installed: `pip install torch==2.13.0 torchvision==0.28.0`")
    there = Apart()

    def maker(form: str, channels: str) -> Callable[[Workload], Callable[[int], None]]:
        # Imported over there only: by its name.
        return lambda workload: there.make(_torch_step, workload, form, channels)

    return {
        f"torch {form}{' channels last' * (channels == 'last')}": maker(form, channels)
        for channels in orders
        for form in forms
    }


def _torch_step(workload: Workload, form: str, channels: str) -> Callable[[int], None]:
    from .peers.torch_steps import torch_step

    return torch_step(workload, form, channels)


def _add(
    workload: Workload,
    peers: Mapping[str, Callable[[Workload], Callable[[int], None]]],
    seconds: float,
    cases: dict[str, Case],
    ratios: list[Ratio],
) -> None:
    """The cases of one workload and the ratios between them."""
    ours, named = f"{workload.name}, eqxcnn", {}
    cases[ours] = _repeated(_ours(workload), seconds, workload.steps)
    for library, make in peers.items():
        # Dense networks have no channels to put last.
        if workload.net != "mlp" or "channels last" not in library:
            named[f"{workload.name}, {library}"] = _repeated(make(workload), seconds, 1)
    cases |= named
    for library, target in (("torch", workload.torch_target), ("Flax", workload.flax_target)):
        over = tuple(name for name in named if f", {library}" in name)
        if over:
            wanted = None if target is None else f">= {target}"
            ratios.append(Ratio(over, ours, wanted, f"{workload.name}, the best {library}"))


def _repeated(take: Callable[[int], None], seconds: float, steps: int) -> Case:
    """As many calls of `steps` as take about so long, told as the time of one step; compiled and warm before that."""
    take(steps)
    started = perf_counter()
    # The first one after compilation is often slow.
    take(2 * steps)
    count = steps * max(1, round(2 * seconds / (perf_counter() - started)))
    return Case(lambda: take(count), 1 / count)


def _ours(workload: Workload) -> Callable[[int], None]:
    """The trainer's own step, its images on the device."""
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.integers(0, 256, (_IMAGES, *workload.input), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, _IMAGES, dtype=np.int32))
    setup, train = our_step(workload.net, workload.optax(), (pixels, labels), workload.precision, workload.image_size)
    carried = [train]
    call = compiled(train_steps, donate=True)
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
