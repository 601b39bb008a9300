"""Inside `jax.shard_map`, which checks types, layers have the same gradients as on the whole batch."""

import subprocess
import sys

import pytest

SCRIPT = """
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from eqxcnn.layers import Conv, Linear, MaxPool, flatten_for

keys = jax.random.split(jax.random.key(0), 4)
layers = [
    Conv(3, 8, 3, key=keys[0]),
    Conv(8, 8, 3, groups=8, use_bias=False, key=keys[1]),
    Conv(8, 6, 1, key=keys[2]),
    Linear(6 * 16, 5, key=keys[3]),
]
arrays, rest = eqx.partition(layers, eqx.is_array)
images = jnp.float32(np.random.RandomState(0).normal(size=(8, 8, 8, 3)))


def gradients(arrays, images):
    def total(arrays):
        *convs, dense = eqx.combine(arrays, rest)

        def scores(image):
            for conv in convs:
                image = conv(image)
            return dense(flatten_for(dense, MaxPool(2)(image)))

        return jnp.sin(jax.vmap(scores)(images)).sum()

    return jax.grad(total)(arrays)


mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
split = jax.shard_map(gradients, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
for one, other in zip(jax.tree.leaves(jax.jit(split)(arrays, images)), jax.tree.leaves(gradients(arrays, images))):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_gradients_of_a_split_batch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
