"""`python -m benchmarks.serving`: requests per second and latency of `python -m eqxcnn.serve`.

Clients share the cores with the service. Each client sends one image per request over a single connection, and waits
for the answer before the next request. The images are PNG files of the network's own size. Networks without trained
weights in the package have random weights, which does not change the times. The second table shows the memory of the
service while 32 clients send many requests to the first network. The third table counts the answers to hostile requests
(damaged images, forms and JSON from `tests.fuzz`); no request may make the service fail.
"""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import tyro
from PIL import Image

import eqxcnn
from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.weights.bundled import Bundled
from eqxcnn.weights.published import PUBLISHED
from tests.fuzz.bodies import make_hostile_body
from tests.fuzz.images import make_images

from .load import Load, Server, make_request, run_clients, serve
from .markdown import format_number
from .random_classifier import make_random_classifier
from .timing import RESULTS, ResultTable, check_options, write_tables

#: Measurements of memory, after equal numbers of requests.
_PARTS = 10
#: Clients while memory is measured.
_CLIENTS = 32


@dataclass(frozen=True)
class Options:
    """Measure the HTTP service."""

    models: tuple[str, ...] = ("lenet", "resnet20", "resnet18")
    """The networks to serve."""
    clients: tuple[int, ...] = (1, 32)
    """Numbers of clients."""
    seconds: float = 10.0
    """Seconds per measurement."""
    rounds: int = 3
    """Measurements for each number of clients, which take turns."""
    requests: int = 100_000
    """Number of requests while memory is measured."""
    hostile: int = 10_000
    """Number of hostile requests."""
    out: Path = RESULTS / "serving.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results.

    **Raises:** `RuntimeError` if the service fails on a request.
    """
    options = tyro.cli(Options, prog="python -m benchmarks.serving", args=arguments)
    check_options(options.rounds, options.out)
    if options.requests < _PARTS or min(options.clients, default=0) < 1 or not options.models:
        raise InputError(f"`models` and `clients` must not be empty, and `requests` must be at least {_PARTS}")
    lines, memory, hostile = [], ResultTable((), []), ResultTable((), [])
    with TemporaryDirectory() as folder:
        for model in options.models:
            run, request = prepare(model, Path(folder))
            with serve(run) as server:
                lines += measure_model(model, server, request, options)
                if model == options.models[0]:
                    memory = measure_memory(server, request, options.requests)
                    hostile = send_hostile(server, options.hostile, Path(folder))
    head = ("network", "clients", "requests/s", "p50 (ms)", "p99 (ms)")
    measured = "the memory and the answers to hostile requests were measured with"
    title = f"One image per request; {measured} `{options.models[0]}`"
    write_tables("serving", title, arguments, [ResultTable(head, lines), memory, hostile], options.out)


def prepare(model: str, folder: Path) -> tuple[Path | str, bytes]:
    """Returns the name or folder of a network for `python -m eqxcnn.serve`, and a request with an image of its size."""
    height, width, channels = zoo.card(model).input
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(encoded, "PNG")
    request = make_request(encoded.getvalue())
    if isinstance(PUBLISHED.get(model), Bundled):
        return model, request
    eqxcnn.save(folder / model, make_random_classifier(model))
    return folder / model, request


def measure_model(model: str, server: Server, request: bytes, options: Options) -> list[tuple[str, ...]]:
    """Returns a table row for each number of clients, with medians over the rounds."""
    loads: dict[int, list[Load]] = {count: [] for count in options.clients}
    run_clients(server.port, max(options.clients), _take(request, 2 * max(options.clients)))  # not measured
    for turn in range(options.rounds):
        for count in options.clients[:: 1 if turn % 2 == 0 else -1]:
            loads[count].append(run_clients(server.port, count, _take_until(request, options.seconds)))
    lines = []
    for count, found in loads.items():
        if bad := {status for load in found for status in load.statuses} - {200}:
            raise RuntimeError(f"the service answered a valid request with status {bad}")
        speed = np.median([len(load.seconds) / load.total for load in found])
        middle, high = (1e3 * np.median([np.quantile(load.seconds, part) for load in found]) for part in (0.5, 0.99))
        lines.append((f"`{model}`", str(count), *(format_number(float(each)) for each in (speed, middle, high))))
    return lines


def measure_memory(server: Server, request: bytes, count: int) -> ResultTable:
    """Sends `count` requests, and returns the memory of the service after each tenth of the requests."""
    lines = [("0", f"{server.megabytes:,.1f}")]
    for part in range(1, _PARTS + 1):
        run_clients(server.port, _CLIENTS, _take(request, count // _PARTS), keeps_seconds=False)
        lines.append((f"{part * (count // _PARTS):,}", f"{server.megabytes:,.1f}"))
    return ResultTable(("requests", "memory (MB)"), lines)


def send_hostile(server: Server, count: int, folder: Path) -> ResultTable:
    """Sends `count` hostile requests, and returns a table of the number of answers by status.

    **Raises:** `RuntimeError` if the service fails on a request.
    """
    images, number = make_images(folder), iter(range(count))

    def make() -> bytes | None:
        if (seed := next(number, None)) is None:
            return None
        content_type, body = make_hostile_body(random.Random(seed), images)
        return make_request(body, content_type, f"/predict?explain={seed % 2}")

    found = run_clients(server.port, 4, make, keeps_seconds=False).statuses
    if found[500]:
        raise RuntimeError(f"the service failed on {found[500]} of {count} hostile requests")
    lines = [(str(status), f"{answers:,}") for status, answers in sorted(found.items())]
    return ResultTable(("status", "answers to hostile requests"), lines)


def _take(request: bytes, count: int) -> Callable[[], bytes | None]:
    left = iter([request] * count)
    return lambda: next(left, None)


def _take_until(request: bytes, seconds: float) -> Callable[[], bytes | None]:
    end = perf_counter() + seconds
    return lambda: request if perf_counter() < end else None


if __name__ == "__main__":
    run_command(main)
