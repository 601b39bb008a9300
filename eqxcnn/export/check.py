"""Compares an exported program with the classifier."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from ..data import find_images
from ..errors import InputError
from ..inference import ImageClassifier
from .program import Program

__all__ = ["TOLERANCES", "check_outputs", "choose_images", "compare_scores"]

#: The largest difference allowed between a logit of the export and the same logit of the classifier, as a fraction of
#: the classifier's largest absolute logit. A half-precision network rounds every activation: to 11 bits (float16) or to
#: 8 bits (bf16).
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bf16": 5e-2}

_NUM_IMAGES = 32
#: A random image is a grid of single-color cells, with one of these numbers of cells per side; 0 makes each pixel a
#: cell. Most images have large cells, because a network gives similar scores to all images of pixel noise.
_CELLS = (2, 4, 8, 0)
#: Classes less probable than this are not compared: rounding changes the logarithm of a tiny probability too much.
_LEAST_PROBABLE = 1e-5


def choose_images(classifier: ImageClassifier, folder: Path | None = None) -> UInt8[np.ndarray, "n h w c"]:
    """Returns the first 32 images of a folder, preprocessed; without a folder, the same 32 random images in every call.

    **Raises:** `InputError` if the folder has no images or an image cannot be read.
    """
    if folder is not None:
        return np.stack([classifier.prepare(path) for path in find_images(folder)[:_NUM_IMAGES]])
    generator = np.random.default_rng(0)
    (height, width), channels = classifier.image_size, classifier.in_channels
    images = []
    for index in range(_NUM_IMAGES):
        cells = _CELLS[index % len(_CELLS)]
        rows, columns = (np.arange(side) * (cells or side) // side for side in (height, width))
        colors = generator.integers(0, 256, (rows[-1] + 1, columns[-1] + 1, channels), np.uint8)
        images.append(colors[rows][:, columns])
    return np.stack(images)


def check_outputs(
    program: Program, run: Callable[[UInt8[np.ndarray, "b h w c"]], np.ndarray], images: UInt8[np.ndarray, "n h w c"]
) -> float:
    """Runs an exported program on images, and returns the difference that `compare_scores` measures.

    **Arguments:**

    - `program`: the classifier and the settings of its export.
    - `run`: the exported program, called with batches of size `program.batch`.
    """
    wanted = np.asarray(program.classifier(images), np.float32)
    return compare_scores(program, _run_in_batches(run, images, program.batch), wanted)


def compare_scores(program: Program, found: np.ndarray, wanted: Float[np.ndarray, "n classes"]) -> float:
    """Returns the largest difference between a found and a wanted logit, divided by the largest absolute logit.

    Probabilities are compared by their logarithms, which differ by at most twice as much as the logits.

    **Arguments:**

    - `program`: the classifier and the settings of its export.
    - `found`: the outputs of the exported program.
    - `wanted`: the logits of the classifier.

    **Raises:** `InputError` if the difference is larger than `TOLERANCES` allows, if a score is not finite, or if the
        most probable class of an image differs although the classifier's two largest logits do not tie.
    """
    name, allowed = program.classifier.name, TOLERANCES[program.precision]
    advice = "export it with `precision` float32" if program.precision != "float32" else "please report this"
    if not np.isfinite(wanted).all():
        raise InputError(
            f"the classifier `{name}` gives logits that are not finite, so nothing was written: evaluate it with "
            "`python -m eqxcnn.evaluate`"
        )
    if found.shape != wanted.shape:
        raise InputError(
            f"the exported `{name}` gives scores of shape {found.shape} instead of {wanted.shape}, so nothing was "
            "written: please report this"
        )
    if not np.isfinite(found).all():
        raise InputError(f"the exported `{name}` gives scores that are not finite, so nothing was written: {advice}")
    scale = float(np.abs(wanted).max()) or 1.0
    if program.outputs == "probabilities":
        error = _compare_probabilities(found, wanted) / 2 / scale
    else:
        error = float(np.abs(found - wanted).max()) / scale
    if error > allowed:
        raise InputError(
            f"the logits of the exported `{name}` differ from the classifier's by {error:.1e} of the largest logit, "
            f"but at most {allowed:g} is allowed, so nothing was written: {advice}"
        )
    top = np.sort(wanted)[:, -2:]
    is_clear = top[:, -1] - top[:, 0] > allowed * scale
    differs = (found.argmax(1) != wanted.argmax(1)) & is_clear
    if differs.any():
        raise InputError(
            f"the exported `{name}` classifies {differs.sum()} of {len(wanted)} images differently from the classifier "
            f"(the logits differ by {error:.1e} of the largest logit), so nothing was written: {advice}"
        )
    return error


def _run_in_batches(
    run: Callable[[UInt8[np.ndarray, "b h w c"]], np.ndarray], images: UInt8[np.ndarray, "n h w c"], batch: int | str
) -> Float[np.ndarray, "n classes"]:
    if isinstance(batch, str):
        # The program is called with two batch sizes, because it may be right for only one of them.
        parts = [images[:1], images[1:]] if len(images) > 1 else [images]
        return np.concatenate([np.asarray(run(part), np.float32) for part in parts])
    missing = -len(images) % batch
    padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
    parts = np.split(padded, len(padded) // batch)
    return np.concatenate([np.asarray(run(part), np.float32) for part in parts])[: len(images)]


def _compare_probabilities(found: np.ndarray, logits: np.ndarray) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    wanted = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    is_probable = wanted > np.log(_LEAST_PROBABLE)
    with np.errstate(divide="ignore"):
        return float(np.abs(np.log(found) - wanted)[is_probable].max())
