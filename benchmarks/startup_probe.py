"""The process started by `benchmarks.startup`: runs `eqxcnn.train`, and reports its memory and when each phase ends."""

import json
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from eqxcnn import train as command
from eqxcnn.runs.progress import TrainingProgress
from eqxcnn.training import Job, Recipe
from eqxcnn.training import trainer as loop
from eqxcnn.training.parts import Parts

#: `ru_maxrss` is in kibibytes on Linux and in bytes on macOS.
_UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def main() -> None:
    """Trains with the command line's flags; prints JSON: monotonic times, and the memory in MiB at each step."""
    moments = {"imported": monotonic()}
    memory: list[tuple[int, float]] = []
    prepare, show = loop.prepare, TrainingProgress.step

    def prepare_and_record(recipe: Recipe, parts: Parts | None = None, *, is_resumed: bool = False) -> Job:
        job = prepare(recipe, parts, is_resumed=is_resumed)
        moments["prepared"] = monotonic()
        return job

    def step_and_record(self: TrainingProgress, step: int, read_metrics: Callable[[], tuple[float, float]]) -> None:
        if "stepped" not in moments:
            read_metrics()  # waits until the step is computed
            moments["stepped"] = monotonic()
        memory.append((step, read_memory()[0]))
        show(self, step, read_metrics)

    loop.prepare, TrainingProgress.step = prepare_and_record, step_and_record
    command.main(sys.argv[1:])
    moments["ended"] = monotonic()
    print(json.dumps({"moments": moments, "peak": read_memory()[1], "memory": memory}))


def read_memory() -> tuple[float, float]:
    """Returns the current and the peak resident memory of this process in MiB; without `/proc`, both are the peak."""
    status = Path("/proc/self/status")
    if status.is_file():
        # `ru_maxrss` would include the memory of the parent process.
        sizes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE))
        return int(sizes["VmRSS"]) / 2**10, int(sizes["VmHWM"]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MIB
    return peak, peak


if __name__ == "__main__":
    main()
