"""The benchmarks' measurements: cases take turns in one process, and ratios that are too noisy are not reported."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from eqxcnn.errors import InputError
from eqxcnn.runs.environment import environment
from eqxcnn.weights import write_text_atomically

#: Folder of the results, relative to the checkout that `python -m benchmarks.NAME` runs in.
RESULTS = Path("benchmarks/results")
#: A ratio is reported only if its interquartile range is at most this fraction of its median.
MAX_RELATIVE_SPREAD = 0.25
TOO_NOISY = "too noisy"
#: Without the platform, which names the machine's kernel build, and without the commit.
_ENVIRONMENT = ("python", "jax", "jaxlib", "equinox", "optax", "processor", "cores", "devices")


class Case(NamedTuple):
    """A timed function.

    - `call`: the function.
    - `scale`: factor from the time of a call to the reported time, such as 1 / steps to report the time per step.
    - `before`: called before each timed call, outside the measurement.
    """

    call: Callable[[], Any]
    scale: float = 1.0
    before: Callable[[], Any] | None = None


class Ratio(NamedTuple):
    """The time of one case divided by the time of another case.

    - `numerator`: a case, or several cases, of which the one with the smallest median time is used.
    - `denominator`: a case.
    - `target`: the range that the ratio should be in, such as `<= 0.8`.
    - `name`: the name of the numerator in the results; needed if the numerator is several cases.
    """

    numerator: str | tuple[str, ...]
    denominator: str
    target: str | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        """Name of the ratio in the results."""
        return f"{self.name or self.numerator} / {self.denominator}"


class ResultTable(NamedTuple):
    """A table of formatted figures, for results that are not only times and ratios."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Benchmark:
    """The cases of a benchmark and how its results are reported.

    - `name`, `title`: the module's name, and the heading of the results.
    - `arguments`: the command line after the module's name.
    - `unit`: the unit of the reported times.
    - `cases`, `ratios`: the timed functions by name, and the comparisons between them.
    - `warm_up`: whether to call every case once before the measurement, so that compilation is not timed.
    - `images`: number of images processed in the reported time; if given, images per second are reported as well.
    - `make_tables`: returns further tables, given each case's times in seconds.
    """

    name: str
    title: str
    arguments: Sequence[str]
    unit: Literal["ms", "s"]
    cases: Mapping[str, Case]
    ratios: Sequence[Ratio]
    warm_up: bool = True
    images: int | None = None
    make_tables: Callable[[Mapping[str, Sequence[float]]], Sequence[ResultTable]] | None = None


def run_benchmark(benchmark: Benchmark, rounds: int, out: Path, clock: Callable[[], float] = perf_counter) -> None:
    """Measures all cases, writes the results to `out` and prints them.

    **Raises:** `InputError` if `rounds` is less than 2, or the folder of `out` does not exist.
    """
    check_options(rounds, out)
    report(benchmark, measure(benchmark.cases, rounds, clock, benchmark.warm_up), out)


def report(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]], out: Path) -> None:
    """Writes the results to `out` and prints them; `seconds` has one number per round for each case."""
    write_text_atomically(out, json.dumps(make_record(benchmark, seconds), indent=2) + "\n")
    print_results(benchmark, seconds, Console())


def check_options(rounds: int, out: Path) -> None:
    """Checks the options before the measurement, which may take a long time.

    **Raises:** as `run_benchmark`.
    """
    if rounds < 2:
        raise InputError(f"`rounds` (={rounds}) must be 2 or more: one round has no spread")
    if not out.parent.is_dir():
        raise InputError(f"`out` (={out}) must be in an existing folder: create `{out.parent}` first")


def write_tables(name: str, title: str, arguments: Sequence[str], tables: Sequence[ResultTable], out: Path) -> None:
    """Prints tables, and writes them to `out` with the same header as `run_benchmark`.

    **Arguments:**

    - `name`, `title`, `arguments`: see `Benchmark`.
    """
    record = _make_header(name, title, arguments) | {"tables": [table._asdict() for table in tables]}
    write_text_atomically(out, json.dumps(record, indent=2) + "\n")
    _print_tables(tables, title, Console())


def measure(
    cases: Mapping[str, Case], rounds: int, clock: Callable[[], float] = perf_counter, warm_up: bool = True
) -> dict[str, list[float]]:
    """Returns the seconds of every case in every round; the cases take turns within a round."""
    if warm_up:
        for case in cases.values():
            jax.block_until_ready(case.call())
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        # A machine that slows down during a round favors the first cases, so every other round runs backwards.
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            case = cases[name]
            if case.before is not None:
                jax.block_until_ready(case.before())
            started = clock()
            jax.block_until_ready(case.call())
            seconds[name].append((clock() - started) * case.scale)
    return seconds


