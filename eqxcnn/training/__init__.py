"""Training: a recipe in, a run folder out."""

from .evaluation import Evaluator, Scores
from .interrupts import Interrupted
from .job import Job, prepare
from .loop import Result, fit, resume
from .recipe import Recipe
from .recipe_files import list_recipes, load_recipe
from .step import Setup, Sums, TrainState, autodiff, train_step

__all__ = [
    "Evaluator",
    "Interrupted",
    "Job",
    "Recipe",
    "Result",
    "Scores",
    "Setup",
    "Sums",
    "TrainState",
    "autodiff",
    "fit",
    "list_recipes",
    "load_recipe",
    "prepare",
    "resume",
    "train_step",
]
