"""Recipes: everything that decides a training run, from YAML, the command line or Python, checked."""

from .checks import OWN
from .files import list_recipes, load_recipe
from .recipe import Recipe

__all__ = ["OWN", "Recipe", "list_recipes", "load_recipe"]
