"""Checks that every setting has an effect: it changes a few training steps or has its own test."""

import dataclasses
import re
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.recipe.command_line import RunOptions, parse_flags
from eqxcnn.recipe.files import to_yaml
from eqxcnn.recipe.recipe import GROUPS
from eqxcnn.recipe.settings_page import format_page
from eqxcnn.training import Recipe, load_recipe, prepare
from eqxcnn.training.step import train_steps
from eqxcnn.weights import to_tensors

TESTS = Path(__file__).parents[1]
#: Four steps per epoch.
BASE = Recipe(model="mlp", data="digits", train_images=160, batch_size=32, epochs=1, steps_per_call=1)
SGD = {"optimizer": "sgd"}
MUON = {"optimizer": "muon"}
CLASS_WEIGHTS = (0.5, 1.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

#: Setting -> (a non-default value, the other settings it needs to have an effect).
VALUES = {
    "model": ("scratch", {}),
    "architecture": (("init_scale=0.1",), {}),
    "epochs": (2.0, {}),
    "batch_size": (16, {}),
    "optimizer": ("lion", {}),
    "learning_rate": (1e-3, {}),
    "schedule": ("constant", {}),
    "warmup_fraction": (0.5, {}),
    "initial_lr_factor": (0.5, {}),
    "final_lr_factor": (0.5, {}),
    "power": (1.0, {"schedule": "polynomial"}),
    "decay_rate": (0.5, {"schedule": "step", "decay_epochs": 0.3}),
    "decay_epochs": (0.3, {"schedule": "step"}),
    "decay_milestones": ((0.3,), {"schedule": "multistep", "decay_milestones": (0.6,)}),
    "learning_rate_factors": (("*bias=3",), {}),
    "freeze": (("head",), {}),
    "layer_decay": (0.5, {}),
    "momentum": (0.5, SGD),
    "nesterov": (True, SGD),
    "muon_momentum": (0.5, MUON),
    "muon_steps": (3, MUON),
    "muon_coefficients": ((3.0, -4.0, 2.0), MUON),
    "muon_layers": ("convolutions", MUON),
    "muon_others": ("sgd", MUON),
    "weight_decay": (0.1, SGD),
    "decay_norms_and_biases": (True, {**SGD, "weight_decay": 0.1}),
    "clip_norm": (0.01, SGD),
    "clip_value": (1e-4, SGD),
    "clip_agc": (1e-3, SGD),
    "accumulate_steps": (2, {}),
    "lookahead_every": (2, {}),
    "lookahead_decay": (0.5, {"lookahead_every": 2}),
    "average": ("ema", {}),
    "average_decay": (0.1, {"average": "ema"}),
    "average_start": (0.3, {"average": "swa", "epochs": 3}),
    "loss": ("bce", {}),
    "focal_gamma": (1.0, {"loss": "focal"}),
    "label_smoothing": (0.0, {}),
    "class_weights": (CLASS_WEIGHTS, {}),
    "sampling": ("balanced", {}),
    "augment": (("random_crop(padding=2)",), {}),
    "mixup": (0.5, {}),
    "cutmix": (1.0, {}),
    "mix_probability": (0.2, {"mixup": 0.5}),
    "mix_switch_probability": (0.1, {"mixup": 0.5, "cutmix": 1.0}),
    "image_size": ((20, 24), {}),
    "mean": ((0.1,), {"mean": (0.2,), "std": (0.3,)}),
    "std": ((0.4,), {"mean": (0.2,), "std": (0.3,)}),
    "precision": ("bf16", {}),
    "train_images": (200, {}),
    "validation": (0.2, {}),
    "seed": (1, {}),
    "shuffle": (False, {}),
}
#: Tests of the other settings: a file and the beginning of the name of a test, fixture or helper.
OTHER_TESTS = {
    "resize": "training/test_preprocessing.py::test_photographs_are_cropped_and_images_of_one_size_stretched",
    "crop_fraction": "training/test_preprocessing.py::test_settings_replace_what_the_weights_expect",
    "interpolation": "training/test_preprocessing.py::test_settings_replace_what_the_weights_expect",
    "decode": "training/test_streaming.py::test_images_are_streamed_if_they_exceed_the_budget_or_the_disk",
    "disk_budget": "training/test_streaming.py::test_images_are_streamed_if_they_exceed_the_budget_or_the_disk",
    "data_streaming": "training/test_streaming.py::test_a_stream_from_shards_resumes_to_the_same_bytes",
    "shuffle_buffer": "training/test_streaming.py::test_a_stream_from_shards_resumes_to_the_same_bytes",
    "devices": "training/test_devices.py::test_several_devices_train_the_same_run",
    "shard_params": "training/test_devices.py::test_sharded_parameters_train_the_same_run",
    "decode_processes": "training/test_streaming.py::test_a_process_that_dies_ends_the_run_with_one_sentence",
    "cache_size": "training/test_streaming.py::test_crops_come_from_the_larger_cached_images",
    "data": "training/test_train.py::test_evaluate_prints_the_test_accuracy_of_training",
    "image_column": "training/test_own_data.py::test_a_recipe_chooses_columns_and_test_split",
    "label_column": "training/test_own_data.py::test_a_recipe_chooses_columns_and_test_split",
    "test_split": "training/test_own_data.py::test_a_recipe_chooses_columns_and_test_split",
    "rescale_kernels_every": "optim/test_muon.py::test_rescaled_kernels_keep_their_norm_with_any_rule",
    "gradients": "training/test_job.py::test_gradients_by_hand_agree_with_autodiff",
    "patience_epochs": "optim/test_optimizers.py::test_plateau_lowers_the_rate_when_the_epoch_loss_stops_improving",
    "test_views": "training/test_job.py::test_evaluation_of_a_run_uses_the_test_views_of_its_recipe",
    "pretrained": "weights/test_published.py::test_a_recipe_can_start_from_published_weights",
    "init_from": "training/test_warm_start.py::test_run_starts_from_the_weights_of_another_run",
    "init_images": "training/test_start.py::test_weights_are_initialized_from_the_first_normalized_training_images",
    "metrics": "training/test_own_parts.py::test_metrics_of_a_recipe_are_logged",
    "monitor": "runs/test_stopping.py::test_best_epochs_and_should_stop",
    "early_stop_epochs": "runs/test_stopping.py::test_run_stops_early_and_keeps_the_weights_of_its_best_epoch",
    "early_stop_delta": "runs/test_stopping.py::test_best_epochs_and_should_stop",
    "keep": "runs/test_stopping.py::test_run_stops_early_and_keeps_the_weights_of_its_best_epoch",
    "best_checkpoints": "runs/test_stopping.py::test_best_checkpoints_are_kept",
    "on_nan": "runs/test_stopping.py::test_nan_steps_are_skipped_and_counted",
    "on_bad_image": "training/test_job.py::test_bad_images_are_refused_or_skipped",
    "jit": "training/test_job.py::test_uncompiled_steps_give_the_same_result",
    "steps_per_call": "training/test_job.py::test_scanned_steps_reach_the_loss_of_single_steps",
    "checkpoint_seconds": "training/test_job.py::full_run",
    "keep_checkpoints": "training/test_job.py::full_run",
    "eval_batch_size": "training/test_evaluate.py::test_eval_batch_size_is_used_for_validation_and_test",
    "device_budget": "training/test_job.py::test_streamed_data_set_gives_the_same_result",
    "log": "runs/test_logs.py::test_",
    "profile": "training/test_dry_run.py::test_profile_writes_a_trace",
    "deterministic": "training/test_dry_run.py::test_deterministic_sets_the_compiler_option_and_keeps_the_bytes",
    "recipe": "training/test_train.py::test_flags_override_the_recipe",
    "resume": "training/test_train.py::assert_resumes_like",
    "runs": "training/test_train.py::finished_run",
    "name": "training/test_processes.py::test_a_run_stopped_and_killed_resumes_to_the_same_bytes",
    "coordinator": "training/test_processes.py::train_commands",
    "processes": "training/test_processes.py::train_commands",
    "process": "training/test_processes.py::train_commands",
    "join_timeout": "training/test_processes.py::test_processes_that_do_not_meet_say_so",
    "seeds": "training/test_train.py::test_seed_sweep_prints_mean_and_deviation_and_refuses_to_resume_when_finished",
    "dry_run": "training/test_train.py::test_dry_run_prints_time_and_memory_and_writes_nothing",
    "list_recipes": "training/test_train.py::test_list_recipes_prints_every_recipe",
}


def train_uncompiled(recipe):
    """Returns the weights after training step by step, without compilation."""
    job = prepare(recipe)
    train = job.make_start()
    for epoch in range(job.epochs):
        for batch in job.batches(epoch, 0):
            train = train_steps(job.setup, train, jnp.asarray(batch))
    return to_tensors(*train.averaged)


@pytest.fixture(scope="module")
def train_base():
    """`train_uncompiled`, cached per recipe."""
    return cache(train_uncompiled)


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_setting_changes_the_result_of_training(name, train_base):
    value, required = VALUES[name]
    base = dataclasses.replace(BASE, **required)
    assert getattr(base, name) != value
    one, other = train_base(base), train_uncompiled(dataclasses.replace(base, **{name: value}))
    assert one.keys() != other.keys() or any(not np.array_equal(one[key], other[key]) for key in one)


def test_every_setting_has_a_test():
    names = [field.name for owner in (Recipe, RunOptions) for field in dataclasses.fields(owner)]
    assert sorted([*VALUES, *OTHER_TESTS]) == sorted(names)
    for name, test in OTHER_TESTS.items():
        file, function = test.split("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {function}", text, flags=re.MULTILINE), test
        assert re.search(rf"\b{name}\b|--{name.replace('_', '-')}", text), test


@pytest.mark.parametrize("name", VALUES)
def test_setting_is_a_flag_and_a_recipe_key(name, tmp_path):
    value, required = VALUES[name]
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        arguments = [flag if value else f"--no-{flag[2:]}"]
    else:
        arguments = [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    flags = parse_flags(arguments)
    settings = {key: setting for group in GROUPS for key, setting in vars(getattr(flags, group)).items()}
    assert settings[name] == value
    recipe = dataclasses.replace(BASE, **{**required, name: value})
    (tmp_path / "r.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_old_flags_are_accepted_with_a_warning():
    with pytest.warns(FutureWarning, match="`--warmup-share` is now called `--warmup-fraction`"):
        assert parse_flags(["--warmup-share", "0.2"]).schedule.warmup_fraction == 0.2
    with pytest.warns(FutureWarning, match="`--last-factor` is now called `--final-lr-factor`"):
        assert parse_flags(["--last-factor=0.5"]).schedule.final_lr_factor == 0.5


def test_help_groups_settings_with_the_most_used_first(capsys):
    with pytest.raises(SystemExit):
        parse_flags(["--help"])
    titles = re.findall(r"^\W*(\w+) options\W*$", capsys.readouterr().out, flags=re.MULTILINE)
    assert titles == list(GROUPS)


def test_settings_page_is_up_to_date():
    page = (TESTS.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == format_page(), "run `python -m eqxcnn.recipe.settings_page > docs/settings.md`"
