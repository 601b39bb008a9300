"""Training steps in Flax linen and in Flax NNX, in the style of Flax's own examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eqxcnn.errors import InputError

from ..workloads import Workload


def linen(workload: Workload) -> Callable[[int], None]:
    """Returns a function that runs a given number of training steps in Flax linen and waits for the last step."""
    from .linen import NETS

    net, optimizer = NETS[workload.net], workload.build_optimizer()
    images, labels = map(jnp.asarray, workload.make_batch())
    variables = net.init(jax.random.key(0), images)
    params, stats = variables["params"], variables.get("batch_stats", {})

    @jax.jit
    def update(params: Any, stats: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def mean_loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, **({"batch_stats": stats} if stats else {})}
            logits, updated = net.apply(variables, images, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (updated.get("batch_stats", {}), (logits.argmax(-1) == labels).mean())

        (loss, (new_stats, accuracy)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), new_stats, opt_state, loss, accuracy

    carry = [params, stats, optimizer.init(params)]

    def run_steps(steps: int) -> None:
        loss = None
        for _ in range(steps):
            *carry[:], loss, _ = update(*carry, images, labels)
        jax.block_until_ready(loss)

    return run_steps


def nnx(workload: Workload) -> Callable[[int], None]:
    """Returns a function that runs a given number of training steps in Flax NNX and waits for the last step.

    **Raises:** `InputError` if the installed Flax is too old for the installed JAX.
    """
    try:
        from flax import nnx

        from .nnx import NETS
    except (ImportError, AttributeError) as error:
        # An AttributeError if Flax uses a name that a newer JAX has removed.
        raise InputError(
            f"`peers` includes Flax NNX, which cannot be imported ({error}): leave `nnx` out, or update Flax"
        ) from error
    model = NETS[workload.net](nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, workload.build_optimizer(), wrt=nnx.Param)
    images, labels = map(jnp.asarray, workload.make_batch())

    @nnx.jit
    def update(model: Any, optimizer: Any, images: jax.Array, labels: jax.Array) -> Any:
        def mean_loss(model: Any) -> tuple[jax.Array, jax.Array]:
            logits = model(images)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits.argmax(-1) == labels).mean()

        (loss, accuracy), gradients = nnx.value_and_grad(mean_loss, has_aux=True)(model)
        optimizer.update(model, gradients)
        return loss, accuracy

    def run_steps(steps: int) -> None:
        jax.block_until_ready([update(model, optimizer, images, labels) for _ in range(steps)][-1])

    return run_steps
