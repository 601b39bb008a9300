"""Settings of model, data and training, with types and ranges, grouped as on the command line and settings page."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ..optim.muon import MuonLayers, MuonOthers
from ..optim.optimizers import OptimizerName
from ..ranges import Items, Range
from .checks import ABOVE_ZERO, AT_LEAST_ZERO, BELOW_ONE, COUNT, COUNT_OR_NONE, PROBABILITY, UP_TO_ONE

__all__ = [
    "AugmentationSettings",
    "DataSettings",
    "LossSettings",
    "ModelSettings",
    "OptimizerSettings",
    "ScheduleSettings",
]


@dataclass(frozen=True)
class ModelSettings:
    """The network and its initial weights."""

    model: str = "lenet"
    """Name of the model, one of `eqxcnn.zoo.list_models()`; `own` for a network passed from Python."""
    architecture: Annotated[tuple[str, ...], Items(100)] = ()
    """Further arguments of the model's constructor, as in Python: `drop_path_rate=0.1`, `widths=(32, 64, 64)`."""
    pretrained: bool = False
    """Start from the model's trained weights, in this package or on the Hub; the head starts random if the number of
    classes differs."""
    init_from: str | None = None
    """Start from other weights of the model. Give the folder of a finished run, its `model` folder, the name of a model
    with trained weights, a model on the Hub (`hub:user/name`), or a file (`.safetensors`, or PyTorch's `.pth`). The
    head starts random if the number of classes differs."""
    init_images: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Number of training images that a model with data-dependent weights (`airbench94`) is initialized from;
    0 leaves all weights random."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the network's computation during training; with `bf16`, weights, statistics and loss stay in
    float32."""


@dataclass(frozen=True)
class DataSettings:
    """The data set, its splits, and how its images are decoded, resized and normalized."""

    data: str = "digits"
    """Name of a data set, a Hub id such as `org/name`, or a local folder; `own` for data passed from Python."""
    image_column: str | None = None
    """Column of the images; by default found by its type and name."""
    label_column: str | None = None
    """Column of the labels; by default found by its type and name."""
    test_split: str | None = None
    """Split to test on; for class folders, the folder that contains the class folders of the test images. By default
    `test`, else `validation`, else a fifth of the training images."""
    image_size: tuple[Annotated[int, Range(1, 4096)], Annotated[int, Range(1, 4096)]] | None = None
    """Height and width in pixels that images are resized to; by default the data's size, or the model's if the images
    vary in size."""
    resize: Literal["stretch", "crop", "pad"] | None = None
    """How an image of another shape is resized to `image_size`: `stretch` changes the aspect ratio, `crop` keeps the
    center, `pad` adds gray borders. By default `stretch` if all images share one size, else the method that the
    initial weights expect, else `crop`."""
    crop_fraction: Annotated[float, Range(0.1, 1)] | None = None
    """Side of the kept center as a fraction of the resized image's shorter side; below 1, the border is cut off. By
    default the fraction that the initial weights expect, else 1."""
    interpolation: Literal["bilinear", "bicubic", "nearest"] | None = None
    """Filter for resizing; by default the filter that the initial weights expect, else `bilinear`."""
    validation: Annotated[float, BELOW_ONE] | Literal["test"] = 0.1
    """Fraction of the training images held out to measure progress, stratified by class; 0 for none. `test` holds out
    nothing and measures progress on the test split, as many write-ups do; do not base choices on such scores."""
    train_images: Annotated[int, Range(1, 2**31 - 1)] | None = None
    """Number of training images to use, taken from the start of the split; by default all."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Seed of the initial weights, the held-out images, the order of the images, augmentation and dropout."""
    shuffle: bool = True
    """Shuffle the training images in every epoch."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """`uniform` shows each image once per epoch; `balanced` draws the same number of images with replacement, all
    classes equally often."""
    mean: Annotated[tuple[Annotated[float, Range(-1000, 1000)], ...], Items(10)] | None = None
    """Mean per channel that is subtracted from pixels in [0, 1]; by default the mean that the initial weights were
    trained with, if known, else the mean of the training images."""
    std: Annotated[tuple[Annotated[float, Range(0.0001, 1000)], ...], Items(10)] | None = None
    """Standard deviation per channel that pixels are divided by; its default comes from the same source as the default
    of `mean`."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """Stop at an image that cannot be decoded or has no label, or skip it."""
    decode: Literal["once", "stream", "auto"] = "auto"
    """`once` decodes all images at the start and keeps them in the cache; `stream` decodes them again whenever they are
    read, and makes a `random_resized_crop` from the original pixels; `auto` streams
    images that would exceed `disk_budget`."""
    disk_budget: Annotated[float, AT_LEAST_ZERO] = 50.0
    """Images are kept in the cache if they take at most this many GiB when decoded, and the disk has room for them."""
    data_streaming: bool = False
    """Read the data again in every epoch instead of keeping a copy; works for data sets on the Hub, and for parquet
    files or tar shards in a folder."""
    shuffle_buffer: Annotated[int, COUNT] = 1000
    """Number of rows in the buffer that shuffles a stream; their encoded images are kept in memory."""
    decode_processes: Annotated[int, Range(0, 1024)] = 0
    """Number of processes that decode streamed images; 0 decodes in threads, one per core."""
    cache_size: tuple[Annotated[int, Range(1, 4096)], Annotated[int, Range(1, 4096)]] | None = None
    """Height and width of the training images in the cache, at least `image_size`; a larger size keeps more detail for
    `random_resized_crop`. By default `image_size`."""
    device_budget: Annotated[float, AT_LEAST_ZERO] = 2.0
    """A training set of up to this many GiB per device is kept on the devices; a larger set is streamed to them."""


@dataclass(frozen=True)
class ScheduleSettings:
    """The length of the training, the batch size, and the learning rate in each step."""

    epochs: Annotated[int | float | None, ABOVE_ZERO] = None
    """Passes over the training images; the last one may be partial (`9.9`). By default, as many as
    show about 320,000 images to the network, but at least 5 and at most 20 passes."""
    batch_size: Annotated[int, COUNT] = 64
    """Images per step."""
    learning_rate: Annotated[float, ABOVE_ZERO] = 3e-3
    """Largest learning rate of the schedule."""
    schedule: Literal["one_cycle", "cosine", "linear", "polynomial", "step", "multistep", "plateau", "constant"] = (
        "one_cycle"
    )
    """Learning-rate schedule: `one_cycle` rises and falls along cosines; `cosine`, `linear` and `polynomial` fall;
    `step` multiplies by `decay_rate` every `decay_epochs`, and `multistep` does so at `decay_milestones`; `plateau`
    falls when the training loss stops falling."""
    warmup_fraction: Annotated[float, BELOW_ONE] | None = None
    """Fraction of the steps over which the learning rate first rises; by default 0.25 in `one_cycle`, else 0."""
    initial_lr_factor: Annotated[float, AT_LEAST_ZERO] | None = None
    """Learning rate at the start of the warm-up, as a factor of `learning_rate`; by default 0.04 in `one_cycle`, else
    0."""
    final_lr_factor: Annotated[float, AT_LEAST_ZERO] | None = None
    """Learning rate at the end, as a factor of `learning_rate`; by default 1/7500 in `one_cycle`, and 0 in
    `cosine`, `linear` and `polynomial`."""
    power: Annotated[float, Range(0, 100, excludes_low=True)] = 2.0
    """Exponent of the `polynomial` schedule."""
    decay_rate: Annotated[float, UP_TO_ONE] = 0.1
    """Factor by which the schedules `step`, `multistep` and `plateau` multiply the learning rate at each drop."""
    decay_epochs: Annotated[float, Range(0.001, 1_000_000)] = 30.0
    """Epochs between two drops of `step`."""
    decay_milestones: Annotated[tuple[Annotated[float, ABOVE_ZERO], ...], Items(1000)] = ()
    """Epochs at which `multistep` drops."""
    patience_epochs: Annotated[int, COUNT] = 10
    """Epochs without a better training loss before `plateau` drops."""


@dataclass(frozen=True)
class OptimizerSettings:
    """The update rule, and the parameters that it applies to."""

    optimizer: OptimizerName | Literal["own"] = "adam"
    """Update rule; `sgd`, `nesterov` and `rmsprop` use `momentum`. `own` for an update rule passed from Python."""
    momentum: Annotated[float, BELOW_ONE] = 0.9
    """Weight of past updates in `sgd`, `nesterov`, `rmsprop` and the SGD of `muon_others`."""
    nesterov: bool = False
    """Use Nesterov momentum in `sgd`, `rmsprop` and the SGD of `muon_others`."""
    muon_momentum: Annotated[float, BELOW_ONE] = 0.95
    """Weight of past gradients in the Nesterov momentum of `muon`."""
    muon_steps: Annotated[int, Range(1, 100)] = 5
    """Newton-Schulz steps of `muon`, which bring the singular values of each update close to 1."""
    muon_coefficients: tuple[
        Annotated[float, Range(-100, 100)], Annotated[float, Range(-100, 100)], Annotated[float, Range(-100, 100)]
    ] = (3.4445, -4.7750, 2.0315)
    """Coefficients a, b and c of a Newton-Schulz step, which maps a singular value s to a s + b s^3 + c s^5."""
    muon_layers: MuonLayers = "all"
    """Parameters that `muon` updates: `all` kernels and matrices, or only the kernels of `convolutions`."""
    muon_others: MuonOthers = "adam"
    """Update rule of the other parameters in a run with `muon`."""
    rescale_kernels_every: Annotated[int, COUNT_OR_NONE] = 0
    """Updates between two rescalings of each convolution kernel `[kh kw in out]` to the norm sqrt(out), for
    convolutions that a norm follows; 0 for none."""
    weight_decay: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Weight decay per step, times the learning rate; norms and biases are not decayed. `adam` and `rmsprop` add the
    decay to the gradient before scaling the gradient (L2 regularization); `adamw` decays the weights themselves."""
    decay_norms_and_biases: bool = False
    """Apply weight decay to norms and biases too."""
    clip_norm: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Largest norm of all gradients together; gradients with a larger norm are scaled down. 0 for no limit."""
    clip_value: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Largest absolute value of each element of the gradients; 0 for no limit."""
    clip_agc: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Largest norm of each filter's gradient, as a fraction of the filter's norm (AGC); 0 for no limit."""
    accumulate_steps: Annotated[int, COUNT] = 1
    """Number of batches whose mean gradient makes one update, like one large batch; BatchNorm still sees each batch
    separately."""
    learning_rate_factors: Annotated[tuple[str, ...], Items(100)] = ()
    """Learning-rate factors of individual parameters, by tensor name: `*norm*.bias=64`, `conv1.weight=0` to freeze it,
    or `conv1.bias=1 for 3 epochs`. If several patterns match, the last one counts. The factors do not change the weight
    decay."""
    freeze: Annotated[tuple[str, ...], Items(100)] = ()
    """Parts of the model that are not trained, given as the start of their tensors' names: `stem`, `blocks.0`, or
    `backbone` for all but the head. Norms and dropout in these parts are in eval mode."""
    layer_decay: Annotated[float, UP_TO_ONE] = 1.0
    """Learning rate of each layer as a factor of the next layer's rate, for fine-tuning; 1 for one rate in all
    layers."""
    lookahead_every: Annotated[int, COUNT_OR_NONE] = 0
    """Steps between two resets of the weights to Lookahead's slow weights; 0 for no Lookahead."""
    lookahead_decay: Annotated[float, BELOW_ONE] = 0.95
    """Lookahead's slow weights keep this fraction of their values per step at the end of the run, and a smaller
    fraction before."""
    average: Literal["none", "ema", "swa"] = "none"
    """Weight average to test and save: a moving average (`ema`), or the mean of the weights at the end of each
    of the last epochs, with recomputed running statistics (`swa`)."""
    average_decay: Annotated[float, BELOW_ONE] = 0.999
    """The moving average keeps this fraction of its values per step, and a smaller fraction in the first steps."""
    average_start: Annotated[float, BELOW_ONE] = 0.75
    """Fraction of the run after which `swa` starts to average."""
    gradients: Literal["autodiff", "by_hand"] = "autodiff"
    """`by_hand` uses the backward pass that the model itself defines, as `scratch` does; needs plain `sgd`."""