def make_repeated_case(run: Callable[[int], Any], seconds: float, scale: float = 1.0) -> Case:
    """Compiles and warms up a function, then returns a case that calls it for about `seconds`, and at least once.

    **Arguments:**

    - `run`: repeats the work a number of times and waits for the last result.
    - `scale`: factor from the time of one repetition to the reported time.
    """
    run(1)
    started = perf_counter()
    run(1)
    once = perf_counter() - started
    if once > seconds:
        return Case(partial(run, 1), scale)
    started = perf_counter()
    run(3)
    count = max(1, round(seconds / ((perf_counter() - started) / 3)))
    return Case(partial(run, count), scale / count, partial(run, max(1, count // 4)))


def spread(values: Sequence[float]) -> list[float]:
    """Returns median, lower and upper quartile, each to four digits."""
    return [float(f"{quantile:.4g}") for quantile in np.quantile(values, [0.5, 0.25, 0.75])]


def ratio_spread(ratio: Ratio, seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """Returns the spread of the per-round ratios; a slowdown of a whole round does not change its ratio."""
    names = (ratio.numerator,) if isinstance(ratio.numerator, str) else ratio.numerator
    fastest = min(names, key=lambda name: np.median(seconds[name]))
    return spread(np.divide(seconds[fastest], seconds[ratio.denominator]).tolist())


def is_noisy(ratio: Sequence[float]) -> bool:
    """Returns whether the interquartile range of a ratio (median, low, high) is too large to report the ratio."""
    median, low, high = ratio
    return high - low > MAX_RELATIVE_SPREAD * median


def make_record(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Returns the content of a benchmark's results file; a ratio that is too noisy is `None`."""
    ratios = {ratio.label: ratio_spread(ratio, seconds) for ratio in benchmark.ratios}
    record = {
        **_make_header(benchmark.name, benchmark.title, benchmark.arguments),
        "unit": benchmark.unit,
        "times": _time_spreads(benchmark, seconds),
    }
    if benchmark.images is not None:
        record["images_per_second"] = _images_per_second(benchmark.images, seconds)
    record["ratios"] = {label: None if is_noisy(ratio) else ratio for label, ratio in ratios.items()}
    record["targets"] = {ratio.label: ratio.target for ratio in benchmark.ratios if ratio.target is not None}
    record["rounds"] = len(next(iter(seconds.values())))
    if benchmark.make_tables is not None:
        record["tables"] = [table._asdict() for table in benchmark.make_tables(seconds)]
    return record


def _make_header(name: str, title: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the entries that every results file begins with."""
    machine = environment()
    # The command is published, so absolute paths are reduced to their last component.
    options = (word.rpartition("=") for word in arguments)
    words = (f"{flag}{sign}{Path(value).name if value[:1] in '/~' else value}" for flag, sign, value in options)
    return {
        "name": name,
        "title": title,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *words]),
        "environment": {key: machine[key] for key in _ENVIRONMENT},
    }


def print_results(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]], console: Console) -> None:
    """Prints times and ratios, and a sentence about each ratio that is too noisy."""
    table = Table("", "median", "quartiles", "target", title=benchmark.title)
    speeds = {} if benchmark.images is None else _images_per_second(benchmark.images, seconds)
    for name, (median, low, high) in _time_spreads(benchmark, seconds).items():
        speed = f" ({speeds[name]:,.0f} images/s)" if name in speeds else ""
        table.add_row(name, f"{median:.3g} {benchmark.unit}{speed}", f"{low:.3g} to {high:.3g}")
    table.add_section()
    sentences = []
    for ratio in benchmark.ratios:
        median, low, high = quartiles = ratio_spread(ratio, seconds)
        cells = (TOO_NOISY, "") if is_noisy(quartiles) else (f"{median:.3g}", f"{low:.3g} to {high:.3g}")
        table.add_row(ratio.label, *cells, ratio.target)
        if is_noisy(quartiles):
            sentences.append(
                f"The ratio {ratio.label} is too noisy to report: half of its rounds range from {low:.3g} to "
                f"{high:.3g}, more than {MAX_RELATIVE_SPREAD:.0%} of the median; repeat it on an idle machine."
            )
    console.print(table, *sentences, sep="\n")
    if benchmark.make_tables is not None:
        _print_tables(benchmark.make_tables(seconds), benchmark.title, console)


def _print_tables(tables: Sequence[ResultTable], title: str, console: Console) -> None:
    for content in tables:
        table = Table(*content.head, title=title)
        for line in content.lines:
            table.add_row(*line)
        console.print(table)


def _time_spreads(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Returns the spread of each case's times in the benchmark's unit."""
    factor = {"s": 1.0, "ms": 1e3}[benchmark.unit]
    return {name: spread([value * factor for value in values]) for name, values in seconds.items()}


def _images_per_second(images: int, seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns each case's images per second, from its median time, to four digits."""
    return {name: float(f"{images / np.median(values):.4g}") for name, values in seconds.items()}
