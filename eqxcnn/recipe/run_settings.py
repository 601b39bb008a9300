"""Settings for evaluating, saving, logging and compiling a run, grouped as on the command line."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ..ranges import Items, Range
from ..views import Views
from .checks import AT_LEAST_ZERO, COUNT, COUNT_OR_NONE

__all__ = ["CheckpointSettings", "CompilationSettings", "EvaluationSettings", "LogSettings"]


@dataclass(frozen=True)
class EvaluationSettings:
    """Validation, test, and the weights that are kept."""

    test_views: Views = "one"
    """Views of each test image whose logits are averaged: the image alone, the image and its mirror image, or both of
    these and crops shifted by one pixel."""
    eval_batch_size: Annotated[int, COUNT] | None = None
    """Images per batch in validation and test; each view counts as an image. By default 500, or fewer if 500
    images would have more than 4 million pixels in total."""
    metrics: Annotated[tuple[str, ...], Items(20)] = ()
    """Further metrics of validation and test: `top_k(5)`, `per_class_accuracy`, `balanced_accuracy`,
    `expected_calibration_error` or `brier_score`."""
    monitor: str = "validation_accuracy"
    """Metric that `early_stop_epochs` and `keep` follow: `validation_accuracy`, `validation_loss`, `train_accuracy`,
    `train_loss`, or `validation_` followed by the name of one of `metrics`, such as `validation_top_k_5`."""
    early_stop_epochs: Annotated[int, COUNT_OR_NONE] = 0
    """Stop after this many epochs without a better `monitor`; 0 for never."""
    early_stop_delta: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Improvement of `monitor` that an epoch must exceed to count as better."""
    keep: Literal["last", "best"] = "last"
    """Weights to test and save: the last weights, or the weights of the epoch with the best `monitor`."""
    best_checkpoints: Annotated[int, COUNT_OR_NONE] = 0
    """Number of checkpoints to keep in `best/`, from the epochs with the best `monitor`; at least 1 with
    `keep: best`."""


@dataclass(frozen=True)
class CheckpointSettings:
    """Checkpoints to resume from."""

    checkpoint_seconds: Annotated[float, Range(0, 1_000_000_000)] = 30.0
    """Seconds of training between two checkpoints; 0 saves after every call of the compiled steps."""
    keep_checkpoints: Annotated[int, COUNT] = 2
    """Number of newest checkpoints to keep."""
    on_nan: Literal["stop", "skip"] = "stop"
    """Stop at a loss that is not finite, or skip the steps whose loss or gradients are not finite."""


@dataclass(frozen=True)
class LogSettings:
    """Logs and traces."""

    log: Annotated[tuple[Literal["csv", "tensorboard", "wandb"], ...], Items(10)] = ()
    """Logs besides `metrics.jsonl`: `metrics.csv`, TensorBoard, Weights & Biases."""
    profile: Annotated[int, COUNT_OR_NONE] = 0
    """Write a trace of this many steps to `profile/`, starting at the second call of the compiled steps; 0 for none."""


@dataclass(frozen=True)
class CompilationSettings:
    """How steps are compiled."""

    devices: Annotated[int, Range(1, 65_536)] | Literal["all"] = "all"
    """Number of devices that share each batch; `all` uses every device of the machine."""
    shard_params: bool = False
    """Split weights and optimizer state over the devices, for models that do not fit on one device. The results are
    the same, up to rounding."""
    jit: bool = True
    """Compile the steps; `--no-jit` runs them uncompiled, for comparison."""
    steps_per_call: Annotated[int, COUNT] | None = None
    """Steps compiled into one call; by default 1 on a CPU, where loops slow convolutions down, and 100 elsewhere.
    Always 1 without `jit`."""
    deterministic: bool = False
    """Make a GPU compute the same bits in every run, at the cost of speed; a CPU always does."""
