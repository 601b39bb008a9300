"""Features of whole data sets, for example for a nearest-neighbor classifier, a linear probe or clustering."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from . import zoo
from .data import DataSet, Split, eval_batches
from .data import load as load_data
from .errors import InputError
from .forward_pass import check_pixels
from .images import Preprocess
from .inference import ImageClassifier
from .registry import families
from .saved_classifier import load
from .types import Images, ModelState, Network, Pixels
from .views import eval_logits
from .weights.published import PUBLISHED

__all__ = ["Backbone", "Data", "Features", "extract"]

#: A run's folder, a loaded classifier, the name of a model with trained weights, `hub:user/name`, or a model and its
#: state.
Backbone: TypeAlias = str | Path | ImageClassifier | tuple[Network, ModelState]
#: A data set's name or folder, an opened data set, a decoded split, or images `[n h w c]` and labels `[n]`.
Data: TypeAlias = str | Path | DataSet | Split | tuple[Any, Any]


@dataclass(frozen=True)
class Features:
    """The features of a data set's images.

    - `features`: one row per image, in the order of the data.
    - `labels`: the class of each image, as an index into `class_names`.
    - `class_names`: the class names in the data; empty for images and labels that were given as arrays.
    """

    features: Float32[np.ndarray, "n d"]
    labels: Int32[np.ndarray, " n"]
    class_names: tuple[str, ...]


def extract(
    backbone: Backbone,
    data: Data,
    *,
    split: Literal["train", "test"] = "test",
    batch_size: int = 500,
    head: str | None = "head",
    image_size: tuple[int, int] | None = None,
    mean: Sequence[float] | Float[Array | np.ndarray, " c"] | None = None,
    std: Sequence[float] | Float[Array | np.ndarray, " c"] | None = None,
) -> Features:
    """Returns the features of each image: the input of the model's head, in eval mode.

    **Arguments:**

    - `backbone`: a run's folder, an `ImageClassifier`, the name of a zoo model with trained weights, a model on the Hub
      such as `"hub:user/name"`, or `(model, state)`.
    - `data`: the name or folder of a data set, as in the setting `data`; an opened data set or a decoded split of
      `eqxcnn.data`; or `(images, labels)`, with images `[n h w c]`, `uint8` or floating point in [0, 1].
    - `split`: the split of a data set.
    - `batch_size`: images per call of the compiled program; the last batch is padded to this size.
    - `head`: the name of the field that holds the model's last layer; `net.head` names a field of an inner module. Pass
      `None` for a network that already returns features.
    - `image_size`: `(height, width)` to which the images of a data set are resized; by default the classifier's image
      size, or for `(model, state)` the size of the images. For published weights, `eqxcnn.zoo.card(name).preprocess`
      resizes and crops the images.
    - `mean`, `std`: the normalization per channel, on the scale [0, 1]. Needed for `(model, state)`; a classifier has
      its own.

    **Raises:** `InputError` if the model does not have the field that `head` names, if `mean` and `std` are missing
        for `(model, state)` or given for a classifier, or if the data cannot be read or do not fit the model.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` (={batch_size}) must be at least 1")
    model, state, moments, own = _open_backbone(backbone, mean, std)
    model = model if head is None else _without(model, head)
    size, channels = image_size or (own.size if isinstance(own, Preprocess) else own), len(moments[0])
    pixels: dict[str, Any] = {"image_size": size, "channels": channels}
    if isinstance(own, Preprocess):
        pixels = {"preprocess": replace(own, size=size)}
    images, labels, class_names = _open_data(data, split, pixels)
    sides = ("height", "width") if size is None else size
    if images.ndim != 4 or images.shape[-1] != channels or (size is not None and images.shape[1:3] != size):
        raise InputError(
            f"`data` has images of shape {images.shape}, but the model takes (number, {sides[0]}, {sides[1]}, "
            f"{channels})"
        )
    check_pixels(images, "images in `data`")
    if not len(images) == len(labels) > 0:
        raise InputError(f"`data` must have one label per image: it has {len(images)} images and {len(labels)} labels")
    rows, _ = eval_batches(len(images), min(batch_size, len(images)))
    found = [np.asarray(_compute_features(model, state, jnp.asarray(images[batch]), *moments)) for batch in rows]
    # The slice drops the padding at the end of the last batch.
    return Features(np.concatenate(found)[: len(images)], np.asarray(labels, np.int32), class_names)


@eqx.filter_jit
def _compute_features(
    model: Network, state: ModelState, images: Pixels | Images, mean: Float[Array, " c"], std: Float[Array, " c"]
) -> Float[Array, "b d"]:
    return eval_logits(model, state, images, mean, std).astype(jnp.float32)


def _open_backbone(
    backbone: Any, mean: Any, std: Any
) -> tuple[Network, ModelState, tuple[Float[Array, " c"], Float[Array, " c"]], Preprocess | tuple[int, int] | None]:
    """Returns the model, its state, its normalization (mean and standard deviation), and its preprocessing.

    Instead of a preprocessing, the last value may be an image size, or `None` if the size depends on the data.
    """
    if isinstance(backbone, tuple):
        if mean is None or std is None:
            raise InputError(
                "`mean` and `std` are needed with `(model, state)`: give the values of the model's training images"
            )
        return *backbone, (jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)), None
    if mean is not None or std is not None:
        raise InputError(
            "`mean` and `std` are only for `(model, state)`: leave them out, because a classifier has its own"
        )
    if isinstance(backbone, str) and backbone in families() and not Path(backbone).exists():
        model, state = zoo.create_model(backbone, pretrained=True, num_classes=0, key=jax.random.key(0))
        how = PUBLISHED[backbone].preprocess
        return model, state, (jnp.asarray(how.mean), jnp.asarray(how.std)), how
    if not isinstance(backbone, str | Path | ImageClassifier):
        raise InputError(
            f"`backbone` of type {type(backbone).__qualname__} must be a run's folder, a classifier, a model's name or "
            "`(model, state)`, with `None` for a model without state"
        )
    trained = backbone if isinstance(backbone, ImageClassifier) else load(backbone)
    return trained.model, trained.state, (trained.mean, trained.std), trained.preprocess


def _without(model: Network, head: str) -> Network:
    """Returns the model with `eqx.nn.Identity` in place of its head."""
    names = head.split(".")
    inner: Any = model
    for name in names:
        if not isinstance(inner, eqx.Module) or name not in type(inner).__dataclass_fields__:
            raise InputError(
                f"a `{type(model).__qualname__}` has no field `{head}` that holds its last layer: name that "
                "field with `head`, or pass `head=None` if the network already returns features"
            )
        inner = getattr(inner, name)
    return eqx.tree_at(lambda tree: functools.reduce(getattr, names, tree), model, eqx.nn.Identity())


def _open_data(
    data: Data, split: Literal["train", "test"], pixels: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns images, labels and class names; `pixels` are the arguments of `DataSet.decode` for size and channels."""
    if isinstance(data, tuple):
        images, labels = map(np.asarray, data)
        if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
            raise InputError(
                f"the labels of `data` ({labels.dtype}, shape {labels.shape}) must be one integer per image"
            )
        return images, labels, ()
    if isinstance(data, str | Path):
        found = load_data(str(data), split, **pixels)
    elif isinstance(data, Split):
        found = data.without_unreadable()
    else:
        found = data.decode(split, **pixels)
    return found.array, found.labels, found.class_names
