"""A run's metrics and pictures at Weights & Biases, or in files for its `wandb sync`."""

import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml
from jaxtyping import UInt8

from ...errors import InputError
from ...recipe.files import to_yaml
from ...weights import write_text_atomically
from ..folder import Run


class WandbLog:
    """A run there, with the name of the run's folder and the recipe for its configuration; one that goes on is one run.

    Its files are in the run's `wandb/`. Where it goes, if anywhere, is wandb's own setting: `WANDB_MODE=offline` keeps
    it here.

    **Raises:** `InputError` when nobody is logged in, or wandb cannot start.
    """

    shows_pictures = True

    def __init__(self, run: Run) -> None:
        import wandb

        self._image = wandb.Image
        try:
            is_online = wandb.setup().settings.mode not in ("offline", "dryrun", "disabled")
            # Otherwise wandb would ask at a terminal, and training would wait.
            if is_online and not wandb.login(prompt=False):
                raise InputError(
                    "`log` (='wandb') needs a login: call `wandb login`, or set WANDB_MODE=offline to keep the log here"
                )
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "eqxcnn"),
                name=run.folder.resolve().name,
                dir=run.folder,
                config=yaml.safe_load(to_yaml(run.recipe)),
                id=_identity(run),
                resume="allow",
                # Runs that train together each have their own.
                reinit="create_new",
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"`log` (='wandb') cannot start: {reason}; set WANDB_MODE=offline to keep the log here"
            ) from error

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Logs it; one of a step that wandb has seen before is left out there with a warning."""
        self._run.log(dict(row), step=step)

    def picture(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Logs it with the step's other values."""
        self._run.log({name: self._image(pixels)}, step=step)

    def __enter__(self) -> "WandbLog":
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)


def _identity(run: Run) -> str:
    """What wandb knows the run by, kept in its folder."""
    path = run.folder / "wandb_id"
    if not path.exists():
        write_text_atomically(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()
