"""Array types shared by several packages, and the interface of every classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

__all__ = [
    "Augment",
    "AugmentContext",
    "BatchLogits",
    "Classifier",
    "DataInitialized",
    "Image",
    "Images",
    "Key",
    "Labels",
    "Logits",
    "Maps",
    "ModelState",
    "Network",
    "Pixels",
    "Variant",
]

Image: TypeAlias = Float[Array, "h w c"]
#: Feature maps, first stage to last, each with its own height, width and channels.
Maps: TypeAlias = tuple[Float[Array, "_ _ _"], ...]
Images: TypeAlias = Float[Array, "b h w c"]
Pixels: TypeAlias = UInt8[Array, "b h w c"]
Labels: TypeAlias = Int[Array, " b"]
Logits: TypeAlias = Float[Array, " classes"]
BatchLogits: TypeAlias = Float[Array, "b classes"]
Key: TypeAlias = PRNGKeyArray
#: The state of a network, such as BatchNorm's running statistics; `None` for a network without state.
ModelState: TypeAlias = eqx.nn.State | None
#: Maps one image `[h w c]` in [0, 1] and a key to an augmented image of the same shape.
Augment: TypeAlias = Callable[[Image, Key], Image]


class AugmentContext(NamedTuple):
    """Identifies the image being augmented, and the epoch.

    - `image_key`: a PRNG key that belongs to the image and stays the same in every epoch.
    - `epoch`: the number of finished epochs.
    """

    image_key: Key
    epoch: Int[Array, ""]


@runtime_checkable
class Classifier(Protocol):
    """The interface of the zoo's networks: Equinox modules that map one image to class scores.

    Any `eqx.Module` with these two methods satisfies the protocol; no class derives from it. Training also accepts
    simpler networks: see `Network`. The caller applies `jax.vmap` (see `eqxcnn.forward`). A network without BatchNorm
    returns `state` unchanged, and a network without dropout ignores `key`. Training or eval mode is a property of the
    module (`eqx.nn.inference_mode`), never an argument.
    """

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns the scores `[classes]` of one image `[h w c]`, or its pooled features if `num_classes` is 0."""
        ...

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map `[h/s w/s c]` of each stage, in stage order; empty for a network without maps."""
        ...


@runtime_checkable
class DataInitialized(Protocol):
    """A network with some weights that are initialized from training images."""

    def initialized_from(self, images: Images) -> Any:
        """Returns a copy whose data-dependent weights are computed from images `[b h w c]`; the images are normalized
        as for `forward`."""
        ...


#: Any Equinox module that maps one image `[h w c]` to scores `[classes]`: `net(image)`, `net(image, key=key)`, or with
#: a state `net(image, state)` or `net(image, state, key=key)`. With a state, it returns the scores and the new state.
Network: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Variant:
    """One row of an architecture's `variants` table: how to build a published network, and the facts about it.

    **Arguments:**

    - `make`: `make(num_classes=, in_channels=, image_size=(h, w), key=, **architecture_settings) -> Classifier`.
    - `input`: the published `(height, width, channels)`, which is also the default.
    - `num_classes`: the published number of classes.
    - `params`: the published parameter count at `input` and `num_classes` (tested).
    - `source`: URL of the architecture and its parameter count.
    - `task`: the data that the network was published for: `mnist`, `cifar`, `catsdogs` or `imagenet`.
    - `smallest`: the smallest height and width that the network accepts, in pixels.
    - `strides`: stride of each map of `features`, in input pixels.
    - `recipe`: the shipped recipe that trains the network, if there is one.
    - `torch_twin`: the name of the same network in torchvision, or `timm/NAME`.
    """

    make: Callable[..., Classifier]
    input: tuple[int, int, int]
    num_classes: int
    params: int
    source: str
    task: str
    smallest: int = 1
    strides: tuple[int, ...] = ()
    recipe: str | None = None
    torch_twin: str | None = None
