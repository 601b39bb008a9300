import dataclasses
import shutil
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

from eqxcnn import evaluate, zoo
from eqxcnn.data import from_arrays
from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, fit, prepare, resume
from eqxcnn.training.epochs import compile_steps
from eqxcnn.training.preprocessing import pixel_statistics
from eqxcnn.weights import load_safetensors

ONE_EPOCH = Recipe(model="mlp", epochs=1, batch_size=16)


@pytest.fixture
def color_folder(tmp_path, monkeypatch):
    """A folder of 20x24 color images in two classes, red and blue."""
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 100, (20, 24, 3), np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return str(tmp_path / "data")


def test_image_size_channels_and_classes_come_from_the_data(color_folder):
    for model in ("mlp", "lenet", "cifar_cnn"):
        job = prepare(Recipe(model=model, data=color_folder, batch_size=16))
        assert job.image_size == (20, 24)
        assert job.info.channels == 3
        assert job.info.class_names == ("blue", "red")
        assert job.recipe.image_size == (20, 24)
    job = prepare(Recipe(model="lenet", data=color_folder, batch_size=16, image_size=(12, 14)))
    assert job.splits.train.images.shape[1:3] == (12, 14)


def test_recipe_stores_the_absolute_path_of_a_data_folder(color_folder, monkeypatch):
    folder = Path(color_folder)
    folder.rename(folder.with_name("digits"))  # named like a built-in data set, which takes precedence
    monkeypatch.chdir(folder.parent)
    assert prepare(ONE_EPOCH).recipe.data == "digits"
    assert prepare(dataclasses.replace(ONE_EPOCH, data="./digits")).recipe.data == str(folder.with_name("digits"))


def test_digits_are_resized_to_the_input_size_of_the_model():
    assert prepare(ONE_EPOCH).image_size == zoo.card("mlp").input[:2]


def test_resolved_recipe_reproduces_the_job(color_folder):
    job = prepare(Recipe(model="mlp", data=color_folder, batch_size=16))
    unset = {name for name, value in dataclasses.asdict(job.recipe).items() if value is None}
    assert unset == {"init_from", "image_column", "label_column", "test_split", "cache_size"}
    assert job.recipe.epochs == 20
    repeated = prepare(job.recipe)
    assert repeated.recipe == job.recipe
    np.testing.assert_array_equal(repeated.splits.train_rows, job.splits.train_rows)


def test_pixel_statistics_use_only_the_training_rows():
    images = np.zeros((3, 2, 2, 2), np.uint8)
    images[0, ..., 0], images[1, ..., 0], images[2] = 0, 255, 77
    mean, std = pixel_statistics(images, np.array([0, 1]), chunk_size=1)
    np.testing.assert_allclose(mean, [0.5, 0])
    np.testing.assert_allclose(std, [0.5, 1])  # a constant channel is not scaled


def test_pixel_statistics_agree_with_numpy():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), np.uint8)
    mean, std = pixel_statistics(images, np.arange(50), chunk_size=7)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-9)


def test_epoch_visits_each_training_row_at_most_once_and_resumes_midway():
    job = prepare(ONE_EPOCH)
    rows = np.concatenate(list(job.batches(0, 0)))
    assert rows.shape == (job.steps_per_epoch, 16)
    assert len(np.unique(rows)) == rows.size
    assert set(rows.ravel()) <= set(job.splits.train_rows)
    assert not set(job.splits.train_rows) & set(job.splits.validation_rows)
    np.testing.assert_array_equal(np.concatenate(list(job.batches(0, 5))), rows[5:])
    assert not np.array_equal(np.concatenate(list(job.batches(1, 0))), rows)


def test_steps_per_call_does_not_change_the_batches():
    one, many = (prepare(dataclasses.replace(ONE_EPOCH, steps_per_call=k)) for k in (1, 30))
    stacks = list(many.batches(0, 0))
    assert [len(stack) for stack in stacks] == [30, 30, many.steps_per_epoch - 60]
    np.testing.assert_array_equal(np.concatenate(stacks), np.concatenate(list(one.batches(0, 0))))


def test_all_rows_are_trained_on_without_validation(tmp_path):
    recipe = dataclasses.replace(ONE_EPOCH, validation=0.0)
    job = prepare(recipe)
    assert len(job.splits.train_rows) == len(job.splits.train.labels)
    result = fit(recipe, runs=tmp_path)
    assert "validation_loss" not in result.metrics[0]


def test_train_images_limits_the_images_to_the_first_ones():
    job = prepare(dataclasses.replace(ONE_EPOCH, train_images=100, validation=0.2))
    assert sorted([*job.splits.train_rows, *job.splits.validation_rows]) == list(range(100))
    assert len(job.splits.validation_rows) == pytest.approx(20, abs=5)  # stratified by class
    assert prepare(ONE_EPOCH).recipe.train_images == len(job.splits.train.labels)


