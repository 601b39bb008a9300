"""Convolution, batch normalization and activation: what most networks since 2015 are built of."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from ...types import Image, Key
from ..conv import Conv
from ..norm import BatchNorm


class ConvNorm(eqx.Module):
    """A convolution without bias, BatchNorm, then an activation.

    **Arguments:**

    - `in_channels`, `out_channels`, `kernel_size`, `stride`, `key` and further keywords: as for `Conv`, but the padding
      is symmetric, as torch's, and keeps the size at stride 1 unless `padding` is given.
    - `activation`: applied to the normalized maps; `None` for none.
    - `eps`, `momentum`: as for `BatchNorm`.
    """

    conv: Conv
    norm: BatchNorm
    activation: Callable[[Array], Array] | None = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        *,
        activation: Callable[[Array], Array] | None = jax.nn.relu,
        eps: float = 1e-5,
        momentum: float = 0.1,
        key: Key,
        **conv: Any,
    ):
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        dilation = conv.get("dilation", 1)
        conv.setdefault("padding", (dilation * (sides[0] - 1) // 2, dilation * (sides[1] - 1) // 2))
        self.conv = Conv(in_channels, out_channels, kernel_size, stride, use_bias=False, key=key, **conv)
        self.norm = BatchNorm(out_channels, eps, momentum)
        self.activation = activation

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """The maps `[h' w' out_channels]` and the new state."""
        x, state = self.norm(self.conv(image), state)
        return (x if self.activation is None else self.activation(x)), state
