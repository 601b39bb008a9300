"""Tests of users' losses, augmentations, optimizers, metrics and callbacks that are unusual or cannot work."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqxcnn
from eqxcnn.errors import InputError
from eqxcnn.metrics import Metric
from eqxcnn.optim.factors import layer_factors
from eqxcnn.training import Callback, fit, prepare
from eqxcnn.training.part_checks import check_metrics
from eqxcnn.training.parts import Parts
from tests.training.dense import DIGITS, Dense, refused

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"loss": lambda logits, labels: None}, "`loss` returned a NoneType"),
        ({"loss": lambda logits, labels: (logits, labels)}, "`loss` returned a tuple"),
        (
            {"loss": lambda logits: logits},
            r"fails on logits of shape \(32, 10\) and labels of shape \(32,\), with T",
        ),
        ({"loss": lambda logits, labels: np.mean(np.asarray(logits))}, "must compute with `jax.numpy`"),
        ({"augment": lambda image, key: image[:4]}, r"returned float32 of shape \(4, 8, 1\): return a floating-point"),
        ({"augment": lambda image, key: (255 * image).astype(jnp.uint8)}, r"returned uint8 of shape \(8, 8, 1\)"),
        ({"augment": lambda image, key: None}, "returned no array"),
        ({"augment": lambda image: image}, "fails on an image"),
        ({"augment": lambda image, key: np.flip(np.asarray(image))}, "must compute with `jax.numpy`"),
        ({"optimizer": optax.lbfgs()}, "`optimizer` .* fails on gradients of this model"),
        ({"optimizer": optax.lookahead(optax.sgd(0.1), 5, 0.5)}, "fails on gradients of this model"),
        ({"optimizer": optax.MultiSteps(optax.sgd(0.1), 2)}, "must be an optax transformation or a function"),
        ({"metrics": {"a": Metric(lambda logits, labels: 0, float)}}, "`sums` of the metric `a` fails on logits"),
        ({"callbacks": [Callback]}, "`callbacks` must hold callbacks and functions; `eqxcnn.training.callbacks.Call"),
    ],
)
def test_other_parts_that_cannot_work_are_refused(part, message):
    refused(message, **part)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.chain(optax.adam(1e-3), optax.contrib.reduce_on_plateau()),
        lambda: optax.contrib.schedule_free_adamw(1e-3),
        lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3),
        lambda: optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation(),
        lambda: optax.contrib.momo(),
        lambda: lambda schedule: optax.multi_transform({"a": optax.adam(schedule)}, lambda _: "a"),
    ],
)
def test_optimizers_with_a_state_of_any_kind_are_taken(make):
    prepare(DIGITS.replace(freeze=("weight",)), Parts(model=Dense(), optimizer=make()))


@pytest.mark.slow
def test_sums_keep_their_dtypes_in_64_bits(tmp_path):
    with jax.enable_x64(True):
        network = Dense(lambda drawn: jnp.asarray(drawn, jnp.float32))
        result = fit(DIGITS.replace(steps_per_call=2), model=network, runs=tmp_path)
    assert len(result.metrics) == 4


def test_mixed_images_need_the_loss_of_each_image():
    mean = lambda logits, labels: optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()  # noqa: E731
    refused("mixup and CutMix need the loss of each image", loss=mean, recipe=DIGITS.replace(mixup=0.2))
    prepare(DIGITS, Parts(model=Dense(), loss=mean))


@pytest.mark.slow
def test_results_of_metrics_become_numbers(tmp_path):
    def count(logits, labels, mask):
        return mask.sum()

    results = {"array": lambda sums: np.ones(2), "number": np.float32, "jax": jnp.asarray, "mixed": lambda s: [s, None]}
    given = {name: Metric(count, result) for name, result in results.items()}
    found = fit(DIGITS.replace(epochs=1), model=Dense(), metrics=given, runs=tmp_path).test.metrics
    assert found == {"array": [1.0, 1.0], "number": 359, "jax": 359, "mixed": [359.0, None]}
    for bad in ("text", {"a": 1.0}, None, [[1.0]]):
        metric = Metric(count, lambda sums, bad=bad: bad)
        with pytest.raises(InputError, match="`result` of the metric `bad` returned a"):
            fit(DIGITS.replace(epochs=1), model=Dense(), metrics={"bad": metric}, runs=tmp_path)


def test_sums_of_a_metric_must_be_hashable():
    class Sums:
        __hash__ = None

        def __call__(self, logits, labels, mask):
            return mask.sum()

    with pytest.raises(InputError, match="`sums` of the metric `a` is not hashable"):
        check_metrics({"a": Metric(Sums(), float)}, 8, 10)


def test_views_are_read_only_and_end_with_their_callback(tmp_path):
    kept = []

    def spoil(run):
        kept.append(run)
        run.rows.append({"epoch": 99})
        run.metrics["epoch"] = 99

    seen = []
    fit(DIGITS, model=Dense(), callbacks=[spoil, lambda run: seen.append(run.metrics["epoch"])], runs=tmp_path)
    assert seen == [1, 2, 3]
    with pytest.raises(InputError, match="has no weights after its callback"):
        _ = kept[0].model


def test_backbone_needs_a_head():
    recipe = DIGITS.replace(freeze=("backbone",))
    refused(r"`freeze` \(='backbone'\) stands for all parameters but those of `head`", recipe=recipe)


def test_layer_decay_looks_inside_wrappers():
    layers = [eqx.nn.Linear(4, 4, key=KEY), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(4, 2, key=KEY)]
    network = eqx.filter(eqxcnn.ChannelsFirst(eqx.nn.Sequential(layers)), eqx.is_array)
    assert jax.tree.leaves(layer_factors(0.5, network)) == [0.5, 0.5, 1.0, 1.0]
    assert jax.tree.leaves(layer_factors(0.5, eqx.filter(Dense(), eqx.is_array))) == [1.0]
