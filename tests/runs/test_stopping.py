"""Tests of early stopping, of keeping the best epoch and of losses that are not finite."""

import json
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.errors import InputError
from eqxcnn.runs.stopping import best_epochs, should_stop
from eqxcnn.training import Recipe, fit, load_recipe, prepare, resume
from eqxcnn.training import trainer as loop
from eqxcnn.training.runner import EpochRunner
from eqxcnn.training.step import train_step
from eqxcnn.weights import load_safetensors

ACCURACY = Recipe(early_stop_epochs=2, early_stop_delta=0.01)
LOSS = replace(ACCURACY, monitor="train_loss")
#: Seven steps per epoch.
RUN = Recipe(model="mlp", data="digits", train_images=400, epochs=6, batch_size=50, learning_rate=1e-3)


def rows(name, *values):
    return [{"epoch": epoch, name: value} for epoch, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("recipe", "name", "values", "best", "is_stopped"),
    [
        (ACCURACY, "validation_accuracy", [0.5, 0.6, 0.605], [3, 2, 1], False),
        (ACCURACY, "validation_accuracy", [0.5, 0.6, 0.605, 0.609], [4, 3, 2, 1], True),
        (ACCURACY, "validation_accuracy", [0.5, 0.6, 0.605, 0.62], [4, 3, 2, 1], False),
        (ACCURACY, "validation_accuracy", [0.0, 0.0], [1, 2], False),
        (LOSS, "train_loss", [2.0, 1.5, 1.6, 1.495], [4, 2, 3, 1], True),
        (LOSS, "train_loss", [float("nan"), 3.0, 2.0], [3, 2], False),
        (replace(LOSS, early_stop_epochs=0), "train_loss", [1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4], False),
        (ACCURACY, "train_loss", [1.0, 2.0, 3.0], [], False),
    ],
)
def test_best_epochs_and_should_stop(recipe, name, values, best, is_stopped):
    assert best_epochs(recipe, rows(name, *values)) == best
    assert should_stop(recipe, rows(name, *values)) == is_stopped


@pytest.fixture
def set_accuracies(monkeypatch):
    """Returns a function that sets the validation accuracy of each epoch."""

    def set_values(*values):
        original = EpochRunner._evaluate_epoch

        def evaluate_epoch(self, epoch, *rest):
            return original(self, epoch, *rest) | {"validation_accuracy": values[epoch]}

        monkeypatch.setattr(EpochRunner, "_evaluate_epoch", evaluate_epoch)

    return set_values


def hidden_weight(folder):
    return load_safetensors(folder / "model" / "model.safetensors")["hidden.0.weight"]


