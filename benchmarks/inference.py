"""`python -m benchmarks.inference`: images per second of classifiers in eqxcnn, of their exported programs, and of the
same networks in PyTorch.

Each case normalizes and classifies a batch of `uint8` pixels; each library has its own process. "eqxcnn" calls the
classifier, "StableHLO" calls its exported program in JAX, and "ONNX" runs its exported model in onnxruntime. PyTorch
runs the same network in three ways: eager with channels first, eager with channels last, and compiled with channels
last. All processes keep freed memory, and JAX runs each call in the thread that starts it, as in
`python -m eqxcnn.serve`. All weights are random.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import tyro

import eqxcnn
from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.runtime.memory import keep_freed_memory

from .markdown import format_number
from .random_classifier import make_random_classifier
from .timing import (
    RESULTS,
    TOO_NOISY,
    Ratio,
    ResultTable,
    check_options,
    is_noisy,
    make_repeated_case,
    measure,
    ratio_spread,
    write_tables,
)
from .torch_loader import TORCH_PACKAGES
from .worker_process import WorkerProcess

#: A function that classifies the same batch a number of times.
Classify = Callable[[int], None]

_OURS, _STABLEHLO, _ONNX, _TORCH = "eqxcnn", "StableHLO", "ONNX", "fastest torch"
#: Compiled PyTorch with channels first is left out: on CPUs it is slower, and compiling it takes minutes more.
_TORCH_FORMS = (("eager", "first"), ("eager", "last"), ("compiled", "last"))
#: Targets of the ratios at the largest batch, unless that is one image, and at all other batches.
_TARGET_LARGEST, _TARGET = ">= 1.2", ">= 1"


@dataclass(frozen=True)
class Options:
    """Measure classifiers in several runtimes; needs onnx, onnxruntime and PyTorch."""

    models: tuple[str, ...] = ("lenet", "resnet20", "resnet18", "mobilenet_v2", "resnet50", "vit_b_16")
    """Networks."""
    batches: tuple[int, ...] = (1, 16, 64)
    """Images per call."""
    compiled: bool = True
    """Whether to time compiled PyTorch too, which takes minutes to compile."""
    rounds: int = 5
    """Measurements of each case."""
    seconds: float = 0.3
    """Approximate duration of one measurement."""
    out: Path = RESULTS / "inference.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.inference", args=arguments)
    check_options(options.rounds, options.out)
    if not options.models or min(options.batches, default=0) < 1:
        raise InputError("`models` and `batches` must not be empty, and each batch must have at least one image")
    for package, pip in (("torch", TORCH_PACKAGES), ("onnxruntime", "onnx onnxruntime")):
        if find_spec(package) is None:
            raise InputError(f"the comparison needs {package}, which is not installed: run `pip install {pip}`")
    speeds: list[list[str]] = []
    ratios: list[list[str]] = []
    head = ("network", "batch", _OURS, _STABLEHLO, _ONNX, *map(_torch_name, _forms(options)))
    targets = [f"{name} / {_OURS}" for name in (_TORCH, _ONNX)]
    tables = [ResultTable(head, speeds), ResultTable(("network", "batch", *_alternate(targets)), ratios)]
    title = "Images per second, and ratios of the times per batch"
    for model in options.models:
        for batch, seconds in _measure(model, options):
            speeds.append(_format_speeds(model, batch, seconds))
            ratios.append(_format_ratios(model, batch, seconds, options))
        # After each network, because the large ones take minutes.
        write_tables("inference", title, arguments, tables, options.out)


def _forms(options: Options) -> list[tuple[str, str]]:
    return [pair for pair in _TORCH_FORMS if options.compiled or pair[0] == "eager"]


def _torch_name(pair: tuple[str, str]) -> str:
    return f"torch {pair[0]}{' channels last' * (pair[1] == 'last')}"


def _alternate(names: Sequence[str]) -> list[str]:
    """Returns the given column heads, with a head `target` after each of them."""
    return [each for name in names for each in (name, "target")]


def _measure(model: str, options: Options) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Yields each batch size with the seconds per batch of every case, one number per round; the cases take turns."""
    builders: dict[str, tuple[str, Callable[..., Classify]]] = {
        _OURS: ("jax", classify_with_eqxcnn), _STABLEHLO: ("jax", classify_with_stablehlo),
        _ONNX: ("onnxruntime", classify_with_onnx),
        **{_torch_name(pair): ("torch", partial(classify_with_torch, *pair)) for pair in _forms(options)},
    }  # fmt: skip
    workers = {library: WorkerProcess() for library, _ in builders.values()}
    try:
        for worker in workers.values():
            worker.build(keep_memory)
        workers["jax"].build(run_calls_in_their_thread)
        for batch in options.batches:
            cases = {
                name: make_repeated_case(workers[library].build(builder, model, batch), options.seconds)
                for name, (library, builder) in builders.items()
            }
            yield batch, measure(cases, options.rounds, warm_up=False)
    finally:
        for worker in workers.values():
            worker.close()


