"""`python -m benchmarks.layers`: layers one by one, forward and with their gradients, beside JAX's plain operations.

Ours is the layer as a network calls it, under `vmap`; plain is one `lax` operation on the whole batch, or the formula
in `jax.numpy`; torch is the quicker of its two memory formats. What surrounds a layer in a network may change its time.
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
from .markdown import number
from .timing import RESULTS, Case, Ratio, Rows, check, is_noisy, measure, ratio_spread, write_rows
from .torch_layers import torch_case

_PASSES = ("forward", "forward and backward")


@dataclass(frozen=True)
class Options:
    """Times convolutions, pools and BatchNorm on a batch of 128."""

    only: str = ""
    """Time only the layers whose name holds this."""
    torch: bool = True
    """Whether torch's layers are timed too, which needs torch."""
    calls: int = 5
    """How often a layer is called for one time."""
    rounds: int = 9
    """How often everything is timed."""
    out: Path = RESULTS / "layers.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.layers", args=arguments)
    check(options.rounds, options.out)
    layers = {name: layer for name, layer in LAYERS.items() if options.only in name}
    if not layers:
        raise InputError(f"`only` (='{options.only}') is in no layer's name: there are {', '.join(LAYERS)}")
    tables = []
    for backward, words in enumerate(_PASSES):
        head = ("layer", "ours", "plain JAX", *(["torch"] if options.torch else []), "ours / plain JAX")
        lines = [_line(name, layer, bool(backward), options) for name, layer in layers.items()]
        tables.append(Rows((f"{words} (ms)", *head[1:]), lines))
    write_rows("layers", "Layers on a batch of 128, one by one", arguments, tables, options.out)


def _line(name: str, layer: Layer, backward: bool, options: Options) -> tuple[str, ...]:
    """A layer's medians, measured in turns, and the ratio of ours to the plain one."""
    calls = {"ours": our_case(layer, backward), "plain": jax_case(layer, backward)}
    if options.torch:
        calls |= {layout: torch_case(layer, backward, layout) for layout in ("contiguous", "channels_last")}
    cases = {
        who: Case(lambda call=call: _repeat(call, options.calls), 1 / options.calls) for who, call in calls.items()
    }
    seconds = measure(cases, options.rounds)
    middle = {who: float(np.median(values)) * 1e3 for who, values in seconds.items()}
    ratio = ratio_spread(Ratio("ours", "plain"), seconds)
    theirs = [number(min(middle["contiguous"], middle["channels_last"]))] if options.torch else []
    told = "too noisy to tell" if is_noisy(ratio) else number(ratio[0])
    return name, number(middle["ours"]), number(middle["plain"]), *theirs, told


def _repeat(call: Callable[[], Any], times: int) -> Any:
    for _ in range(times - 1):
        call()
    return call()


if __name__ == "__main__":
    run_command(main)
