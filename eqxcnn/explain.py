"""Heat maps of the pixels that a classifier's score depends on: Grad-CAM and saliency."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from .errors import InputError, nearest, show
from .forward_pass import check_pixels, forward, forward_features, normalize
from .inference import ImageClassifier, as_array
from .networks import signature_of
from .types import Image, Key, Logits, Maps, ModelState, Network

__all__ = ["grad_cam", "saliency"]


def grad_cam(classifier: ImageClassifier, image: Any, target: int | str | None = None) -> Float32[np.ndarray, "h w"]:
    """Returns the Grad-CAM of a class: a heat map of where the last feature map raises the score of the class.

    The weight of a channel is the gradient of the score with respect to that channel of the last feature map, averaged
    over all positions; the heat is the positive part of the weighted sum of the channels (Selvaraju et al. 2017,
    "Grad-CAM", arXiv:1610.02391, equations 1 and 2), resized to the image and divided by its maximum. If no position
    raises the score, the heat is zero everywhere.

    **Arguments:**

    - `image`: one image `[h w c]`, as for a call of the classifier; `classifier.prepare` makes such an array.
    - `target`: the name of the class or its index in `class_names`; by default, the most probable class.

    **Returns:** heat in [0, 1], with the height and width of the image.

    **Raises:** `InputError` if the network has no feature maps, if it does not compute its scores from the last feature
        map (as in a vision transformer), if the class is unknown, or if `image` is not a valid input of the classifier.
    """
    return np.asarray(_grad_cam(classifier, *_check(classifier, image, target)))


def saliency(classifier: ImageClassifier, image: Any, target: int | str | None = None) -> Float32[np.ndarray, "h w"]:
    """Returns how much the score of a class depends on each pixel.

    The saliency of a pixel is the largest absolute value, over its channels, of the gradient of the score (Simonyan et
    al. 2014, "Deep Inside Convolutional Networks", arXiv:1312.6034, section 3.1), divided by the maximum over all
    pixels. It is defined for any network.

    **Arguments:**

    - `image`, `target`: as for `grad_cam`.

    **Returns:** saliency in [0, 1], with the height and width of the image.

    **Raises:** `InputError` if the class is unknown, or if `image` is not a valid input of the classifier.
    """
    return np.asarray(_saliency(classifier, *_check(classifier, image, target)))


def _check(classifier: ImageClassifier, image: Any, target: Any) -> tuple[Image, Int[Array, ""]]:
    """Returns the pixels in [0, 1] and the index of the class, or -1 to stand for the most probable class."""
    pixels, names = np.asarray(as_array(image, "the pixels of `image`")), classifier.class_names
    expected = (*classifier.image_size, classifier.in_channels)
    if pixels.shape != expected:
        raise InputError(
            f"`image` of shape {pixels.shape} must be {expected}, channels last; `prepare` resizes any image to that "
            "shape"
        )
    check_pixels(pixels, "the pixels of `image`")
    if isinstance(target, str):
        if target not in names:
            raise InputError(f"there is no class `{target}`; {nearest(target, names)}")
        target = names.index(target)
    is_index = isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(names)
    if target is not None and not is_index:
        raise InputError(
            f"`target` (={show(target)}) must be the name of a class, or its index from 0 to {len(names) - 1}"
        )
    scaled = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    return jnp.asarray(scaled), jnp.asarray(-1 if target is None else target)


@eqx.filter_jit
def _grad_cam(classifier: ImageClassifier, image: Image, target: Int[Array, ""]) -> Float[Array, "h w"]:
    model = eqx.nn.inference_mode(classifier.model)
    inputs = normalize(image[None], classifier.mean, classifier.std)
    try:
        *_, last = forward_features(model, classifier.state, inputs)[0].values()
    except InputError as error:
        raise InputError(f"a `{type(model).__qualname__}` has no feature maps: use `saliency`") from error

    def score(shift: Float[Array, "rows columns k"]) -> Float[Array, ""]:
        shifted = _ShiftedMaps(model, shift, [])
        logits = forward(shifted, classifier.state, inputs, key=None)[0][0]
        if not shifted.calls:
            raise InputError(
                f"a `{type(model).__qualname__}` does not compute its scores from the maps of its `features`: use "
                "`saliency`"
            )
        return _select(logits, target)

    weights = jax.grad(score)(jnp.zeros_like(last[0])).mean((0, 1))
    heat = jax.nn.relu((last[0] * weights[None, None]).sum(-1))
    return _scale(jax.image.resize(heat, image.shape[:2], "bilinear"))


@eqx.filter_jit
def _saliency(classifier: ImageClassifier, image: Image, target: Int[Array, ""]) -> Float[Array, "h w"]:
    model = eqx.nn.inference_mode(classifier.model)

    def score(image: Image) -> Float[Array, ""]:
        inputs = normalize(image[None], classifier.mean, classifier.std)
        return _select(forward(model, classifier.state, inputs, key=None)[0][0], target)

    return _scale(jnp.abs(jax.grad(score)(image)).max(-1))


def _select(logits: Logits, target: Int[Array, ""]) -> Float[Array, ""]:
    """Returns the score of a class; -1 means the most probable class."""
    return logits[jnp.where(target < 0, logits.argmax(), target)]


def _scale(heat: Float[Array, "h w"]) -> Float[Array, "h w"]:
    highest = heat.max()
    return (heat / jnp.where(highest > 0, highest, 1)).astype(jnp.float32)


class _ShiftedMaps(eqx.Module):
    """A network that adds `shift` to the last map of its `features` and computes its scores from the sum.

    The derivative of a score with respect to `shift`, at zero, is the derivative with respect to the last map. Networks
    have no function from maps to scores, so this class calls the network's `__call__` with itself as `self`, and takes
    all attributes but `features` from the network.
    """

    model: Network
    shift: Float[Array, "rows columns k"]
    calls: list[str] = eqx.field(static=True)

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "shift", "calls"):  # The fields are not set yet.
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The network's class, so that `super()` accepts this object in the network's `__call__`."""
        return type(self.model) if "model" in vars(self) else _ShiftedMaps

    def features(self, image: Image, state: ModelState, *, key: Key | None) -> tuple[Maps, ModelState]:
        self.calls.append("features")
        model: Any = self.model
        maps, state = model.features(image, state, key=key)
        return (*maps[:-1], maps[-1] + self.shift), state

    def __call__(self, image: Image, state: ModelState, *, key: Key | None) -> tuple[Logits, ModelState]:
        signature = signature_of(type(self.model))
        arguments = (image, state) if signature.takes_state else (image,)
        call: Any = type(self.model).__call__
        out = call(self, *arguments, **({"key": key} if signature.takes_key else {}))
        return out if signature.takes_state else (out, state)
