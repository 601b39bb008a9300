"""`python -m benchmarks.scaling`: the extra time per step with several processes, and the predicted speed on many GPUs.

Trains with the same global batch in 1, 2 and 4 processes on this machine. The processes exchange sums over the loopback
interface. No case uses oneDNN, because oneDNN needs a single device. The processes share the machine's cores, so more
processes are not faster. Instead, a step takes longer, because the processes exchange sums, wait at each sum for the
slowest process, and compete for the cores. The column "bytes" is the total size of the sums over all devices in one
step: gradients, BatchNorm's statistics, and metrics. The second table shows the predicted speed of ResNet-50 on many
GPUs; see [Planning](many_machines.md#planning) for the formulas.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import equinox as eqx
import jax
import numpy as np
import tyro

from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.cost import count_parameters
from eqxcnn.errors import InputError
from eqxcnn.layers import BatchNorm

from .markdown import format_number
from .timing import RESULTS, ResultTable, check_options, spread, write_tables

#: Bytes of a float32.
_FLOAT = 4


@dataclass(frozen=True)
class Options:
    """Measure the cost of several processes, and plan runs on many GPUs."""

    model: str = "resnet20"
    """The model to train, on 32x32 images."""
    batch_size: int = 64
    """Images per step, of all processes together."""
    processes: tuple[int, ...] = (1, 2, 4)
    """Numbers of processes to measure."""
    steps: int = 20
    """Steps per measurement."""
    rounds: int = 3
    """Measurements of each number of processes, in turns."""
    gpu_images_per_second: float = 2500.0
    """Plan: images per second that one GPU trains ResNet-50 on; an assumption, to be replaced by a measurement."""
    gpu_batch: int = 256
    """Plan: images per step and GPU."""
    node_gigabytes: float = 450.0
    """Plan: gigabytes per second that a GPU sends to another one in the same machine (NVLink 4: 450)."""
    network_gigabytes: float = 50.0
    """Plan: gigabytes per second that a GPU sends to another machine (InfiniBand NDR: 400 Gbit/s = 50)."""
    latency_microseconds: float = 20.0
    """Plan: time for a message between two GPUs in different machines; within a machine, a message takes a fifth."""
    core_images_per_second: float = 380.0
    """Plan: photographs that one CPU core decodes and crops to 224x224 per second; see `benchmarks.photographs`."""
    cores_per_gpu: int = 12
    """Plan: CPU cores for each GPU."""
    out: Path = RESULTS / "scaling.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, makes the plan, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.scaling", args=arguments)
    check_options(options.rounds, options.out)
    if bad := [count for count in options.processes if options.batch_size % count]:
        raise InputError(f"`batch_size` (={options.batch_size}) must be a multiple of {bad[0]} `processes`")
    found: dict[int, list[Any]] = {count: [] for count in options.processes}
    for turn in range(options.rounds):
        for count in options.processes[:: 1 if turn % 2 == 0 else -1]:
            found[count].append(measure_processes(options, count))
    title = f"`{options.model}`, {options.batch_size} images per step; and a plan for `resnet50` at 224x224"
    write_tables("scaling", title, arguments, [make_measured(found), make_plan(options)], options.out)


def measure_processes(options: Options, count: int) -> dict[str, Any]:
    """Runs `count` processes; returns the seconds per step, and the bytes and seconds of the sums over processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    size = (options.model, str(options.batch_size), str(options.steps))
    with TemporaryDirectory() as logs:
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.scaling_worker", logs, coordinator, str(count), str(index), *size],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "EQXCNN_ONEDNN": "0"},
            )
            for index in range(count)
        ]  # fmt: skip
        printed = [worker.communicate() for worker in workers]
        if any(worker.returncode for worker in workers):
            logged = "".join(path.read_text(encoding="utf-8") for path in Path(logs).glob("*.log"))
            raise RuntimeError(printed[0][1] + logged)
    return json.loads(printed[0][0].splitlines()[-1])


