"""Training: turns a recipe into a run folder."""

from ..recipe import Recipe, list_recipes, load_recipe
from ..runtime.interrupts import Interrupted
from ..runtime.processes import join_processes
from .callbacks import Callback, RunView
from .dryrun import DryRun, dry_run
from .evaluate import Evaluator, Scores
from .job import Job
from .preparation import prepare
from .rate_finder import LearningRateCurve, find_learning_rate
from .result import Result
from .seeds import SeedSweepResult, fit_seeds, is_seed_sweep, resume_seeds
from .setup import Setup
from .state import Sums, TrainState
from .step import autodiff, train_step
from .trainer import fit, resume

__all__ = [
    "Callback",
    "DryRun",
    "Evaluator",
    "Interrupted",
    "Job",
    "LearningRateCurve",
    "Recipe",
    "Result",
    "RunView",
    "Scores",
    "SeedSweepResult",
    "Setup",
    "Sums",
    "TrainState",
    "autodiff",
    "dry_run",
    "find_learning_rate",
    "fit",
    "fit_seeds",
    "is_seed_sweep",
    "join_processes",
    "list_recipes",
    "load_recipe",
    "prepare",
    "resume",
    "resume_seeds",
    "train_step",
]
