"""Training: a recipe in, a run folder out."""

from ..recipe.files import list_recipes, load_recipe
from ..recipe.recipe import Recipe
from ..runtime.interrupts import Interrupted
from .dryrun import DryRun, dry_run
from .epochs import Result
from .evaluate import Evaluator, Scores
from .job import Job, prepare
from .seeds import SeedSweepResult, fit_seeds, is_seed_sweep, resume_seeds
from .step import Setup, Sums, TrainState, autodiff, train_step
from .trainer import fit, resume

__all__ = [
    "DryRun",
    "Evaluator",
    "Interrupted",
    "Job",
    "Recipe",
    "Result",
    "Scores",
    "SeedSweepResult",
    "Setup",
    "Sums",
    "TrainState",
    "autodiff",
    "dry_run",
    "fit",
    "fit_seeds",
    "is_seed_sweep",
    "list_recipes",
    "load_recipe",
    "prepare",
    "resume",
    "resume_seeds",
    "train_step",
]
