"""Parts of a run that are given as objects instead of by the recipe's names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data import DataSet
from ..errors import InputError
from ..forward_pass import BATCH_AXIS
from ..metrics import Metric
from ..networks import call_network, check_state, signature_of
from ..recipe import OWN, Recipe
from ..types import ModelState, Network
from .callbacks import Callback, RunView
from .identity import digest_settings, digest_structure, digest_values, qualified_name
from .state import TrainState

#: From logits `[b classes]` and labels `[b]` to the loss of each image `[b]`, or to their mean.
OwnLoss: TypeAlias = Callable[..., Any]
#: What `eqxcnn.data.as_data_set` takes.
OwnData: TypeAlias = Any

#: The settings of a recipe that a part replaces.
_REPLACED = ("model", "data", "optimizer", "loss", "augment")


def make_parts(
    model: Any = None,
    data: OwnData | None = None,
    optimizer: Any = None,
    loss: Any = None,
    augment: Any = None,
    metrics: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback | Callable[[RunView], object]] = (),
) -> "Parts":
    """Makes the parts of a run from the arguments of `fit`."""
    data_set = None
    if data is not None:
        from ..data import as_data_set

        data_set = as_data_set(data)
    return Parts(model, data_set, optimizer, loss, augment, metrics or {}, callbacks)


def check_network(train: TrainState, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Checks that an own network maps one image to one score per class, in training mode.

    **Arguments:**

    - `train`: the train state, or its structure.
    - `image_shape`: height, width and channels of the data.

    **Raises:** `InputError` naming what the network returns, or the error it raised.
    """
    name = qualified_name(train.model)

    def run(model: Network, state: ModelState) -> tuple[Any, ModelState]:
        # As `forward` does, but whatever the network returns.
        call = partial(call_network, model, state=state, key=jax.random.key(0))
        return jax.vmap(call, out_axes=(0, None), axis_name=BATCH_AXIS)(jnp.zeros((1, *image_shape)))

    try:
        logits, _ = eqx.filter_eval_shape(run, train.model, train.state)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"`model` (`{name}`) fails on an image of shape {image_shape}, channels last, with {type(error).__name__}: "
            f"{error} (a network that takes channels first goes into `eqxcnn.ChannelsFirst`)"
        ) from error
    shape = getattr(logits, "shape", None)
    if shape != (1, num_classes):
        raise InputError(
            f"`model` (`{name}`) returns {'no array' if shape is None else f'an array of shape {shape[1:]}'} for one "
            f"image, and the data have {num_classes} classes: return {num_classes} scores"
        )


