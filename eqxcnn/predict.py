"""`python -m eqxcnn.predict`: the most probable classes of image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from .cli import run_command
from .errors import InputError
from .inference import load


@dataclass(frozen=True)
class Options:
    """Predicts the classes of image files with a trained classifier."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or the model folder inside it."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files: PNG, JPEG, or another format that Pillow opens."""
    top: int = 3
    """Number of classes to print, most probable first."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, predicts, and prints one line per image."""
    options = tyro.cli(Options, prog="python -m eqxcnn.predict", args=arguments)
    if not options.images:
        raise InputError("there is no image to predict: name at least one file after the run")
    classifier = load(options.run)
    pixels = [classifier.prepare(path) for path in options.images]
    for path, classes in zip(options.images, classifier.top_k(np.stack(pixels), k=options.top), strict=True):
        print(f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in classes))


if __name__ == "__main__":
    run_command(main)
