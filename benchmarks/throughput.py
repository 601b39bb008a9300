"""`python -m benchmarks.throughput`: training steps beside the same networks in Flax linen, Flax NNX and PyTorch.

Each library trains the same network with the same batch, optimiser and precision, written as a competent user of it
would; PyTorch eager and compiled, channels first and last. Ours is the whole step of the trainer: it takes the batch
from the images on the device, divides and normalises its bytes, and sums the metrics; the others are given floating
point images that are ready. All share one process, and so the memory that the trainer keeps in huge pages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.training.compile import compiled
from eqxcnn.training.memory import keep_freed_memory
from eqxcnn.training.step import train_steps

from .our_step import our_step
from .timing import RESULTS, Benchmark, Case, Ratio, run

#: Images that batches are taken from.
_IMAGES = 2048


class Workload(NamedTuple):
    """A network, the images of a batch, the optimiser, and what the ratios to PyTorch and to Flax should be.

    Ours takes `steps` in one call, as the network's own recipe does.
    """

    net: str
    batch: int
    optimizer: str
    torch_target: float
    flax_target: float | None = None
    steps: int = 1

    @property
    def name(self) -> str:
        """What it is called in the results, and in `--only`."""
        return f"{self.net}_{self.batch}"


WORKLOADS = {
    each.name: each
    for each in (
        Workload("mlp", 64, "sgd", 2.0, steps=64),
        Workload("lenet", 64, "adam", 1.0),
        Workload("mnist_cnn", 64, "adam", 1.15, 1.4),
        Workload("mnist_cnn", 256, "adam", 1.15, 1.4),
        Workload("cifar_cnn", 128, "adam", 1.1, 1.4),
        Workload("resnet20", 128, "momentum", 0.6, 1.6),
        Workload("mobilenet_v2_cifar", 64, "momentum", 0.6, 2.0),
    )
}
#: Learning rates that leave a network which sees the same random images again and again finite.
_RATE = {"sgd": 0.01, "adam": 1e-4, "momentum": 0.01}


@dataclass(frozen=True)
class Options:
    """Times training steps of the same networks in several libraries; needs Flax and PyTorch."""

    only: tuple[str, ...] = tuple(WORKLOADS)
    """The workloads, `network_batch`."""
    peers: tuple[str, ...] = ("linen", "nnx", "torch", "torch_compiled")
    """What to compare with."""
    rounds: int = 5
    """How often everything is timed."""
    seconds: float = 0.4
    """How long a case runs in a round, roughly."""
    out: Path = RESULTS / "throughput.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.throughput", args=arguments)
    # As the trainer does; all libraries here share the process and gain by it.
    keep_freed_memory()
    cases: dict[str, Case] = {}
    ratios: list[Ratio] = []
    for name in options.only:
        if name not in WORKLOADS:
            raise InputError(f"`only`: there is no workload `{name}`, only {', '.join(WORKLOADS)}")
        _add(WORKLOADS[name], options, cases, ratios)
    title = "Milliseconds of a training step of the same network in several libraries"
    run(Benchmark("throughput", title, arguments, "ms", cases, ratios, warm_up=False), options.rounds, options.out)


def _add(workload: Workload, options: Options, cases: dict[str, Case], ratios: list[Ratio]) -> None:
    """The cases of one workload and the ratios between them."""
    steps = {"eqxcnn": _ours(workload)}
    if "linen" in options.peers:
        steps["Flax linen"] = _linen(workload)
    if "nnx" in options.peers:
        steps["Flax NNX"] = _nnx(workload)
    if "torch" in options.peers or "torch_compiled" in options.peers:
        steps |= _torch(workload, compile_too="torch_compiled" in options.peers)
    named = {f"{workload.name}, {library}": step for library, step in steps.items()}
    ours = f"{workload.name}, eqxcnn"
    cases |= {
        name: _repeated(step, options.seconds, workload.steps if name == ours else 1) for name, step in named.items()
    }
    for library, target in (("torch", workload.torch_target), ("Flax", workload.flax_target)):
        over = tuple(name for name in named if f", {library}" in name)
        if over:
            wanted = None if target is None else f">= {target}"
            ratios.append(Ratio(over, ours, wanted, f"{workload.name}, the best {library}"))


def _repeated(step: Callable[[], Any], seconds: float, steps: int) -> Case:
    """As many calls as take about so long, told as the time of one step; compiled and warm before anything is timed."""
    jax.block_until_ready(step())
    started = perf_counter()
    # The first one after compilation is often slow.
    jax.block_until_ready([step() for _ in range(2)][-1])
    count = max(1, round(2 * seconds / (perf_counter() - started)))

    def call() -> Any:
        return [step() for _ in range(count)][-1]

    return Case(call, 1 / (count * steps))


def _batch(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Normalised random images `[b h w c]` and labels `[b]`."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(workload.batch, *zoo.card(workload.net).input)).astype(np.float32)
    return images, rng.integers(0, 10, workload.batch).astype(np.int32)


def _optax(workload: Workload) -> optax.GradientTransformation:
    rate = _RATE[workload.optimizer]
    if workload.optimizer == "adam":
        return optax.adam(rate)
    return optax.sgd(rate, momentum=0.9 if workload.optimizer == "momentum" else None)


def _ours(workload: Workload) -> Callable[[], Any]:
    """The trainer's own step, its images on the device."""
    optimizer, rng = _optax(workload), np.random.default_rng(0)
    size = zoo.card(workload.net).input
    pixels = jnp.asarray(rng.integers(0, 256, (_IMAGES, *size), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, _IMAGES, dtype=np.int32))
    setup, train = our_step(workload.net, optimizer, (pixels, labels))
    carried = [train]
    take = compiled(train_steps, donate=True)
    rows = np.stack([rng.permutation(_IMAGES)[: workload.batch] for _ in range(workload.steps)]).astype(np.int32)

    def step() -> Any:
        carried[0] = take(setup, carried[0], rows)
        return carried[0].sums.loss

    return step


