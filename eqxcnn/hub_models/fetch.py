"""Downloads a model from the Hugging Face Hub into the Hub's local cache, and checks it."""

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..hub_connection import why_offline
from ..saved_config import read_config
from ..weights.files import digest_file
from .address import HubAddress, find_address
from .problems import explain_problems

__all__ = ["CARD", "CONFIG", "FILES", "RECIPE", "WEIGHTS", "check_model_folder", "fetch_model", "resolve_run"]

CONFIG, WEIGHTS, CARD, RECIPE = "config.json", "model.safetensors", "README.md", "recipe.yaml"
#: The files that are downloaded from a model's repository. It may also contain exports, which are not downloaded.
FILES = (CONFIG, WEIGHTS, CARD, RECIPE)


def resolve_run(run: Path | str) -> Path:
    """Returns the local folder of a model on the Hub, downloaded if needed; any other path is returned unchanged.

    **Raises:** `InputError` as for `fetch_model`.
    """
    address = find_address(run)
    return Path(run) if address is None else fetch_model(address)


def fetch_model(address: HubAddress) -> Path:
    """Returns the folder of a model in the cache, named after its commit; downloads files that the cache lacks.

    Without a connection, the newest commit in the cache is used. If the address has a commit hash and that commit is in
    the cache, no connection is needed.

    **Raises:** `InputError` if the model cannot be downloaded, is not a model of eqxcnn, or is damaged.
    """
    cached = _find_cached(address)
    if cached is not None and address.is_pinned:
        return cached
    unreachable = why_offline()  # Checked first, because the client would retry for half a minute.
    if unreachable is None:
        return _download(address)
    if cached is None:
        raise InputError(
            f"`{address}` is not on this machine, and the Hugging Face Hub cannot be reached ({unreachable}): "
            "connect once to the internet to download it"
        )
    return cached


def check_model_folder(folder: Path, what: str) -> dict[str, Any]:
    """Checks a saved classifier's files and returns its `config.json`; nothing in them is run.

    **Raises:** `InputError` if a file is missing or invalid, or if the weights do not have the recorded digest.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{what} is not a model of eqxcnn: it has no {name}")
    config = _read_model_config(folder, what)
    if digest_file(folder / WEIGHTS) != config["sha256"]:
        raise InputError(f"the {WEIGHTS} of {what} is damaged: its SHA-256 digest is not the one in {CONFIG}")
    return config


def _read_model_config(folder: Path, what: str) -> dict[str, Any]:
    try:
        config = read_config(folder / CONFIG)
    except InputError as error:
        raise InputError(f"{what} is not a model of eqxcnn: {error}") from error
    if "sha256" not in config:
        raise InputError(f"the {CONFIG} of {what} has no digest of the weights: load the model and save it again")
    return config


def _find_cached(address: HubAddress) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(address.repository, revision=address.revision, local_files_only=True,
                                        allow_patterns=list(FILES)))  # fmt: skip
    except (LocalEntryNotFoundError, OSError):
        return None
    # Older versions of the client also return the folder of an interrupted download. The weights are downloaded last,
    # so if they are in the folder, the download was complete.
    return folder if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file() else None


def _download(address: HubAddress) -> Path:
    from huggingface_hub import snapshot_download

    name, what = address.repository, f"`{address}`"
    with explain_problems(address):
        folder = Path(snapshot_download(name, revision=address.revision, allow_patterns=[CONFIG, CARD, RECIPE]))
        if not (folder / CONFIG).is_file():
            raise InputError(f"{what} is not a model of eqxcnn: it has no {CONFIG}")
        # `config.json` is checked before the weights are downloaded, because a repository of another library may have a
        # `config.json` too, and gigabytes of weights.
        _read_model_config(folder, what)
        # The folder's name is the commit; the branch may have moved in the meantime.
        folder = Path(snapshot_download(name, revision=folder.name, allow_patterns=list(FILES)))
    check_model_folder(folder, what)
    return folder
