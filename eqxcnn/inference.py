"""A trained classifier as one object: images in, scores or class names out. Saved and loaded as a folder."""

import contextlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from .data import decode_image
from .data.array_checks import check_unmasked
from .errors import InputError
from .forward_pass import check_pixels
from .networks import as_pair
from .registry import build, check_keywords, has_type
from .saved_config import FORMAT, check_normalization, read_config, shortest
from .types import BatchLogits, Classifier, Logits, ModelState, Network
from .views import eval_logits
from .weights import from_tensors, load_safetensors, save_safetensors, to_tensors, write_text_atomically
from .weights.files import digest_file
from .weights.tensors import check_finite

__all__ = ["ImageClassifier", "load", "save"]


class ImageClassifier(eqx.Module):
    """A model with everything that is needed to classify images.

    - `name`: the model's name in the zoo, or the qualified name of its class.
    - `model`, `state`: in training or eval mode; evaluation always uses eval mode.
    - `mean`, `std`: the normalization per channel, on the scale [0, 1].
    - `image_size`: `(height, width)` in pixels.
    - `class_names`: the name of each class, in the order of the scores.
    - `architecture`: the additional keyword arguments of the model's constructor, as `(name, value)` pairs.
    """

    model: Network
    state: ModelState
    mean: Float[Array, " c"]
    std: Float[Array, " c"]
    name: str = eqx.field(static=True)
    image_size: tuple[int, int] = eqx.field(static=True)
    class_names: tuple[str, ...] = eqx.field(static=True)
    architecture: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise InputError(f"`mean` ({len(self.mean)} numbers) and `std` ({len(self.std)}) must have the same length")
        if not has_type(self.class_names, tuple[str, ...]) or not self.class_names:
            raise InputError("`class_names` must be a tuple of one string per class")
        if not has_type(self.image_size, tuple[int, int]) or min(self.image_size) < 1:
            raise InputError(f"`image_size` (={self.image_size}) must be (height, width) in pixels, each at least 1")
        with contextlib.suppress(jax.errors.TracerArrayConversionError):  # while tracing, values are unknown
            check_normalization(np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64))

    @property
    def in_channels(self) -> int:
        """The number of image channels: 1 for gray, 3 for RGB."""
        return len(self.mean)

    def __call__(self, images: Any) -> BatchLogits | Logits:
        """Returns the scores of images, before softmax.

        **Arguments:**

        - `images`: `[b h w c]`, or one image `[h w c]`, with the classifier's image size and channels, `uint8` or
          floating point in [0, 1]. `prepare` makes such an array from an image file of any size.

        **Returns:** `[b classes]`, or `[classes]` for one image.

        **Raises:** `InputError` that names the expected shape, dtype or values.
        """
        check_unmasked(images, "`images`")
        try:
            images = jnp.asarray(images)
        except (TypeError, ValueError, OverflowError, SyntaxError) as error:
            raise InputError(
                f"`images` of type {type(images).__name__} are not an array of numbers: {error}"
            ) from error
        expected = (*self.image_size, self.in_channels)
        if images.shape[-3:] != expected or images.ndim not in (3, 4):
            raise InputError(
                f"`images` of shape {images.shape} must be (batch, {', '.join(map(str, expected))}) or {expected}, "
                "channels last; `prepare` resizes any image to that shape"
            )
        check_pixels(images)
        logits = _logits(self, images.reshape(-1, *expected))
        return logits if images.ndim == 4 else logits[0]

    def top_k(self, images: Any, k: int = 5) -> list[list[tuple[str, float]]]:
        """Returns the names and probabilities of the `k` most probable classes of each image, most probable first.

        **Arguments:**

        - `images`: as for `__call__`.
        - `k`: the number of classes; if there are fewer classes, all are returned.

        **Raises:** `InputError` if `k` is less than 1, and as for `__call__`.
        """
        if not has_type(k, int) or k < 1:
            raise InputError(f"`k` (={k}) must be an integer, 1 or more")
        logits = jnp.atleast_2d(self(images))
        values, classes = jax.lax.top_k(jax.nn.softmax(logits), min(k, len(self.class_names)))
        return [
            [(self.class_names[index], float(value)) for index, value in zip(*row, strict=True)]
            for row in zip(np.asarray(classes), np.asarray(values), strict=True)
        ]

    def prepare(self, image: Any) -> UInt8[np.ndarray, "h w c"]:
        """Decodes and resizes one image in the same way as the training images.

        **Arguments:**

        - `image`: a path, the bytes of an image file, or a `PIL.Image`.

        **Raises:** `InputError` if the image cannot be read.
        """
        return decode_image(image, self.image_size, self.in_channels)


