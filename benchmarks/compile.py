"""`python -m benchmarks.compile`: from a train step of a deep network as written to one that runs, beside Flax's."""

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

from .our_step import compiler
from .peers.linen import NETS
from .timing import RESULTS, Benchmark, Case, Ratio, run

_BATCH = 128


@dataclass(frozen=True)
class Options:
    """Times tracing, lowering and compiling a step of SGD with momentum on CIFAR-10's shapes; needs Flax."""

    nets: tuple[str, ...] = ("resnet110", "preact_resnet164", "wrn_28_10", "densenet_bc_190_40", "preact_resnet1001")
    """The networks."""
    rounds: int = 3
    """How often everything is timed."""
    out: Path = RESULTS / "compile.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.compile", args=arguments)
    cases, ratios = {}, []
    for name in options.nets:
        if name not in NETS:
            raise InputError(f"`nets`: there is no peer of `{name}`, only of {', '.join(NETS)}")
        ours, theirs = f"{name}, eqxcnn", f"{name}, Flax linen"
        cases[ours], cases[theirs] = Case(compiler(name, optax.sgd(0.1, momentum=0.9), _BATCH)), Case(_flax(name))
        ratios.append(Ratio(ours, theirs, "<= 1.5"))
    title = "Seconds to trace, lower and compile a train step: SGD with momentum, batch 128, 32x32x3"
    run(Benchmark("compile", title, arguments, "s", cases, ratios, warm_up=False), options.rounds, options.out)


def _flax(name: str) -> Callable[[], None]:
    net, optimizer = NETS[name], optax.sgd(0.1, momentum=0.9)
    images, labels = jnp.zeros((_BATCH, 32, 32, 3)), jnp.zeros(_BATCH, jnp.int32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    published = zoo.card(name).params
    if (found := sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))) != published:
        raise AssertionError(f"the peer of {name} has {found} parameters, not {published}")
    carried = (variables["params"], variables["batch_stats"], jax.eval_shape(optimizer.init, variables["params"]))

    def step(carried: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, stats, opt_state = carried

        def mean_loss(params: Any) -> tuple[jax.Array, Any]:
            logits, after = net.apply({"params": params, "batch_stats": stats}, images, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (after["batch_stats"], (logits.argmax(-1) == labels).sum())

        (loss, (stats, correct)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), jnp.stack([loss, correct])

    def compile_step() -> None:
        jax.clear_caches()
        jax.jit(lambda *arguments: step(*arguments)).lower(carried, images, labels).compile()

    return compile_step


if __name__ == "__main__":
    run_command(main)
