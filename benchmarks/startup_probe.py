"""The process that `benchmarks.startup` starts: runs `eqxcnn.train`, and reports its moments and peak memory."""

import json
import resource
import sys
from collections.abc import Callable
from time import monotonic

from eqxcnn import train as command
from eqxcnn.runs.progress import TrainingProgress
from eqxcnn.training import Job, Recipe
from eqxcnn.training import trainer as loop
from eqxcnn.training.parts import Parts

#: `ru_maxrss` is in kibibytes on Linux and in bytes on macOS.
_UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def main() -> None:
    """Trains with the command line's flags, and prints each moment's monotonic time and the peak memory as JSON."""
    moments = {"imported": monotonic()}
    prepare, show = loop.prepare, TrainingProgress.step

    def prepare_and_record(recipe: Recipe, parts: Parts | None = None, *, is_resumed: bool = False) -> Job:
        job = prepare(recipe, parts, is_resumed=is_resumed)
        moments["prepared"] = monotonic()
        return job

    def step_and_record(self: TrainingProgress, step: int, read_metrics: Callable[[], tuple[float, float]]) -> None:
        if "stepped" not in moments:
            read_metrics()  # waits until the step is computed
            moments["stepped"] = monotonic()
        show(self, step, read_metrics)

    loop.prepare, TrainingProgress.step = prepare_and_record, step_and_record
    command.main(sys.argv[1:])
    moments["ended"] = monotonic()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MIB
    print(json.dumps(moments | {"megabytes": megabytes}))


if __name__ == "__main__":
    main()
