"""Uploads a trained classifier and its model card to the Hugging Face Hub, in one commit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import InputError
from ..hub_connection import why_offline
from ..hub_models import HubAddress, explain_problems
from ..hub_models.address import check_repository, check_revision
from ..hub_models.fetch import CARD, CONFIG, FILES, RECIPE, WEIGHTS
from ..parsing import read_text
from .card import build_card
from .exports import EXPORT_FILES, check_exports, write_exports
from .trained import Trained, open_trained

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["push"]


def push(
    run: Path | str,
    repository: str,
    *,
    private: bool = False,
    branch: str | None = None,
    message: str | None = None,
    license: str | None = None,
    card: Path | str | None = None,
    exports: Sequence[str] = (),
) -> HubAddress:
    """Uploads a trained classifier to the Hugging Face Hub, and creates the repository if it does not exist.

    The commit contains `model.safetensors`, `config.json`, the model card `README.md`, the exports, and `recipe.yaml`
    if the recipe is known. It is known for a run, for a pulled model with a `recipe.yaml`, and for a model in this
    package. The Hub's client takes the token from `HF_TOKEN`, or from `hf auth login`.

    **Arguments:**

    - `run`: a finished run folder, the model folder inside it, a folder that `eqxcnn.save` or `pull` has written, or
      the name of a model with trained weights in this package.
    - `repository`: `user/name` or `organization/name`.
    - `private`: whether a new repository is private; if a public repository of that name exists, an error is raised.
    - `branch`: the branch to commit to, created if it does not exist; by default the main branch.
    - `message`: the first line of the commit message.
    - `license`: the Hub's identifier for the license of the weights, such as `apache-2.0`.
    - `card`: a file to upload as the model card; by default, the result of `make_card` is uploaded.
    - `exports`: further formats in which to upload the model, any of `stablehlo` and `onnx`; see `eqxcnn.export`.

    **Returns:** the address of the new commit; unlike the address of a branch, it always refers to these weights.

    **Raises:** `InputError` if the run is not finished, if the repository's name is invalid, or if the Hub cannot be
        reached or refuses the upload.
    """
    check_repository(repository)
    if branch is not None:
        check_revision(branch)
    check_exports(exports)
    address = HubAddress(repository, branch)
    with open_trained(run) as trained, TemporaryDirectory() as scratch:
        if card is None:
            text = build_card(trained, HubAddress(repository), license or trained.license, exports)
        else:
            text = read_text(Path(card))
        files = _choose_files(trained, text) | write_exports(trained, exports, Path(scratch))
        api = _open_api(address)
        with explain_problems(address):
            _prepare_repository(api, address, private)
            commit = _commit(api, address, files, message or _describe(trained))
    return HubAddress(repository, commit)


def _choose_files(trained: Trained, card: str) -> dict[str, Path | bytes]:
    """Maps the name of each file in the repository to its local path, or to its contents."""
    files: dict[str, Path | bytes] = {
        CONFIG: trained.folder / CONFIG,
        WEIGHTS: trained.folder / WEIGHTS,
        CARD: card.encode(),
    }
    return files if trained.recipe_path is None else {**files, RECIPE: trained.recipe_path}


def _describe(trained: Trained) -> str:
    return f"{trained.config['model'].rpartition('.')[2]}, by eqxcnn {__version__}"


def _open_api(address: HubAddress) -> "HfApi":
    from huggingface_hub import HfApi, get_token

    if (reason := why_offline()) is not None:
        raise InputError(f"`{address.repository}` cannot be pushed, because the Hub cannot be reached ({reason})")
    if get_token() is None:
        raise InputError(
            f"`{address.repository}` cannot be pushed without a token: log in with `hf auth login`, or set `HF_TOKEN`"
        )
    return HfApi(library_name="eqxcnn", library_version=__version__)


def _prepare_repository(api: "HfApi", address: HubAddress, private: bool) -> None:
    """Creates the repository and the branch if they do not exist."""
    name = address.repository
    # With `private=None`, the Hub applies the organization's default.
    api.create_repo(name, private=private or None, exist_ok=True)
    if private and not api.model_info(name).private:
        raise InputError(
            f"`{name}` exists and is public: make it private in its settings on the Hub, or push to a new name"
        )
    if address.revision is not None:
        api.create_branch(name, branch=address.revision, exist_ok=True)


def _commit(api: "HfApi", address: HubAddress, files: Mapping[str, Path | bytes], message: str) -> str:
    """Uploads the files and deletes outdated files of an earlier push, in one commit; returns the commit's hash."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    name, revision = address.repository, address.revision
    old = set(api.list_repo_files(name, revision=revision)) & ({*FILES, *EXPORT_FILES} - set(files))
    deletions = [CommitOperationDelete(path_in_repo=path) for path in sorted(old)]
    additions = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=source) for path, source in files.items()]
    return api.create_commit(name, [*additions, *deletions], commit_message=message, revision=revision).oid
