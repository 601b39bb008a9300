"""`config.json` of a saved classifier: its entries, their types and their values."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from .errors import InputError, nearest
from .images import Preprocess
from .parsing import parse_json, read_text
from .registry import MAX_CLASSES, has_type

__all__ = ["FORMAT", "check_normalization", "preprocess_of", "read_config", "shortest"]

FORMAT = 1
#: The required entries of `config.json` and their types. Values are only read as data: none is imported or run as code.
_CONFIG = {
    "format": int,
    "model": str,
    "in_channels": int,
    "image_size": list[int],
    "class_names": list[str],
    "mean": list[float],
    "std": list[float],
}
#: The optional entries of `config.json`; `sha256` is the digest of `model.safetensors`. The last three are fields of
#: `Preprocess`.
_OPTIONAL = {
    "architecture": dict[str, Any],
    "sha256": str,
    "resize": str,
    "crop_fraction": float,
    "interpolation": str,
}
_FLOAT32 = np.finfo(np.float32)


def read_config(path: Path) -> dict[str, Any]:
    """Reads `config.json`.

    **Raises:** `InputError` that names the entry that is missing or has a wrong type or an invalid value.
    """
    config = parse_json(read_text(path), f"`{path}`")
    for name, hint in _CONFIG.items():
        if not isinstance(config, dict) or not has_type(config.get(name), hint):
            raise InputError(f"`{path}` must contain `{name}` of type {getattr(hint, '__name__', hint)}")
    if unknown := [name for name in config if name not in {**_CONFIG, **_OPTIONAL}]:
        raise InputError(
            f"`{path}` has the unknown entry `{unknown[0]}`; {nearest(unknown[0], {**_CONFIG, **_OPTIONAL})}"
        )
    for name, hint in _OPTIONAL.items():
        if name in config and not has_type(config[name], hint):
            raise InputError(f"`{name}` in `{path}` must be of type {hint}")
    if config["format"] != FORMAT:
        raise InputError(
            f"`{path}` has format {config['format']}, but this version of eqxcnn reads format {FORMAT}: update eqxcnn"
        )
    if len(config["image_size"]) != 2 or not len(config["mean"]) == len(config["std"]) == config["in_channels"]:
        raise InputError(
            f"`{path}` must contain two numbers in `image_size`, and one number per channel in `mean` and `std`"
        )
    try:
        check_normalization(np.array(config["mean"], np.float64), np.array(config["std"], np.float64))
        _check_class_names(config["class_names"])
        preprocess_of(config)
    except InputError as error:
        raise InputError(f"`{path}` has an invalid value: {error}") from error
    return config


def preprocess_of(config: dict[str, Any]) -> Preprocess:
    """Returns the preprocessing in a `config.json`. Older files have no entry `resize`; images are then stretched.

    **Raises:** `InputError` that names the invalid entry.
    """
    names = ("resize", "crop_fraction", "interpolation")
    chosen: dict[str, Any] = {name: config[name] for name in names if name in config}
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Preprocess(tuple(config["image_size"]), config["in_channels"], **chosen, mean=mean, std=std)


def check_normalization(mean: Float[np.ndarray, " c"], std: Float[np.ndarray, " c"]) -> None:
    """Refuses a mean that is not finite in float32, and a standard deviation that is not finite, is negative, or is too
    small to divide by.

    **Raises:** `InputError` that names the invalid argument.
    """
    if not (np.abs(mean) <= _FLOAT32.max).all():
        raise InputError(f"`mean` (={mean.tolist()}) must be finite")
    if not ((std >= _FLOAT32.tiny) & (std <= _FLOAT32.max)).all():
        raise InputError(f"`std` (={std.tolist()}) must be above 0 and finite")


def shortest(values: Float[Array | np.ndarray, " c"]) -> list[float]:
    """Rounds each number to the fewest decimal digits that still give the same float32 number."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def _check_class_names(names: list[str]) -> None:
    if not 0 < len(names) <= MAX_CLASSES:
        raise InputError(f"`class_names` must have from 1 to {MAX_CLASSES} names, and there are {len(names)}")
    if "" in names:
        raise InputError(f"`class_names` has an empty name at position {names.index('')}")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"`class_names` has `{name}` {count} times: give each class its own name")
