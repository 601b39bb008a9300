"""Two-dimensional convolution of one image, channels last."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jax import lax
from jax.nn.initializers import Initializer, he_normal
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..types import Image, Key
from .cpu import onednn
from .cpu.depthwise import depthwise
from .cpu.onednn_biased import convolve_biased
from .cpu.onednn_conv import convolve
from .cpu.onednn_product import product
from .sizes import Size, pair

Edges: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

_HE_NORMAL = he_normal()


class Conv(eqx.Module):
    """Convolves one image `[h w in_channels]` with a bank of kernels (a cross-correlation, as in every CNN library).

    The output is `[h' w' out_channels]`, where `h' = (h + top + bottom - dilation * (kh - 1) - 1) // stride + 1` and
    `w'` likewise.

    **Arguments:**

    - `in_channels`, `out_channels`: the number of channels of the input and of the output.
    - `kernel_size`, `stride`, `dilation`: an integer, or a `(height, width)` pair.
    - `padding`: the zeros added around the image. `"SAME"` gives `h' = ceil(h / stride)` and puts an odd zero at the
      bottom and right, so it differs from torch's `padding=1` at stride 2; `"VALID"` adds none; else a number of
      pixels, a `(height, width)` pair, or `((top, bottom), (left, right))`.
    - `groups`: channels are split into this many groups that do not see each other; `in_channels` is a depthwise one.
    - `use_bias`: whether a bias, zero at first, is added to each output channel.
    - `weight_init`: a `jax.nn.initializers` initializer of the `[kh kw in_channels/groups out_channels]` kernel; He
      et al. 2015, eq. 10, unless told otherwise.
    - `key`: the randomness of the initialization.

    **Raises:** `InputError` for sizes that cannot be.
    """

    weight: Float[Array, "kh kw i o"]
    bias: Float[Array, " o"] | None
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    kernel_size: tuple[int, int] = eqx.field(static=True)
    stride: tuple[int, int] = eqx.field(static=True)
    padding: str | Edges = eqx.field(static=True)
    dilation: tuple[int, int] = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size | Edges = "SAME",
        dilation: Size = 1,
        groups: int = 1,
        use_bias: bool = True,
        weight_init: Initializer = _HE_NORMAL,
        *,
        key: Key,
    ):
        _check_channels(in_channels, out_channels, groups)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("kernel_size", kernel_size, least=1)
        self.stride = pair("stride", stride, least=1)
        self.padding = _edges(padding)
        self.dilation = pair("dilation", dilation, least=1)
        self.groups = groups
        self.weight = weight_init(key, (*self.kernel_size, in_channels // groups, out_channels))
        self.bias = jnp.zeros(out_channels, self.weight.dtype) if use_bias else None

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Float[Array, "h w {self.in_channels}"]) -> Float[Array, "h2 w2 {self.out_channels}"]:
        """The image's feature maps; an image and a kernel of different dtypes meet by JAX's promotion.

        **Raises:** `InputError` if the dilated kernel is larger than the padded image.
        """
        self._check_size(image)
        dtype = jnp.result_type(image, self.weight)
        form = _form(self, dtype)
        out = form(image.astype(dtype), self.weight.astype(dtype), self)
        if jax.default_backend() == "cpu" and dtype.itemsize < 4:
            # jax 0.12's compiler fuses ReLU, convolution, ReLU and a sum in bfloat16 into one kernel, which gives NaN.
            out = lax.optimization_barrier(out)
        return out if self.bias is None or form is _by_onednn else out + self.bias

    def _check_size(self, image: Image) -> None:
        spans = _spans(self)
        edges = _pads(image, spans, self)
        if any(size + sum(edge) < span for size, edge, span in zip(image.shape, edges, spans, strict=False)):
            raise InputError(
                f"`image` (height and width {image.shape[:2]}) is too small for `kernel_size` (={self.kernel_size}), "
                f"`padding` (={self.padding!r}) and `dilation` (={self.dilation}): give a larger image or a smaller "
                "kernel."
            )


def _form(conv: Conv, dtype: jnp.dtype) -> Callable[[Image, Array, Conv], Array]:
    """The quickest way to convolve, of four that give the same."""
    if jax.default_backend() == "cpu":
        if conv.groups == conv.in_channels == conv.out_channels > 1 and dtype.itemsize >= 4:
            return _by_taps
        if dtype == jnp.float32 and onednn.is_available():
            return _by_product if conv.groups == 1 and conv.kernel_size == (1, 1) else _by_onednn
    return _by_xla


def _by_taps(image: Image, weight: Float[Array, "kh kw 1 c"], conv: Conv) -> Float[Array, "h2 w2 c"]:
    """The same for a convolution of each channel on its own."""
    (top, bottom), (left, right) = _pads(image, _spans(conv), conv)
    return depthwise(image, weight[:, :, 0], ((top, bottom), (left, right)), conv.stride, conv.dilation)


def _by_onednn(image: Image, weight: Float[Array, "kh kw _ o"], conv: Conv) -> Float[Array, "h2 w2 o"]:
    """The same, and the bias is added."""
    (top, bottom), (left, right) = _pads(image, _spans(conv), conv)
    how = conv.stride, ((top, bottom), (left, right)), conv.dilation, conv.groups
    # `vmap` makes the batch of one the whole batch.
    images = keep_on_cpu(image)[None]
    if conv.bias is None:
        return convolve(images, weight, *how)[0]
    return convolve_biased(images, weight, conv.bias.astype(weight.dtype), *how)[0]


def _by_product(image: Image, weight: Float[Array, "1 1 i o"], conv: Conv) -> Float[Array, "h2 w2 o"]:
    """The same for a kernel of one pixel."""
    image = lax.pad(image, jnp.zeros((), image.dtype), [*((*pad, 0) for pad in _pads(image, (1, 1), conv)), (0, 0, 0)])
    image = image[:: conv.stride[0], :: conv.stride[1]]
    out = product(image.reshape(-1, conv.in_channels), weight[0, 0])
    return out.reshape(*image.shape[:2], conv.out_channels)


def _by_xla(image: Image, weight: Float[Array, "kh kw _ o"], conv: Conv) -> Float[Array, "h2 w2 o"]:
    out = lax.conv_general_dilated(
        lax.expand_dims(keep_on_cpu(image), [0]),
        weight,
        conv.stride,
        conv.padding,
        rhs_dilation=conv.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=conv.groups,
    )
    return lax.squeeze(out, [0])


def keep_on_cpu(image: Image) -> Image:
    """The same; but XLA works out anew, in another order of memory, what made an image for the weight's gradient."""
    return lax.optimization_barrier(image) if jax.default_backend() == "cpu" else image


