"""Checks a local folder's card and metadata, which could point outside the folder, before `datasets` reads them."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError
from ..parsing import parse_json, parse_yaml, read_text
from .files import ARCHIVES, LAYOUTS, LISTS, TABLES, image_suffixes, suffix, walk

__all__ = ["check_described", "check_found", "check_saved"]

#: Characters with a special meaning in the patterns and addresses of `datasets`.
_SPECIAL = ("*", "?", "[", "]", "{", "}", "::", "://")
#: Suffixes of files, besides images, that `datasets` may read; a `.tar` file is a shard of images, as in WebDataset.
_READABLE = (*TABLES, *LISTS, ".tar")


def check_saved(folder: Path) -> None:
    """Checks the JSON files of a `save_to_disk` folder, and the tables that they name.

    **Raises:** `InputError` if a file is damaged, or if a named file is in another folder or not a regular file.
    """
    _check_path(folder)
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        _check_saved_split(folder)
        return
    path = folder / "dataset_dict.json"
    for name in _names(_read_object(path).get("splits"), path, "splits"):
        _check_saved_split(folder / name)


def _check_saved_split(folder: Path) -> None:
    _read_object(folder / "dataset_info.json")
    path = folder / "state.json"
    entries = _read_object(path).get("_data_files")
    is_list = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    names = [entry.get("filename") for entry in entries or []] if is_list else None
    for name in _names(names, path, "_data_files"):
        if not (folder / name).is_file():
            raise InputError(f"`{folder / name}`, which `{path}` names, is missing: save the data set again.")
        _check_arrow(folder / name)


def _read_object(path: Path) -> dict[str, Any]:
    value = parse_json(read_text(path, limit=1 << 30), f"`{path}`", allow_nan=True)
    if not isinstance(value, dict):
        raise InputError(f"`{path}` must hold a JSON object: save the data set again.")
    return value


def _names(value: Any, path: Path, key: str) -> list[str]:
    """Returns `value` if it is a list of plain file names; otherwise raises an `InputError`."""
    if not isinstance(value, list) or not value:
        raise InputError(f"`{key}` in `{path}` must be a list of names: save the data set again.")
    for name in value:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise InputError(f"`{key}` in `{path}` names `{name}`, which is not a file in the same folder.")
    return value


def check_described(folder: Path) -> None:
    """Checks a folder that contains tables, a data card or a metadata file, before `datasets` reads it.

    **Raises:** `InputError` if the card is damaged or points outside the folder, if a metadata file is empty, if
    there are archives, which `datasets` would unpack, or if the folder holds too many files that are not data.
    """
    _check_path(folder)
    configs = [*_read_configs(folder / "README.md"), *_read_configs(folder / ".huggingface.yaml")]
    for config in configs:
        for place in [*_texts(config.get("data_files")), *_texts(config.get("data_dir"))]:
            _check_place(place, folder)
    if (folder / "dataset_infos.json").exists():
        _read_object(folder / "dataset_infos.json")
    entries = list(walk(folder))
    if not any(_is_readable(entry.name) or suffix(entry.name) in ARCHIVES for entry in entries):
        raise InputError(f"`{folder}` holds no images or tables that can be read: {LAYOUTS}")
    for entry in entries:
        if entry.name.startswith("metadata.") and entry.stat().st_size == 0:
            raise InputError(f"the metadata file `{entry.path}` is empty: fill it, or remove it.")
        if suffix(entry.name) in ARCHIVES and not configs:
            raise InputError(f"`{entry.path}` is an archive: unpack it, or move it out of the folder.")


def check_found(folder: Path, files: list[str]) -> None:
    """Checks the files that `datasets` found in a folder and would read.

    **Raises:** `InputError` if a file is outside the folder, damaged, empty, or of a type that holds no images.
    """
    for file in files:
        if not PurePosixPath(file).is_relative_to(folder) or ".." in PurePosixPath(file).parts:
            raise InputError(
                f"the card of `{folder}` points to `{file}`, outside the folder: correct its `data_files`."
            )
        if not _is_readable(file):
            raise InputError(f"`{file}` is neither an image nor a table: convert it to parquet, or remove it.")
        if suffix(file) == ".parquet":
            _check_parquet(file)
        if suffix(file) == ".arrow":
            _check_arrow(Path(file))


def _is_readable(name: str) -> bool:
    return suffix(name) in _READABLE or suffix(name) in image_suffixes()


def _check_parquet(file: str) -> None:
    """Reads the footer of a parquet file, because `datasets` does not say which file is damaged or empty."""
    import pyarrow.parquet as pq

    try:
        rows = pq.read_metadata(file).num_rows
    except (OSError, ValueError) as error:
        raise InputError(f"`{file}` is not a parquet file: {' '.join(str(error).split())}") from error
    if rows == 0:
        raise InputError(f"the table `{file}` has no rows: remove it.")


def _check_arrow(path: Path) -> None:
    """Validates a table, because reading a table whose offsets point outside its file crashes the process.

    The file is memory-mapped, and only offsets and strings are read.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            try:
                reader = pa.ipc.open_stream(file)
            except pa.ArrowInvalid:
                reader = pa.ipc.open_file(file)
            reader.read_all().validate(full=True)
    except (OSError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"`{path}` cannot be opened: it is not an intact arrow file ({reason})") from error


def _check_path(folder: Path) -> None:
    if signs := [sign for sign in _SPECIAL if sign in str(folder)]:
        raise InputError(
            f"the path of `{folder}` contains `{signs[0]}`, which the `datasets` library takes for a pattern or an "
            "address: rename the folder."
        )


def _read_configs(path: Path) -> list[dict[str, Any]]:
    """Returns the configurations in a data card or a YAML file beside it."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if not path.exists():
        return []
    text = read_text(path)
    if path.suffix == ".md":
        block = REGEX_YAML_BLOCK.search(text)
        text = block.group(2) if block else ""
    card = parse_yaml(text, f"the data card `{path}`")
    configs = card.get("configs") if isinstance(card, dict) else None
    if configs is None:
        return []
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise InputError(f"`configs` in `{path}` must be a list of mappings.")
    return configs


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _check_place(place: str, folder: Path) -> None:
    path = PurePosixPath(place.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or place.startswith("~") or "::" in place or "://" in place:
        raise InputError(f"the card of `{folder}` points to `{place}`, outside the folder: correct its `data_files`.")
