"""Weights and images from a seed, by NumPy alone, so that golden values need no weight files."""

import zlib

import numpy as np


def weights(shapes, seed=0, tame=1.0):
    """Returns one array per name; each array depends only on `seed`, `tame`, its name and its shape.

    **Arguments:**

    - `shapes`: torch's `{name: shape}`.
    - `tame`: the factor that scales matrices and kernels; below 1 for networks whose logits would overflow.
    """
    return {name: _draw(name, tuple(shape), seed, tame) for name, shape in shapes.items()}


def _draw(name, shape, seed, tame):
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")) or shape == ():
        values = random.uniform(-0.1, 0.1, shape)
    elif np.prod(shape) == max(shape):  # only one axis longer than 1: scales of norms and layers
        values = random.uniform(0.5, 1.5, shape)
    else:
        # He et al. 2015: activations keep their scale through ReLUs.
        deviation = np.sqrt(2.0 / int(np.prod(shape[1:])))
        return (random.standard_normal(shape) * deviation).astype(np.float32) * np.float32(tame)
    return values.astype(np.float32)


def images(batch, height, width, channels=3, seed=0):
    """Returns images `[batch height width channels]` whose pixels are drawn from the standard normal distribution."""
    sides = [height] if height == width else [height, width]
    return (
        np.random.default_rng([seed, batch, *sides, channels])
        .standard_normal((batch, height, width, channels), np.float64)
        .astype(np.float32)
    )


def loss_factors(batch, num_classes, seed=0):
    """Draws the factors `[batch num_classes]` whose product with the logits is summed to a loss."""
    return np.random.default_rng([seed, batch, num_classes]).standard_normal((batch, num_classes)).astype(np.float32)
