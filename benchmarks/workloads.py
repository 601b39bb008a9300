"""The training steps that `benchmarks.throughput` compares: network, batch size, optimizer and precision."""

from typing import Literal, NamedTuple

import numpy as np
import optax

from eqxcnn import zoo

#: Learning rates at which training on the same random images stays finite.
LEARNING_RATES = {"sgd": 0.01, "adam": 1e-4, "momentum": 0.01}
MOMENTUM = 0.9
#: Target of all ratios to Flax with the newest JAX.
FLAX_TARGET_NEWEST = 1.1


class Workload(NamedTuple):
    """A training step.

    - `net`, `batch`, `optimizer`, `precision`: the network, batch size, optimizer and precision.
    - `torch_target`, `flax_target`: targets for the times of PyTorch and Flax relative to our time.
    - `steps`: number of steps per call of our trainer: 10 in the suite `gpu`, otherwise as in the network's recipe.
    - `image_size`: side of the images in pixels; by default the network's published size.
    """

    net: str
    batch: int
    optimizer: Literal["sgd", "momentum", "adam"]
    torch_target: float | None = None
    flax_target: float | None = None
    steps: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    image_size: int | None = None

    @property
    def name(self) -> str:
        """Returns the workload's name in the results and for `--only`."""
        return f"{self.net}_{self.batch}"

    @property
    def input(self) -> tuple[int, int, int]:
        """Returns height, width and channels of an image."""
        height, width, channels = zoo.card(self.net).input
        return (height, width, channels) if self.image_size is None else (self.image_size, self.image_size, channels)

    def make_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns a batch of normalized random images `[b h w c]`, and labels `[b]`."""
        rng = np.random.default_rng(0)
        images = rng.normal(size=(self.batch, *self.input)).astype(np.float32)
        return images, rng.integers(0, 10, self.batch).astype(np.int32)

    def build_optimizer(self) -> optax.GradientTransformation:
        """Returns the Optax optimizer."""
        rate = LEARNING_RATES[self.optimizer]
        if self.optimizer == "adam":
            return optax.adam(rate)
        return optax.sgd(rate, momentum=MOMENTUM if self.optimizer == "momentum" else None)


def _by_name(*workloads: Workload) -> dict[str, Workload]:
    return {workload.name: workload for workload in workloads}


def _gpu_workload(net: str, batch: int, optimizer: Literal["momentum", "adam"]) -> Workload:
    return Workload(net, batch, optimizer, steps=10, precision="bf16")


#: Workloads by suite and name.
SUITES: dict[str, dict[str, Workload]] = {
    "cpu": _by_name(
        Workload("mlp", 64, "sgd", 2.0, steps=937),
        Workload("lenet", 64, "adam", 1.0),
        Workload("mnist_cnn", 64, "adam", 1.15, 1.4),
        Workload("mnist_cnn", 256, "adam", 1.15, 1.4),
        Workload("cifar_cnn", 128, "adam", 1.1, 1.4),
        Workload("resnet20", 128, "momentum", 0.6, 1.6),
        Workload("mobilenet_v2_cifar", 64, "momentum", 0.6, 2.0),
    ),
    "gpu": _by_name(
        _gpu_workload("resnet18", 256, "momentum"),
        _gpu_workload("resnet50", 256, "momentum"),
        _gpu_workload("wrn_28_10", 256, "momentum"),
        _gpu_workload("convnext_tiny", 128, "adam"),
        _gpu_workload("vit_b_16", 128, "adam"),
    ),
}
