"""Parts of a run that are passed as Python objects instead of being named in the recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import jax
import optax

from ..data import DataSet
from ..errors import InputError
from ..metrics import Metric
from ..networks import as_pair, signature_of
from ..recipe import OWN, Recipe
from ..types import ModelState, Network
from .callbacks import Callback, RunView
from .identity import digest_settings, digest_structure, digest_values, qualified_name

__all__ = ["OwnData", "OwnLoss", "Parts", "make_parts"]

#: Maps logits `[b classes]` and labels `[b]` to the loss of each image `[b]`, or to the mean loss.
OwnLoss: TypeAlias = Callable[..., Any]
#: Anything that `eqxcnn.data.as_data_set` accepts.
OwnData: TypeAlias = Any

#: The recipe's settings that are replaced by parts of the same names.
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


@dataclass(frozen=True)
class Parts:
    """The parts of a run that the user passes. Each part replaces a part that the recipe would build.

    - `model`: a network, or a network and its state. The network is copied, so yours stays usable.
    - `data`: images and labels; see `eqxcnn.data.from_arrays`.
    - `optimizer`: an optax transformation, which includes its learning rate; or a function that takes the recipe's
      schedule and returns such a transformation. The recipe's clipping, accumulation, frozen parts and learning-rate
      factors still apply.
    - `loss`: a function of logits `[b classes]` and labels `[b]` that returns the loss of each image `[b]`, or the mean
      loss; mixup needs the loss of each image.
    - `augment`: a function of one image `[h w c]` in [0, 1] and a key.
    - `metrics`: metrics of validation and test besides loss and accuracy, by name.
    - `callbacks`: called at the start, after each epoch and checkpoint, and at the end.
    """

    # The fields are `Any` because `__post_init__` checks them, with clearer errors.
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
                kinds = "an optax transformation or a function" if name == "optimizer" else "a function"
                raise InputError(f"`{name}` of type {type(part).__name__} must be {kinds}")
        _check_callbacks(self.callbacks)
        if not isinstance(self.metrics, Mapping):
            raise InputError(f"`metrics` of type {type(self.metrics).__name__} must map names to metrics")
        for name, metric in self.metrics.items():
            if not isinstance(name, str) or not isinstance(metric, Metric) or not name.isidentifier():
                raise InputError(f"`metrics` must map names such as `top5` to metrics; `{name}` is not such an entry")
        if self.model is not None:
            network = self.network
            signature_of(type(network[0]))
            if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(network)):
                raise InputError("`model` has shapes in the place of arrays: build it outside of `filter_eval_shape`")

    @property
    def network(self) -> tuple[Network, ModelState]:
        """The network and its state, with NumPy arrays converted to JAX arrays."""
        return as_pair(self.model)

    def name(self, setting: str) -> str:
        """Returns the qualified name of a part."""
        part = self.network[0] if setting == "model" else getattr(self, setting)
        return part.info.name if isinstance(part, DataSet) else qualified_name(part)

    def apply_to(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with the value `own` for each setting that a part replaces.

        **Raises:** `InputError` if the recipe says `own` for a part that is not given, or if its other settings
        conflict with a part.
        """
        own = {name: (OWN,) if name == "augment" else OWN for name in _REPLACED if getattr(self, name) is not None}
        missing = [name for name in _REPLACED if getattr(recipe, name) in (OWN, (OWN,)) and name not in own]
        if missing:
            arguments = ", ".join(f"{name}=..." for name in missing)
            names = " and ".join(f"`{name}`" for name in missing)
            raise InputError(
                f"the recipe says `own` for {names}, which only Python code can pass: "
                f"`eqxcnn.fit(recipe, {arguments})`, or `eqxcnn.resume(folder, {arguments})`"
            )
        if "model" in own and (recipe.architecture or recipe.pretrained or recipe.init_from or recipe.init_images):
            raise InputError(
                "`architecture`, `pretrained`, `init_from` and `init_images` belong to the models of the zoo: leave "
                "them out, and load the weights of your `model` before you pass it"
            )
        return replace(recipe, **own)

    def record(self) -> dict[str, dict[str, str]]:
        """Returns the identity of each part except the callbacks, to be stored in the run's folder.

        The data's fingerprint is not included, because every run records it in `data.json`.
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
        """Checks that these parts are the same as the parts that the run was started with.

        **Arguments:**

        - `recorded`: the result of `record` when the run was started.
        - `starts_anew`: whether the run has no checkpoint, so that the initial weights matter too.

        **Raises:** `InputError` naming the part.
        """
        given = self.record()
        for name in [*recorded, *given]:
            was, now = recorded.get(name), given.get(name)
            if now is None and was is not None:
                raise InputError(f"the run was started with your own `{name}` (`{was['name']}`): pass it again")
            if was is None and now is not None:
                raise InputError(f"the run was started without your own `{name}`: leave out `{now['name']}`")
            assert was is not None, "one of the two has the name"
            assert now is not None, "one of the two has the name"
            if was["name"] != now["name"]:
                raise InputError(
                    f"`{name}` is `{now['name']}`, but the run was started with `{was['name']}`: pass the latter"
                )
            if was.get("settings") != now.get("settings"):
                raise InputError(
                    f"`{name}` (`{now['name']}`) has different settings than when the run was started: pass the "
                    "same settings, or start a new run"
                )
            if starts_anew and was.get("weights") != now.get("weights"):
                raise InputError(
                    f"`{name}` (`{now['name']}`) has different weights than when the run was started, and the run "
                    "has no checkpoint yet: pass the same weights, or start a new run"
                )


def _check_callbacks(callbacks: Any) -> None:
    if not isinstance(callbacks, list | tuple):
        raise InputError(f"`callbacks` of type {type(callbacks).__name__} must be a list")
    for each in callbacks:
        if isinstance(each, type) or not (isinstance(each, Callback) or callable(each)):
            raise InputError(f"`callbacks` must hold callbacks and functions; `{qualified_name(each)}` is neither")
