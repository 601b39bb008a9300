"""The arguments of a training step that stay fixed over a run."""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..augment import ContextAugment, Mix
from ..optim.averages import Lookahead, WeightAverage
from ..optim.losses import Targets
from ..optim.optimizers import Optimizer
from ..types import BatchLogits, Images, Key, Labels, ModelState, Network, Pixels

__all__ = ["Setup", "ValueAndGrad"]

#: `(model, state, images, targets, key) -> ((loss, (state, logits)), gradients)`, with the mean loss of the batch.
ValueAndGrad: TypeAlias = Callable[
    [Network, ModelState, Images, Targets, Key],
    tuple[tuple[Float[Array, ""], tuple[ModelState, BatchLogits]], PyTree],
]


class Setup(eqx.Module):
    """The arguments of a training step that stay fixed over a run.

    - `value_and_grad`: computes loss and gradients of a batch.
    - `optimizer`: the update rule.
    - `augment`: a function that augments one image; `None` for no augmentation.
    - `lookahead`: Lookahead's rule; `None` if the recipe does not use it.
    - `steps_per_epoch`: full batches per epoch.
    - `key`: the key from which the keys of all steps are derived; see `step_keys`.
    - `mean`, `std`: normalization per channel, on the scale [0, 1].
    - `data`: images and labels on the device, or `None` if batches are streamed.
    - `mix`: mixup and CutMix; `None` if the recipe uses neither.
    - `average`: the rule that averages the weights; `None` if the recipe keeps no average.
    - `skip_nan`: whether to skip steps whose loss or gradient is not finite.
    """

    value_and_grad: ValueAndGrad = eqx.field(static=True)
    optimizer: Optimizer = eqx.field(static=True)
    augment: ContextAugment | None = eqx.field(static=True)
    lookahead: Lookahead | None = eqx.field(static=True)
    steps_per_epoch: int = eqx.field(static=True)
    key: Key
    mean: Float[Array, " c"]
    std: Float[Array, " c"]
    data: tuple[Pixels | Images, Labels] | None
    mix: Mix | None = eqx.field(static=True, default=None)
    average: WeightAverage | None = eqx.field(static=True, default=None)
    skip_nan: bool = eqx.field(static=True, default=False)
