"""Tests of the digests by which a resumed run recognizes the parts that it was started with."""

import functools
import os
import pathlib
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqxcnn.training.identity import digest_settings, digest_structure, digest_values, qualified_name


class Scaled:
    """A loss that is no dataclass."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, logits, labels):
        return self.scale * optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def method(self, logits, labels):
        return self(logits, labels)


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale


def closure(scale):
    def loss(logits, labels):
        return scale * logits[labels]

    return loss


def chain(rate):
    return optax.chain(optax.chain(optax.chain(optax.clip(1.0), optax.chain(optax.add_decayed_weights(rate)))))


@pytest.mark.parametrize(
    "make",
    [
        Scaled,
        Slotted,
        closure,
        chain,
        lambda value: Scaled(value).method,
        lambda value: jax.jit(closure(value)),
        lambda value: eqx.filter_jit(closure(value)),
        lambda value: functools.partial(Scaled(1.0), value),
        lambda value: functools.reduce(lambda inner, _: [inner], range(30), value),
        lambda value: np.array([Scaled(value)], object),
        lambda value: jax.random.key(int(value)),
        lambda value: np.dtype(f"f{int(4 * value)}"),
        lambda value: pathlib.Path(str(value)),
        lambda value: {"a", ("b", value)},
        lambda value: optax.inject_hyperparams(optax.adamw)(learning_rate=value),
    ],
)
def test_digest_of_settings_tells_values_apart(make):
    assert digest_settings(make(1.0)) == digest_settings(make(1.0))
    assert digest_settings(make(1.0)) != digest_settings(make(2.0))


def test_objects_inside_themselves_have_a_digest():
    def recursive():
        return recursive

    ring = []
    ring.append(ring)
    assert digest_settings(ring) == digest_settings(ring)
    assert digest_settings(recursive) != digest_settings(ring)


class Convolution(eqx.Module):
    conv: eqx.nn.Conv2d
    activation: object

    def __init__(self, stride=1, activation=jax.nn.relu):
        self.conv = eqx.nn.Conv2d(1, 2, 3, stride, key=jax.random.key(0))
        self.activation = activation


def test_structure_has_static_fields_and_functions():
    digests = {digest_structure(net) for net in (Convolution(), Convolution(2), Convolution(activation=jax.nn.gelu))}
    assert len(digests) == 3
    assert digest_structure(Convolution()) in digests


def test_digest_of_bfloat16_weights():
    one, other = {"w": jnp.ones(3, jnp.bfloat16)}, {"w": jnp.zeros(3, jnp.bfloat16)}
    assert digest_values(one) == digest_values({"w": jnp.ones(3, jnp.bfloat16)}) != digest_values(other)


def test_names_of_partials_and_methods_of_c():
    assert qualified_name(functools.partial(closure, 1)) == f"{__name__}.closure"
    assert qualified_name(np.random.default_rng(0).normal) == "numpy.random._generator.Generator.normal"
    assert qualified_name([].append) == "builtins.list.append"


PROGRAM = """
import equinox as eqx, jax, optax, eqxcnn
from eqxcnn.training.identity import digest_settings, digest_structure
norm = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch")[0]
print(digest_structure(norm), digest_settings({"a", "b", "c"}), digest_settings(optax.contrib.muon(1e-3)))
print(digest_settings(eqxcnn.augment.build(["random_crop(2)"])), digest_settings(jax.jit(jax.nn.gelu)))
"""


def test_digests_are_the_same_in_every_process():
    def run(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
        return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, env=environment).stdout

    first = run("1")
    assert len(first.split()) == 5
    assert first == run("2")
