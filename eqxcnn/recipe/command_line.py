"""The command line of `python -m eqxcnn.train`: one flag per setting of a recipe, and flags for the run itself."""

import argparse
import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..errors import InputError
from ..plugins import IMPORT_HELP, take_imports
from ..ranges import Range, check_settings
from . import run_settings, settings
from .files import RENAMED, load_recipe
from .recipe import GROUPS, Recipe

__all__ = ["Flags", "RunOptions", "parse_flags"]


@dataclass(frozen=True)
class RunOptions:
    """Trains an image classifier and saves it in a run folder, which `evaluate`, `predict` and `eqxcnn.load` read."""

    recipe: str | None = None
    """A YAML file, or the name of a shipped recipe; other flags override its settings."""
    resume: Path | None = None
    """Folder of a stopped run or seed sweep, to resume with its own recipe; only flags about processes may be given."""
    runs: Path = Path("runs")
    """Folder in which the run's folder is made."""
    name: str | None = None
    """Name of the folder of the run or seed sweep; by default `<model>-<data>-<timestamp>`."""
    coordinator: str | None = None
    """Address of process 0 as `host:port`, to train in several processes; by default set by the launcher."""
    processes: Annotated[int, Range(1, 100_000)] | None = None
    """Number of processes; by default set by the launcher."""
    process: Annotated[int, Range(0, 99_999)] | None = None
    """Number of this process, counted from 0; by default set by the launcher."""
    join_timeout: Annotated[float, Range(1, 86_400)] = 300.0
    """Seconds within which all processes must have started."""
    seeds: Annotated[int, Range(1, 1000)] = 1
    """Train with this many seeds, starting at `seed`, and report mean and standard deviation."""
    dry_run: bool = False
    """Only compile the steps and call them twice, to report time and memory."""
    list_recipes: bool = False
    """Only list the shipped recipes."""


@dataclass(frozen=True)
class Flags(RunOptions):
    """Trains an image classifier and saves it in a run folder, which `evaluate`, `predict` and `eqxcnn.load` read."""

    model: settings.ModelSettings = field(default_factory=settings.ModelSettings)
    data: settings.DataSettings = field(default_factory=settings.DataSettings)
    schedule: settings.ScheduleSettings = field(default_factory=settings.ScheduleSettings)
    optimizer: settings.OptimizerSettings = field(default_factory=settings.OptimizerSettings)
    regularization: settings.LossSettings = field(default_factory=settings.LossSettings)
    augmentation: settings.AugmentationSettings = field(default_factory=settings.AugmentationSettings)
    evaluation: run_settings.EvaluationSettings = field(default_factory=run_settings.EvaluationSettings)
    checkpoint: run_settings.CheckpointSettings = field(default_factory=run_settings.CheckpointSettings)
    log: run_settings.LogSettings = field(default_factory=run_settings.LogSettings)
    compilation: run_settings.CompilationSettings = field(default_factory=run_settings.CompilationSettings)

    def to_recipe(self) -> Recipe:
        """Makes a recipe from the settings of all groups.

        **Raises:** `InputError` for an invalid setting.
        """
        return Recipe(**{key: value for group in GROUPS for key, value in vars(getattr(self, group)).items()})


_PLAIN = Flags()
#: Flags that may be given with `--resume`.
_WITH_RESUME = ("resume", "coordinator", "processes", "process", "join_timeout")


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Parses a command line; settings without a flag keep the values of the recipe that `--recipe` names.

    The modules that `--import` names are imported first, because the recipe and the flags may use names that these
    modules register.

    **Raises:** `InputError` for flags that do not go together, `SystemExit` for a flag that cannot be parsed.
    """
    import tyro  # slow to import

    arguments = _rename_old_flags(take_imports(arguments))
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--recipe", nargs="?")  # tyro reports a missing value
    name = first.parse_known_args(arguments)[0].recipe
    default = Flags() if name is None else _flags_of(load_recipe(name))
    options = (tyro.conf.OmitArgPrefixes,)
    help_ = f"{Flags.__doc__} {IMPORT_HELP}"
    prog = "python -m eqxcnn.train"
    flags = tyro.cli(Flags, prog=prog, description=help_, args=arguments, default=default, config=options)
    plain = {name: getattr(_PLAIN, name) for name in _WITH_RESUME}
    if flags.resume is not None and dataclasses.replace(flags, **plain) != _PLAIN:
        raise InputError(
            "`--resume` continues with the run's own recipe: leave the other flags out, or start a new run from its "
            f"weights with `--init-from {flags.resume}` instead"
        )
    check_settings(flags)
    return flags


def _flags_of(recipe: Recipe) -> Flags:
    groups: dict[str, Any] = {
        name: group(**{each.name: getattr(recipe, each.name) for each in dataclasses.fields(group)})
        for name, group in GROUPS.items()
    }
    return Flags(**groups)


def _rename_old_flags(arguments: Sequence[str]) -> list[str]:
    """Replaces old flags by the new flags of renamed settings."""
    renamed = []
    for argument in arguments:
        flag, sign, value = argument.partition("=")
        new = RENAMED.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
        if new is not None:
            now = f"--{new.replace('_', '-')}"
            warnings.warn(f"`{flag}` is now called `{now}`", FutureWarning, stacklevel=3)
            flag = now
        renamed.append(flag + sign + value)
    return renamed