@dataclass(frozen=True)
class LossSettings:
    """The loss, and how it is regularized."""

    loss: Literal["cross_entropy", "bce", "focal", "own"] = "cross_entropy"
    """Softmax cross-entropy, binary cross-entropy of each class, or the focal loss. `own` for a loss passed from
    Python."""
    label_smoothing: Annotated[float, BELOW_ONE] = 0.1
    """Fraction of each label that is spread evenly over all classes."""
    focal_gamma: Annotated[float, Range(0, 100)] = 2.0
    """Focusing parameter gamma of the focal loss; 0 gives cross-entropy."""
    class_weights: Annotated[tuple[Annotated[float, ABOVE_ZERO], ...], Items(100_000)] | Literal["balanced"] = ()
    """Weight of each class in the loss, in the order of the data's classes; `balanced` weights each class by the
    inverse of its number of images, scaled so that the mean weight of the images is 1."""


@dataclass(frozen=True)
class AugmentationSettings:
    """Random changes to the training images."""

    augment: Annotated[tuple[str, ...], Items(100)] = ()
    """Random transforms of each training image, in order, such as `flip_horizontal` or `random_crop(padding=2)`."""
    mixup: Annotated[float, Range(0, 1000)] = 0.0
    """Alpha of the Beta distribution from which mixup draws the shares of two images; 0 for no mixup."""
    cutmix: Annotated[float, Range(0, 1000)] = 0.0
    """Alpha of the Beta distribution from which CutMix draws the area that is kept; 0 for no CutMix."""
    mix_probability: Annotated[float, PROBABILITY] = 1.0
    """Probability that an image is mixed, if `mixup` or `cutmix` is on."""
    mix_switch_probability: Annotated[float, PROBABILITY] = 0.5
    """Probability that a mixed image is cut (CutMix) instead of blended (mixup), if both are on."""
