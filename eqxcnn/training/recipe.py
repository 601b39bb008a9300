"""A recipe: everything that decides a training run, in one flat frozen dataclass."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from beartype.door import is_bearable

from .. import registry
from ..errors import InputError, nearest

#: Where the recipes that come with the package lie.
_SHIPPED = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, and how. `None` means: follow the data (see `eqxcnn.training.job`)."""

    model: str = "lenet"
    """A name from `eqxcnn.zoo.list_models()`."""
    data: str = "digits"
    """A data set's name, a Hub id such as `org/name`, or a local folder."""
    epochs: int | None = None
    """Passes over the training images; by default as many as come to 320,000 images, from 5 to 20."""
    batch_size: int = 64
    """Images a step."""
    gradients: Literal["autodiff", "by_hand"] = "autodiff"
    """Where they come from; `by_hand` is for models with a backward pass of their own (`scratch`), and plain `sgd`."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """The update rule; `sgd` uses `momentum`."""
    learning_rate: float = 3e-3
    """The schedule's peak."""
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """How the learning rate moves over the run: up for a quarter and down, down, or not at all."""
    momentum: float = 0.9
    """Weight of the past update in `sgd`."""
    nesterov: bool = False
    """Whether `sgd` looks ahead (Nesterov)."""
    weight_decay: float = 0.0
    """Decay of kernels and matrices a step, times the learning rate; norms and biases are spared."""
    label_smoothing: float = 0.1
    """Share of every label spread evenly over all classes."""
    augment: tuple[str, ...] = ()
    """Random transforms of each training image in order, such as `flip_horizontal` or `random_crop(padding=2)`."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels that images are resized to; by default the data's, or the model's where sizes vary."""
    mean: tuple[float, ...] | None = None
    """Mean a channel subtracted from pixels in [0, 1]; by default measured on the training images."""
    std: tuple[float, ...] | None = None
    """Deviation a channel divided by after that; by default measured on the training images."""
    train_images: int | None = None
    """Use only this many images of the training split, its first ones; by default all."""
    validation: float | Literal["test"] = 0.1
    """Share of the training images held out, stratified by class, to follow progress; 0 for none; `test` holds out none
    and follows the test split, as many write-ups do: nothing may then be chosen by it."""
    seed: int = 0
    """Decides initial weights, hold-out, order, augmentation and dropout."""
    shuffle: bool = True
    """Whether each epoch has an order of its own."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What to do with an image that cannot be decoded or has no label."""
    jit: bool = True
    """Whether steps are compiled; `--no-jit` shows what that is worth."""
    steps_per_call: int | None = None
    """Steps compiled into one call; by default 1 on a CPU, where loops slow convolutions down, and 100 elsewhere.
    Without `jit` it is 1."""
    checkpoint_seconds: float = 30.0
    """How long training goes on between checkpoints; 0 saves after every call."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    device_budget: float = 2.0
    """Training images of up to this many GiB live on the device; larger sets are streamed."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Recipe).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint))
        _check_values(self)


def load_recipe(source: str | Path) -> Recipe:
    """Reads a recipe from a YAML file, or one shipped with the package by its name.

    **Raises:** `InputError` for a missing file, a key that no recipe has, or a value that cannot be.
    """
    path = Path(source)
    if not path.suffix and not path.exists():
        path = _SHIPPED / f"{source}.yaml"
        if not path.exists():
            raise InputError(f"there is no recipe named `{source}`; {nearest(str(source), list_recipes())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the recipe `{source}` cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe `{source}` is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"the recipe `{source}` must hold lines such as `model: lenet`, not {type(values).__name__}")
    return recipe_from(values, origin=str(source))


def list_recipes() -> list[str]:
    """Names of the recipes shipped with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def recipe_from(values: dict[str, Any], origin: str) -> Recipe:
    """A recipe from plain values, refusing unknown keys with the nearest known one; `origin` names them in errors."""
    known = get_type_hints(Recipe)
    for name in values:
        if name not in known:
            raise InputError(f"`{name}` in the recipe `{origin}` is no setting; {nearest(str(name), known)}")
    return Recipe(
        **{name: _checked(name, _from_yaml(value, known[name]), known[name]) for name, value in values.items()}
    )


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads back to an equal one."""
    values = dataclasses.asdict(recipe)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return yaml.safe_dump(plain, sort_keys=False)


def _from_yaml(value: Any, hint: Any) -> Any:
    """YAML's nearest type to ours: lists become tuples, `1e-3` (text, to YAML) and whole numbers become floats."""
    options = get_args(hint) if get_origin(hint) is not tuple else (hint,)
    if isinstance(value, list):
        item = next((get_args(each)[0] for each in options if get_origin(each) is tuple), None)
        return tuple(_from_yaml(each, item) for each in value)
    if float in (hint, *options) and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value if it is of its setting's type; a whole number is a fine float, which beartype does not think."""
    if float in (hint, *get_args(hint)) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not is_bearable(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"`{name}` (={value!r}) must be {_in_words(hint)}")
    return value


def _in_words(hint: Any) -> str:
    """A type as a user says it: `one of 'adam', 'sgd'`, `a whole number or nothing`."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "nothing"}
    if hint in words:
        return words[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is tuple:
        inner, *rest = get_args(hint)
        many = "a list" if Ellipsis in rest else f"a list of {len(rest) + 1}"
        return f"{many}, each {_in_words(inner)}"
    return " or ".join(_in_words(each) for each in get_args(hint))


def _check_values(recipe: Recipe) -> None:
    """Refuses what no run can be made of, naming the setting, its value and the range."""
    registry.variant(recipe.model)
    positive = ("epochs", "batch_size", "learning_rate", "train_images", "steps_per_call", "keep_checkpoints")
    _in_range(recipe, positive, "above 0", lambda value: value > 0)
    at_least_zero = ("weight_decay", "checkpoint_seconds", "device_budget")
    _in_range(recipe, at_least_zero, "0 or more", lambda value: value >= 0)
    # JAX makes the same key of seeds that differ by 2**32.
    _in_range(recipe, ("seed",), f"from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32)
    below_one = ("momentum", "label_smoothing", "validation")
    _in_range(recipe, below_one, "0 or more and below 1", lambda value: 0 <= value < 1)
    plain = (recipe.optimizer, recipe.schedule, recipe.momentum, recipe.weight_decay) == ("sgd", "constant", 0, 0)
    if recipe.gradients == "by_hand" and not plain:
        raise InputError(
            "`gradients` (='by_hand') goes with plain gradient descent: set `optimizer` to sgd, `schedule` to "
            "constant, `momentum` and `weight_decay` to 0"
        )
    if (recipe.mean is None) != (recipe.std is None):
        raise InputError("`mean` and `std` go together: give both, or neither to have them measured")
    if recipe.std is not None and min(recipe.std, default=0) <= 0:
        raise InputError(f"`std` (={list(recipe.std)}) must be above 0 in every channel")
    if recipe.image_size is not None:
        registry.checked_size(recipe.model, recipe.image_size)


def _in_range(recipe: Recipe, names: tuple[str, ...], words: str, holds: Any) -> None:
    for name in names:
        value = getattr(recipe, name)
        if isinstance(value, int | float) and not (math.isfinite(value) and holds(value)):
            raise InputError(f"`{name}` (={value}) must be {words}")
