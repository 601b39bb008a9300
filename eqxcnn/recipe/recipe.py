"""A recipe: all settings that determine a training run, in one flat frozen dataclass."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from ..errors import InputError, nearest
from ..ranges import check_settings
from . import run_settings, settings
from .checks import check_together, parse_arguments

__all__ = ["GROUPS", "Recipe"]

#: The groups of settings, in the order in which they are shown.
GROUPS: dict[str, type] = {
    "model": settings.ModelSettings,
    "data": settings.DataSettings,
    "schedule": settings.ScheduleSettings,
    "optimizer": settings.OptimizerSettings,
    "regularization": settings.LossSettings,
    "augmentation": settings.AugmentationSettings,
    "evaluation": run_settings.EvaluationSettings,
    "checkpoint": run_settings.CheckpointSettings,
    "log": run_settings.LogSettings,
    "compilation": run_settings.CompilationSettings,
}


# The bases are in reverse order, because the fields of the last base class come first in a dataclass.
@dataclass(frozen=True)
class Recipe(
    run_settings.CompilationSettings,
    run_settings.LogSettings,
    run_settings.CheckpointSettings,
    run_settings.EvaluationSettings,
    settings.AugmentationSettings,
    settings.LossSettings,
    settings.OptimizerSettings,
    settings.ScheduleSettings,
    settings.DataSettings,
    settings.ModelSettings,
):
    """All settings of a training run.

    The base classes define the settings and their defaults, in groups. `None` stands for a default that depends on the
    data; `eqxcnn.training.prepare` fills it in.

    **Raises:** `InputError` for a value of the wrong type, a value out of range, and settings that do not go together.
    """

    def __post_init__(self) -> None:
        check_settings(self)
        check_together(self)

    def replace(self, **settings: Any) -> "Recipe":
        """Returns a copy of the recipe with new values for some settings.

        **Raises:** `InputError` for an unknown setting, or if the constructor refuses the new values.
        """
        known = [field.name for field in fields(self)]
        for name in settings:
            if name not in known:
                raise InputError(f"a recipe has no setting `{name}`; {nearest(name, known)}")
        return replace(self, **settings)

    @cached_property
    def architecture_arguments(self) -> dict[str, Any]:
        """The parsed `architecture`: further arguments of the model's constructor."""
        return parse_arguments("architecture", self.architecture)
