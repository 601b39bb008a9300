"""The multilayer perceptron: dense layers only."""

import math
from itertools import pairwise

import equinox as eqx
import jax

from ..errors import InputError
from ..layers import Linear, flatten_for
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["MLP", "variants"]


class MLP(eqx.Module):
    """Dense layers with ReLU in between, on the flattened image.

    **Arguments:**

    - `widths`: size of each hidden layer.
    - `init_scale`: initial standard deviation of all weights and biases.

    **Raises:** `InputError` if `widths` is empty.
    """

    hidden: tuple[eqx.nn.Linear, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    image_shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: tuple[int, int] = (28, 28),
        widths: tuple[int, ...] = (128,),
        init_scale: float = 0.02,
        *,
        key: Key,
    ):
        if not widths:
            raise InputError("`widths` (=()) must have the size of at least one hidden layer")
        self.image_shape = (*image_size, in_channels)
        sizes = (math.prod(self.image_shape), *widths)
        *keys, head_key = jax.random.split(key, len(sizes))
        self.hidden = tuple(
            _make_layer(n_in, n_out, init_scale, layer_key)
            for (n_in, n_out), layer_key in zip(pairwise(sizes), keys, strict=True)
        )
        self.head = _make_layer(sizes[-1], num_classes, init_scale, head_key) if num_classes else eqx.nn.Identity()

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns an empty tuple, since a perceptron has no maps."""
        return (), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or the last hidden activations if `num_classes=0`."""
        if image.shape != self.image_shape:
            # With channels first, an image has the right number of values in the wrong order.
            raise InputError(f"`image` of shape {image.shape} must be {self.image_shape}, channels last")
        x = flatten_for(self.hidden[0], image)
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return self.head(x), state


def _make_layer(in_features: int, out_features: int, scale: float, key: Key) -> eqx.nn.Linear:
    """Makes a dense layer whose weights and biases are normal with standard deviation `scale`."""
    make_key, weight_key, bias_key = jax.random.split(key, 3)
    layer = Linear(in_features, out_features, key=make_key)
    weight = scale * jax.random.normal(weight_key, (out_features, in_features))
    bias = scale * jax.random.normal(bias_key, (out_features,))
    return eqx.tree_at(lambda linear: (linear.weight, linear.bias), layer, (weight, bias))


variants = {
    "mlp": Variant(
        make=MLP,
        input=(28, 28, 1),
        num_classes=10,
        params=101_770,
        source="https://www.jtrive.com/posts/intro-to-jax-part-3/intro-to-jax-part-3.html",
        task="mnist",
        recipe="mlp",
    ),
}
