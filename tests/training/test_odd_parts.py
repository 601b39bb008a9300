"""Tests of users' networks: unusual networks work, and networks that cannot work are refused before the first step."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqxcnn
from eqxcnn.training import Callback, fit, prepare, resume
from eqxcnn.training.parts import Parts
from eqxcnn.weights import to_tensors
from tests.training.dense import DIGITS, Dense, refused

KEY = jax.random.key(0)


class Normed(eqx.Module):
    """A network that begins with BatchNorm."""

    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, mode="batch", axis_name="batch"):
        self.norm = eqx.nn.BatchNorm(1, axis_name, mode=mode)
        self.last = eqx.nn.Linear(64, 10, key=KEY)

    def __call__(self, image, state):
        image, state = self.norm(jnp.moveaxis(image, -1, 0), state)
        return self.last(image.ravel()), state


class Spectral(eqx.Module):
    """A network with a state that depends on the weights."""

    norm: eqx.nn.SpectralNorm

    def __init__(self):
        self.norm = eqx.nn.SpectralNorm(eqx.nn.Linear(64, 10, key=KEY), "weight", key=KEY)

    def __call__(self, image, state):
        return self.norm(image.ravel(), state)


class Constant(eqx.Module):
    """A network with an array in a static field."""

    values: object = eqx.field(static=True)

    def __call__(self, image):
        return image.ravel()[:10] * jnp.asarray(self.values)


@pytest.mark.parametrize("kind", [np.float64, jnp.bfloat16], ids=["float64", "bfloat16"])
def test_weights_of_other_dtypes_train_and_load(kind, tmp_path):
    network = Dense(lambda drawn: drawn if kind is np.float64 else jnp.asarray(drawn, kind))
    result = fit(DIGITS, model=network, runs=tmp_path)
    loaded = eqxcnn.load(result.folder, model=network)
    assert loaded.model.weight.dtype == (jnp.float32 if kind is np.float64 else kind)


class Kill(Callback):
    def on_checkpoint(self, run):
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: eqx.nn.make_with_state(Normed)(), lambda: eqx.nn.make_with_state(Spectral)()])
def test_states_keep_their_dtype_in_bfloat16_and_resume_to_the_same_bytes(make, tmp_path):
    recipe = DIGITS.replace(precision="bf16", steps_per_call=2)
    whole = fit(recipe, model=make(), runs=tmp_path, name="whole")
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, model=make(), runs=tmp_path, name="cut", callbacks=[Kill()])
    pair = [eqxcnn.load(result.folder, model=make()) for result in (whole, resume(tmp_path / "cut", model=make()))]
    one, other = (to_tensors(each.model, each.state) for each in pair)
    assert all(tensor.dtype != jnp.bfloat16 for tensor in one.values())
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_swa_recomputes_the_statistics_of_equinox_batch_norm(mode, tmp_path):
    recipe = DIGITS.replace(average="swa", average_start=0.0)
    network = eqx.nn.make_with_state(Normed)(mode)
    result = fit(recipe, model=network, runs=tmp_path)
    loaded = eqxcnn.load(result.folder, model=network)
    index = loaded.model.norm.batch_state_index if mode == "batch" else loaded.model.norm.ema_state_index
    mean, variance = (float(each[0]) for each in loaded.state.get(index))
    # Over an epoch of normalized images: the mean of the batches' statistics.
    assert abs(mean) < 0.01
    assert 0.98 < variance < 1.001
    if mode == "batch":  # else the statistics would be divided by `1 - momentum**count`
        assert int(loaded.state.get(loaded.model.norm.batch_counter)) == 0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Dense(lambda drawn: jnp.asarray(drawn, jnp.complex64)), "complex weights, such as complex64 `weight`"),
        (lambda: Dense(lambda _: jax.random.key(0)), "fails on an image"),
        (lambda: Constant(np.ones(10)), "static field `Constant.values` of `model` holds an array"),
        (lambda: Constant([jnp.ones(10)]), "static field `Constant.values` of `model` holds an array"),
        (lambda: (Dense(), {}), "must be an Equinox module, or a module and its state"),
        (lambda: eqx.filter_eval_shape(Dense), "has shapes in the place of arrays"),
        (lambda: eqx.nn.make_with_state(Normed)("batch", "b"), 'build BatchNorm with `axis_name="batch"`'),
        (lambda: Integers(), "scores of dtype int32: return floating-point scores|TypeCheckError"),
        (lambda: KeyFirst(), "a `KeyFirst` cannot be trained"),
        (lambda: ImageByName(), "a `ImageByName` cannot be trained"),
        (lambda: NeedsKey(), r"`model` .* in eval mode fails on a float32 image without a key"),
        (lambda: HoldsKey(), "`model.key` is a PRNG key, which cannot be saved"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(network, message):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A JAX array is being set as static")
        refused(message, model=network())


class Integers(Dense):
    def __call__(self, image):
        return super().__call__(image).astype(int)


class KeyFirst(Dense):
    def __call__(self, image, key, state):
        return super().__call__(image), state


class ImageByName(Dense):
    def __call__(self, *, image):
        return super().__call__(image)


class NeedsKey(Dense):
    def __call__(self, image, *, key):
        return super().__call__(image) + jax.random.normal(key, (10,))


class HoldsKey(Dense):
    key: object

    def __init__(self):
        super().__init__()
        self.key = jax.random.key(0)


def test_equinox_batch_norm_with_running_averages_needs_float32():
    network = eqx.nn.make_with_state(Normed)("ema")
    refused("set `precision: float32` to keep them", model=network, recipe=DIGITS.replace(precision="bf16"))
    prepare(DIGITS, Parts(model=network))
