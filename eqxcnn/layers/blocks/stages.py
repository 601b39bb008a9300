"""Stages of blocks in a row, each of a resolution and width of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax

from ...types import Image, Key, Maps
from ..drop_path import drop_path_rates, keys_for


def make_layers(
    make: Callable[..., Any], n_in: int, widths: Sequence[int], depths: Sequence[int], rate: float | int, *, key: Key
) -> tuple[tuple[Any, ...], ...]:
    """`depths[i]` blocks of `widths[i]` for each stage `i`; each stage but the first opens with stride 2."""
    rates, keys = iter(drop_path_rates(rate, sum(depths))), iter(jax.random.split(key, sum(depths)))
    layers = []
    for width, depth in zip(widths, depths, strict=True):
        blocks = []
        for at in range(depth):
            blocks.append(make(n_in, width, 2 if layers and at == 0 else 1, next(rates), key=next(keys)))
            n_in = blocks[-1].out_channels
        layers.append(tuple(blocks))
    return tuple(layers)


def run_layers(
    layers: Sequence[Sequence[Any]], x: Image, state: eqx.nn.State, *, key: Key | None
) -> tuple[Maps, eqx.nn.State]:
    """The map behind each stage."""
    maps, keys = (), iter(keys_for(key, sum(map(len, layers))))
    for layer in layers:
        for block in layer:
            x, state = block(x, state, key=next(keys))
        maps += (x,)
    return maps, state
