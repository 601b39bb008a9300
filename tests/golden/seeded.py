"""Weights and images out of a seed, so that golden numbers need no weight files: NumPy alone, the same everywhere."""

import zlib

import numpy as np


def weights(shapes, seed=0, tame=1.0):
    """An array for each `{name: shape}`, which depends on nothing but seed, name and shape.

    **Arguments:**

    - `shapes`: torch's names and shapes.
    - `tame`: what matrices and kernels are multiplied by; below one for networks whose scores explode otherwise.
    """
    return {name: _array(name, tuple(shape), seed, tame) for name, shape in shapes.items()}


def _array(name, shape, seed, tame):
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")) or shape == ():
        values = random.uniform(-0.1, 0.1, shape)
    elif np.prod(shape) == max(shape):  # one axis that counts: the scales of norms and layers
        values = random.uniform(0.5, 1.5, shape)
    else:
        # He et al. 2015, so that maps keep their size on the way through ReLUs.
        deviation = np.sqrt(2.0 / int(np.prod(shape[1:])))
        return (random.standard_normal(shape) * deviation).astype(np.float32) * np.float32(tame)
    return values.astype(np.float32)


def images(batch, height, width, channels=3, seed=0):
    """Normal images `[batch height width channels]`."""
    sides = [height] if height == width else [height, width]
    return (
        np.random.default_rng([seed, batch, *sides, channels])
        .standard_normal((batch, height, width, channels), np.float64)
        .astype(np.float32)
    )


def loss_factors(batch, num_classes, seed=0):
    """What the scores `[batch num_classes]` are multiplied by to give a loss."""
    return np.random.default_rng([seed, batch, num_classes]).standard_normal((batch, num_classes)).astype(np.float32)
