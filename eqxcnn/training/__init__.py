"""Training: a recipe in, a run folder out."""

from .dry_run import DryRun, dry_run
from .epochs import Result
from .evaluation import Evaluator, Scores
from .interrupts import Interrupted
from .job import Job, prepare
from .loop import fit, resume
from .recipe import Recipe
from .recipe_files import list_recipes, load_recipe
from .seeds import Seeds, fit_seeds, is_of_seeds, resume_seeds
from .step import Setup, Sums, TrainState, autodiff, train_step

__all__ = [
    "DryRun",
    "Evaluator",
    "Interrupted",
    "Job",
    "Recipe",
    "Result",
    "Scores",
    "Seeds",
    "Setup",
    "Sums",
    "TrainState",
    "autodiff",
    "dry_run",
    "fit",
    "fit_seeds",
    "is_of_seeds",
    "list_recipes",
    "load_recipe",
    "prepare",
    "resume",
    "resume_seeds",
    "train_step",
]