def test_validation_on_the_test_split_holds_out_no_images(tmp_path, capsys):
    recipe = dataclasses.replace(ONE_EPOCH, epochs=2, validation="test")
    job = prepare(recipe)
    assert len(job.splits.train_rows) == len(job.splits.train.labels)
    assert job.splits.validation is job.splits.test
    result = fit(recipe, runs=tmp_path)
    first, second, test = result.metrics
    assert second["validation_accuracy"] == test["test_accuracy"] == result.test.accuracy
    assert first["validation_loss"] > second["validation_loss"] == test["test_loss"]
    assert "held out" not in capsys.readouterr().err


@pytest.mark.slow
def test_uncompiled_steps_give_the_same_result(tmp_path, monkeypatch):
    recipe = dataclasses.replace(ONE_EPOCH, train_images=64, validation=0.0)
    uncompiled = dataclasses.replace(recipe, jit=False, steps_per_call=5)  # a scan of several steps would compile them
    assert prepare(uncompiled).steps_per_call == 1
    jitted = fit(recipe, runs=tmp_path)
    monkeypatch.setattr("eqxcnn.training.epochs.async_jit", None)
    eager = fit(uncompiled, runs=tmp_path)
    assert eager.metrics[0]["train_loss"] == pytest.approx(jitted.metrics[0]["train_loss"], abs=1e-5)


def test_bad_images_are_refused_or_skipped(color_folder):
    recipe = Recipe(model="mlp", data=color_folder, batch_size=8)
    count = len(prepare(recipe).splits.train.labels)
    next(Path(color_folder).glob("red/*.png")).write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be used"):
        prepare(recipe)
    skipped = prepare(dataclasses.replace(recipe, on_bad_image="skip"))
    assert len(skipped.splits.train.labels) + len(skipped.splits.test.labels) == 79
    assert count - len(skipped.splits.train.labels) in (0, 1)


def test_wall_time_is_logged(tmp_path):
    result = fit(dataclasses.replace(ONE_EPOCH, train_images=160), runs=tmp_path)
    assert result.metrics[-1]["from_step"] == 0
    assert result.metrics[-1]["wall_seconds"] > result.metrics[0]["seconds"]


def read_weights(result):
    return (result.folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_streamed_data_set_gives_the_same_result(tmp_path, color_folder):
    recipe = Recipe(model="lenet", data=color_folder, epochs=2, batch_size=16)
    streamed = dataclasses.replace(recipe, device_budget=0.0)
    assert prepare(streamed).setup.data is None
    assert read_weights(fit(streamed, runs=tmp_path)) == read_weights(fit(recipe, runs=tmp_path))


def test_run_learns_colors_and_evaluates_the_test_split_once(tmp_path, color_folder):
    result = fit(Recipe(model="lenet", data=color_folder, batch_size=16), runs=tmp_path)
    assert result.test.accuracy == 1.0
    assert result.test.count == 16  # a fifth of 80, because the folder has no test split
    assert result.metrics[-1]["test_accuracy"] == 1.0
    assert all("test_accuracy" not in row for row in result.metrics[:-1])


@pytest.mark.slow
def test_scanned_steps_reach_the_loss_of_single_steps(tmp_path):
    one, many = (fit(dataclasses.replace(ONE_EPOCH, steps_per_call=k), runs=tmp_path) for k in (1, 25))
    assert abs(one.metrics[0]["train_loss"] - many.metrics[0]["train_loss"]) < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 2000}, r"`batch_size` .=2000. is more than the 1,295 training images"),
        ({"train_images": 1500}, r"`train_images` .=1500. is more than the 1,438 training images"),
        ({"mean": (0.1, 0.2), "std": (1.0, 1.0)}, r"`mean` .*one number per channel, and the images have 1"),
        ({"augment": ("flip_horizontl",)}, r"`flip_horizontl`.*`flip_horizontal`"),
    ],
)
def test_recipes_that_do_not_fit_the_data_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        prepare(dataclasses.replace(ONE_EPOCH, **change))


