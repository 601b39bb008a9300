"""The rows of a source as the `datasets` library returns them, undecoded, with its errors in one sentence."""

import glob
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from .. import hub
from ..errors import InputError
from .fingerprint import fingerprint_files
from .sources import Source

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
else:
    Dataset = DatasetDict = Any

_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "validation", "valid", "val")
_TABLES = (".parquet", ".arrow")
_LAYOUTS = (
    "put images into one folder per class (`FOLDER/cat/1.jpg`, or `FOLDER/train/cat/1.jpg` and "
    "`FOLDER/test/cat/2.jpg`), or give parquet files or a `save_to_disk` folder."
)


def read_rows(source: Source) -> dict[str, Dataset]:
    """Returns all splits of a source, by name; a table without splits is called `train`.

    **Raises:** `InputError`, with the library's own error as its cause, if `datasets` cannot open the source, or if the
    Hub is out of reach and its cache on this machine has no copy.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    what = f"`{source.folder or source.hub or 'digits'}`"
    try:
        with _hide_progress_without_terminal():
            rows = _read(source)
    except DatasetNotFoundError as error:
        raise InputError(
            f"the Hugging Face Hub has no data set {what} that you may read: check the name, or log in with "
            "`hf auth login` if it is private or gated."
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{what} holds no images or tables that can be read: {_LAYOUTS}") from error
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} cannot be opened: {_first_line(error)}") from error
    if isinstance(rows, datasets.Dataset):
        return {"train": rows}
    return {str(name): split for name, split in rows.items()}


def _read(source: Source) -> "Dataset | DatasetDict":
    import datasets

    if source.hub is not None:
        return _read_hub(source.hub, source.config)
    if source.folder is None:
        return _read_digits()
    if any((source.folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return datasets.load_from_disk(str(source.folder))
    files = _class_folders(source.folder)
    if files:
        return datasets.load_dataset("imagefolder", data_files=files)
    return _read_described_folder(source.folder, source.config)


def _read_described_folder(folder: Path, config: str | None) -> "Dataset | DatasetDict":
    """Reads a folder of tables, or with a data card or a metadata file.

    `datasets` caches a folder with a card by the names of folder and configuration alone, and others by modification
    times, which a copy may preserve: other content would be read from the cache. So the files' fingerprint is made part
    of the cache's path.
    """
    import datasets
    from datasets import config as settings

    found = datasets.load_dataset_builder(str(folder), config).config.data_files or {}
    files = sorted({str(file) for split in found.values() for file in split})
    cache = Path(settings.HF_DATASETS_CACHE, "eqxcnn", fingerprint_files(files)[:32])
    return datasets.load_dataset(str(folder), config, cache_dir=str(cache))


def _read_digits() -> Dataset:
    import datasets

    values, labels = load_digits()
    pixels = ((values.reshape(-1, 8, 8) * 255 + 8) // 16).astype("uint8")  # From 0..16, to the nearest of 0..255.
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    )
    return datasets.Dataset.from_dict({"image": list(pixels), "label": labels}, features=features)


def load_digits() -> tuple[Float[np.ndarray, "n 64"], Int[np.ndarray, " n"]]:
    """Returns scikit-learn's digits: pixels from 0 to 16, and labels."""
    package = find_spec("sklearn")
    for folder in package.submodule_search_locations or () if package else ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            # scikit-learn's own function reads the same file, but is slow to import.
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1], rows[:, -1].astype(int)
    from sklearn import datasets

    pixels_and_labels: Any = datasets.load_digits(return_X_y=True)
    return pixels_and_labels


def _class_folders(folder: Path) -> dict[str, list[str]]:
    """Returns patterns of the image files by split if the folder is a tree of class folders, else nothing.

    `datasets` finds such a tree by itself, but guesses splits from any "train" or "test" in a path: a class called
    `train` or an image called `test_1.png` then silently hides all others. It also skips a class folder that is a
    symbolic link. Explicit patterns avoid both.
    """
    if _is_described(folder):
        return {}
    splits = {name: _image_folders(folder / name) for name in _TRAIN_FOLDERS + _TEST_FOLDERS}
    train = next((splits[name] for name in _TRAIN_FOLDERS if splits[name]), None)
    if train is None:
        flat = _image_folders(folder)
        return {"train": flat} if flat else {}
    test = next((splits[name] for name in _TEST_FOLDERS if splits[name]), None)
    return {"train": train} | ({"test": test} if test else {})


def _is_described(folder: Path) -> bool:
    """Returns whether tables, a metadata file or a data card define the rows."""
    card = folder / "README.md"
    return (
        any(path.suffix.lower() in _TABLES for depth in ("*", "*/*") for path in folder.glob(depth))
        or any(folder.glob("metadata.*"))
        or (card.is_file() and card.read_bytes().startswith(b"---"))
    )


def _image_folders(folder: Path) -> list[str]:
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    def has_images(path: Path) -> bool:
        return any(file.suffix.lower() in ImageFolder.EXTENSIONS for file in path.iterdir())

    if not folder.is_dir():
        return []
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    return [f"{glob.escape(str(path))}/**" for path in inner if has_images(path)]


def _read_hub(repository: str, config: str | None) -> DatasetDict:
    """Reads a data set from the Hub, or from the Hub's cache when the Hub is out of reach.

    `datasets` retries for half a minute before it looks into its cache, but looks there at once in offline mode, so a
    single request tests first whether the Hub answers.
    """
    import datasets
    from datasets import config as settings

    was_offline = settings.HF_HUB_OFFLINE
    unreachable = ConnectionError("offline mode is set") if was_offline else hub.why_unreachable()
    try:
        settings.HF_HUB_OFFLINE = unreachable is not None
        return datasets.load_dataset(repository, config)
    except (ConnectionError, FileNotFoundError, ValueError) as error:
        if unreachable is None:
            raise
        reason = _first_line(getattr(unreachable, "reason", unreachable))
        raise InputError(
            f"the Hugging Face Hub cannot be reached ({reason}) and this machine has no copy of `{repository}`: give a "
            "local folder with `--data FOLDER`, use `--data digits`, or run once online to fill the Hub's cache."
        ) from error
    finally:
        settings.HF_HUB_OFFLINE = was_offline


@contextmanager
def _hide_progress_without_terminal() -> Iterator[None]:
    import datasets

    hide = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
