"""Sequences of stages; the blocks of one stage share resolution and width."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax

from ...types import Image, Key, Maps
from ..drop_path import drop_path_rates, keys_for

__all__ = ["make_layers", "run_layers"]


def make_layers(
    make_block: Callable[..., Any],
    in_channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    drop_path_rate: float | int,
    *,
    key: Key,
) -> tuple[tuple[Any, ...], ...]:
    """Builds one tuple of blocks per stage; every stage but the first begins with stride 2.

    **Arguments:**

    - `make_block`: called as `make_block(in_channels, width, stride, drop_path_rate, key=key)`.
    - `in_channels`: the number of channels of the first block's input.
    - `widths`, `depths`: for each stage, the width of its blocks and the number of its blocks.
    - `drop_path_rate`: the rate of the last block, see `drop_path_rates`.
    """
    rates, keys = iter(drop_path_rates(drop_path_rate, sum(depths))), iter(jax.random.split(key, sum(depths)))
    layers = []
    for width, depth in zip(widths, depths, strict=True):
        blocks = []
        for index in range(depth):
            stride = 2 if layers and index == 0 else 1
            blocks.append(make_block(in_channels, width, stride, next(rates), key=next(keys)))
            in_channels = blocks[-1].out_channels
        layers.append(tuple(blocks))
    return tuple(layers)


def run_layers(
    layers: Sequence[Sequence[Any]], x: Image, state: eqx.nn.State, *, key: Key | None
) -> tuple[Maps, eqx.nn.State]:
    """Returns the maps at the end of each stage, and the new state."""
    maps, keys = (), iter(keys_for(key, sum(map(len, layers))))
    for layer in layers:
        for block in layer:
            x, state = block(x, state, key=next(keys))
        maps += (x,)
    return maps, state