def test_seeds_change_weights_and_validation_rows():
    first, second = (prepare(dataclasses.replace(ONE_EPOCH, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first.splits.validation_rows, second.splits.validation_rows)
    leaves = [jax.tree.leaves(job.make_start().model)[0] for job in (first, second)]
    assert not np.array_equal(*leaves)


@pytest.mark.slow
def test_gradients_by_hand_agree_with_autodiff(tmp_path):
    recipe = Recipe(
        model="scratch", epochs=2, batch_size=16, optimizer="sgd", schedule="constant", momentum=0.0, learning_rate=0.1
    )
    by_hand, autodiff = (
        fit(dataclasses.replace(recipe, gradients=gradients), runs=tmp_path) for gradients in ("by_hand", "autodiff")
    )
    assert by_hand.test.accuracy > 0.7
    assert abs(by_hand.metrics[1]["train_loss"] - autodiff.metrics[1]["train_loss"]) < 1e-4


def test_gradients_by_hand_need_a_model_with_a_backward_pass():
    recipe = Recipe(gradients="by_hand", optimizer="sgd", schedule="constant", momentum=0.0)
    with pytest.raises(InputError, match=r"backward pass: `lenet` does not"):
        prepare(recipe)
    with pytest.raises(InputError, match=r"`gradients` .* plain gradient descent"):
        Recipe(model="scratch", gradients="by_hand")


#: Uses everything that a run keeps between steps, in one epoch and a partial one.
FULL_RUN = Recipe(
    model="mlp", epochs=1.4, batch_size=128, optimizer="sgd", schedule="linear", warmup_fraction=0.2, learning_rate=0.3,
    nesterov=True, weight_decay=1e-3, decay_norms_and_biases=True, lookahead_every=3, augment=("alternating_flip",),
    learning_rate_factors=("*bias=2 for 0.5 epochs",), precision="bf16", test_views="mirror", steps_per_call=1,
)  # fmt: skip


def test_last_epoch_may_be_partial():
    job = prepare(FULL_RUN)
    assert (job.steps_per_epoch, job.steps, job.epochs) == (10, 14, 2)
    whole, part = (np.concatenate(list(job.batches(epoch, 0))) for epoch in (0, 1))
    assert (whole.shape, part.shape) == ((10, 128), (4, 128))
    assert [job.epochs_after(step) for step in (0, 9, 10, 13, 14)] == [0, 0, 1, 1, 2]
    # 1.1 * 10 is above 11 in floating point.
    assert prepare(dataclasses.replace(FULL_RUN, epochs=1.1)).steps == 11


@pytest.mark.slow
@pytest.mark.parametrize("last_step", [7, 12, 14])
def test_run_with_many_settings_resumes_to_the_same_bytes(tmp_path, full_run, last_step):
    folder = tmp_path / "stopped"
    shutil.copytree(full_run.folder, folder)
    shutil.rmtree(folder / "model")
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name) > last_step:
            shutil.rmtree(checkpoint)
    resumed = resume(folder)
    assert read_weights(resumed) == read_weights(full_run)
    assert [(row.get("epoch"), row.get("step")) for row in resumed.metrics] == [(1, 10), (2, 14), (None, None)]
    assert [row.get("train_loss") for row in resumed.metrics] == [row.get("train_loss") for row in full_run.metrics]
    assert resumed.test.loss == full_run.test.loss


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    """A run of the recipe `FULL_RUN` with a checkpoint at every step."""
    recipe = dataclasses.replace(FULL_RUN, checkpoint_seconds=0.0, keep_checkpoints=20)
    return fit(recipe, runs=tmp_path_factory.mktemp("everything"))


def test_saved_weights_are_float32_at_any_precision(full_run):
    tensors = load_safetensors(full_run.folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_evaluation_of_a_run_uses_the_test_views_of_its_recipe(full_run, capsys):
    evaluate.main([str(full_run.folder)])
    assert f"loss {full_run.test.loss:.4f}" in capsys.readouterr().out
    shutil.copytree(full_run.folder / "model", full_run.folder.parent / "alone")
    evaluate.main([str(full_run.folder.parent / "alone"), "--data", "digits"])
    assert f"loss {full_run.test.loss:.4f}" not in capsys.readouterr().out


def test_factors_that_match_no_parameter_are_refused_before_training():
    recipe = dataclasses.replace(ONE_EPOCH, learning_rate_factors=("hiden*=2",))
    with pytest.raises(InputError, match=r"'hiden\*'. matches no parameter; did you mean `hidden.0"):
        prepare(recipe)


def test_job_can_start_again_after_its_start_buffers_were_donated():
    job = prepare(dataclasses.replace(ONE_EPOCH, train_images=160))
    steps = compile_steps(job.recipe)
    first, second = (steps(job.setup, job.make_start(), next(job.batches(0, 0))) for _ in range(2))
    for one, other in zip(
        *(jax.tree.leaves(eqx.filter(train, eqx.is_array)) for train in (first, second)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert not any(map(eqx.is_array, jax.tree.leaves(job.template)))


@pytest.mark.slow
def test_training_runs_in_jax_strict_modes(tmp_path):
    recipe = Recipe(
        model="lenet", train_images=40, validation=0.2, batch_size=16, epochs=1, mixup=0.2, cutmix=1.0, average="ema",
        lookahead_every=1, weight_decay=1e-3, clip_norm=1.0, augment=("random_crop(padding=1)", "flip_horizontal"),
        learning_rate_factors=("*.bias=2 for 0.5 epochs",), accumulate_steps=2, on_nan="skip",
    )  # fmt: skip
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert fit(recipe, runs=tmp_path).test.count == 359


@pytest.mark.slow
def test_training_runs_with_jit_disabled(tmp_path):
    images, labels = np.zeros((48, 8, 8, 1), np.uint8), np.arange(48) % 10
    few = from_arrays(images[:40], labels[:40], test=(images[40:], labels[40:]))
    recipe = Recipe(model="mlp", validation=0.0, batch_size=16, epochs=1)
    with jax.disable_jit():
        assert fit(recipe, data=few, runs=tmp_path).test.count == 8
