"""A run's metrics and images at Weights & Biases, or in files for `wandb sync`."""

import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml
from jaxtyping import UInt8

from ...errors import InputError
from ...parsing import read_text
from ...recipe.files import to_yaml
from ...weights import write_text_atomically
from ..folder import Run

__all__ = ["WandbLog"]


class WandbLog:
    """A Weights & Biases run with the name of the run's folder and the recipe as its configuration.

    A resumed run continues the same Weights & Biases run. The local files are in the run's `wandb/`.
    `WANDB_MODE=offline` keeps the whole log local.

    **Raises:** `InputError` if the user is not logged in, or if wandb cannot start.
    """

    shows_images = True

    def __init__(self, run: Run) -> None:
        import wandb

        self._image = wandb.Image
        try:
            is_online = wandb.setup().settings.mode not in ("offline", "dryrun", "disabled")
            # Without this check, wandb would ask for a login at the terminal, and training would wait for the answer.
            if is_online and not wandb.login(prompt=False):
                raise InputError(
                    "`log` (='wandb') needs a login: call `wandb login`, or set WANDB_MODE=offline to keep the log "
                    "local"
                )
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "eqxcnn"),
                name=run.folder.resolve().name,
                dir=run.folder,
                config=yaml.safe_load(to_yaml(run.recipe)),
                id=_run_id(run),
                resume="allow",
                # Each seed needs its own Weights & Biases run, even if several seeds train in one process.
                reinit="create_new",
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"`log` (='wandb') cannot start: {reason}; set WANDB_MODE=offline to keep the log local"
            ) from error

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Logs the row; if wandb has seen the step before, it prints a warning and ignores the row."""
        self._run.log(dict(row), step=step)

    def image(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Logs an image."""
        self._run.log({name: self._image(pixels)}, step=step)

    def __enter__(self) -> "WandbLog":
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)


def _run_id(run: Run) -> str:
    """Returns wandb's identifier of the run, which is kept in the run's folder."""
    path = run.folder / "wandb_id"
    if not path.exists():
        write_text_atomically(path, secrets.token_hex(4))
    return read_text(path, limit=1000).strip()
