"""Recipes: mutated YAML, hostile values of every setting, and hostile strings for settings such as `augment`."""

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eqxcnn import augment
from eqxcnn.augment.policy import AUGMENTS
from eqxcnn.parsing import parse_yaml
from eqxcnn.recipe import Recipe, load_recipe
from eqxcnn.recipe.files import list_recipes, to_yaml
from eqxcnn.training import prepare

from .case import Entrance, Silent
from .mutate import HOSTILE, mutate_text, mutate_value, write_hostile

_SMALL = {"model": "mlp", "architecture": ("widths=(8,)",), "data": "digits", "image_size": (8, 8)}
_STRINGS = {
    "augment": [*AUGMENTS, "random_crop(padding=2)", "cutout(size=3)", "random_resized_crop(scale=(0.5, 1))"],
    "architecture": ["widths=(8,)", "widths=(8, 8)", "activation='relu'", "depth=20", "drop_path_rate=0.1"],
    "learning_rate_factors": ["*=2", "*norm*.bias=64", "layers.0.weight=0", "head.bias=1 for 3 epochs"],
    "freeze": ["backbone", "layers.0", "head", "stem, head"],
    "metrics": ["top_k(k=5)", "balanced_accuracy"],
}
_ARGUMENTS = (
    "size",
    "padding",
    "scale",
    "ratio",
    "p",
    "probability",
    "degrees",
    "mode",
    "fill",
    "magnitude",
    "key",
    "",
)


def write_shipped(folder: Path) -> list[str]:
    """Returns the shipped recipes as YAML."""
    return [to_yaml(load_recipe(name)) for name in list_recipes()]


def attack_yaml(rng: random.Random, folder: Path, shipped: list[str]) -> None:
    """A loaded recipe must have the same settings as its file."""
    path = folder / "recipe.yaml"
    path.write_bytes(mutate_text(rng, rng.choice(shipped)))
    recipe = load_recipe(path)
    _require_said(recipe, parse_yaml(path.read_text(encoding="utf-8"), "the file"))
    _require_round_trip(recipe, folder)


def attack_settings(rng: random.Random, folder: Path, base: None) -> None:
    """Hostile values of one or two settings."""
    fields = dataclasses.fields(Recipe)
    given: dict[str, Any] = {}
    for field in rng.sample(fields, rng.choice((1, 1, 2))):
        value = getattr(Recipe(), field.name)
        given[field.name] = mutate_value(rng, list(value) if isinstance(value, tuple) else value)
        if isinstance(given[field.name], list) and rng.random() < 0.8:
            given[field.name] = tuple(given[field.name])
    (folder / "case.txt").write_text(ascii(given))
    recipe = Recipe(**{**_SMALL, **given})
    _require_finite(dataclasses.asdict(recipe))
    _require_round_trip(recipe, folder)
    _prepare_sometimes(rng, recipe)


def attack_strings(rng: random.Random, folder: Path, base: None) -> None:
    """Hostile strings with a syntax, such as `top_k(5)`; accepted augmentations must give finite pixels."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    name = rng.choice([name for name in _STRINGS if name in known])
    entries = tuple(_write_entry(rng, name) for _ in range(rng.choice((1, 1, 2, 3))))
    (folder / "case.txt").write_text(ascii({name: entries}))
    recipe = Recipe(**{**_SMALL, name: entries})
    if name == "augment" and (transform := augment.build(recipe.augment)) is not None:
        image = jax.random.uniform(jax.random.key(0), (8, 8, rng.choice((1, 3))))
        changed = np.asarray(transform(image, jax.random.key(1)))
        if changed.shape != image.shape or not np.isfinite(changed).all():
            raise Silent(f"an augmentation gives another shape, or pixels that are not finite: {entries}")
    _prepare_sometimes(rng, recipe, 0.3)


def _write_entry(rng: random.Random, name: str) -> Any:
    entry = rng.choice(_STRINGS[name])
    match rng.randrange(6):
        case 0:
            return rng.choice(HOSTILE)
        case 1:
            return mutate_text(rng, entry).decode("utf-8", "surrogateescape")
        case 2 | 3 if name in ("augment", "metrics"):
            argument, value = rng.choice(_ARGUMENTS), write_hostile(rng)
            return f"{entry.partition('(')[0]}({argument}={value})" if argument else f"{entry}({value})"
        case 2 | 3:
            return f"{entry.partition('=')[0]}={write_hostile(rng)}"
        case _:
            return entry


def _prepare_sometimes(rng: random.Random, recipe: Recipe, probability: float = 0.1) -> None:
    """Prepares a run of a small network on the digits; a larger network would take seconds."""
    if rng.random() >= probability or recipe.model not in ("mlp", "lenet") or recipe.data != "digits":
        return
    side = max(recipe.image_size or (8, 8))
    if side > 64 or recipe.init_from is not None or recipe.pretrained:
        return
    job = prepare(recipe)
    if job.steps < 1 or not all(math.isfinite(each) for each in (*(job.recipe.mean or ()), *(job.recipe.std or ()))):
        raise Silent(f"a run without steps, or with a normalization that is not finite, is prepared: {recipe}")


def _require_said(recipe: Recipe, said: dict[str, Any]) -> None:
    for name, value in said.items():
        read = getattr(recipe, str(name), None)
        if isinstance(read, tuple):
            is_same = isinstance(value, list) and len(value) == len(read) and all(map(_is_same, read, value))
        else:
            is_same = _is_same(read, value)
        if not is_same:
            raise Silent(f"a setting is read as another value: `{name}` is {value!r}, and became {read!r}")


def _is_same(read: Any, said: Any) -> bool:
    if isinstance(said, str) and isinstance(read, float):
        said = float(said)
    return isinstance(said, bool) == isinstance(read, bool) and (read == said)


def _require_round_trip(recipe: Recipe, folder: Path) -> None:
    path = folder / "written.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    if load_recipe(path) != recipe:
        raise Silent(f"a recipe is not the same after it was written and read: {json.dumps(str(recipe))}")


def _require_finite(values: Any) -> None:
    if isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            _require_finite(value)
    elif isinstance(values, float) and not math.isfinite(values):
        raise Silent("a recipe holds a number that is not finite")


ENTRANCES = {
    "yaml": Entrance(attack_yaml, write_shipped),
    "settings": Entrance(attack_settings),
    "strings": Entrance(attack_strings),
}
