"""The blocks that the networks for phones are made of, from MobileNetV2 to EfficientNetV2."""

from collections.abc import Callable, Sequence
from functools import partial

import equinox as eqx
import jax
from beartype import beartype
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, jaxtyped

from ...types import Image, Key
from ..drop_path import DropPath
from ..initializers import he_normal_fan_out
from .conv_norm import ConvNorm
from .squeeze_excite import SqueezeExcite


class InvertedResidual(eqx.Module):
    """Widens by a 1x1 convolution, filters each channel on its own, narrows again (Sandler et al. 2018, section 3.3).

    The narrow ends are what the shortcut joins, where stride and channels allow one.

    **Arguments:**

    - `in_channels`, `out_channels`: of the narrow ends.
    - `hidden_channels`: of the wide middle; `None` leaves out the first convolution: the middle is `in_channels` wide.
    - `kernel_size`, `stride`: of the middle, depthwise convolution.
    - `squeeze_excite`: gates the channels of the middle, behind its convolution (Howard et al. 2019, section 5.3).
    - `drop_path_rate`: how often training drops the branch beside the shortcut.
    - `activation`: of the first and the depthwise convolution; the last has none.
    - `eps`, `momentum`: as for `BatchNorm`.
    - `weight_init`: of the convolutions; He normal by fan-out unless told otherwise, as the MobileNets' reference.
    - `key`: the randomness of the initialization.
    """

    #: In a row, as torch numbers them: widen, depthwise, squeeze-excite, narrow.
    layers: tuple[ConvNorm | SqueezeExcite, ...]
    drop_path: DropPath
    has_shortcut: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int | None,
        kernel_size: int = 3,
        stride: int = 1,
        squeeze_excite: SqueezeExcite | None = None,
        drop_path_rate: float | int = 0.0,
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        eps: float = 1e-5,
        momentum: float = 0.1,
        weight_init: Initializer = he_normal_fan_out,
        key: Key,
    ):
        keys = jax.random.split(key, 3)
        make = partial(ConvNorm, eps=eps, momentum=momentum, weight_init=weight_init)
        middle = in_channels if hidden_channels is None else hidden_channels
        widen = () if hidden_channels is None else (make(in_channels, middle, 1, activation=activation, key=keys[0]),)
        depthwise = make(middle, middle, kernel_size, stride, activation=activation, groups=middle, key=keys[1])
        gates = () if squeeze_excite is None else (squeeze_excite,)
        narrow = make(middle, out_channels, 1, activation=None, key=keys[2])
        self.layers = (*widen, depthwise, *gates, narrow)
        self.drop_path = DropPath(drop_path_rate)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    @jaxtyped(typechecker=beartype)
    def __call__(
        self, image: Image, state: eqx.nn.State, *, key: Key | None = None
    ) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """The maps `[h/stride w/stride out_channels]` and the new state; `key` is for a `drop_path_rate` above 0."""
        x = image
        for layer in self.layers:
            if isinstance(layer, SqueezeExcite):
                x = layer(x)
            else:
                x, state = layer(x, state)
        return (image + self.drop_path(x, key=key) if self.has_shortcut else x), state


class FusedResidual(eqx.Module):
    """An inverted residual that widens and filters by one full convolution (Tan and Le 2021, section 3.2).

    **Arguments:** as for `InvertedResidual`; with `hidden_channels=None` the full convolution is all there is.
    """

    #: In a row: widen, narrow.
    layers: tuple[ConvNorm, ...]
    drop_path: DropPath
    has_shortcut: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int | None,
        kernel_size: int = 3,
        stride: int = 1,
        drop_path_rate: float | int = 0.0,
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        eps: float = 1e-5,
        momentum: float = 0.1,
        weight_init: Initializer = he_normal_fan_out,
        key: Key,
    ):
        first, second = jax.random.split(key)
        make = partial(ConvNorm, eps=eps, momentum=momentum, weight_init=weight_init)
        middle = out_channels if hidden_channels is None else hidden_channels
        widen = make(in_channels, middle, kernel_size, stride, activation=activation, key=first)
        narrow = () if hidden_channels is None else (make(middle, out_channels, 1, activation=None, key=second),)
        self.layers = (widen, *narrow)
        self.drop_path = DropPath(drop_path_rate)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    @jaxtyped(typechecker=beartype)
    def __call__(
        self, image: Image, state: eqx.nn.State, *, key: Key | None = None
    ) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """The maps `[h/stride w/stride out_channels]` and the new state; `key` is for a `drop_path_rate` above 0."""
        x = image
        for layer in self.layers:
            x, state = layer(x, state)
        return (image + self.drop_path(x, key=key) if self.has_shortcut else x), state


def stage_ends(strides: Sequence[int]) -> tuple[int, ...]:
    """Which of a row of layers with these strides come last before the resolution falls; the very last one too."""
    return tuple(index for index, following in enumerate((*strides[1:], 2)) if following > 1)
