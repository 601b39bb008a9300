"""Two-dimensional convolution of one image, channels last."""

import equinox as eqx
import jax.numpy as jnp
from beartype import beartype
from jax import lax
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..types import Image, Key
from .cpu.availability import can_use_primitives
from .cpu.barrier import keep_on_cpu
from .cpu.implementation import XLA, Kernel, Window, is_by_taps, is_pointwise
from .initializers import he_normal
from .sizes import Edges, Padding, Pair, ParsedPadding, Size, parse_padding, parse_pair, resolve_padding

__all__ = ["Conv"]


class Conv(eqx.Module):
    """Convolves one image `[h w in_channels]` with a bank of kernels (a cross-correlation, as in every CNN library).

    The output is `[h' w' out_channels]` with `h' = (h + top + bottom - dilation * (kh - 1) - 1) // stride + 1`, and
    `w'` accordingly.

    **Arguments:**

    - `in_channels`, `out_channels`: the number of channels of the input and of the output.
    - `kernel_size`, `stride`, `dilation`: an integer, or a `(height, width)` pair.
    - `padding`: the zeros added around the image. `"SAME"` gives `h' = ceil(h / stride)`; if the number of zeros
      is odd, the extra zero is at the bottom or right, so `"SAME"` differs from torch's `padding=1` at stride 2.
      `"VALID"` adds no zeros. Otherwise, give a number of pixels, a `(height, width)` pair, or
      `((top, bottom), (left, right))`.
    - `groups`: the number of groups of channels that are convolved separately; `groups=in_channels` is a depthwise
      convolution.
    - `use_bias`: whether to add a bias, initially zero, to each output channel.
    - `weight_init`: a `jax.nn.initializers` initializer for the `[kh kw in_channels/groups out_channels]` kernel;
      by default He et al. 2015, eq. 10.
    - `key`: the PRNG key of the initialization.

    **Raises:** `InputError` for invalid sizes.
    """

    weight: Float[Array, "kh kw i o"]
    bias: Float[Array, " o"] | None
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    kernel_size: Pair = eqx.field(static=True)
    stride: Pair = eqx.field(static=True)
    padding: ParsedPadding = eqx.field(static=True)
    dilation: Pair = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = "SAME",
        dilation: Size = 1,
        groups: int = 1,
        use_bias: bool = True,
        weight_init: Initializer = he_normal,
        *,
        key: Key,
    ):
        _check_channels(in_channels, out_channels, groups)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = parse_pair("kernel_size", kernel_size, least=1)
        self.stride = parse_pair("stride", stride, least=1)
        self.padding = parse_padding(padding)
        self.dilation = parse_pair("dilation", dilation, least=1)
        self.groups = groups
        self.weight = weight_init(key, (*self.kernel_size, in_channels // groups, out_channels))
        self.bias = jnp.zeros(out_channels, self.weight.dtype) if use_bias else None

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image) -> Float[Array, "h2 w2 {self.out_channels}"]:
        """Returns the feature maps; if the dtypes of image and kernel differ, JAX's promotion rules apply.

        **Raises:** `InputError` if the image does not have `in_channels` channels, or if the dilated kernel is larger
        than the padded image.
        """
        self._check_size(image)
        dtype = jnp.result_type(image, self.weight)
        window = Window(self.stride, _resolve_edges(image, self), self.dilation, self.groups)
        return _convolve(image.astype(dtype), self.weight.astype(dtype), self.bias, window)

    def _check_size(self, image: Image) -> None:
        if image.shape[-1] != self.in_channels:
            raise InputError(
                f"`image` of shape {image.shape} must have `in_channels` (={self.in_channels}) channels, channels last."
            )
        edges = _resolve_edges(image, self)
        if any(size + sum(edge) < span for size, edge, span in zip(image.shape, edges, _spans(self), strict=False)):
            raise InputError(
                f"`image` (height and width {image.shape[:2]}) is too small for `kernel_size` (={self.kernel_size}), "
                f"`padding` (={self.padding!r}) and `dilation` (={self.dilation}): give a larger image or a smaller "
                "kernel."
            )


def _convolve(image: Image, kernel: Kernel, bias: Float[Array, " o"] | None, window: Window) -> Float[Array, "h2 w2 o"]:
    """Convolves an image and adds the bias, if any; programs for CPUs use faster implementations."""
    by_taps = is_by_taps(kernel.shape, window, kernel.dtype)
    pointwise = is_pointwise(kernel.shape, window, kernel.dtype)
    if not by_taps:
        # Without the barrier, XLA recomputes the input, in a slower layout, for the kernel gradient. The barrier comes
        # before the batch axis is added, because XLA may choose another layout for an array with that axis.
        image = keep_on_cpu(image, only_without_onednn=pointwise)
    images = lax.expand_dims(image, [0])  # `vmap` turns this batch of one image into the whole batch
    if not can_use_primitives():
        out = XLA.convolve(images, kernel, window)
    else:
        # Imported here, because these modules need private parts of JAX.
        from .cpu.biased_convolution import convolve_biased
        from .cpu.convolution import convolve

        if bias is not None and kernel.dtype == jnp.float32 and not (by_taps or pointwise):
            return lax.squeeze(convolve_biased(images, kernel, bias.astype(kernel.dtype), window), [0])
        out = convolve(images, kernel, window)
    out = lax.squeeze(out, [0])
    if kernel.dtype.itemsize < 4:
        # jax 0.12's compiler fuses ReLU, convolution, ReLU and a sum in bfloat16 into one kernel that gives NaN.
        out = keep_on_cpu(out)
    return out if bias is None else out + bias[None, None]


def _spans(conv: Conv) -> Pair:
    """Returns the height and width of the dilated kernel in pixels."""
    (height, width), (down, right) = conv.kernel_size, conv.dilation
    return down * (height - 1) + 1, right * (width - 1) + 1


def _resolve_edges(image: Image, conv: Conv) -> Edges:
    return resolve_padding(conv.padding, image.shape[:2], _spans(conv), conv.stride)


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
        if value < 1:
            raise InputError(f"`{name}` (={value}) must be at least 1.")
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value % groups:
            raise InputError(f"`{name}` (={value}) must be divisible by `groups` (={groups}).")
