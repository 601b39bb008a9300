"""One process of a run that `benchmarks.scaling` measures; process 0 prints the measurements as JSON."""

import json
import re
import sys
import warnings
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqxcnn.data import from_arrays
from eqxcnn.runtime.processes import join_processes
from eqxcnn.training import Recipe, prepare
from eqxcnn.training.epochs import compile_steps
from eqxcnn.training.parts import make_parts

#: Bytes of an element of the types that XLA names in its programs.
_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1, "s8": 1, "f64": 8, "s64": 8, "u64": 8}


def main(logs: str, coordinator: str, processes: str, process: str, model: str, batch_size: str, steps: str) -> None:
    """Joins the other processes, and measures the time of training steps and of sums over all processes."""
    peers = join_processes(coordinator, int(processes), int(process), logs=logs)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4 * int(batch_size), 32, 32, 3), np.uint8)
    labels = (np.arange(len(images)) % 10).astype(np.int32)
    recipe = Recipe(model=model, batch_size=int(batch_size), epochs=1, validation=0.0, augment=("flip_horizontal",))
    job = prepare(recipe, make_parts(data=from_arrays(images, labels, test=(images[:10], labels[:10]))))
    train, batches = job.make_start(), next(job.batches(0, 0))
    run: Any = compile_steps(job.recipe, devices=job.devices)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")
        first = job.devices.split(batches, axis=1)
        run = run.lower(job.setup, train, first).compile()
    sums = find_sums(run.compiled.as_text())
    step_seconds = []
    for _ in range(int(steps) + 2):
        placed = job.devices.split(batches, axis=1)
        started = perf_counter()
        train = jax.block_until_ready(run(job.setup, train, placed))
        step_seconds.append(perf_counter() - started)
    sum_seconds = time_sums(job.devices, sum(sums), int(steps)) if peers.count > 1 else [0.0]
    if peers.is_first:
        # The first calls are slower.
        print(json.dumps({"steps": step_seconds[2:], "sums": sums, "sum_seconds": sum_seconds[2:] or [0.0]}))


def find_sums(program: str) -> list[int]:
    """Returns the size in bytes of each sum over all devices (all-reduce) in a compiled program."""
    found = []
    for shapes in re.findall(r"= (\(.*?\)|\S+) all-reduce(?:-start)?\(", program):
        sizes = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        found.append(sum(_BYTES[kind] * int(np.prod([int(n) for n in dims.split(",") if n])) for kind, dims in sizes))
    return found


def time_sums(devices: Any, size: int, count: int) -> list[float]:
    """Sums an array of `size` bytes over all devices several times, and returns the seconds of each sum."""
    parts = devices.split(np.ones((1, size // 4), np.float32), axis=0)
    add = jax.jit(lambda parts: devices.constrain_state(jnp.sum(parts, axis=0)))
    seconds = []
    for _ in range(count + 2):
        started = perf_counter()
        jax.block_until_ready(add(parts))
        seconds.append(perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
