"""Counters and histograms of the service, in Prometheus's text format.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

__all__ = ["Counters", "Histogram"]

#: Upper bounds in seconds: 1 ms to 30 s.
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Histogram:
    """Counts values in buckets.

    - `bounds`: the largest value of each bucket, in ascending order; one more bucket counts all larger values.
    """

    def __init__(self, bounds: Sequence[float | int]) -> None:
        self.bounds, self.counts, self.sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def add(self, value: float | int) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, purpose: str) -> Iterator[str]:
        """Yields the lines of the histogram; the count of a bucket includes the counts of all smaller buckets."""
        yield from _head(name, purpose, "histogram")
        total = 0
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self.sum!r}"
        yield f"{name}_count {total}"


class Counters:
    """The counters and histograms that `/metrics` shows. Only the event loop's thread changes them.

    - `requests`: answers by path and status; unknown paths are counted as `other`.
    - `errors`: requests that raised an unexpected exception, answered with status 500.
    - `seconds`: seconds from the complete headers of a request for `/predict` to the start of its answer.
    - `batches`: images per call of the model, without padding.
    """

    def __init__(self, batch_sizes: Sequence[int]) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.errors = 0
        self.seconds, self.batches = Histogram(_SECONDS), Histogram(batch_sizes)

    def text(self, waiting: int) -> str:
        """Returns the text for Prometheus; `waiting` is the number of images that wait for the model."""
        lines = [*_head("eqxcnn_requests_total", "Answers by path and status.", "counter")]
        lines += [
            f'eqxcnn_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        lines += _head("eqxcnn_errors_total", "Requests that raised an unexpected exception.", "counter")
        lines.append(f"eqxcnn_errors_total {self.errors}")
        lines += _head("eqxcnn_waiting_images", "Decoded images that wait for the model.", "gauge")
        lines.append(f"eqxcnn_waiting_images {waiting}")
        lines += self.seconds.lines("eqxcnn_predict_seconds", "Seconds from a /predict request to its response.")
        lines += self.batches.lines("eqxcnn_batch_images", "Images per call of the model, without padding.")
        return "\n".join(lines) + "\n"


def _head(name: str, purpose: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {purpose}", f"# TYPE {name} {kind}"
