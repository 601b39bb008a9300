"""A recipe: everything that decides a training run, in one flat frozen dataclass."""

from dataclasses import dataclass
from typing import Literal, get_type_hints

from ..views import Views
from .checks import check_values
from .settings import coerce


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, and how. `None` means: follow the data (see `eqxcnn.training.job`)."""

    model: str = "lenet"
    """A name from `eqxcnn.zoo.list_models()`."""
    architecture: tuple[str, ...] = ()
    """Arguments of the model's own constructor as Python writes them: `drop_path_rate=0.1`, `widths=(32, 64, 64)`."""
    data: str = "digits"
    """A data set's name, a Hub id such as `org/name`, or a local folder."""
    epochs: int | float | None = None
    """Passes over the training images, the last of which may be a part of one (`9.9`); by default as many as come to
    320,000 images, from 5 to 20."""
    batch_size: int = 64
    """Images a step."""
    gradients: Literal["autodiff", "by_hand"] = "autodiff"
    """Where they come from; `by_hand` is for models with a backward pass of their own (`scratch`), and plain `sgd`."""
    optimizer: Literal["adam", "adamw", "lamb", "lion", "muon", "nesterov", "rmsprop", "sgd"] = "adam"
    """The update rule; `sgd`, `nesterov` and `rmsprop` use `momentum`."""
    learning_rate: float = 3e-3
    """The schedule's peak."""
    schedule: Literal["one_cycle", "cosine", "linear", "polynomial", "step", "multistep", "plateau", "constant"] = (
        "one_cycle"
    )
    """How the learning rate moves over the run: up for a quarter and down; down along a cosine, a line or a power; down
    by `decay_rate` every few epochs, at milestones, or when the training loss stays where it is; or not at all."""
    warmup_fraction: float | None = None
    """Share of the steps over which it first rises; by default 0.25 in `one_cycle` and 0 in the others."""
    initial_lr_factor: float | None = None
    """Where the rise starts, as a factor of `learning_rate`; by default 0.04 in `one_cycle` and 0 in the others."""
    final_lr_factor: float | None = None
    """Where the fall ends, as such a factor; by default 1/7500 in `one_cycle` and 0 in the others."""
    power: float = 2.0
    """Of what is left of the run, in `polynomial`."""
    decay_rate: float = 0.1
    """What the learning rate is multiplied by at each drop of `step`, `multistep` and `plateau`."""
    decay_epochs: float = 30.0
    """EpochRunner from one drop to the next, in `step`."""
    decay_milestones: tuple[float, ...] = ()
    """After how many epochs the learning rate drops, in `multistep`."""
    patience_epochs: int = 10
    """For how many epochs the training loss may stay above its best before the learning rate drops, in `plateau`."""
    learning_rate_factors: tuple[str, ...] = ()
    """Factors of single parameters, by their tensors' names: `*norm*.bias=64`, `conv1.weight=0` to leave it as it is,
    or `conv1.bias=1 for 3 epochs`; where several fit, the last one counts. They do not multiply the weight decay."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that stay as they are, by their tensors' names up to any dot: `stem`, `blocks.0`, or
    `backbone` for all but the head; norms and dropout there are in eval mode."""
    layer_decay: float = 1.0
    """What the learning rate is multiplied by from one layer to the one before it, for fine-tuning."""
    momentum: float = 0.9
    """Weight of the past updates in `sgd`, `nesterov` and `rmsprop`."""
    nesterov: bool = False
    """Whether `sgd` looks ahead (Nesterov)."""
    weight_decay: float = 0.0
    """Decay of kernels and matrices a step, times the learning rate; norms and biases are spared."""
    decay_norms_and_biases: bool = False
    """Whether norms and biases are decayed as well."""
    clip_norm: float = 0.0
    """Scale the gradients down to this norm of them all together, where it is larger; 0 for never."""
    clip_value: float = 0.0
    """Cut each number of the gradients off at this size; 0 for never."""
    clip_agc: float = 0.0
    """Scale each filter's gradient down to this share of its weights' norm, where it is larger (AGC); 0 for never."""
    accumulate_steps: int = 1
    """Batches whose gradients are averaged for one update, which is then that of one large batch, but for the norms'
    statistics: those are of each batch."""
    lookahead_every: int = 0
    """Call the weights back to a slow copy of them, which follows, every so many steps (Lookahead); 0 for never."""
    lookahead_decay: float = 0.95
    """What the slow copy keeps of itself a step, at the end of the run; before that less, by the cube of the time."""
    average: Literal["none", "ema", "swa"] = "none"
    """Test and keep an average of the weights: a moving one (`ema`), or the mean over the ends of the last epochs, with
    running statistics found anew (`swa`)."""
    average_decay: float = 0.999
    """What a moving average keeps of itself a step; less of it in the first steps."""
    average_start: float = 0.75
    """Share of the run before the first epoch's end that counts in `swa`."""
    loss: Literal["cross_entropy", "bce", "focal"] = "cross_entropy"
    """What is minimized: cross-entropy of the softmax, binary cross-entropy of each class, or the focal loss."""
    focal_gamma: float = 2.0
    """How little the focal loss minds what is right already."""
    label_smoothing: float = 0.1
    """Share of every label spread evenly over all classes."""
    class_weights: tuple[float, ...] | Literal["balanced"] = ()
    """How much each class counts in the loss, in the order of the data's classes; `balanced` is the inverse of how many
    images it has, with a mean of 1 over the images."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """Which images an epoch shows: each once, or as many, drawn with replacement, of every class about the same."""
    augment: tuple[str, ...] = ()
    """Random transforms of each training image in order, such as `flip_horizontal` or `random_crop(padding=2)`."""
    mixup: float = 0.0
    """Add two images of a batch in shares from a Beta distribution with this alpha; 0 for never."""
    cutmix: float = 0.0
    """Put a box of another image of the batch on each, of an area from a Beta distribution with this alpha; 0 for
    never."""
    mix_probability: float = 1.0
    """How likely an image is mixed, where `mixup` or `cutmix` are on."""
    mix_switch_probability: float = 0.5
    """How likely a mixed image is cut, where both are on."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels that images are resized to; by default the data's, or the model's where sizes vary."""
    mean: tuple[float, ...] | None = None
    """Mean a channel subtracted from pixels in [0, 1]; by default what given weights were trained with, else measured
    on the training images."""
    std: tuple[float, ...] | None = None
    """Deviation a channel divided by after that; its default is as that of `mean`."""
    precision: Literal["float32", "bf16"] = "float32"
    """What the network computes in while training; with `bf16`, weights, statistics and loss stay in float32."""
    test_views: Views = "one"
    """What the test averages an image's scores over: the image, that and its mirror image, or shifts by a pixel too."""
    pretrained: bool = False
    """Whether the run starts from the model's published weights; a head for other classes starts random."""
    init_from: str | None = None
    """Start from the weights of this finished run, of its `model` folder, or of a file (`.safetensors`, or PyTorch's
    `.pth`) of the same model; a head for other classes starts random."""
    init_images: int = 0
    """How many of the first training images set weights before the first step, in models that have such (`airbench94`);
    0 leaves all weights random."""
    train_images: int | None = None
    """Use only this many images of the training split, its first ones; by default all."""
    validation: float | Literal["test"] = 0.1
    """Share of the training images held out, stratified by class, to follow progress; 0 for none; `test` holds out none
    and follows the test split, as many write-ups do: nothing may then be chosen by it."""
    seed: int = 0
    """Decides initial weights, hold-out, order, augmentation and dropout."""
    shuffle: bool = True
    """Whether each epoch has an order of its own."""
    monitor: Literal["validation_accuracy", "validation_loss", "train_accuracy", "train_loss"] = "validation_accuracy"
    """What `early_stop_epochs` and `keep` go by."""
    early_stop_epochs: int = 0
    """Stop after so many epochs in which `monitor` has not become better; 0 for never."""
    early_stop_delta: float = 0.0
    """By how much it must become better not to stop."""
    keep: Literal["last", "best"] = "last"
    """Which weights are tested and kept: those at the end, or those of the epoch with the best `monitor`."""
    best_checkpoints: int = 0
    """How many epochs with the best `monitor` keep a checkpoint, in `best/`; with `keep: best` one at least."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do when a loss is no number, or with `skip` a gradient: stop the run, or leave that step out."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What to do with an image that cannot be decoded or has no label."""
    jit: bool = True
    """Whether steps are compiled; `--no-jit` shows what that is worth."""
    steps_per_call: int | None = None
    """Steps compiled into one call; by default 1 on a CPU, where loops slow convolutions down, and 100 elsewhere.
    Without `jit` it is 1."""
    checkpoint_seconds: float = 30.0
    """How long training goes on between checkpoints; 0 saves after every call."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    log: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ()
    """Where metrics go besides `metrics.jsonl`: `metrics.csv`, TensorBoard's files, Weights & Biases."""
    profile: int = 0
    """Write a trace of so many steps, from the second call on, to `profile/`; 0 for none."""
    deterministic: bool = False
    """Whether a GPU, too, is held to the same bits in every run, at the price of speed; a CPU always is."""
    device_budget: float = 2.0
    """Training images of up to this many GiB live on the device; larger sets are streamed."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Recipe).items():
            object.__setattr__(self, name, coerce(name, getattr(self, name), hint))
        check_values(self)
