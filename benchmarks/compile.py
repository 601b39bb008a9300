"""`python -m benchmarks.compile`: time to compile a train step of deep networks, compared with Flax."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError

from .peers.linen import NETS
from .timing import RESULTS, Benchmark, Case, Ratio, run_benchmark
from .trainer_step import make_compile_function

_BATCH = 128


@dataclass(frozen=True)
class Options:
    """Measure the time to trace, lower and compile a step of SGD with momentum on CIFAR-10's shapes; needs Flax."""

    nets: tuple[str, ...] = ("resnet110", "preact_resnet164", "wrn_28_10", "densenet_bc_190_40", "preact_resnet1001")
    """Names of the networks."""
    rounds: int = 3
    """Measurements of each case."""
    out: Path = RESULTS / "compile.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.compile", args=arguments)
    cases, ratios = {}, []
    for name in options.nets:
        if name not in NETS:
            raise InputError(f"`nets` (={name!r}) must be among the networks written in Flax: {', '.join(NETS)}")
        ours, flax = f"{name}, eqxcnn", f"{name}, Flax linen"
        cases[ours] = Case(make_compile_function(name, optax.sgd(0.1, momentum=0.9), _BATCH))
        cases[flax] = Case(_make_flax_compile_function(name))
        ratios.append(Ratio(ours, flax, "<= 1.5"))
    title = "Seconds to trace, lower and compile a train step: SGD with momentum, batch 128, 32x32x3"
    benchmark = Benchmark("compile", title, arguments, "s", cases, ratios, warm_up=False)
    run_benchmark(benchmark, options.rounds, options.out)


def _make_flax_compile_function(name: str) -> Callable[[], None]:
    net, optimizer = NETS[name], optax.sgd(0.1, momentum=0.9)
    images, labels = jnp.zeros((_BATCH, 32, 32, 3)), jnp.zeros(_BATCH, jnp.int32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    published = zoo.card(name).params
    if (found := sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))) != published:
        raise AssertionError(f"the Flax network {name} has {found} parameters instead of {published}")
    carry = (variables["params"], variables["batch_stats"], jax.eval_shape(optimizer.init, variables["params"]))

    def step(carry: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, stats, opt_state = carry

        def mean_loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updates = net.apply({"params": params, "batch_stats": stats}, images, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (updates["batch_stats"], (logits.argmax(-1) == labels).sum())

        (loss, (stats, correct)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), jnp.stack([loss, correct])

    def compile_step() -> None:
        jax.clear_caches()
        jax.jit(lambda *arguments: step(*arguments)).lower(carry, images, labels).compile()

    return compile_step


if __name__ == "__main__":
    run_command(main)
