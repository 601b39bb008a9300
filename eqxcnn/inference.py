"""A trained classifier as one object: images in, scores or class names out. Saved and loaded as a folder."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype.door import is_bearable
from jaxtyping import Array, Float, UInt8

from . import zoo
from .data import decode_image
from .errors import InputError
from .types import BatchLogits, Classifier, Logits
from .views import eval_logits
from .weights import from_tensors, load_safetensors, save_safetensors, to_tensors, write_text_atomically

_FORMAT = 1
#: The required entries of `config.json` and their types. No value is imported or evaluated.
_CONFIG = {
    "format": int,
    "model": str,
    "in_channels": int,
    "image_size": list[int],
    "class_names": list[str],
    "mean": list[float],
    "std": list[float],
}
#: The optional entries of `config.json`.
_OPTIONAL = {"architecture": dict[str, Any]}


class ImageClassifier(eqx.Module):
    """A model with everything that is needed to classify images.

    - `name`: the model's name in the zoo.
    - `model`, `state`: in training or eval mode; evaluation always uses eval mode.
    - `mean`, `std`: the normalization per channel, on the scale [0, 1].
    - `image_size`: `(height, width)` in pixels.
    - `class_names`: the name of each class, in the order of the scores.
    - `architecture`: the additional keyword arguments of the model's constructor, as `(name, value)` pairs.
    """

    model: Classifier
    state: eqx.nn.State
    mean: Float[Array, " c"]
    std: Float[Array, " c"]
    name: str = eqx.field(static=True)
    image_size: tuple[int, int] = eqx.field(static=True)
    class_names: tuple[str, ...] = eqx.field(static=True)
    architecture: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise InputError(f"`mean` ({len(self.mean)} numbers) and `std` ({len(self.std)}) must have the same length")

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

        **Raises:** `InputError` that names the expected shape or dtype.
        """
        images = jnp.asarray(images)
        expected = (*self.image_size, self.in_channels)
        if images.shape[-3:] != expected or images.ndim not in (3, 4):
            raise InputError(
                f"`images` of shape {images.shape} must be (batch, {', '.join(map(str, expected))}) or {expected}, "
                "channels last; `prepare` resizes any image to that shape"
            )
        if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(f"`images` of dtype {images.dtype} must be uint8, or floating point in [0, 1]")
        logits = _logits(self, images.reshape(-1, *expected))
        return logits if images.ndim == 4 else logits[0]

    def top_k(self, images: Any, k: int = 5) -> list[list[tuple[str, float]]]:
        """Returns the names and probabilities of the `k` most probable classes of each image, most probable first.

        **Arguments:**

        - `images`: as for `__call__`.
        - `k`: the number of classes; if there are fewer classes, all are returned.

        **Raises:** `InputError` if `k` is less than 1, or as `__call__`.
        """
        if k < 1:
            raise InputError(f"`k` (={k}) must be 1 or more")
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
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": _FORMAT,
        "model": classifier.name,
        "in_channels": classifier.in_channels,
        "image_size": list(classifier.image_size),
        "class_names": list(classifier.class_names),
        "mean": np.asarray(classifier.mean, np.float64).round(7).tolist(),
        "std": np.asarray(classifier.std, np.float64).round(7).tolist(),
        **({"architecture": dict(classifier.architecture)} if classifier.architecture else {}),
    }
    save_safetensors(
        folder / "model.safetensors", to_tensors(classifier.model, classifier.state), {"model": classifier.name}
    )
    # Written last, because a folder with a config.json counts as complete.
    write_text_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def load(folder: Path | str) -> ImageClassifier:
    """Loads a trained classifier from a run folder, or from the `model/` folder inside it.

    **Raises:** `InputError` if the folder contains no trained model, or if its files are invalid.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder `{folder}`: give a run folder, or the model folder inside it")
    inner = folder / "model"
    folder = inner if (inner / "config.json").exists() else folder
    if not (folder / "config.json").exists():
        unfinished = "its training has not finished" if (folder / "recipe.yaml").exists() else "it has no config.json"
        raise InputError(f"`{folder}` contains no trained model: {unfinished}")
    config = _read_config(folder / "config.json")
    arguments = {
        "num_classes": len(config["class_names"]),
        "in_channels": config["in_channels"],
        "image_size": tuple(config["image_size"]),
        "key": jax.random.key(0),
    }
    # JSON stores tuples as lists, and the constructors expect tuples.
    architecture = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.get("architecture", {}).items()
    }
    # Only shapes: the weights come from the file, so random ones would be wasted work.
    model, state = eqx.filter_eval_shape(zoo.create_model, config["model"], **arguments, **architecture)
    model, state = from_tensors(model, state, load_safetensors(folder / "model.safetensors"))
    return ImageClassifier(
        name=config["model"],
        model=eqx.nn.inference_mode(model),
        state=state,
        mean=jnp.asarray(config["mean"], jnp.float32),
        std=jnp.asarray(config["std"], jnp.float32),
        image_size=arguments["image_size"],
        class_names=tuple(config["class_names"]),
        architecture=tuple(architecture.items()),
    )


def _read_config(path: Path) -> dict[str, Any]:
    """Reads `config.json` and checks the entries and their types."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` cannot be read as JSON: {error}") from error
    for name, hint in _CONFIG.items():
        if not isinstance(config, dict) or not is_bearable(config.get(name), hint):
            raise InputError(f"`{path}` must contain `{name}` of type {getattr(hint, '__name__', hint)}")
    for name, hint in _OPTIONAL.items():
        if not is_bearable(config.get(name, {}), hint):
            raise InputError(f"`{name}` in `{path}` must be of type {hint}")
    if config["format"] != _FORMAT:
        raise InputError(
            f"`{path}` has format {config['format']}, but this version of eqxcnn reads format {_FORMAT}: update eqxcnn"
        )
    if len(config["image_size"]) != 2 or not len(config["mean"]) == len(config["std"]) == config["in_channels"]:
        raise InputError(
            f"`{path}` must contain two numbers in `image_size`, and one number per channel in `mean` and `std`"
        )
    return config
