"""`python -m benchmarks.layers`: single layers, forward and with gradients, compared with plain JAX operations.

"ours" is the layer as a network calls it, under `vmap`; "plain JAX" is one `lax` operation on the whole batch, or the
formula in `jax.numpy`; "torch" is the PyTorch layer in the faster of two memory formats. Inside a network, a layer may
take more or less time than here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError

from .layer_cases import LAYERS, Layer, jax_case, our_case
from .markdown import format_number
from .timing import (
    RESULTS,
    TOO_NOISY,
    Case,
    Ratio,
    ResultTable,
    check_options,
    is_noisy,
    measure,
    ratio_spread,
    write_tables,
)  # fmt: skip
from .torch_layers import torch_case

_PASSES = ("forward", "forward and backward")


@dataclass(frozen=True)
class Options:
    """Measure convolutions, pools and BatchNorm on a batch of 128."""

    only: str = ""
    """Time only the layers whose names contain this text."""
    torch: bool = True
    """Also time PyTorch's layers; needs torch."""
    calls: int = 5
    """Calls of a layer per measurement."""
    rounds: int = 9
    """Measurements of each case."""
    out: Path = RESULTS / "layers.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.layers", args=arguments)
    check_options(options.rounds, options.out)
    layers = {name: layer for name, layer in LAYERS.items() if options.only in name}
    if not layers:
        raise InputError(f"`only` (='{options.only}') must be part of a layer's name: {', '.join(LAYERS)}")
    tables = []
    for has_backward, title in enumerate(_PASSES):
        head = (f"{title} (ms)", "ours", "plain JAX", *(["torch"] if options.torch else []), "ours / plain JAX")
        rows = [_make_row(name, layer, bool(has_backward), options) for name, layer in layers.items()]
        tables.append(ResultTable(head, rows))
    write_tables("layers", "Single layers on a batch of 128", arguments, tables, options.out)


def _make_row(name: str, layer: Layer, has_backward: bool, options: Options) -> tuple[str, ...]:
    """Times the cases of a layer in turns; returns their median times, and the ratio of our time to plain JAX's."""
    calls = {"ours": our_case(layer, has_backward), "plain": jax_case(layer, has_backward)}
    if options.torch:
        calls |= {layout: torch_case(layer, has_backward, layout) for layout in ("contiguous", "channels_last")}
    cases = {
        library: Case(lambda call=call: _repeat(call, options.calls), 1 / options.calls)
        for library, call in calls.items()
    }
    seconds = measure(cases, options.rounds)
    median = {library: float(np.median(values)) * 1e3 for library, values in seconds.items()}
    ratio = ratio_spread(Ratio("ours", "plain"), seconds)
    torch_cells = [format_number(min(median["contiguous"], median["channels_last"]))] if options.torch else []
    ratio_cell = TOO_NOISY if is_noisy(ratio) else format_number(ratio[0])
    return name, format_number(median["ours"]), format_number(median["plain"]), *torch_cells, ratio_cell


def _repeat(call: Callable[[], Any], times: int) -> Any:
    for _ in range(times - 1):
        call()
    return call()


if __name__ == "__main__":
    run_command(main)