def make_measured(found: Mapping[int, Sequence[Mapping[str, Any]]]) -> ResultTable:
    """Returns the table of step times by number of processes; each time is also compared with that of the first row."""
    lines = []
    base = None
    for count, rounds in found.items():
        step = [1e3 * float(np.median(each["steps"])) for each in rounds]
        exchange = [1e3 * float(np.median(each["sum_seconds"])) for each in rounds]
        sums = rounds[0]["sums"] if count > 1 else []
        base = np.array(step) if base is None else base
        median, low, high = spread(step)
        lines.append(
            (
                str(count), format_number(median), f"{format_number(low)} to {format_number(high)}",
                format_number(float(np.median(np.array(step) - base))), str(len(sums)), f"{sum(sums):,}",
                format_number(float(np.median(exchange))),
            )
        )  # fmt: skip
    head = ("processes", "ms per step", "quartiles", "ms more than with the fewest", "sums", "bytes", "ms for one sum")
    return ResultTable((*head[:-1], "ms for one sum of these bytes"), lines)


@dataclass(frozen=True)
class Plan:
    """The predicted speed of a run.

    - `compute`, `communicate`: milliseconds per step for a GPU's own work, and for the sums over all GPUs.
    - `images`, `efficiency`: images per second if no sum overlaps with other work, and the ratio of this speed to the
      speed without sums.
    - `best_efficiency`: the efficiency if the sums of the gradients overlap with the backward pass.
    - `input_images`: images per second that the CPUs decode.
    """

    compute: float
    communicate: float
    images: float
    efficiency: float
    best_efficiency: float
    input_images: float


def plan(options: Options, machines: int, gpus: int, gradient_bytes: int, norm_bytes: int, norms: int) -> Plan:
    """Predicts the speed of a run on `machines` machines with `gpus` GPUs each.

    A ring of n GPUs sums s bytes in 2 (n - 1) messages of s / n bytes (Patarasuk and Yuan 2009, "Bandwidth optimal
    all-reduce algorithms for clusters of workstations", section 4). With several machines, NCCL sums within each
    machine first, so that each GPU sends 1 / gpus of the bytes over the network.

    **Arguments:**

    - `gradient_bytes`: bytes of all gradients, which are summed together.
    - `norm_bytes`, `norms`: bytes of BatchNorm's statistics, and number of sums for them; none of these sums can
      overlap with other work.
    """
    far = options.latency_microseconds * 1e-6
    near = far / 5

    def ring(size: float, count: int, gigabytes: float, latency: float) -> float:
        return 2 * (count - 1) * (size / count / (gigabytes * 1e9) + latency)

    def add(size: float) -> float:
        between = ring(size / gpus, machines, options.network_gigabytes, far) if machines > 1 else 0.0
        return ring(size, gpus, options.node_gigabytes, near) + between

    compute = options.gpu_batch / options.gpu_images_per_second
    gradients, statistics = add(gradient_bytes), norms * add(norm_bytes / norms)
    count = machines * gpus
    # The backward pass takes two thirds of a step, and can hide the sums of gradients but for the last layer's.
    hidden = compute + statistics + max(gradients - 2 / 3 * compute, 0)
    step = compute + gradients + statistics
    input_images = options.core_images_per_second * options.cores_per_gpu * count
    return Plan(
        1e3 * compute, 1e3 * (gradients + statistics), count * options.gpu_batch / step, compute / step,
        compute / hidden, input_images,
    )  # fmt: skip


def make_plan(options: Options) -> ResultTable:
    """Returns the table of predicted speeds of ResNet-50."""
    model, _ = eqx.filter_eval_shape(lambda key: zoo.create_model("resnet50", key=key), jax.random.key(0))
    gradient_bytes = count_parameters(model) * _FLOAT
    norms = [
        node for node in jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, BatchNorm))
        if isinstance(node, BatchNorm)
    ]  # fmt: skip
    channels = sum(node.weight.size for node in norms if node.weight is not None)
    # Forward: sums of values and squares. Backward: their two gradients.
    sizes = (gradient_bytes, 4 * channels * _FLOAT, 2 * len(norms))
    lines = []
    for machines, gpus in ((1, 1), (1, 8), (8, 8)):
        found = plan(options, machines, gpus, *sizes)
        limit = "input" if found.input_images < found.images else "GPUs"
        lines.append(
            (
                f"{machines} x {gpus}", format_number(found.compute), format_number(found.communicate),
                f"{found.images:,.0f}", f"{found.efficiency:.1%}", f"{found.best_efficiency:.1%}",
                f"{found.input_images:,.0f}", limit,
            )
        )  # fmt: skip
    head = (
        "machines x GPUs", "ms of computing", "ms of sums", "images/s", "efficiency", "if sums overlap",
        "images/s of the input", "limit",
    )  # fmt: skip
    return ResultTable(head, lines)


if __name__ == "__main__":
    run_command(main)
