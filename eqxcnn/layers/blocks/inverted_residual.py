"""The blocks of mobile networks, from MobileNetV2 to EfficientNetV2."""

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

__all__ = ["FusedResidual", "InvertedResidual", "stage_ends"]


class InvertedResidual(eqx.Module):
    """1x1 expansion, depthwise convolution and 1x1 projection, plus a shortcut (Sandler et al. 2018, section 3.3).

    The shortcut connects the narrow input and output if the stride is 1 and both have the same number of channels.

    **Arguments:**

    - `in_channels`, `out_channels`: the number of channels of the input and of the output.
    - `hidden_channels`: the number of channels between the 1x1 convolutions; `None` leaves out the first 1x1
      convolution and uses `in_channels`.
    - `kernel_size`, `stride`: kernel size and stride of the depthwise convolution.
    - `squeeze_excite`: the gate after the depthwise convolution (Howard et al. 2019, section 5.3), if any.
    - `drop_path_rate`: the probability that training drops the residual branch.
    - `activation`: the activation after all convolutions but the last.
    - `eps`, `momentum`: as for `BatchNorm`.
    - `weight_init`: the initializer of the convolutions.
    - `key`: the PRNG key of the initialization.
    """

    #: The layers in order, numbered as in torchvision: expansion, depthwise, squeeze-excite, projection.
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
        expand = () if hidden_channels is None else (make(in_channels, middle, 1, activation=activation, key=keys[0]),)
        depthwise = make(middle, middle, kernel_size, stride, activation=activation, groups=middle, key=keys[1])
        gates = () if squeeze_excite is None else (squeeze_excite,)
        project = make(middle, out_channels, 1, activation=None, key=keys[2])
        self.layers = (*expand, depthwise, *gates, project)
        self.drop_path = DropPath(drop_path_rate)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    @jaxtyped(typechecker=beartype)
    def __call__(
        self, image: Image, state: eqx.nn.State, *, key: Key | None = None
    ) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """Returns the maps `[h/stride w/stride out_channels]` and the new state.

        `key` may be `None` in eval mode or at `drop_path_rate` 0.
        """
        x = image
        for layer in self.layers:
            if isinstance(layer, SqueezeExcite):
                x = layer(x)
            else:
                x, state = layer(x, state)
        return (image + self.drop_path(x, key=key) if self.has_shortcut else x), state


class FusedResidual(eqx.Module):
    """An inverted residual that expands and filters with one full convolution (Tan and Le 2021, section 3.2).

    **Arguments:** as for `InvertedResidual`; `hidden_channels=None` leaves out the 1x1 convolution.
    """

    #: The layers in order: full convolution, projection.
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
        expand = make(in_channels, middle, kernel_size, stride, activation=activation, key=first)
        project = () if hidden_channels is None else (make(middle, out_channels, 1, activation=None, key=second),)
        self.layers = (expand, *project)
        self.drop_path = DropPath(drop_path_rate)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    @jaxtyped(typechecker=beartype)
    def __call__(
        self, image: Image, state: eqx.nn.State, *, key: Key | None = None
    ) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """Returns the maps `[h/stride w/stride out_channels]` and the new state.

        `key` may be `None` in eval mode or at `drop_path_rate` 0.
        """
        x = image
        for layer in self.layers:
            x, state = layer(x, state)
        return (image + self.drop_path(x, key=key) if self.has_shortcut else x), state


def stage_ends(strides: Sequence[int]) -> tuple[int, ...]:
    """Returns the indices of the layers that end a stage: each layer before a strided layer, and the last layer.

    **Arguments:**

    - `strides`: the stride of each layer of a network.
    """
    return tuple(index for index, following in enumerate((*strides[1:], 2)) if following > 1)
