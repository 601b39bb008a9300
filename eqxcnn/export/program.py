"""The exported function, from pixels to scores; it includes the normalization and the weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError, show
from ..forward_pass import normalize
from ..inference import ImageClassifier
from ..registry import has_type
from ..views import view_logits

__all__ = ["DTYPES", "MAX_BATCH", "Batch", "Outputs", "Precision", "Program"]

#: The fixed number of images per call, or `"dynamic"` for any number.
Batch: TypeAlias = int | Literal["dynamic"]
Precision: TypeAlias = Literal["float32", "bf16", "float16"]
Outputs: TypeAlias = Literal["logits", "probabilities"]

DTYPES = {"float32": jnp.float32, "bf16": jnp.bfloat16, "float16": jnp.float16}
_OUTPUTS = ("logits", "probabilities")
MAX_BATCH = 2**20


@dataclass(frozen=True)
class Program:
    """A classifier with the settings of its export.

    - `batch`: the number of images per call; `"dynamic"` for any number from 1.
    - `precision`: the dtype of weights and computation. The outputs are always float32.
    - `outputs`: the scores before or after softmax.

    **Raises:** `InputError` for an invalid setting.
    """

    classifier: ImageClassifier
    batch: Batch = "dynamic"
    precision: Precision = "float32"
    outputs: Outputs = "logits"

    def __post_init__(self) -> None:
        if self.batch != "dynamic" and not (has_type(self.batch, int) and 1 <= self.batch <= MAX_BATCH):
            raise InputError(f"`batch` (={show(self.batch)}) must be `dynamic`, or an integer from 1 to {MAX_BATCH:,}")
        for name, known in (("precision", tuple(DTYPES)), ("outputs", _OUTPUTS)):
            if getattr(self, name) not in known:
                raise InputError(f"`{name}` (={show(getattr(self, name))}) must be one of {', '.join(known)}")

    @property
    def pixels(self) -> jax.ShapeDtypeStruct:
        """The input, `uint8[b h w c]`; a dynamic `b` is a symbolic dimension."""
        batch = jax.export.symbolic_shape("batch")[0] if self.batch == "dynamic" else self.batch
        return jax.ShapeDtypeStruct((batch, *self.classifier.image_size, self.classifier.in_channels), jnp.uint8)

    def make_function(self) -> Callable[[Array], Array]:
        """Returns the function `uint8[b h w c] -> float32[b classes]`, whose weights are constants."""
        classifier, dtype = self.classifier, DTYPES[self.precision]
        model = jax.tree.map(lambda leaf: _cast(leaf, dtype), eqx.nn.inference_mode(classifier.model))

        def classify(pixels: Array) -> Array:
            images = normalize(pixels, classifier.mean, classifier.std).astype(dtype)
            logits = view_logits(model, classifier.state, images).astype(jnp.float32)
            return jax.nn.softmax(logits) if self.outputs == "probabilities" else logits

        return classify


def _cast(leaf: Any, dtype: Any) -> Any:
    return leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf
