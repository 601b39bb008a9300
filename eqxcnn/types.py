"""Names for the arrays that travel between rooms, and the contract every classifier keeps."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

Image: TypeAlias = Float[Array, "h w c"]
#: Feature maps, first stage to last; each has its own height, width and channels.
Maps: TypeAlias = tuple[Float[Array, "_ _ _"], ...]
Images: TypeAlias = Float[Array, "b h w c"]
Pixels: TypeAlias = UInt8[Array, "b h w c"]
Labels: TypeAlias = Int[Array, " b"]
Logits: TypeAlias = Float[Array, " classes"]
BatchLogits: TypeAlias = Float[Array, "b classes"]
Key: TypeAlias = PRNGKeyArray
#: One image `[h w c]` in [0, 1] and a key to a changed image of the same shape.
Augment: TypeAlias = Callable[[Image, Key], Image]


class AugmentContext(NamedTuple):
    """Which look of a run at an image this is.

    - `image_key`: the image's own randomness, the same in every epoch.
    - `epoch`: how many epochs are over.
    """

    image_key: Key
    epoch: Int[Array, ""]


class Classifier(eqx.Module):
    """One image in, class scores out; the caller vmaps (see `eqxcnn.forward`).

    The signature is the same whether or not the network is stateful or random: a network without BatchNorm hands
    `state` back as it came, one without dropout does not look at `key`. Train or eval is a property of the module
    (`eqx.nn.inference_mode`), never an argument.
    """

    @abc.abstractmethod
    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`; the pooled features instead when built with `num_classes=0`."""

    @abc.abstractmethod
    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The map `[h/s w/s c]` that ends each stage, first to last; empty for a network without maps."""


class DataInitialized(Classifier):
    """A classifier some of whose weights are first set from the images that it is to learn."""

    @abc.abstractmethod
    def initialized_from(self, images: Images) -> "DataInitialized":
        """The classifier with those weights set from training images `[b h w c]`, normalized as for `forward`."""


@dataclass(frozen=True)
class Variant:
    """One row of an architecture's `variants` table: how to build a published network and what is known of it.

    **Arguments:**

    - `make`: `make(num_classes=, in_channels=, image_size=(h, w), key=, **architecture's own) -> Classifier`.
    - `input`: the `(height, width, channels)` it was published with, and is built with unless told otherwise.
    - `num_classes`: how many classes it was published with.
    - `params`: the published parameter count at `input` and `num_classes` (tested).
    - `source`: where the architecture and the count come from (a URL).
    - `task`: what it was published on: `mnist`, `cifar`, `catsdogs` or `imagenet`.
    - `smallest`: the smallest height and width it can take, in pixels.
    - `strides`: how many input pixels one step of each map of `features` spans.
    - `recipe`: the shipped recipe that trains it, if there is one.
    - `torch_twin`: the same network's name in torchvision, or `timm/NAME`.
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
