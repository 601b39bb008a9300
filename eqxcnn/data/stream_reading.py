"""Opens the splits of a source as streams of the `datasets` library, without a copy on this machine."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import hub_connection
from ..errors import InputError
from .class_folders import read_class_folders
from .described import check_described, check_found
from .fingerprint import digest_values, fingerprint_files, sample_files
from .reading import DAMAGED, first_line, quiet_library
from .sources import Source

if TYPE_CHECKING:
    from datasets import IterableDataset
else:
    IterableDataset = Any

__all__ = ["Streams", "explain_damage", "read_streams"]


class Streams(NamedTuple):
    """The splits of a source as streams.

    - `splits`: the streams by split.
    - `read_column`: returns a stream of one column of a split; `None` unless the source is in parquet files,
        the only format that can be read by column.
    - `identity`: a digest that identifies the source's files, made from the addresses and revisions of files on the
        Hub, or from the paths, sizes and times of local files.
    - `content`: a digest of the sizes of local files and of a sample of their content; copied files give the same
        digest. Empty for the Hub.
    """

    splits: Mapping[str, IterableDataset]
    read_column: Callable[[str, str], IterableDataset] | None
    identity: str
    content: str


def read_streams(source: Source) -> Streams:
    """Opens the splits of a source as streams.

    **Raises:** `InputError` for a source that cannot be streamed or opened.
    """
    import datasets

    place = source.hub or source.folder
    if place is None:
        raise InputError("`data_streaming` needs a data set on the Hub, or a folder of parquet files or tar shards.")
    if source.folder is not None:
        if read_class_folders(source.folder, source.test_split) is not None:
            raise InputError(
                f"`{source.folder}` has class folders, which are read file by file: leave out `data_streaming`, and "
                "set `decode` to `stream`."
            )
        check_described(source.folder)
    elif (unreachable := hub_connection.why_unreachable()) is not None:
        reason = first_line(getattr(unreachable, "reason", unreachable))
        raise InputError(f"`{place}` cannot be streamed, because the Hugging Face Hub cannot be reached ({reason}).")

    def load(**options: Any) -> Any:
        with quiet_library():
            return datasets.load_dataset(str(place), source.config, streaming=True, **options)

    with explain_damage(f"`{place}`"):
        builder = datasets.load_dataset_builder(str(place), source.config)
        splits = {str(name): split for name, split in load().items()}
    files = sorted({str(file) for split in (builder.config.data_files or {}).values() for file in split})
    if source.folder is not None:
        check_found(source.folder, files)
    is_parquet = type(builder).__name__ == "Parquet"
    is_local = source.folder is not None
    identity = fingerprint_files(files) if is_local else digest_values(files)
    read_column = (lambda split, column: load(columns=[column])[split]) if is_parquet else None
    return Streams(splits, read_column, identity, sample_files(files) if is_local else "")


@contextmanager
def explain_damage(what: str) -> Iterator[None]:
    """Turns the exceptions that `datasets` raises for damaged files into an `InputError` that names `what`."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except InputError:
        raise
    except (*DAMAGED, DatasetsError) as error:
        raise InputError(f"{what} cannot be read as a stream: {first_line(error.__cause__ or error)}") from error
