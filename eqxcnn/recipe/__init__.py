"""Recipes: all settings of a training run, read from YAML, the command line or Python, and checked."""

from .checks import OWN
from .files import list_recipes, load_recipe
from .recipe import Recipe

__all__ = ["OWN", "Recipe", "list_recipes", "load_recipe"]
