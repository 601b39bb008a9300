"""What a run starts from, where weights are set from the training images."""

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


def test_whitening_filters_are_scaled_eigenvectors_of_the_patches_with_both_signs():
    # Pixels that resemble their neighbors, as in pictures, so that the eigenvalues are far apart.
    noise = np.random.default_rng(0).normal(size=(20, 10, 9, 3))
    images = np.cumsum(np.cumsum(noise, 1), 2) / 8 + np.cumsum(noise, 3)
    model, state = zoo.create_model("airbench94", key=jax.random.key(0))
    after = model.initialized_from(jnp.asarray(images, jnp.float32))

    patches = np.array([each[y : y + 2, x : x + 2].ravel() for each in images for y in range(9) for x in range(8)])
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


def test_a_job_sets_weights_from_the_first_training_images_as_the_model_takes_them():
    recipe = Recipe(model="airbench94", data="digits", batch_size=16, epochs=1, init_images=50)
    job = prepare(recipe)
    images = job.train.images[job.train_rows[:50]]
    expected = job.make_start().model.initialized_from((images / np.float32(255) - job.setup.mean) / job.setup.std)
    weight, other = job.make_start().model.whiten.weight, expected.whiten.weight
    np.testing.assert_allclose(jnp.abs(weight[..., 0, 0]), jnp.abs(other[..., 0, 0]), rtol=1e-3)
    random = (
        prepare(Recipe(model="airbench94", data="digits", batch_size=16, epochs=1)).make_start().model.whiten.weight
    )
    assert not np.allclose(weight, random)
    assert eqx.tree_equal(job.make_start().model.head.weight.shape, (10, 256))


def test_dirac_filters_hand_their_channel_on_unless_the_recipe_says_no():
    recipe = Recipe(model="airbench94", data="digits", batch_size=16, epochs=1)
    conv = prepare(recipe).make_start().model.blocks[1].conv1  # 64 channels to 256
    image = jax.random.normal(jax.random.key(0), (5, 6, 64))
    np.testing.assert_allclose(conv(image)[..., :64], image, rtol=1e-6)
    random = prepare(replace(recipe, architecture=("dirac=False",))).make_start().model.blocks[1].conv1
    # Torch's own: uniform up to 1 / sqrt(fan_in), no filter otherwise than the rest.
    bound = 1 / np.sqrt(9 * 64)
    for filters in (random.weight[..., :64], random.weight[..., 64:], conv.weight[..., 64:]):
        assert jnp.abs(filters).max() <= bound
        np.testing.assert_allclose(filters.std(), bound / np.sqrt(3), rtol=0.02)


NARROW = Recipe(
    model="airbench94", architecture=("widths=(8, 8, 8)",), data="digits", batch_size=16, epochs=1, optimizer="adamw",
    weight_decay=0.1, decay_norms_and_biases=True,
)  # fmt: skip


def trained(recipe, steps):
    """The tensors before and after some steps."""
    job = prepare(recipe)
    train = job.make_start()
    before = to_tensors(train.model, train.state)
    step = eqx.filter_jit(train_step)
    for rows in list(job.batches(0, 0))[:steps]:
        train = step(job.setup, train, jnp.asarray(rows[0]))
    return before, to_tensors(train.model, train.state), train


def test_frozen_parts_stay_as_they_are_to_the_bit_with_their_statistics():
    before, after, _ = trained(replace(NARROW, freeze=("whiten,blocks.0", "blocks.*.norm2")), 2)
    same = {name for name in before if np.array_equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(("whiten.", "blocks.0.")) or ".norm2." in name}
    assert same == frozen
    assert {"blocks.0.norm1.running_mean", "blocks.2.norm2.running_var", "whiten.bias"} < frozen


def test_a_step_tells_the_loss_to_a_plateau_and_accumulates():
    _, _, train = trained(replace(NARROW, schedule="plateau", accumulate_steps=2), 3)
    state = next(
        each for each in jax.tree.leaves(train.opt_state, is_leaf=lambda each: hasattr(each, "avg_value"))
        if hasattr(each, "avg_value")
    )  # fmt: skip
    # One update so far, of the second batch, whose loss was told.
    assert int(train.opt_state.gradient_step) == 1
    assert int(state.count) == 1
    assert 1 < float(state.avg_value) < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "lenet", "init_images": 5}, r"`init_images` .=5. .* `lenet` has none .* give 0"),
        ({"freeze": ("conv1,stem",)}, r"`freeze` .='stem'. matches no parameter; known: `conv1`, `conv1.bias`"),
        ({"model": "airbench94", "init_images": 5000}, r"`init_images` .=5000. is more than the 1,295 training images"),
    ],
)
def test_weights_that_cannot_be_set_or_kept_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        prepare(Recipe(data="digits", **change))


def test_statistics_of_averaged_weights_are_those_of_one_more_pass():
    job = prepare(replace(NARROW, average="swa", average_start=0.0, epochs=2))
    train, step = job.make_start(), eqx.filter_jit(train_step)
    rows = [each[0] for epoch in range(2) for each in job.batches(epoch, 0)]
    for each in rows[:2]:
        train = step(job.setup, train, jnp.asarray(each))
    after = recompute_batch_stats(job, train)
    assert eqx.tree_equal(after.model, train.averaged[0])
    assert after.average is None

    # torch's `update_bn`: momentum 1 / n at the n-th batch, which is the mean over all.
    conv, found = after.model.whiten, []
    for each in job.all_batches(2):
        images = (job.train.images[each[0]] / np.float32(255) - job.setup.mean) / job.setup.std
        maps = jax.nn.gelu(jax.vmap(conv)(images), approximate=False)
        block = after.model.blocks[0]
        pooled = jax.vmap(block.pool)(jax.vmap(block.conv1)(maps))
        found.append((pooled.mean((0, 1, 2)), pooled.var((0, 1, 2), ddof=1)))
    assert len(found) == job.steps_per_epoch
    mean, var = (np.mean(each, 0) for each in zip(*found, strict=True))
    tensors = to_tensors(after.model, after.state)
    np.testing.assert_allclose(tensors["blocks.0.norm1.running_mean"], mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(tensors["blocks.0.norm1.running_var"], var, rtol=1e-3, atol=1e-4)


def test_classes_count_by_the_inverse_of_their_images_or_as_told():
    job = prepare(Recipe(data="digits", class_weights="balanced"))
    labels = job.train.labels[job.train_rows]
    weights = np.array(job.recipe.class_weights)
    np.testing.assert_allclose(weights, len(labels) / 10 / np.bincount(labels), rtol=1e-5)
    assert weights[labels].mean() == pytest.approx(1, abs=1e-5)
    assert prepare(job.recipe).recipe == job.recipe
    with pytest.raises(InputError, match="`class_weights` has 2 numbers, and the data 10 classes"):
        prepare(Recipe(data="digits", class_weights=(1.0, 2.0)))


def test_an_average_of_no_epochs_is_refused():
    with pytest.raises(InputError, match=r"`average_start` \(=0.9\) leaves no end of an epoch to average among 120"):
        prepare(replace(NARROW, average="swa", average_start=0.9, epochs=1.5))
