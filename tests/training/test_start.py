"""Tests of the start of a run: data-dependent initialization, freezing and recomputed statistics."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn import zoo
from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, prepare
from eqxcnn.training.batch_stats import recompute_batch_stats
from eqxcnn.training.step import train_step
from eqxcnn.weights import to_tensors


@pytest.mark.slow
def test_whitening_filters_are_scaled_patch_eigenvectors_with_both_signs():
    # Neighboring pixels are correlated, as in photographs, so that the eigenvalues are far apart.
    noise = np.random.default_rng(0).normal(size=(20, 10, 9, 3))
    images = np.cumsum(np.cumsum(noise, 1), 2) / 8 + np.cumsum(noise, 3)
    model, state = eqx.filter_jit(zoo.create_model)("airbench94_narrow", key=jax.random.key(0))
    after = eqx.filter_jit(type(model).initialized_from)(model, jnp.asarray(images, jnp.float32))

    patches = np.array([image[y : y + 2, x : x + 2].ravel() for image in images for y in range(9) for x in range(8)])
    moments = patches.T @ patches / len(patches)
    values = np.linalg.eigvalsh(moments)[::-1]
    filters = np.asarray(after.whiten.weight, np.float64).reshape(12, 24)
    np.testing.assert_array_equal(filters[:, 12:], -filters[:, :12])
    whitened = filters[:, :12].T @ moments @ filters[:, :12]
    np.testing.assert_allclose(whitened, np.diag(values / (values + 5e-4)), atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(filters[:, :12], axis=0), 1 / np.sqrt(values + 5e-4), rtol=1e-3)

    changed = [
        name
        for name, old in to_tensors(model, state).items()
        if not np.array_equal(old, to_tensors(after, state)[name])
    ]
    assert changed == ["whiten.weight"]


@pytest.mark.slow
def test_weights_are_initialized_from_the_first_normalized_training_images():
    recipe = Recipe(model="airbench94", data="digits", batch_size=16, epochs=1, init_images=50)
    job = prepare(recipe)
    images = job.splits.train.images[job.splits.train_rows[:50]]
    expected = job.make_start().model.initialized_from((images / np.float32(255) - job.setup.mean) / job.setup.std)
    weight, expected_weight = job.make_start().model.whiten.weight, expected.whiten.weight
    np.testing.assert_allclose(jnp.abs(weight[..., 0, 0]), jnp.abs(expected_weight[..., 0, 0]), rtol=1e-3)
    random = (
        prepare(Recipe(model="airbench94", data="digits", batch_size=16, epochs=1)).make_start().model.whiten.weight
    )
    assert not np.allclose(weight, random)
    assert eqx.tree_equal(job.make_start().model.head.weight.shape, (10, 256))


@pytest.mark.slow
def test_dirac_filters_pass_their_channel_unless_disabled():
    recipe = Recipe(model="airbench94", data="digits", batch_size=16, epochs=1)
    conv = prepare(recipe).make_start().model.blocks[1].conv1  # 64 channels to 256
    image = jax.random.normal(jax.random.key(0), (5, 6, 64))
    np.testing.assert_allclose(conv(image)[..., :64], image, rtol=1e-6)
    random = prepare(replace(recipe, architecture=("dirac=False",))).make_start().model.blocks[1].conv1
    # Torch's default for every filter: uniform up to 1 / sqrt(fan_in).
    bound = 1 / np.sqrt(9 * 64)
    for filters in (random.weight[..., :64], random.weight[..., 64:], conv.weight[..., 64:]):
        assert jnp.abs(filters).max() <= bound
        np.testing.assert_allclose(filters.std(), bound / np.sqrt(3), rtol=0.02)


NARROW = Recipe(
    model="airbench94", architecture=("widths=(8, 8, 8)",), data="digits", batch_size=16, epochs=1, optimizer="adamw",
    weight_decay=0.1, decay_norms_and_biases=True,
)  # fmt: skip


def run_steps(recipe, steps):
    """Returns the tensors before and after some steps, and the final train state."""
    job = prepare(recipe)
    train = job.make_start()
    before = to_tensors(train.model, train.state)
    step = eqx.filter_jit(train_step)
    for rows in list(job.batches(0, 0))[:steps]:
        train = step(job.setup, train, jnp.asarray(rows[0]))
    return before, to_tensors(train.model, train.state), train


@pytest.mark.slow
def test_frozen_layers_and_their_statistics_stay_bitwise_unchanged():
    before, after, _ = run_steps(replace(NARROW, freeze=("whiten,blocks.0", "blocks.*.norm2")), 2)
    unchanged = {name for name in before if np.array_equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(("whiten.", "blocks.0.")) or ".norm2." in name}
    assert unchanged == frozen
    assert {"blocks.0.norm1.running_mean", "blocks.2.norm2.running_var", "whiten.bias"} < frozen


@pytest.mark.slow
def test_step_passes_the_loss_to_the_plateau_schedule_and_accumulates():
    _, _, train = run_steps(replace(NARROW, schedule="plateau", accumulate_steps=2), 3)
    state = next(
        leaf for leaf in jax.tree.leaves(train.opt_state, is_leaf=lambda node: hasattr(node, "avg_value"))
        if hasattr(leaf, "avg_value")
    )  # fmt: skip
    # One update so far, at the second batch, whose loss the schedule received.
    assert int(train.opt_state.gradient_step) == 1
    assert int(state.count) == 1
    assert 1 < float(state.avg_value) < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "lenet", "init_images": 5}, r"`init_images` .=5. .* `lenet` has no such weights: give 0"),
        ({"freeze": ("conv1,stem",)}, r"`freeze` .='stem'. matches no parameter; known: `conv1`, `conv1.bias`"),
        ({"model": "airbench94", "init_images": 5000}, r"`init_images` .=5000. is more than the 1,295 training images"),
    ],
)
def test_invalid_initialization_and_freezing_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        prepare(Recipe(data="digits", **change))


@pytest.mark.slow
def test_batch_statistics_of_averaged_weights_come_from_one_more_pass():
    job = prepare(replace(NARROW, average="swa", average_start=0.0, epochs=2))
    train, step = job.make_start(), eqx.filter_jit(train_step)
    rows = [stack[0] for epoch in range(2) for stack in job.batches(epoch, 0)]
    for batch in rows[:2]:
        train = step(job.setup, train, jnp.asarray(batch))
    after = recompute_batch_stats(job, train)
    assert eqx.tree_equal(after.model, train.averaged[0])
    assert after.average is None

    # torch's `update_bn`: momentum 1 / n at the n-th batch, i.e. the mean over all batches.
    conv, moments = after.model.whiten, []
    for batch in job.all_batches(2):
        images = (job.splits.train.images[batch[0]] / np.float32(255) - job.setup.mean) / job.setup.std
        maps = jax.nn.gelu(jax.vmap(conv)(images), approximate=False)
        block = after.model.blocks[0]
        pooled = jax.vmap(block.pool)(jax.vmap(block.conv1)(maps))
        moments.append((pooled.mean((0, 1, 2)), pooled.var((0, 1, 2), ddof=1)))
    assert len(moments) == job.steps_per_epoch
    mean, var = (np.mean(values, 0) for values in zip(*moments, strict=True))
    tensors = to_tensors(after.model, after.state)
    np.testing.assert_allclose(tensors["blocks.0.norm1.running_mean"], mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(tensors["blocks.0.norm1.running_var"], var, rtol=1e-3, atol=1e-4)


def test_balanced_class_weights_are_inverse_to_the_image_counts():
    job = prepare(Recipe(data="digits", class_weights="balanced"))
    labels = job.splits.train.labels[job.splits.train_rows]
    weights = np.array(job.recipe.class_weights)
    np.testing.assert_allclose(weights, len(labels) / 10 / np.bincount(labels), rtol=1e-5)
    assert weights[labels].mean() == pytest.approx(1, abs=1e-5)
    assert prepare(job.recipe).recipe == job.recipe
    with pytest.raises(InputError, match="`class_weights` has 2 numbers, but the data have 10 classes"):
        prepare(Recipe(data="digits", class_weights=(1.0, 2.0)))


def test_average_over_no_epochs_is_refused():
    with pytest.raises(InputError, match=r"`average_start` \(=0.9\) leaves nothing to average, .* 120 steps"):
        prepare(replace(NARROW, average="swa", average_start=0.9, epochs=1.5))
