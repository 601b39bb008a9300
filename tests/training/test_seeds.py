"""Tests of seed sweeps: vmapped and sequential seeds, their summary, and resuming."""

import json
import os
import signal
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import seeds as benchmark
from eqxcnn.errors import InputError
from eqxcnn.networks import ChannelsFirst
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
from eqxcnn.training.parts import make_parts
from eqxcnn.training.runner import EpochRunner
from eqxcnn.weights import load_safetensors

#: Seven steps per epoch; the last epoch is partial.
RUN = Recipe(model="mlp", data="digits", train_images=400, epochs=1.5, batch_size=50, learning_rate=1e-3, seed=3)
#: Uses BatchNorm, augmentation, mixup, EMA and Lookahead, which add arrays to the train state.
RICH = Recipe(
    model="resnet20", architecture=("depth=1", "width=4"), data="digits", train_images=80, epochs=1, batch_size=16,
    augment=("random_crop(padding=2)",), average="ema", lookahead_every=2, mixup=0.5, image_size=(16, 16), seed=1,
)  # fmt: skip


def read_weights(run_folder):
    return load_safetensors(run_folder / "model" / "model.safetensors")


@pytest.mark.usefixtures("fast_compilation")
@pytest.mark.parametrize("recipe", [RUN, pytest.param(RICH, marks=pytest.mark.exhaustive)], ids=["mlp", "resnet20"])
def test_vmapped_seeds_agree_with_separate_runs(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(seeds, "can_vmap_seeds", lambda job: True)
    # oneDNN has no kernels batched over seeds, and different rounding makes the runs diverge over time.
    monkeypatch.setenv("EQXCNN_ONEDNN", "0")
    sweep = fit_seeds(recipe, 2, runs=tmp_path)
    for seed in (recipe.seed, recipe.seed + 1):
        single_run = fit(replace(recipe, seed=seed), runs=tmp_path)
        folder = sweep.folder / f"seed-{seed}"
        assert (folder / "recipe.yaml").read_text() == (single_run.folder / "recipe.yaml").read_text()
        rows, expected = read_metrics(folder), single_run.metrics
        assert [row.keys() for row in rows] == [row.keys() for row in expected]
        for row, other in zip(rows, expected, strict=True):
            for name in row.keys() - {"seconds", "images_per_second", "wall_seconds"}:
                np.testing.assert_allclose(row[name], other[name], rtol=2e-3, atol=0.03 * ("accuracy" in name))
        for name, tensor in read_weights(folder).items():
            np.testing.assert_allclose(
                tensor, read_weights(single_run.folder)[name], rtol=0.02, atol=2e-3, err_msg=name
            )


def test_seeds_are_vmapped_where_it_is_faster(monkeypatch):
    assert vmapped_seeds.can_vmap_seeds(prepare(RUN))
    small = Recipe(model="lenet", data="digits", epochs=1)
    assert not vmapped_seeds.can_vmap_seeds(prepare(small))
    own = ChannelsFirst(eqx.nn.Sequential([eqx.nn.Conv2d(1, 10, 8, key=jax.random.key(0)), eqx.nn.Lambda(jnp.ravel)]))
    assert not vmapped_seeds.can_vmap_seeds(
        prepare(Recipe(model="own", data="digits", image_size=(8, 8)), make_parts(model=own))
    )
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    job = prepare(replace(small, steps_per_call=1))
    assert vmapped_seeds.can_vmap_seeds(job)
    assert not vmapped_seeds.can_vmap_seeds(replace(job, recipe=replace(job.recipe, early_stop_epochs=2)))
    assert not vmapped_seeds.can_vmap_seeds(replace(job, setup=replace(job.setup, data=None)))


@pytest.mark.slow
@pytest.mark.parametrize("is_vmapped", [True, False])
def test_seeds_file_holds_mean_deviation_and_every_run(tmp_path, monkeypatch, is_vmapped):
    monkeypatch.setattr(seeds, "can_vmap_seeds", lambda job: is_vmapped)
    sweep = fit_seeds(RUN, 3, runs=tmp_path)
    accuracies = [read_metrics(sweep.folder / f"seed-{seed}")[-1]["test_accuracy"] for seed in (3, 4, 5)]
    assert list(sweep.accuracies.values()) == accuracies
    assert sweep.mean == pytest.approx(np.mean(accuracies))
    assert sweep.deviation == pytest.approx(np.std(accuracies, ddof=1))
    summary = json.loads((sweep.folder / "seeds.json").read_text())
    assert (summary["mean"], summary["deviation"], summary["seeds"]) == (sweep.mean, sweep.deviation, [3, 4, 5])
    assert [(row["folder"], row["test_accuracy"]) for row in summary["runs"]] == [
        (f"seed-{seed}", accuracy) for seed, accuracy in zip((3, 4, 5), accuracies, strict=True)
    ]
    assert is_seed_sweep(sweep.folder)
    assert not is_seed_sweep(sweep.folder / "seed-3")
    with pytest.raises(InputError, match="is finished"):
        resume_seeds(sweep.folder)


@pytest.mark.slow
@pytest.mark.parametrize("is_vmapped", [True, False])
def test_interrupted_seeds_resume_to_the_same_results(tmp_path, monkeypatch, is_vmapped):
    monkeypatch.setattr(seeds, "can_vmap_seeds", lambda job: is_vmapped)
    uninterrupted = fit_seeds(RUN, 2, runs=tmp_path)
    end_epoch, calls = EpochRunner.end_epoch, []

    def end_epoch_and_interrupt(self, *arguments):
        calls.append(self)
        # Interrupts in the first epoch of the second seed: call 2 if vmapped, call 3 otherwise.
        if len(calls) == (2 if is_vmapped else 3):
            os.kill(os.getpid(), signal.SIGINT)
        return end_epoch(self, *arguments)

    monkeypatch.setattr(EpochRunner, "end_epoch", end_epoch_and_interrupt)
    with pytest.raises(Interrupted) as interruption:
        fit_seeds(RUN, 2, runs=tmp_path)
    assert is_seed_sweep(interruption.value.folder)
    is_finished = [(interruption.value.folder / f"seed-{seed}" / "model").exists() for seed in (3, 4)]
    assert is_finished == [not is_vmapped, False]
    sweep = resume_seeds(interruption.value.folder)
    assert sweep.accuracies == pytest.approx(uninterrupted.accuracies, abs=0.01)
    for seed in (3, 4):
        first, second = (read_weights(result.folder / f"seed-{seed}") for result in (sweep, uninterrupted))
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seeds": [0, 1]', "seeds.json` cannot be read as JSON"),
        ('{"seeds": [0, 1], "seeds": [2]}', "cannot be read as JSON: `seeds` appears twice"),
        ('{"seeds": [0, 1]}', "does not hold the recipe of a seed sweep"),
        ("[0, 1]", "does not hold the recipe of a seed sweep"),
        ('{"recipe": {}, "seeds": 5}', r"`seeds` \(=5\) in `.*seeds.json` must be a list, each a whole number"),
        ('{"recipe": {}, "seeds": [0, "1"]}', "must be a list, each a whole number"),
        ('{"recipe": {}, "seeds": [0, -1]}', "must be from 0 to 4294967295 in every item"),
        ('{"recipe": {}, "seeds": [1, 1]}', "must list two seeds or more, each once"),
        (f'{{"recipe": {{}}, "seeds": {list(range(2000))}}}', "a list of at most 1000 items"),
        ('{"recipe": {"epochs": 1e18}, "seeds": [0, 1]}', "`epochs` .=1e.18. must be above 0 and at most"),
    ],
)
def test_damaged_seeds_file_is_refused(tmp_path, text, message):
    (tmp_path / "seeds.json").write_text(text)
    with pytest.raises(InputError, match=message):
        resume_seeds(tmp_path)


def test_fit_seeds_needs_two_seeds(tmp_path):
    for count in (1, 10**9):
        with pytest.raises(InputError, match=rf"number of seeds .={count}. must be from 2 to 1000"):
            fit_seeds(RUN, count, runs=tmp_path)
    with pytest.raises(InputError, match=r"the last seed must be below 2\*\*32"):
        fit_seeds(replace(RUN, seed=2**32 - 1), 2, runs=tmp_path)


@pytest.mark.slow
def test_benchmark_times_vmapped_and_sequential_seeds(tmp_path):
    benchmark.main(["--models", "mlp", "--steps", "3", "--seeds", "2", "--rounds", "2", "--out", f"{tmp_path}/s.json"])
    summary = json.loads((tmp_path / "s.json").read_text())
    assert set(summary["times"]) == {"mlp, one program", "mlp, one seed after another"}
