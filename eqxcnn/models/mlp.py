"""The multilayer perceptron: the network before convolutions."""

from itertools import pairwise

import equinox as eqx
import jax

from ..errors import InputError
from ..layers import Linear, flatten_for
from ..types import Classifier, Image, Key, Logits, Maps, Variant


class MLP(Classifier):
    """Dense layers with ReLU between, over the image's pixels in a row."""

    hidden: tuple[eqx.nn.Linear, ...]
    head: eqx.nn.Linear | eqx.nn.Identity

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
        """`init_scale` is the standard deviation of every weight and bias at the start."""
        if not widths:
            raise InputError("`widths` (=()) must name the size of at least one hidden layer")
        sizes = (image_size[0] * image_size[1] * in_channels, *widths)
        *keys, head_key = jax.random.split(key, len(sizes))
        self.hidden = tuple(
            _linear(n_in, n_out, init_scale, each) for (n_in, n_out), each in zip(pairwise(sizes), keys, strict=True)
        )
        self.head = _linear(sizes[-1], num_classes, init_scale, head_key) if num_classes else eqx.nn.Identity()

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Nothing: a perceptron has no maps."""
        return (), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or the last hidden layer."""
        x = flatten_for(self.hidden[0], image)
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return self.head(x), state


def _linear(n_in: int, n_out: int, scale: float, key: Key) -> eqx.nn.Linear:
    """A dense layer whose weights and bias are normal with deviation `scale`."""
    make_key, weight_key, bias_key = jax.random.split(key, 3)
    layer = Linear(n_in, n_out, key=make_key)
    values = (scale * jax.random.normal(weight_key, (n_out, n_in)), scale * jax.random.normal(bias_key, (n_out,)))
    return eqx.tree_at(lambda each: (each.weight, each.bias), layer, values)


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
