"""Random image transforms for use inside jit: functions of one image `[h w c]` in [0, 1] and a PRNG key."""

from .auto import auto_augment, rand_augment, trivial_augment
from .color import brightness, color_jitter, random_brightness, random_contrast, random_hue, random_saturation
from .context import ContextAugment
from .erase import cutout, random_erasing
from .geometry import (
    RandomResizedCrop,
    alternating_flip,
    random_crop,
    random_flip_horizontal,
    random_flip_vertical,
    random_resized_crop,
    random_rot90,
)
from .mix import Mix, partners
from .policy import AUGMENTS, Stage, build, build_stages, compose, register
from .rotation import random_rotation

__all__ = [
    "AUGMENTS",
    "ContextAugment",
    "Mix",
    "RandomResizedCrop",
    "Stage",
    "alternating_flip",
    "auto_augment",
    "brightness",
    "build",
    "build_stages",
    "color_jitter",
    "compose",
    "cutout",
    "partners",
    "rand_augment",
    "random_brightness",
    "random_contrast",
    "random_crop",
    "random_erasing",
    "random_flip_horizontal",
    "random_flip_vertical",
    "random_hue",
    "random_resized_crop",
    "random_rot90",
    "random_rotation",
    "random_saturation",
    "register",
    "trivial_augment",
]
