"""Reads the undecoded rows of a source with the `datasets` library, and explains its errors in one sentence each."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from .. import hub_connection
from ..errors import InputError, printable
from .class_folders import read_class_folders
from .described import check_described, check_found, check_saved
from .files import LAYOUTS
from .fingerprint import fingerprint_files
from .sources import Source
from .tables import to_tables

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
else:
    Dataset = DatasetDict = Any

__all__ = ["DAMAGED", "first_line", "load_digits", "quiet_library", "read_rows", "say_when_slow"]

_SLOW_SECONDS = 2.0
#: Exceptions that `datasets` raises for damaged files, besides its own exception types.
DAMAGED = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


def read_rows(source: Source) -> Mapping[str, Dataset]:
    """Returns all splits of a source, by name; a table without splits is called `train`.

    **Raises:** `InputError` if `datasets` cannot open the source, or if the Hub cannot be reached and its cache on this
    machine has no copy; the library's own error is the exception's cause.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError, DatasetsError

    if source.rows is not None:
        return _call(source.rows, source)
    what = f"`{source.folder or source.hub or 'digits'}`"
    try:
        with quiet_library():
            rows = _read(source)
    except DatasetNotFoundError as error:
        raise InputError(
            f"the Hugging Face Hub has no data set {what} that you may read: check the name, or log in with "
            "`hf auth login` if it is private or gated."
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{what} holds no images or tables that can be read: {LAYOUTS}") from error
    except InputError:
        raise
    except (*DAMAGED, DatasetsError) as error:
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        raise InputError(f"{what} cannot be opened: {first_line(cause)}") from error
    if isinstance(rows, datasets.Dataset):
        return {"train": rows}
    return {str(name): split for name, split in rows.items()}


def _call(function: Callable[[], Any], source: Source) -> Mapping[str, Dataset]:
    name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    try:
        value = function()
    except InputError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"the data set's function `{name}` failed ({cause}): correct it.") from error
    return to_tables(value, source, name)


def _read(source: Source) -> "Dataset | DatasetDict":
    import datasets

    if source.hub is not None:
        return _read_hub(source.hub, source.config)
    if source.folder is None:
        return _read_digits()
    if any((source.folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        check_saved(source.folder)
        return datasets.load_from_disk(str(source.folder))
    rows = read_class_folders(source.folder, source.test_split)
    if rows is not None:
        return rows
    check_described(source.folder)
    return _read_described_folder(source.folder, source.config)


def _read_described_folder(folder: Path, config: str | None) -> "Dataset | DatasetDict":
    """Reads a folder that contains tables, a data card or a metadata file.

    For a folder with a data card, the cache key of `datasets` is only the folder's name and configuration; for other
    folders, it is based on modification times, which a copy may preserve. After the files change, an outdated
    cache could then be read, so the cache's path contains the files' fingerprint.
    """
    import datasets
    from datasets import config as settings

    found = datasets.load_dataset_builder(str(folder), config).config.data_files or {}
    files = sorted({str(file) for split in found.values() for file in split})
    check_found(folder, files)
    cache = Path(settings.HF_DATASETS_CACHE, "eqxcnn", fingerprint_files(files)[:32])
    return datasets.load_dataset(str(folder), config, cache_dir=str(cache))


def _read_digits() -> Dataset:
    import datasets

    values, labels = load_digits()
    pixels = ((values.reshape(-1, 8, 8) * 255 + 8) // 16).astype("uint8")  # Scales 0..16 to 0..255 and rounds.
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


def _read_hub(repository: str, config: str | None) -> DatasetDict:
    """Reads a data set from the Hub, or from the Hub's cache when the Hub is out of reach.

    `datasets` retries for half a minute before it uses its cache, except in offline mode. So a single request first
    tests whether the Hub responds, and offline mode is set if it does not.
    """
    import datasets
    from datasets import config as settings

    was_offline = settings.HF_HUB_OFFLINE
    unreachable = ConnectionError("offline mode is set") if was_offline else hub_connection.why_unreachable()
    try:
        settings.HF_HUB_OFFLINE = unreachable is not None
        return datasets.load_dataset(repository, config)
    except (ConnectionError, FileNotFoundError, ValueError) as error:
        if unreachable is None:
            raise
        reason = first_line(getattr(unreachable, "reason", unreachable))
        raise InputError(
            f"the Hugging Face Hub cannot be reached ({reason}) and this machine has no copy of `{repository}`: give a "
            "local folder with `--data FOLDER`, use `--data digits`, or connect once to the internet to download it."
        ) from error
    finally:
        settings.HF_HUB_OFFLINE = was_offline


@contextmanager
def say_when_slow(source: str) -> Iterator[None]:
    """Prints the source's name to standard error if reading takes over two seconds; a large folder may take minutes."""
    line = f"reading the data set {printable(source)} ..."
    timer = threading.Timer(_SLOW_SECONDS, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def quiet_library() -> Iterator[None]:
    """Hides the log of `datasets`, whose errors `read_rows` reports, and without a terminal also the progress bars."""
    import datasets

    hide = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    if hide:
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if hide:
            datasets.enable_progress_bars()


def first_line(error: object) -> str:
    """Returns the first line of an exception's message, without a final period."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    # The message of a `KeyError` is only the key, so the result starts with the exception's type.
    return f"{type(error).__name__}: {line}" if isinstance(error, LookupError) else line