@dataclass(frozen=True)
class Parts:
    """Own parts of a run; each replaces what the recipe would have built.

    - `model`: a network, or a network and its state. It is copied, so it stays usable.
    - `data`: images and labels; see `eqxcnn.data.from_arrays`.
    - `optimizer`: an optax transformation, which includes its learning rate; or a function from the recipe's schedule
      to one. The recipe's clipping, accumulation, frozen parts and learning-rate factors apply to it too.
    - `loss`: a function of logits `[b classes]` and labels `[b]` that returns the loss of each image `[b]` or their
      mean; it can be used with mixup if it returns the loss of each image.
    - `augment`: a function of one image `[h w c]` in [0, 1] and a key.
    - `metrics`: further metrics of validation and test, by name.
    - `callbacks`: called at the start, after each epoch and checkpoint, and at the end.
    """

    # The types of what users pass are checked in words, below.
    model: Any = None
    data: DataSet | None = None
    optimizer: Any = None
    loss: Any = None
    augment: Any = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Callback | Callable[[RunView], object]] = ()

    def __post_init__(self) -> None:
        for name in ("optimizer", "loss", "augment"):
            part = getattr(self, name)
            if part is not None and not callable(part) and not isinstance(part, optax.GradientTransformation):
                raise InputError(f"`{name}` of type {type(part).__name__} must be a function")
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric) or not name.isidentifier():
                raise InputError(f"`metrics` must map names such as `top5` to metrics; `{name}` does not")
        if self.model is not None:
            network, state = self.network
            signature_of(type(network))
            check_state(network, state)

    @property
    def network(self) -> tuple[Network, ModelState]:
        """The own network and its state, with JAX arrays instead of NumPy's."""
        pair = self.model if isinstance(self.model, tuple) else (self.model, None)
        if len(pair) != 2 or not isinstance(pair[0], eqx.Module):
            raise InputError("`model` must be an Equinox module, or a module and its state")
        network, state = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, pair)
        return network, state

    def name(self, setting: str) -> str:
        """Returns the qualified name of an own part."""
        part = self.network[0] if setting == "model" else getattr(self, setting)
        return part.info.name if isinstance(part, DataSet) else qualified_name(part)

    def apply_to(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with `own` for each setting that a part replaces.

        **Raises:** `InputError` for a recipe that says `own` for a part that is not given, or whose other settings do
            not go with a part.
        """
        own = {name: (OWN,) if name == "augment" else OWN for name in _REPLACED if getattr(self, name) is not None}
        missing = [name for name in _REPLACED if getattr(recipe, name) in (OWN, (OWN,)) and name not in own]
        if missing:
            arguments = ", ".join(f"{name}=..." for name in missing)
            raise InputError(
                f"the recipe has its own {' and '.join(missing)}, which only Python code can pass: "
                f"`eqxcnn.fit(recipe, {arguments})`, or `eqxcnn.resume(folder, {arguments})`"
            )
        if "model" in own and (recipe.architecture or recipe.pretrained or recipe.init_from or recipe.init_images):
            raise InputError(
                "`architecture`, `pretrained`, `init_from` and `init_images` belong to the models of the zoo: leave "
                "them out with an own `model`, and load its weights before"
            )
        return replace(recipe, **own)

    def record(self) -> dict[str, dict[str, str]]:
        """Returns the identity of each own part but the callbacks, for the run's folder.

        Data have a fingerprint of their own, which the run records for all data.
        """
        found: dict[str, dict[str, str]] = {}
        for name in _REPLACED:
            if getattr(self, name) is None:
                continue
            found[name] = {"name": self.name(name)}
            if name == "model":
                found[name] |= {"settings": digest_structure(self.network[0]), "weights": digest_values(self.network)}
            elif name != "data":
                found[name]["settings"] = digest_settings(getattr(self, name))
        for name, metric in self.metrics.items():
            found[f"metrics.{name}"] = {"name": qualified_name(metric.sums), "settings": digest_settings(metric)}
        return found

    def check_same(self, recorded: Mapping[str, Mapping[str, str]], starts_anew: bool) -> None:
        """Refuses other parts than those that a run was started with.

        **Arguments:**

        - `recorded`: what `record` returned then.
        - `starts_anew`: whether the run has no checkpoint, so that the initial weights matter too.

        **Raises:** `InputError` naming the part.
        """
        given = self.record()
        for name in [*recorded, *given]:
            was, now = recorded.get(name), given.get(name)
            if now is None and was is not None:
                raise InputError(f"the run was started with its own `{name}` (`{was['name']}`): pass it again")
            if was is None and now is not None:
                raise InputError(f"the run was started without an own `{name}`: leave `{now['name']}` out")
            assert was is not None, "one of the two has the name"
            assert now is not None, "one of the two has the name"
            if was["name"] != now["name"]:
                raise InputError(
                    f"`{name}` is `{now['name']}`, and the run was started with `{was['name']}`: pass that"
                )
            if was.get("settings") != now.get("settings"):
                raise InputError(
                    f"`{name}` (`{now['name']}`) has other settings than the one that the run was started with: pass "
                    "the same, or start a new run"
                )
            if starts_anew and was.get("weights") != now.get("weights"):
                raise InputError(
                    f"`{name}` (`{now['name']}`) has other weights than the run was started with, and the run has no "
                    "checkpoint yet: pass the same, or start a new run"
                )
