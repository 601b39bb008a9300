"""What `startup` runs: `eqxcnn.train`, which then tells when it was where, and how much memory it took at most."""

import json
import resource
import sys
from collections.abc import Callable
from time import monotonic

from eqxcnn import train as command
from eqxcnn.runs.progress import TrainingProgress
from eqxcnn.training import Job, Recipe
from eqxcnn.training import trainer as loop

#: Kibibytes on Linux, bytes on macOS.
_UNIT = 2**20 if sys.platform == "darwin" else 2**10


def main() -> None:
    """Trains by the flags that training itself takes, and prints seconds of the monotonic clock as JSON."""
    moments = {"imported": monotonic()}
    prepare, show = loop.prepare, TrainingProgress.step

    def prepared(recipe: Recipe) -> Job:
        job = prepare(recipe)
        moments["prepared"] = monotonic()
        return job

    def stepped(self: TrainingProgress, step: int, read_metrics: Callable[[], tuple[float, float]]) -> None:
        if "stepped" not in moments:
            read_metrics()  # waits for the device
            moments["stepped"] = monotonic()
        show(self, step, read_metrics)

    loop.prepare, TrainingProgress.step = prepared, stepped
    command.main(sys.argv[1:])
    moments["ended"] = monotonic()
    print(json.dumps(moments | {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT}))


if __name__ == "__main__":
    main()
