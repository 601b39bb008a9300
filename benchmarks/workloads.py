"""The training steps that `benchmarks.throughput` compares: networks, batches, optimizers, precisions."""

from typing import Literal, NamedTuple

import numpy as np
import optax

from eqxcnn import zoo

#: Learning rates that leave a network which sees the same random images again and again finite.
RATES = {"sgd": 0.01, "adam": 1e-4, "momentum": 0.01}
MOMENTUM = 0.9
#: What all ratios to Flax should be with the newest JAX.
FLAX_TARGET_NEWEST = 1.1


class Workload(NamedTuple):
    """A network, the images of a batch, the optimizer, and what the ratios to PyTorch and to Flax should be.

    Ours takes `steps` in one call, as the network's own recipe does, or any recipe on an accelerator. Images have the
    network's published size unless `image_size` is another.
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
        """What it is called in the results, and in `--only`."""
        return f"{self.net}_{self.batch}"

    @property
    def input(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = zoo.card(self.net).input
        return (height, width, channels) if self.image_size is None else (self.image_size, self.image_size, channels)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """A batch of normalized random images `[b h w c]`, and labels `[b]`."""
        rng = np.random.default_rng(0)
        images = rng.normal(size=(self.batch, *self.input)).astype(np.float32)
        return images, rng.integers(0, 10, self.batch).astype(np.int32)

    def optax(self) -> optax.GradientTransformation:
        """The optimizer, for those who use JAX."""
        rate = RATES[self.optimizer]
        if self.optimizer == "adam":
            return optax.adam(rate)
        return optax.sgd(rate, momentum=MOMENTUM if self.optimizer == "momentum" else None)


def _named(*workloads: Workload) -> dict[str, Workload]:
    return {each.name: each for each in workloads}


def _large(net: str, batch: int, optimizer: Literal["momentum", "adam"]) -> Workload:
    return Workload(net, batch, optimizer, steps=10, precision="bf16")


#: By suite and name.
SUITES: dict[str, dict[str, Workload]] = {
    "cpu": _named(
        Workload("mlp", 64, "sgd", 2.0, steps=937),
        Workload("lenet", 64, "adam", 1.0),
        Workload("mnist_cnn", 64, "adam", 1.15, 1.4),
        Workload("mnist_cnn", 256, "adam", 1.15, 1.4),
        Workload("cifar_cnn", 128, "adam", 1.1, 1.4),
        Workload("resnet20", 128, "momentum", 0.6, 1.6),
        Workload("mobilenet_v2_cifar", 64, "momentum", 0.6, 2.0),
    ),
    "gpu": _named(
        _large("resnet18", 256, "momentum"),
        _large("resnet50", 256, "momentum"),
        _large("wrn_28_10", 256, "momentum"),
        _large("convnext_tiny", 128, "adam"),
        _large("vit_b_16", 128, "adam"),
    ),
}
