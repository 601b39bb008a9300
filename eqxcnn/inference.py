"""A trained classifier as one object that needs no other code: images in, scores or class names out."""

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
#: What `config.json` holds, by type; nothing in it is imported or evaluated.
_CONFIG = {
    "format": int,
    "model": str,
    "in_channels": int,
    "image_size": list[int],
    "class_names": list[str],
    "mean": list[float],
    "std": list[float],
}
#: What it holds only where there is something to say.
_OPTIONAL = {"architecture": dict[str, Any]}


class ImageClassifier(eqx.Module):
    """A model with all it needs to look at pictures.

    - `name`: the model's name in the zoo.
    - `model`, `state`: in eval mode.
    - `mean`, `std`: the normalization, a channel, on the scale [0, 1].
    - `image_size`: `(height, width)` in pixels.
    - `class_names`: what each score stands for.
    - `architecture`: names and values of what the model's constructor was given besides.
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
            raise InputError(f"`mean` ({len(self.mean)} numbers) and `std` ({len(self.std)}) must be of one length")

    @property
    def in_channels(self) -> int:
        """1 for gray images, 3 for color."""
        return len(self.mean)

    def __call__(self, images: Any) -> BatchLogits | Logits:
        """Scores of images, before softmax.

        **Arguments:**

        - `images`: `[b h w c]`, or one image `[h w c]`, at the classifier's own size and channels: `uint8`, or floating
          point in [0, 1]. `prepare` makes such an array of a file or a picture of any size.

        **Returns:** `[b classes]`, or `[classes]` of one image.

        **Raises:** `InputError` naming what was expected.
        """
        images = jnp.asarray(images)
        expected = (*self.image_size, self.in_channels)
        if images.shape[-3:] != expected or images.ndim not in (3, 4):
            raise InputError(
                f"`images` of shape {images.shape} must be (batch, {', '.join(map(str, expected))}) or {expected}, "
                "channels last; `prepare` brings any picture to that size"
            )
        if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(f"`images` of {images.dtype} must be uint8, or floating point in [0, 1]")
        logits = _logits(self, images.reshape(-1, *expected))
        return logits if images.ndim == 4 else logits[0]

    def top_k(self, images: Any, k: int = 5) -> list[list[tuple[str, float]]]:
        """The `k` likeliest classes of each image with their probabilities, likeliest first.

        **Arguments:**

        - `images`: as `__call__` takes them.
        - `k`: how many classes; all of them when there are fewer.
        """
        if k < 1:
            raise InputError(f"`k` (={k}) must be 1 or more")
        logits = jnp.atleast_2d(self(images))
        values, classes = jax.lax.top_k(jax.nn.softmax(logits), min(k, len(self.class_names)))
        return [
            [(self.class_names[each], float(value)) for each, value in zip(*row, strict=True)]
            for row in zip(np.asarray(classes), np.asarray(values), strict=True)
        ]

    def prepare(self, image: Any) -> UInt8[np.ndarray, "h w c"]:
        """A picture (path, file's bytes or `PIL.Image`) as the training images were made: decoded, resized, `uint8`."""
        return decode_image(image, self.image_size, self.in_channels)


@eqx.filter_jit
def _logits(classifier: ImageClassifier, images: Array) -> BatchLogits:
    return eval_logits(classifier.model, classifier.state, images, classifier.mean, classifier.std)


def save(folder: Path | str, classifier: ImageClassifier) -> None:
    """Writes `model.safetensors` and `config.json`, each whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": _FORMAT,
        "model": classifier.name,
        "in_channels": classifier.in_channels,
        "image_size": list(classifier.image_size),
        "class_names": list(classifier.class_names),
        "mean": [float(each) for each in np.asarray(classifier.mean, np.float64).round(7)],
        "std": [float(each) for each in np.asarray(classifier.std, np.float64).round(7)],
        **({"architecture": dict(classifier.architecture)} if classifier.architecture else {}),
    }
    save_safetensors(
        folder / "model.safetensors", to_tensors(classifier.model, classifier.state), {"model": classifier.name}
    )
    # Last, because a reader takes a folder with a config for a complete one.
    write_text_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def load(folder: Path | str) -> ImageClassifier:
    """A trained classifier from a run's folder, or from the `model/` folder inside it.

    **Raises:** `InputError` when the folder holds no trained model, or files that do not fit together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder `{folder}`: give a run's, or the model folder inside it")
    inner = folder / "model"
    folder = inner if (inner / "config.json").exists() else folder
    if not (folder / "config.json").exists():
        unfinished = "its training has not finished" if (folder / "recipe.yaml").exists() else "it has no config.json"
        raise InputError(f"`{folder}` holds no trained model: {unfinished}")
    config = _read_config(folder / "config.json")
    arguments = {
        "num_classes": len(config["class_names"]),
        "in_channels": config["in_channels"],
        "image_size": tuple(config["image_size"]),
        "key": jax.random.key(0),
    }
    # JSON has no tuples, and a constructor takes no lists.
    architecture = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.get("architecture", {}).items()
    }
    # Shapes only: the weights come from the file, so none are drawn.
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
    """`config.json` with every entry there and of its type."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` cannot be read as JSON: {error}") from error
    for name, hint in _CONFIG.items():
        if not isinstance(config, dict) or not is_bearable(config.get(name), hint):
            raise InputError(f"`{path}` must hold `{name}` as {getattr(hint, '__name__', hint)}")
    for name, hint in _OPTIONAL.items():
        if not is_bearable(config.get(name, {}), hint):
            raise InputError(f"`{path}` must hold `{name}`, if at all, as {hint}")
    if config["format"] != _FORMAT:
        raise InputError(f"`{path}` is of format {config['format']}, and this eqxcnn reads {_FORMAT}: update eqxcnn")
    if len(config["image_size"]) != 2 or not len(config["mean"]) == len(config["std"]) == config["in_channels"]:
        raise InputError(f"`{path}` must hold two sides of `image_size`, and `mean` and `std` for each channel")
    return config
