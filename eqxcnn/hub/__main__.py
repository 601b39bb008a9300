"""`python -m eqxcnn.hub`: shares trained classifiers on the Hugging Face Hub."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..cli import run_command
from ..errors import printable
from ..hub_models.address import check_repository
from ..plugins import IMPORT_HELP, take_imports
from . import make_card, pull, push

_MAX_PATH = 4096


@dataclass(frozen=True)
class Push:
    """Upload a trained classifier and its model card, in one commit."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run folder, the model folder inside it, a folder that eqxcnn.save or pull has written, or the name of
    a model with trained weights in the package, such as lenet."""
    repository: Annotated[str, tyro.conf.Positional]
    """The repository on the Hub, user/name, created if it does not exist."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Create a private repository; if a public repository of that name exists, nothing is uploaded."""
    branch: str | None = None
    """The branch to commit to, created if it does not exist; by default main."""
    message: str | None = None
    """The first line of the commit message; by default the model's name and the version of eqxcnn."""
    license: str | None = None
    """The Hub's identifier for the license of the weights, such as apache-2.0."""
    card: Path | None = None
    """A Markdown file to upload as the model card; by default the card that the command `card` prints."""
    exports: tuple[str, ...] = ()
    """Further formats in which to upload the model: stablehlo, onnx or both."""


@dataclass(frozen=True)
class Pull:
    """Download a model to a new folder and check the SHA-256 digest of its weights."""

    address: Annotated[str, tyro.conf.Positional]
    """The model on the Hub: user/name or user/name@revision, with or without hub:."""
    revision: str | None = None
    """A branch, a tag or a commit hash; by default the newest commit of main."""
    out: Path | None = None
    """The new folder; by default, the model's name in the working directory."""


@dataclass(frozen=True)
class Card:
    """Print the model card that a push would upload."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run folder, or another model that `push` accepts."""
    repository: Annotated[str, tyro.conf.Positional]
    """The repository on the Hub, user/name, that the card describes."""
    license: str | None = None
    """The Hub's identifier for the license of the weights, such as apache-2.0."""
    exports: tuple[str, ...] = ()
    """The exported formats that the card lists: stablehlo, onnx or both."""


_Command = (
    Annotated[Push, tyro.conf.subcommand("push")]
    | Annotated[Pull, tyro.conf.subcommand("pull")]
    | Annotated[Card, tyro.conf.subcommand("card")]
)


def main(arguments: Sequence[str]) -> None:
    """Parses the arguments and runs the command."""
    description = f"Share trained classifiers on the Hugging Face Hub. {IMPORT_HELP}"
    match tyro.cli(_Command, prog="python -m eqxcnn.hub", description=description, args=take_imports(arguments)):
        case Push() as options:
            pinned = push(
                options.run,
                options.repository,
                private=options.private,
                branch=options.branch,
                message=options.message,
                license=options.license,
                card=options.card,
                exports=options.exports,
            )
            print(pinned)
        case Pull(address, revision, out):
            folder, pinned = pull(address, revision=revision, out=out)
            print(f"downloaded {pinned}", file=sys.stderr)
            print(printable(str(folder), _MAX_PATH))
        case Card(run, repository, license, exports):
            check_repository(repository)
            sys.stdout.write(make_card(run, repository, license=license, exports=exports).rstrip("\n") + "\n")


if __name__ == "__main__":
    run_command(main)
