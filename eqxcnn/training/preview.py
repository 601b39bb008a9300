"""The first training images as the model sees them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from ..runtime.compile import jit_once
from ..types import Images
from .inputs import Batch, make_input, step_keys
from .job import Job
from .setup import Setup

__all__ = ["first_images"]


def first_images(job: Job, count: int = 64) -> UInt8[np.ndarray, "n h w c"]:
    """Returns the first images of the first step as pixels, augmented and mixed. With several processes, returns images
    of this process's part of the batch."""
    (call,) = job.all_batches(0, slice(1))
    batch, setup = jax.tree.map(lambda leaf: leaf[0], call), job.setup
    if job.devices.processes > 1:
        # Only this process computes the preview, so it must not use images that are split over all devices.
        setup = job.devices.localize(replace(setup, data=None))
        if not isinstance(batch, tuple):
            batch = job.splits.train.array[batch], job.splits.train.labels[batch], batch
    images = np.asarray(jit_once(_make_images)(setup, jax.tree.map(jnp.asarray, batch)))[:count]
    return np.rint(255 * images.clip(0, 1)).astype(np.uint8)


def _make_images(setup: Setup, batch: Batch) -> Images:
    """Returns the images of the first step, scaled back to [0, 1]."""
    step = jnp.zeros((), jnp.int32)
    images, _ = make_input(setup, batch, step, step_keys(setup.key, step))
    return images * setup.std + setup.mean