def _spans(conv: Conv) -> list[int]:
    """The height and width in pixels that the dilated kernel covers."""
    return [dilation * (kernel - 1) + 1 for kernel, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]


def _pads(image: Image, spans: Sequence[int], conv: Conv) -> Sequence[tuple[int, int]]:
    """The zeros before and after the height and the width, for kernels that span so many pixels."""
    if not isinstance(conv.padding, str):
        return conv.padding
    pads = lax.padtype_to_pads(image.shape[:2], spans, conv.stride, conv.padding)
    return [(int(low), int(high)) for low, high in pads]  # JAX 0.7 returns NumPy integers


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
        if value < 1:
            raise InputError(f"`{name}` (={value}) must be at least 1.")
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value % groups:
            raise InputError(f"`{name}` (={value}) must be divisible by `groups` (={groups}).")


def _edges(padding: str | Size | Edges) -> str | Edges:
    """Padding as `lax` wants it: a word, or `((top, bottom), (left, right))`."""
    match padding:
        case "SAME" | "VALID":
            return padding
        case int():
            edges = (padding, padding), (padding, padding)
        case (int() as height, int() as width):
            edges = (height, height), (width, width)
        case ((int() as top, int() as bottom), (int() as left, int() as right)):
            edges = (top, bottom), (left, right)
        case _:
            edges = None
    if edges is None or min(map(min, edges)) < 0:
        raise InputError(
            f'`padding` (={padding!r}) must be "SAME", "VALID", or integers of at least 0: one, a (height, width) '
            "pair, or a ((top, bottom), (left, right)) pair of pairs."
        )
    return edges
