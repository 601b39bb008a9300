"""The command lines as a user meets them: real processes, real folders, real signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from eqxcnn.errors import InputError
from eqxcnn.runs.folder import Run, read_metrics
from eqxcnn.training import Recipe, list_recipes

QUICK = ("--model", "lenet", "--epochs", "3")


def python_m(module, *arguments, **options):
    """Runs `python -m eqxcnn.MODULE` to its end."""
    command = [sys.executable, "-m", f"eqxcnn.{module}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)


def only_run(runs: Path) -> Path:
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three epochs that nothing disturbed, with its process."""
    runs = tmp_path_factory.mktemp("runs")
    done = python_m("train", *QUICK, "--runs", runs)
    assert done.returncode == 0, done.stderr
    return only_run(runs), done


def test_a_run_without_data_says_that_it_uses_the_digits(finished):
    _, done = finished
    assert "--data mnist" in done.stderr
    assert "test accuracy" in done.stdout


def test_output_that_is_no_terminal_gets_a_plain_line_an_epoch(finished):
    _, done = finished
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert "\x1b" not in done.stderr


def test_the_run_folder_holds_what_is_promised(finished):
    folder, _ = finished
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert None not in (recipe["epochs"], recipe["image_size"], recipe["mean"], recipe["std"], recipe["steps_per_call"])
    rows = read_metrics(folder)
    assert [row.get("epoch") for row in rows] == [1, 2, 3, None]
    assert {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"} <= rows[0].keys()
    assert rows[-1]["test_count"] == 359
    environment = json.loads((folder / "environment.json").read_text())
    assert {"jax", "python", "cores", "devices", "commit"} <= environment.keys()
    assert environment["command"].startswith("python -m eqxcnn.train --model lenet")
    assert (folder / "model" / "model.safetensors").exists()
    assert folder.name.startswith("lenet-digits-")


def start_training(runs):
    """A training process that saves after every step, and the folder it made, once it is into its second epoch."""
    arguments = [*QUICK, "--runs", str(runs), "--checkpoint-seconds", "0"]
    command = [sys.executable, "-m", "eqxcnn.train", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        steps = [int(path.name) for path in runs.glob("*/checkpoints/*") if path.name.isdigit()]
        if steps and max(steps) > 25:  # an epoch has 20 steps
            return process, only_run(runs)
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"training did not come to its second epoch: {process.communicate()[1]}")


def assert_ends_like(folder, finished):
    """The run ended with the very bytes of the undisturbed one, and logged each epoch once."""
    resumed = python_m("train", "--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    weights = [run / "model" / "model.safetensors" for run in (folder, finished)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    unlike = ("seconds", "images_per_second", "wall_seconds", "from_step")
    rows = [
        [{k: v for k, v in row.items() if k not in unlike} for row in read_metrics(run)] for run in (folder, finished)
    ]
    assert rows[0] == rows[1]
    assert read_metrics(folder)[-1]["from_step"] > read_metrics(finished)[-1]["from_step"] == 0
    return resumed


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, finished):
    process, folder = start_training(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "model").exists()
    assert_ends_like(folder, finished[0])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(tmp_path, finished, number, code):
    process, folder = start_training(tmp_path)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.splitlines()[-1].endswith(f"continue with --resume {folder}")
    assert "Traceback" not in said
    assert_ends_like(folder, finished[0])


@pytest.mark.slow
def test_a_truncated_newest_checkpoint_is_named_and_the_one_before_used(tmp_path, finished):
    process, folder = start_training(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    newest = max(
        (path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    resumed = assert_ends_like(folder, finished[0])
    assert str(newest) in resumed.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "lenett"], "no model named `lenett`; did you mean `lenet`"),
        (["--learning-rate", "-1"], "`learning_rate` (=-1.0) must be above 0"),
        (["--batch-size", "0"], "`batch_size` (=0) must be above 0"),
        (["--batch-size", "5000"], "`batch_size` (=5000) is more than the 1,295 training images"),
        (["--image-size", "8", "8"], "too small for `lenet`: the smallest size is 12x12"),
        (["--data", "nosuch"], "nosuch"),
        (["--recipe", "lenett"], "no recipe named `lenett`; did you mean `lenet`"),
        (["--augment", "flip_horizontl"], "flip_horizontl"),
        (["--mean", "0.5", "0.5", "--std", "1", "1"], "`mean` (=[0.5, 0.5]) must have one number per channel"),
        (["--resume", "nowhere"], "`nowhere` is not a run folder"),
        (["--resume", "nowhere", "--epochs", "3"], "leave the other flags out"),
        (["--seeds", "0"], "`seeds` (=0) must be 1 or more"),
        (["--init-from", "nowhere"], "`init_from` (='nowhere') is not there"),
        (["--dry-run", "--no-jit"], "a dry run looks at compiled steps"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_1(tmp_path, arguments, sentence):
    done = python_m("train", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_typo_in_a_flag_is_answered_with_the_nearest():
    done = python_m("train", "--modle", "lenet")
    assert done.returncode == 2
    assert "--model" in done.stderr


def test_a_flag_without_its_value_is_answered_by_the_parser():
    done = python_m("train", "--recipe")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_tells_every_setting():
    done = python_m("train", "--help")
    assert done.returncode == 0
    for flag in ("--model", "--data", "--recipe", "--resume", "--learning-rate", "--on-bad-image"):
        assert flag in done.stdout


def test_a_finished_run_is_not_trained_again(finished):
    done = python_m("train", "--resume", finished[0])
    assert done.returncode == 1
    assert "is finished" in done.stderr


def test_flags_win_over_the_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text("model: mlp\nepochs: 1\nbatch_size: 32\nseed: 3\n")
    done = python_m("train", "--recipe", "mine.yaml", "--batch-size", "128", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = yaml.safe_load((only_run(tmp_path / "runs") / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["batch_size"], recipe["seed"]) == ("mlp", 128, 3)


def test_many_seeds_are_told_together_and_a_finished_folder_of_them_is_refused(tmp_path):
    done = python_m("train", "--model", "mlp", "--epochs", "1", "--seeds", "2", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only_run(tmp_path)
    told = json.loads((folder / "seeds.json").read_text())
    assert f"test accuracy {told['mean']:.2%} ± {told['deviation']:.2%}, mean and deviation of 2 seeds" in done.stdout
    again = python_m("train", "--resume", folder)
    assert (again.returncode, again.stderr.splitlines()[-1][:6]) == (1, "error:")


def test_a_dry_run_tells_time_and_memory_and_leaves_nothing(tmp_path):
    done = python_m("train", "--dry-run", "--model", "mlp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"101,770 parameters; compiled in .* s; a step takes .* ms .*; .* MiB of memory", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_the_recipes_are_listed():
    done = python_m("train", "--list-recipes")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == list_recipes()


def test_two_runs_in_one_second_have_folders_of_their_own(tmp_path):
    folders = set()
    for _ in range(3):
        with Run.create(tmp_path, Recipe(), "digits") as run:
            folders.add(run.folder)
    assert len(folders) == 3


def test_a_full_disk_while_logging_names_the_file(tmp_path):
    with Run.create(tmp_path, Recipe(), "digits") as run:
        (run.folder / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(InputError, match=r"metrics\.jsonl` cannot be written: No space left on device"):
            run.log({"epoch": 1})


def test_a_run_is_held_by_one_process_at_a_time(tmp_path):
    with Run.create(tmp_path, Recipe(), "digits") as run:
        done = python_m("train", "--resume", run.folder)
        assert done.returncode == 1
        assert "another process is training" in done.stderr
    with pytest.raises(InputError, match=r"no run folder"):
        Run.open(tmp_path)


def test_evaluate_prints_what_training_found(finished):
    folder, done = finished
    evaluated = python_m("evaluate", folder)
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stdout.split()[1] == done.stdout.split()[2]  # the accuracy
    assert len(evaluated.stdout.splitlines()) == 3 + 10
    beside = python_m("evaluate", folder / "model", "--data", "digits")
    assert beside.stdout == evaluated.stdout


def test_predict_names_the_classes_of_picture_files(finished, tmp_path):
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    path = tmp_path / "zero.png"
    Image.fromarray((digits.images[0] * 255 / 16).round().astype(np.uint8)).save(path)
    (tmp_path / "text.png").write_text("no picture")
    done = python_m("predict", finished[0], path, "--top", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: 0 ")
    assert done.stdout.count("%") == 2
    broken = python_m("predict", finished[0], path, tmp_path / "text.png")
    assert broken.returncode == 1
    assert "text.png" in broken.stderr.splitlines()[-1]
    assert "Traceback" not in broken.stderr