def _format_speeds(model: str, batch: int, seconds: dict[str, list[float]]) -> list[str]:
    speeds = (format_number(batch / float(np.median(values))) for values in seconds.values())
    return [f"`{model}`", str(batch), *speeds]


def _format_ratios(model: str, batch: int, seconds: dict[str, list[float]], options: Options) -> list[str]:
    cells = []
    torch = tuple(name for name in seconds if name.startswith("torch"))
    for name, numerator in ((_TORCH, torch), (_ONNX, _ONNX)):
        found = ratio_spread(Ratio(numerator, _OURS, name=name), seconds)
        cells.append(TOO_NOISY if is_noisy(found) else f"{found[0]:.2f}")
        cells.append(_TARGET_LARGEST if batch == max(options.batches) > 1 else _TARGET)
    return [f"`{model}`", str(batch), *cells]


def make_pixels(model: str, batch: int) -> np.ndarray:
    """Returns random pixels `uint8[batch h w c]` of a network's image size."""
    return np.random.default_rng(0).integers(0, 256, (batch, *zoo.card(model).input), np.uint8)


def _repeat(classify: Callable[[np.ndarray], Any], pixels: np.ndarray) -> Classify:
    def run(count: int) -> None:
        for _ in range(count):
            np.asarray(classify(pixels))

    return run


def keep_memory() -> Classify:
    """Makes the process keep freed memory; the function that it returns does nothing."""
    keep_freed_memory()
    return lambda _: None


def run_calls_in_their_thread() -> Classify:
    """Makes JAX run each call in the thread that starts it; the function that it returns does nothing."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return lambda _: None


def classify_with_eqxcnn(model: str, batch: int) -> Classify:
    """Returns a function that calls the classifier."""
    return _repeat(_classifier(model), make_pixels(model, batch))


def classify_with_stablehlo(model: str, batch: int) -> Classify:
    """Exports the classifier with a dynamic batch size, and returns a function that calls the exported program."""
    return _repeat(_exported_program(model), make_pixels(model, batch))


def classify_with_onnx(model: str, batch: int) -> Classify:
    """Exports the classifier with a dynamic batch size, and returns a function that runs it in onnxruntime."""
    session = _onnx_session(model)
    return _repeat(lambda pixels: session.run(None, {"pixels": pixels})[0], make_pixels(model, batch))


# Cached, because every batch uses the same network.
_classifier = cache(make_random_classifier)


@cache
def _exported_program(model: str) -> Callable[[np.ndarray], Any]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "program.zip"
        eqxcnn.export.export_stablehlo(_classifier(model), path)
        return eqxcnn.export.load(path)


@cache
def _onnx_session(model: str) -> Any:
    import onnxruntime

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        eqxcnn.export.export_onnx(_classifier(model), path)
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def classify_with_torch(form: str, channels: str, model: str, batch: int) -> Classify:
    """Returns a function that runs the same network in PyTorch."""
    # Imported only in the worker process.
    from .peers.torch_inference import torch_classify

    return _repeat(torch_classify(model, form, channels), make_pixels(model, batch))


if __name__ == "__main__":
    run_command(main)
