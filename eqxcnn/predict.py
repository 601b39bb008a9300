"""`python -m eqxcnn.predict`: the most probable classes of image files."""

import csv
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from .cli import run_command, show_progress
from .data import find_images
from .errors import InputError, printable
from .images import Preprocess
from .inference import ImageClassifier
from .plugins import IMPORT_HELP, take_imports
from .runtime.devices import Devices, choose_devices
from .runtime.memory import keep_freed_memory
from .saved_classifier import load

__all__ = ["Classes", "Options", "main"]

#: The names and probabilities of an image's classes, most probable first.
Classes = list[tuple[str, float]]
#: An image's path, and its pixels or the reason why it cannot be read.
_Decoded = tuple[Path, np.ndarray | InputError]


@dataclass(frozen=True)
class Options:
    """Predicts the classes of image files with a trained classifier."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, the model folder inside it, the name of a model with trained weights, such as lenet, or a model
    on the Hugging Face Hub, such as hub:user/name."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files (PNG, JPEG, GIF, WebP, BMP, TIFF, ...), or folders, which are searched recursively."""
    top: int = 3
    """Number of classes to print, most probable first."""
    format: Literal["text", "csv", "json"] = "text"
    """Output format: readable text, CSV with a header, or one JSON object per line."""
    batch_size: int = 32
    """Images per batch; at most two batches are in memory at once."""


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
    keep_freed_memory()
    devices = choose_devices()
    classifier = devices.replicate(load(options.run))
    paths = [image for path in options.images for image in (find_images(path) if os.path.isdir(path) else [path])]
    write = _make_writer(options.format, min(options.top, len(classifier.class_names)))
    size = devices.round_up(min(options.batch_size, len(paths)))
    classify = partial(_classify, classifier, devices, options.top, size)
    done = unreadable = 0
    try:
        with (
            closing(_decode_ahead(classifier.preprocess, paths, size)) as batches,
            # On a terminal that also shows the results, a progress bar would break up the lines of the results.
            nullcontext(lambda _: None) if sys.stdout.isatty() else show_progress("images", len(paths)) as advance,
        ):
            for count, results in map(classify, batches):
                for path, classes in results:
                    write(path, classes)
                sys.stdout.flush()
                done, unreadable = done + count, unreadable + count - len(results)
                advance(count)
    except KeyboardInterrupt:
        print(f"interrupted after {done:,} of {len(paths):,} images", file=sys.stderr)
        sys.exit(130)
    if unreadable:
        raise InputError(f"{unreadable:,} of {len(paths):,} images could not be read")


def _classify(
    classifier: ImageClassifier, devices: Devices, top: int, size: int, batch: Sequence[_Decoded]
) -> tuple[int, list[tuple[Path, Classes]]]:
    """Returns the size of a batch and the classes of its readable images; prints an error per unreadable image."""
    readable, images = [], []
    for path, image in batch:
        if isinstance(image, InputError):
            print(f"error: {image}", file=sys.stderr, flush=True)
        else:
            readable.append(path)
            images.append(image)
    # The last batch is padded, so that all batches have one shape and the network compiles once.
    empty = np.zeros((*classifier.image_size, classifier.in_channels), np.uint8)
    pixels = devices.split(np.stack(images + [empty] * (size - len(images))), axis=0)
    classes = classifier.top_k(pixels, k=top) if readable else []
    return len(batch), list(zip(readable, classes, strict=False))


def _decode_ahead(prepare: Preprocess, paths: Sequence[Path], size: int) -> Generator[Sequence[_Decoded], None, None]:
    """Yields batches of decoded images in order; threads decode the next batch while the network computes this one."""

    def decode(path: Path) -> _Decoded:
        try:
            return path, prepare(path)
        except InputError as error:
            return path, error

    pool, ahead = ThreadPoolExecutor(os.cpu_count() or 1), deque()
    try:
        for start in range(0, len(paths), size):
            ahead.append([pool.submit(decode, path) for path in paths[start : start + size]])
            if len(ahead) == 2:
                yield [future.result() for future in ahead.popleft()]
        yield from ([future.result() for future in batch] for batch in ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _make_writer(output: str, count: int) -> Callable[[Path, Classes], object]:
    """Returns a function that prints the classes of one image; `count` is the number of classes per line in CSV."""
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


if __name__ == "__main__":
    run_command(main)