def _linen(workload: Workload) -> Callable[[], Any]:
    from .peers.linen import NETS

    net, optimizer = NETS[workload.net], _optax(workload)
    images, labels = map(jnp.asarray, _batch(workload))
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

    def step() -> Any:
        *carried[:], loss, _ = update(*carried, images, labels)
        return loss

    return step


def _nnx(workload: Workload) -> Callable[[], Any]:
    try:
        from flax import nnx

        from .peers.nnx import NETS
    except (ImportError, AttributeError) as error:
        # An AttributeError where a JAX is newer than this Flax knows.
        raise InputError(f"`peers`: Flax NNX cannot be imported ({error}): leave `nnx` out, or update Flax") from error
    model = NETS[workload.net](nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, _optax(workload), wrt=nnx.Param)
    images, labels = map(jnp.asarray, _batch(workload))

    @nnx.jit
    def update(model: Any, optimizer: Any, images: jax.Array, labels: jax.Array) -> Any:
        def mean_loss(model: Any) -> tuple[jax.Array, jax.Array]:
            logits = model(images)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits.argmax(-1) == labels).mean()

        (loss, accuracy), gradients = nnx.value_and_grad(mean_loss, has_aux=True)(model)
        optimizer.update(model, gradients)
        return loss, accuracy

    return lambda: update(model, optimizer, images, labels)


def _torch(workload: Workload, compile_too: bool) -> dict[str, Callable[[], Any]]:
    """Eager and (if asked for) compiled, channels first and last; the last is no other thing for dense networks."""
    try:
        import torch

        from .peers.pytorch import NETS
    except ImportError as error:
        raise InputError("`peers`: PyTorch is not installed: `pip install torch==2.13.0`") from error
    array, classes = _batch(workload)
    steps: dict[str, Callable[[], Any]] = {}
    formats = {"": torch.contiguous_format, " channels last": torch.channels_last}
    for words, memory in formats.items() if workload.net != "mlp" else [("", torch.contiguous_format)]:
        images = torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=memory)
        labels = torch.from_numpy(classes.astype(np.int64))
        for form in ("eager", "compiled") if compile_too else ("eager",):
            net: Any = NETS[workload.net]()
            net = net.to(memory_format=memory)
            rate = _RATE[workload.optimizer]
            if workload.optimizer == "adam":
                optimizer = torch.optim.Adam(net.parameters(), rate)
            else:
                momentum = 0.9 if workload.optimizer == "momentum" else 0.0
                optimizer = torch.optim.SGD(net.parameters(), rate, momentum)
            run_net = torch.compile(net) if form == "compiled" else net
            steps[f"torch {form}{words}"] = _torch_step(run_net, optimizer, images, labels)
    return steps


def _torch_step(net: Any, optimizer: Any, images: Any, labels: Any) -> Callable[[], Any]:
    from torch.nn.functional import cross_entropy

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits = net(images)
        loss = cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


if __name__ == "__main__":
    run_command(main)
