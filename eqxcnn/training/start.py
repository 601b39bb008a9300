"""The train state before the first step: a model of the zoo, some of its weights set from images where asked for."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .. import zoo
from ..data import DataInfo
from ..errors import InputError
from ..forward_pass import normalize
from ..optim.factors import Factor, parse_factors
from ..recipe.recipe import Recipe
from ..recipe.settings import parse_arguments
from ..types import Classifier, DataInitialized, Images, Key, Pixels
from ..weights.tensors import from_tensors, tensor_slots
from .step import Optimizer, TrainState


def init_train_state(
    recipe: Recipe,
    info: DataInfo,
    image_size: tuple[int, int],
    optimizer: Optimizer,
    moments: tuple[Float[Array, " c"], Float[Array, " c"]],
    pixels: Pixels,
    given: dict[str, Array],
    key: Key,
) -> tuple[TrainState, Key]:
    """The recipe's model for these data and what the optimizer keeps of it; and the key of all steps.

    **Arguments:**

    - `moments`: mean and deviation that images are normalized by.
    - `pixels`: the first `init_images` training images.
    - `given`: weights in the place of random ones, by the names of their tensors.
    - `key`: the run's.

    **Raises:** `InputError` where the recipe has images for a model that sets no weights from them.
    """
    init_key, step_key = jax.random.split(key)
    model, state = zoo.create_model(
        recipe.model,
        num_classes=len(info.class_names),
        in_channels=info.channels,
        image_size=image_size,
        key=init_key,
        **parse_arguments("architecture", recipe.architecture),
    )
    if given:
        # All that is drawn and not given is the head.
        tensors: dict[str, Any] = {**tensor_slots(model, state), **given}
        model, state = from_tensors(model, state, tensors)
    model = frozen_in_eval(model, parse_factors(recipe.learning_rate_factors, recipe.freeze))
    if recipe.init_images:
        model = _initialized(recipe, model, normalize(pixels, *moments))
    kept = {"has_lookahead": recipe.lookahead_every > 0, "has_average": recipe.average != "none"}
    return TrainState.start(model, state, optimizer, **kept), step_key


def frozen_in_eval(model: Classifier, factors: Sequence[Factor]) -> Classifier:
    """The model with the norms and the dropout of its frozen parts in eval mode: they would go on changing it."""
    frozen = [each for each in factors if each.setting == "freeze"]

    def has_mode(node: Any) -> bool:
        return isinstance(node, eqx.Module) and hasattr(node, "inference")

    def set_mode(path: Any, node: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        # By the name of an array that it has, or would have.
        is_frozen = has_mode(node) and any(each.fits(name) or each.fits(f"{name}.weight") for each in frozen)
        return eqx.nn.inference_mode(node) if is_frozen else node

    return jax.tree_util.tree_map_with_path(set_mode, model, is_leaf=has_mode) if frozen else model


def _initialized(recipe: Recipe, model: Classifier, images: Images) -> Classifier:
    """The model with those weights set from images that it has set from images."""
    if not isinstance(model, DataInitialized):
        raise InputError(
            f"`init_images` (={recipe.init_images}) sets weights from images, and `{recipe.model}` has none that are "
            "set so: give 0, or train `airbench94`"
        )
    return model.initialized_from(images)
