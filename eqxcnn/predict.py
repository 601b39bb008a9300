"""`python -m eqxcnn.predict`: the likeliest classes of picture files."""

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
    """Name what is in pictures, with a trained classifier."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or the model folder inside it."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Picture files: PNG, JPEG, or anything else that Pillow opens."""
    top: int = 3
    """How many classes to name, likeliest first."""


def main(arguments: Sequence[str]) -> None:
    """Parses, predicts, prints a line a picture."""
    options = tyro.cli(Options, prog="python -m eqxcnn.predict", args=arguments)
    if not options.images:
        raise InputError("there is no picture to look at: name at least one file behind the run")
    classifier = load(options.run)
    pixels = [classifier.prepare(path) for path in options.images]
    for path, classes in zip(options.images, classifier.top_k(np.stack(pixels), k=options.top), strict=True):
        print(f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in classes))


if __name__ == "__main__":
    run_command(main)