@pytest.mark.slow
def test_run_stops_early_and_keeps_the_weights_of_its_best_epoch(tmp_path, set_accuracies, capsys):
    set_accuracies(0.5, 0.7, 0.6, 0.6, 0.9)
    result = fit(replace(RUN, early_stop_epochs=2, keep="best"), runs=tmp_path)
    assert [row["epoch"] for row in result.metrics[:-1]] == [1, 2, 3, 4]
    stderr = " ".join(capsys.readouterr().err.split())
    assert "validation_accuracy has not improved for 2 epochs: stopping" in stderr
    assert "epoch 2 had the best validation_accuracy: its weights are kept" in stderr
    job = prepare(load_recipe(result.folder / "recipe.yaml"))
    train, step = job.make_start(), eqx.filter_jit(train_step)
    for epoch in range(2):
        for batch in job.batches(epoch, 0):
            train = step(job.setup, train, jnp.asarray(batch[0]))
    np.testing.assert_allclose(hidden_weight(result.folder), train.model.hidden[0].weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_best_checkpoints_are_kept(tmp_path, set_accuracies):
    set_accuracies(0.5, 0.7, 0.6, 0.8, 0.1, 0.6)
    result = fit(replace(RUN, best_checkpoints=3), runs=tmp_path)
    best_steps = {int(path.name) for path in (result.folder / "best").iterdir() if path.name.isdigit()}
    assert best_steps == {2 * 7, 3 * 7, 4 * 7}  # epoch 3, not epoch 6: the earlier of two equal epochs is kept
    # The saved weights are still those of the last epoch.
    last = fit(RUN, runs=tmp_path)
    np.testing.assert_array_equal(hidden_weight(result.folder), hidden_weight(last.folder))


def make_steps_fail(monkeypatch, *steps):
    """Makes the loss NaN at these steps of a run, counted from 1; the pixel sum of the batch identifies the step."""

    def prepare_failing(*arguments, **options):
        job = prepare(*arguments, **options)
        batches = [rows[0] for epoch in range(job.epochs) for rows in job.batches(epoch, 0)]
        bad = jnp.asarray([job.splits.train.images[batches[step_number - 1]].sum() for step_number in steps], "uint32")
        original = job.setup.value_and_grad

        def value_and_grad(model, state, images, labels, key):
            (loss, rest), gradients = original(model, state, images, labels, key)
            pixels = jnp.round((images * job.setup.std + job.setup.mean) * 255).astype("uint32").sum()
            return (jnp.where((pixels == bad).any(), jnp.nan, loss), rest), gradients

        return replace(job, setup=replace(job.setup, value_and_grad=value_and_grad))

    monkeypatch.setattr(loop, "prepare", prepare_failing)


@pytest.mark.slow
def test_nan_loss_stops_the_run_and_the_run_can_be_resumed(tmp_path, monkeypatch):
    make_steps_fail(monkeypatch, 12)
    with pytest.raises(InputError) as error:
        fit(replace(RUN, checkpoint_seconds=0.0), runs=tmp_path)
    assert "not finite at step 12, in epoch 2 (the newest earlier checkpoint is from step 11)" in str(error.value)
    assert "`learning_rate` below 0.001" in str(error.value)
    (folder,) = tmp_path.iterdir()
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1]
    monkeypatch.setattr(loop, "prepare", prepare)
    assert resume(folder).test.count == 359


@pytest.mark.slow
def test_nan_steps_are_skipped_and_counted(tmp_path, monkeypatch):
    make_steps_fail(monkeypatch, 12, 14)
    result = fit(replace(RUN, on_nan="skip", epochs=3), runs=tmp_path)
    assert [row.get("skipped_steps") for row in result.metrics[:-1]] == [None, 2, None]
    assert all(np.isfinite(row["train_loss"]) for row in result.metrics[:-1])

    # Skipped steps change only the step count.
    job = prepare(load_recipe(result.folder / "recipe.yaml"))
    train, step, step_number = job.make_start(), eqx.filter_jit(train_step), 0
    for epoch in range(3):
        for batch in job.batches(epoch, 0):
            step_number += 1
            after = step(job.setup, train, jnp.asarray(batch[0]))
            train = eqx.tree_at(lambda train: train.step, train, after.step) if step_number in (12, 14) else after
    np.testing.assert_allclose(hidden_weight(result.folder), train.model.hidden[0].weight, rtol=1e-4, atol=1e-6)


def test_epoch_with_only_nan_steps_stops_the_run(tmp_path, monkeypatch):
    make_steps_fail(monkeypatch, *range(8, 15))
    with pytest.raises(InputError, match=r"at step 8, in epoch 2 .no earlier checkpoint exists.*wrong images$"):
        fit(replace(RUN, on_nan="skip"), runs=tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": "best", "validation": 0.0}, r"`monitor` .='validation_accuracy'. needs images .*train_loss"),
        ({"early_stop_epochs": 3, "validation": 0.0}, "`monitor` .* needs images"),
        ({"best_checkpoints": 2, "validation": 0.0}, "`monitor` .* needs images"),
        ({"best_checkpoints": -1}, "`best_checkpoints` .=-1. must be from 0 to"),
        ({"keep": "best", "average": "swa"}, "do not go together"),
        ({"early_stop_delta": -1.0}, "`early_stop_delta` .=-1.0. must be from 0 to"),
    ],
)
def test_invalid_stopping_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Recipe(**values)
