"""Copies a model from the Hugging Face Hub to a folder."""

import os
import shutil
from pathlib import Path

from ..errors import InputError
from ..hub_models import check_model_folder, fetch_model
from ..hub_models.address import check_revision, parse_address
from ..hub_models.fetch import FILES

__all__ = ["pull"]


def pull(address: str, *, revision: str | None = None, out: Path | str | None = None) -> tuple[Path, str]:
    """Downloads a model from the Hugging Face Hub to a folder that `eqxcnn.load` and the commands can read.

    Only the weights, `config.json`, the model card and the recipe are downloaded, not the exports. Nothing in the
    downloaded files is run, and the weights must have the SHA-256 digest in `config.json`.

    **Arguments:**

    - `address`: `user/name` or `user/name@revision`, with or without `hub:`.
    - `revision`: a branch, a tag or a commit hash; by default the newest commit of the main branch.
    - `out`: the new folder; by default, `name` in the working directory.

    **Returns:** the folder, and the address of the downloaded commit.

    **Raises:** `InputError` if the folder exists and is not empty, or if the model cannot be downloaded, is not a model
        of eqxcnn, or is damaged.
    """
    found = parse_address(address)
    if revision is not None:
        check_revision(revision)
        if found.revision not in (None, revision):
            raise InputError(f"`revision` (={revision}) differs from the one in `{found}`: give only one of them")
        found = type(found)(found.repository, revision)
    folder = Path(found.repository.partition("/")[2] if out is None else out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"`{folder}` already exists and is not empty: choose another folder with `--out`")
    source = fetch_model(found)
    check_model_folder(source, f"`{found}`")
    _copy(source, folder)
    return folder, f"hub:{found.repository}@{source.name}"


def _copy(source: Path, folder: Path) -> None:
    """Copies the files to a temporary folder and renames it, so that an interrupted call leaves no partial folder."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.mkdir(parents=True)
            for name in FILES:
                if (source / name).is_file():
                    shutil.copyfile(source / name, temporary / name)
            if folder.is_dir():
                folder.rmdir()
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written: {error.strerror}") from error
