"""`python -m eqxcnn.predict`: the most probable classes of image files."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from .cli import run_command
from .data import find_images
from .errors import InputError, printable
from .inference import ImageClassifier
from .plugins import IMPORT_HELP, take_imports
from .saved_classifier import load

__all__ = ["Classes", "Options", "main"]

#: The names and probabilities of an image's classes, most probable first.
Classes = list[tuple[str, float]]


@dataclass(frozen=True)
class Options:
    """Predicts the classes of image files with a trained classifier."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or the model folder inside it."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files (PNG, JPEG, GIF, WebP, BMP, TIFF, ...), or folders, which are searched recursively."""
    top: int = 3
    """Number of classes to print, most probable first."""
    format: Literal["text", "csv", "json"] = "text"
    """Output format: readable text, CSV with a header, or one JSON object per line."""
    batch_size: int = 32
    """Number of images in memory at once."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, predicts, and prints the classes of each image as soon as its batch is done.

    **Raises:** `InputError`, after printing all readable images, if an image could not be read.
    """
    help_, arguments = f"{Options.__doc__} {IMPORT_HELP}", take_imports(arguments)
    options = tyro.cli(Options, prog="python -m eqxcnn.predict", description=help_, args=arguments)
    if not options.images:
        raise InputError("there is no image to predict: name at least one file after the run")
    for name, value in (("top", options.top), ("batch-size", options.batch_size)):
        if value < 1:
            raise InputError(f"`--{name}` (={value}) must be 1 or more")
    classifier = load(options.run)
    paths = [image for path in options.images for image in (find_images(path) if os.path.isdir(path) else [path])]
    write = _make_writer(options.format, min(options.top, len(classifier.class_names)))
    done = unreadable = 0
    for batch, results in _predict(classifier, paths, options.top, options.batch_size):
        for path, classes in results:
            write(path, classes)
        done, unreadable = done + len(batch), unreadable + len(batch) - len(results)
        sys.stdout.flush()
        _show_progress(done, len(paths))
    if unreadable:
        raise InputError(f"{unreadable} of {len(paths)} images could not be read")


def _predict(
    classifier: ImageClassifier, paths: Sequence[Path], top: int, batch_size: int
) -> Iterator[tuple[Sequence[Path], list[tuple[Path, Classes]]]]:
    """Yields each batch's paths, and the classes of its readable images; prints an error for each unreadable image."""
    size = min(batch_size, len(paths))
    for start in range(0, len(paths), size):
        batch = paths[start : start + size]
        readable, images = [], []
        for path in batch:
            try:
                images.append(classifier.prepare(path))
                readable.append(path)
            except InputError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
        # The last batch is padded, so that all batches have one shape and the network compiles once.
        images += [np.zeros((*classifier.image_size, classifier.in_channels), np.uint8)] * (size - len(images))
        classes = classifier.top_k(np.stack(images), k=top) if readable else []
        yield batch, list(zip(readable, classes, strict=False))


def _make_writer(output: str, count: int) -> Callable[[Path, Classes], object]:
    """Returns a function that prints the classes of one image; `count` is the number of classes in a CSV header."""
    if output == "csv":
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(
            ["path", *(f"{name}_{rank}" for rank in range(1, count + 1) for name in ("class", "probability"))]
        )
        return lambda path, classes: table.writerow([path, *(value for pair in classes for value in pair)])
    return _print_json if output == "json" else _print_text


def _print_json(path: Path, classes: Classes) -> None:
    pairs = [{"name": name, "probability": probability} for name, probability in classes]
    print(json.dumps({"path": str(path), "classes": pairs}))


def _print_text(path: Path, classes: Classes) -> None:
    names = ", ".join(f"{printable(name)} {probability:.1%}" for name, probability in classes)
    print(f"{printable(str(path), limit=4096)}: {names}")


def _show_progress(done: int, total: int) -> None:
    """Shows the number of finished images on a terminal, unless the results go to a terminal too."""
    if sys.stderr.isatty() and not sys.stdout.isatty():
        print(f"\r{done:,} of {total:,} images", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