@eqx.filter_jit
def _logits(classifier: ImageClassifier, images: Array) -> BatchLogits:
    return eval_logits(classifier.model, classifier.state, images, classifier.mean, classifier.std)


def save(folder: Path | str, classifier: ImageClassifier) -> None:
    """Saves a classifier to a folder as `model.safetensors` and `config.json`.

    Each file is replaced atomically, so an interrupted call leaves no partial file.

    **Raises:** `InputError` if a file cannot be written.
    """
    folder = Path(folder)
    config = {
        "format": FORMAT,
        "model": classifier.name,
        "in_channels": classifier.in_channels,
        "image_size": list(classifier.image_size),
        "class_names": list(classifier.class_names),
        "mean": shortest(classifier.mean),
        "std": shortest(classifier.std),
        **({"architecture": dict(classifier.architecture)} if classifier.architecture else {}),
    }
    try:
        json.dumps(config, allow_nan=False)
        folder.mkdir(parents=True, exist_ok=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"the settings of `{classifier.name}` cannot be written as JSON: {error}") from error
    except OSError as error:
        raise InputError(f"the folder `{folder}` cannot be made: {error.strerror}") from error
    config["sha256"] = save_safetensors(
        folder / "model.safetensors", to_tensors(classifier.model, classifier.state), {"model": classifier.name}
    )
    # Written last, because a folder with a config.json counts as complete.
    write_text_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def load(
    folder: Path | str,
    *,
    model: Network | tuple[Network, ModelState] | None = None,
    allow_non_finite: bool = False,
) -> ImageClassifier:
    """Loads a trained classifier from a run folder, or from the `model/` folder inside it.

    Loading an untrusted folder is safe: nothing in it is run, and nothing is downloaded.

    **Arguments:**

    - `folder`: a run folder, or a folder that `save` has written.
    - `model`: a network, or a pair `(net, state)`, with any weights, for a folder whose network is not from the zoo;
      its structure must match the saved network.
    - `allow_non_finite`: whether weights may be NaN or infinite, as after training that diverged.

    **Raises:** `InputError` if the folder contains no trained model, or if its files are invalid or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder `{folder}`: give a run folder, or the model folder inside it")
    inner = folder / "model"
    folder = inner if (inner / "config.json").exists() else folder
    if not (folder / "config.json").exists():
        unfinished = "its training has not finished" if (folder / "recipe.yaml").exists() else "it has no config.json"
        raise InputError(f"`{folder}` contains no trained model: {unfinished}")
    config = read_config(folder / "config.json")
    # JSON stores tuples as lists, and the constructors expect tuples.
    architecture = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.get("architecture", {}).items()
    }
    template = _build_abstract(folder / "config.json", config, architecture) if model is None else as_pair(model)
    tensors = _load_tensors(folder / "model.safetensors", config.get("sha256"))
    network, state = from_tensors(*template, tensors)
    if not allow_non_finite:
        check_finite(tensors, f"`{folder}`", "load it with `allow_non_finite=True` only to examine it")
    return ImageClassifier(
        name=config["model"],
        model=eqx.nn.inference_mode(network),
        state=state,
        mean=jnp.asarray(config["mean"], jnp.float32),
        std=jnp.asarray(config["std"], jnp.float32),
        image_size=tuple(config["image_size"]),
        class_names=tuple(config["class_names"]),
        architecture=tuple(architecture.items()),
    )


def _build_abstract(
    path: Path, config: dict[str, Any], architecture: dict[str, Any]
) -> tuple[Classifier, eqx.nn.State]:
    """Builds the model of a `config.json` with shapes only, because the weights are loaded afterwards."""
    if "." in config["model"]:
        raise InputError(
            f"`{path.parent}` was trained with `{config['model']}`, which is not from the zoo: pass a network of that "
            "class, with any weights, as in `eqxcnn.load(folder, model=net)`"
        )
    try:
        # Without this check, an entry such as `key` in `architecture` would set one of `build`'s own arguments.
        check_keywords(config["model"], architecture)
        return eqx.filter_eval_shape(
            build,
            config["model"],
            num_classes=len(config["class_names"]),
            in_channels=config["in_channels"],
            image_size=tuple(config["image_size"]),
            key=jax.random.key(0),
            **architecture,
        )
    except InputError as error:
        raise InputError(f"`{path}` does not describe a model: {error}") from error


def _load_tensors(path: Path, sha256: str | None) -> dict[str, np.ndarray]:
    """Loads the tensors of a file and checks the file's digest; folders saved by older versions have no digest."""
    if sha256 is not None and digest_file(path) != sha256:
        raise InputError(
            f"`{path}` has changed since it was saved (its SHA-256 digest is not the one in config.json): restore it, "
            "or train again"
        )
    return load_safetensors(path)
