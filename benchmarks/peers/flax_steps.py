"""Training steps in Flax, linen and NNX, as its own examples write them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eqxcnn.errors import InputError

from ..workloads import Workload


def linen(workload: Workload) -> Callable[[int], None]:
    """A function that takes so many steps and waits for the last."""
    from .linen import NETS

    net, optimizer = NETS[workload.net], workload.optax()
    images, labels = map(jnp.asarray, workload.data())
    variables = net.init(jax.random.key(0), images)
    params, stats = variables["params"], variables.get("batch_stats", {})

    @jax.jit
    def update(params: Any, stats: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def mean_loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, **({"batch_stats": stats} if stats else {})}
            logits, after = net.apply(variables, images, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (after.get("batch_stats", {}), (logits.argmax(-1) == labels).mean())

        (loss, (after, accuracy)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), after, opt_state, loss, accuracy

    carried = [params, stats, optimizer.init(params)]

    def take(steps: int) -> None:
        loss = None
        for _ in range(steps):
            *carried[:], loss, _ = update(*carried, images, labels)
        jax.block_until_ready(loss)

    return take


def nnx(workload: Workload) -> Callable[[int], None]:
    """The same in NNX.

    **Raises:** `InputError` where Flax is older than it must be for the JAX that is installed.
    """
    try:
        from flax import nnx

        from .nnx import NETS
    except (ImportError, AttributeError) as error:
        # An AttributeError where a JAX is newer than this Flax knows.
        raise InputError(f"`peers`: Flax NNX cannot be imported ({error}): leave `nnx` out, or update Flax") from error
    model = NETS[workload.net](nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, workload.optax(), wrt=nnx.Param)
    images, labels = map(jnp.asarray, workload.data())

    @nnx.jit
    def update(model: Any, optimizer: Any, images: jax.Array, labels: jax.Array) -> Any:
        def mean_loss(model: Any) -> tuple[jax.Array, jax.Array]:
            logits = model(images)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits.argmax(-1) == labels).mean()

        (loss, accuracy), gradients = nnx.value_and_grad(mean_loss, has_aux=True)(model)
        optimizer.update(model, gradients)
        return loss, accuracy

    def take(steps: int) -> None:
        jax.block_until_ready([update(model, optimizer, images, labels) for _ in range(steps)][-1])

    return take
