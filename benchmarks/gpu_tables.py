"""The additional tables of `benchmarks.throughput --suite gpu`: speed relative to the chip's peak, and memory."""

import re
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from eqxcnn import zoo

from .markdown import format_number
from .timing import ResultTable
from .workloads import Workload

#: Dense bfloat16 TFLOP/s from the manufacturers' data sheets, by the first words of the device's name. The first match
#: counts.
_PEAK_TFLOPS = {
    "NVIDIA H200": 989, "NVIDIA H100 PCIe": 756, "NVIDIA H100": 989, "NVIDIA A100": 312, "NVIDIA L40S": 362,
    "NVIDIA L4": 121, "TPU v6 lite": 918, "TPU v5 lite": 197, "TPU v5": 459, "TPU v4": 275,
}  # fmt: skip


def find_peak(kind: str) -> float | None:
    """Returns the peak performance of a kind of device in TFLOP/s, or `None` if it is unknown."""
    return next((peak for start, peak in _PEAK_TFLOPS.items() if re.match(rf"{re.escape(start)}(?!\w)", kind)), None)


def build_memory_reader(library: str) -> Callable[[int], int | None]:
    """Returns a function that returns this process's peak device memory in bytes, or `None` if it is unknown.

    The function ignores its argument.
    """

    def read(_: int) -> int | None:
        if library == "torch":
            import torch

            return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    return read


def make_gpu_tables(
    workloads: Sequence[Workload], memory: Mapping[str, int | None], seconds: Mapping[str, Sequence[float]]
) -> list[ResultTable]:
    """Returns a table of speeds (also as fractions of the chip's peak), and a table of the peak memory of each process.

    A training step counts as three forward passes: one for the forward and two for the backward pass.
    """
    kind = jax.devices()[0].device_kind
    peak = find_peak(kind)
    rows = []
    for workload in workloads:
        for name, values in seconds.items():
            if name.startswith(f"{workload.name}, "):
                speed = workload.batch / float(np.median(values))
                fraction = "-"
                if peak is not None and workload.image_size is None:
                    fraction = f"{6 * zoo.card(workload.net).multiply_adds * speed / (peak * 1e12):.1%}"
                rows.append((name, format_number(speed), fraction))
    peak_text = "unknown" if peak is None else f"{peak} TFLOP/s"
    sizes = [(name, "unknown" if size is None else f"{size / 2**30:.2f}") for name, size in memory.items()]
    return [
        ResultTable((f"{kind} (peak: {peak_text})", "images/s", "fraction of peak"), rows),
        ResultTable(("process", "peak memory on the device, GiB"), sizes),
    ]
