"""Convolution, batch normalization and activation, the unit of most convolutional networks since 2015."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from ...types import Image, Key
from ..conv import Conv
from ..norm import BatchNorm
from ..sizes import Size, parse_pair

__all__ = ["ConvNorm"]


class ConvNorm(eqx.Module):
    """A convolution without bias, BatchNorm, then an activation.

    **Arguments:**

    - `in_channels`, `out_channels`, `kernel_size`, `stride`, `key` and further keywords: as for `Conv`. By default the
      padding is symmetric, `dilation * (kernel_size - 1) // 2`, as is usual in torch.
    - `activation`: the function applied to the normalized maps, or `None`.
    - `eps`, `momentum`: as for `BatchNorm`.
    """

    conv: Conv
    norm: BatchNorm
    activation: Callable[[Array], Array] | None = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        *,
        activation: Callable[[Array], Array] | None = jax.nn.relu,
        eps: float = 1e-5,
        momentum: float = 0.1,
        key: Key,
        **conv: Any,
    ):
        height, width = parse_pair("kernel_size", kernel_size, least=1)
        down, right = parse_pair("dilation", conv.get("dilation", 1), least=1)
        conv.setdefault("padding", (down * (height - 1) // 2, right * (width - 1) // 2))
        self.conv = Conv(in_channels, out_channels, kernel_size, stride, use_bias=False, key=key, **conv)
        self.norm = BatchNorm(out_channels, eps, momentum)
        self.activation = activation

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """Returns the maps `[h' w' out_channels]` and the new state."""
        x, state = self.norm(self.conv(image), state)
        return (x if self.activation is None else self.activation(x)), state
