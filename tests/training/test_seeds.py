"""Many seeds of one recipe: in one program what they are one by one, told together, and resumed."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import seeds as benchmark
from eqxcnn.errors import InputError
from eqxcnn.runs.folder import read_metrics
from eqxcnn.training import (
    Interrupted,
    Recipe,
    fit,
    fit_seeds,
    is_seed_sweep,
    prepare,
    resume_seeds,
    seeds,
    vmapped_seeds,
)
from eqxcnn.training.runner import EpochRunner
from eqxcnn.weights import load_safetensors

#: Seven steps an epoch, the last of which is a part of one.
RUN = Recipe(model="mlp", data="digits", train_images=400, epochs=1.5, batch_size=50, learning_rate=1e-3, seed=3)
#: BatchNorm, an augmentation, dropout's keys, and what else has arrays of its own.
RICH = Recipe(
    model="resnet20", data="digits", train_images=80, epochs=1, batch_size=16, augment=("random_crop(padding=2)",),
    average="ema", lookahead_every=2, mixup=0.5, image_size=(32, 32), seed=1,
)  # fmt: skip


def weights(folder):
    return load_safetensors(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("recipe", [RUN, pytest.param(RICH, marks=pytest.mark.slow)], ids=["mlp", "resnet20"])
def test_seeds_in_one_program_are_what_they_are_alone(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(seeds, "can_vmap_seeds", lambda job: True)
    # It knows no kernel for each seed, and steps that round otherwise part in time.
    monkeypatch.setenv("EQXCNN_ONEDNN", "0")
    found = fit_seeds(recipe, 2, runs=tmp_path)
    for seed in (recipe.seed, recipe.seed + 1):
        alone = fit(replace(recipe, seed=seed), runs=tmp_path)
        beside = found.folder / f"seed-{seed}"
        assert (beside / "recipe.yaml").read_text() == (alone.folder / "recipe.yaml").read_text()
        rows, expected = read_metrics(beside), alone.metrics
        assert [row.keys() for row in rows] == [row.keys() for row in expected]
        for row, other in zip(rows, expected, strict=True):
            for name in row.keys() - {"seconds", "images_per_second", "wall_seconds"}:
                np.testing.assert_allclose(row[name], other[name], rtol=2e-3, atol=0.03 * ("accuracy" in name))
        for name, tensor in weights(beside).items():
            np.testing.assert_allclose(tensor, weights(alone.folder)[name], rtol=0.02, atol=2e-3, err_msg=name)


def test_seeds_are_one_program_where_that_pays(monkeypatch):
    assert vmapped_seeds.can_vmap_seeds(prepare(RUN))
    small = Recipe(model="lenet", data="digits", epochs=1)
    assert not vmapped_seeds.can_vmap_seeds(prepare(small))
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    job = prepare(replace(small, steps_per_call=1))
    assert vmapped_seeds.can_vmap_seeds(job)
    assert not vmapped_seeds.can_vmap_seeds(replace(job, recipe=replace(job.recipe, early_stop_epochs=2)))
    assert not vmapped_seeds.can_vmap_seeds(replace(job, setup=replace(job.setup, data=None)))


@pytest.mark.parametrize("is_one_program", [True, False])
def test_mean_and_deviation_are_written_down_with_every_run(tmp_path, monkeypatch, is_one_program):
    monkeypatch.setattr(seeds, "can_vmap_seeds", lambda job: is_one_program)
    found = fit_seeds(RUN, 3, runs=tmp_path)
    accuracies = [read_metrics(found.folder / f"seed-{seed}")[-1]["test_accuracy"] for seed in (3, 4, 5)]
    assert list(found.accuracies.values()) == accuracies
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.deviation == pytest.approx(np.std(accuracies, ddof=1))
    told = json.loads((found.folder / "seeds.json").read_text())
    assert (told["mean"], told["deviation"], told["seeds"]) == (found.mean, found.deviation, [3, 4, 5])
    assert [(row["folder"], row["test_accuracy"]) for row in told["runs"]] == [
        (f"seed-{seed}", accuracy) for seed, accuracy in zip((3, 4, 5), accuracies, strict=True)
    ]
    assert is_seed_sweep(found.folder)
    assert not is_seed_sweep(found.folder / "seed-3")
    with pytest.raises(InputError, match="is finished"):
        resume_seeds(found.folder)


@pytest.mark.parametrize("is_one_program", [True, False])
def test_seeds_that_were_stopped_go_on_to_what_they_would_have_been(tmp_path, monkeypatch, is_one_program):
    monkeypatch.setattr(seeds, "can_vmap_seeds", lambda job: is_one_program)
    undisturbed = fit_seeds(RUN, 2, runs=tmp_path)
    end, ends = EpochRunner.end_epoch, []

    def interrupted(self, *arguments):
        ends.append(self)
        # Of the second run, when the first is through its first epoch, or through all.
        if len(ends) == (2 if is_one_program else 3):
            os.kill(os.getpid(), signal.SIGINT)
        return end(self, *arguments)

    monkeypatch.setattr(EpochRunner, "end_epoch", interrupted)
    with pytest.raises(Interrupted) as stopped:
        fit_seeds(RUN, 2, runs=tmp_path)
    assert is_seed_sweep(stopped.value.folder)
    finished = [(stopped.value.folder / f"seed-{seed}" / "model").exists() for seed in (3, 4)]
    assert finished == [not is_one_program, False]
    found = resume_seeds(stopped.value.folder)
    assert found.accuracies == pytest.approx(undisturbed.accuracies, abs=0.01)
    for seed in (3, 4):
        first, second = (weights(each.folder / f"seed-{seed}") for each in (found, undisturbed))
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=1e-3, atol=1e-5)


def test_a_damaged_plan_is_refused(tmp_path):
    (tmp_path / "seeds.json").write_text('{"seeds": [0, 1]')
    with pytest.raises(InputError, match=r"does not list the seeds to train"):
        resume_seeds(tmp_path)


def test_one_seed_is_no_seeds(tmp_path):
    with pytest.raises(InputError, match=r"`seeds` .=1. must be 2 or more"):
        fit_seeds(RUN, 1, runs=tmp_path)


def test_the_benchmark_times_both_ways(tmp_path):
    benchmark.main(["--models", "mlp", "--steps", "3", "--seeds", "2", "--rounds", "2", "--out", f"{tmp_path}/s.json"])
    told = json.loads((tmp_path / "s.json").read_text())
    assert set(told["times"]) == {"mlp, one program", "mlp, one seed after another"}
