"""Tests of the command lines with real processes, folders and signals."""

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

from eqxcnn import evaluate, predict, train
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.runs.folder import Run, read_metrics
from eqxcnn.training import Recipe, list_recipes

#: Three epochs of 12 steps.
QUICK = ("--model", "lenet", "--epochs", "3", "--train-images", "900")


def python_m(module, *arguments, **options):
    """Runs `python -m eqxcnn.MODULE` and waits for it."""
    command = [sys.executable, "-m", f"eqxcnn.{module}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)


def run_main(main, arguments, capsys):
    """Runs a command in this process; returns the exit code, standard output and standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["eqxcnn", *map(str, arguments)])
        try:
            run_command(main)
            code = 0
        except SystemExit as stop:
            code = stop.code
    return code, *capsys.readouterr()


def only_run(runs: Path) -> Path:
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """An uninterrupted run of three epochs and its completed process."""
    runs = tmp_path_factory.mktemp("runs")
    process = python_m("train", *QUICK, "--runs", runs)
    assert process.returncode == 0, process.stderr
    return only_run(runs), process


@pytest.mark.slow
def test_run_without_data_reports_that_it_uses_the_digits(finished_run):
    _, process = finished_run
    assert "--data mnist" in process.stderr
    assert "test accuracy" in process.stdout


@pytest.mark.slow
def test_redirected_output_has_one_plain_line_per_epoch(finished_run):
    _, process = finished_run
    lines = [line for line in process.stderr.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert "\x1b" not in process.stderr


@pytest.mark.slow
def test_run_folder_holds_recipe_metrics_environment_and_model(finished_run):
    folder, _ = finished_run
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


def start_training(runs, step, *arguments):
    """Starts or resumes training with a checkpoint at every step; after `step`, returns process and run folder."""
    arguments = arguments or (*QUICK, "--runs", str(runs), "--checkpoint-seconds", "0")
    command = [sys.executable, "-m", "eqxcnn.train", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        steps = [int(path.name) for path in runs.glob("*/checkpoints/*") if path.name.isdigit()]
        if steps and max(steps) >= step:
            return process, only_run(runs)
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"training did not reach step {step}: {process.communicate()[1]}")


def assert_stops_with_a_hint(process, folder, number, code):
    """Sends a signal; the run must end with this exit code and with a last line that tells how to continue the run."""
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr.splitlines()[-1].endswith(f"continue with --resume {folder}")
    assert "Traceback" not in stderr


def assert_resumes_like(folder, finished_run):
    """Resumes the run; weights and metrics must equal those of the uninterrupted run."""
    resumed = python_m("train", "--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    weights = [run / "model" / "model.safetensors" for run in (folder, finished_run)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    varying = ("seconds", "images_per_second", "wall_seconds", "from_step")
    rows = [
        [{name: value for name, value in row.items() if name not in varying} for row in read_metrics(run)]
        for run in (folder, finished_run)
    ]
    assert rows[0] == rows[1]
    assert read_metrics(folder)[-1]["from_step"] > read_metrics(finished_run)[-1]["from_step"] == 0
    return resumed


@pytest.mark.slow
def test_run_that_is_killed_and_then_terminated_resumes_to_the_same_bytes(tmp_path, finished_run):
    process, folder = start_training(tmp_path, 14)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "model").exists()
    last = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    process, _ = start_training(tmp_path, last + 2, "--resume", str(folder))
    assert_stops_with_a_hint(process, folder, signal.SIGTERM, 143)
    assert_resumes_like(folder, finished_run[0])


@pytest.mark.exhaustive
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_sigint_and_sigterm_save_and_print_the_resume_command(tmp_path, finished_run, number, code):
    process, folder = start_training(tmp_path, 14)
    assert_stops_with_a_hint(process, folder, number, code)
    assert_resumes_like(folder, finished_run[0])


@pytest.mark.exhaustive
def test_truncated_newest_checkpoint_is_named_and_the_previous_one_used(tmp_path, finished_run):
    process, folder = start_training(tmp_path, 14)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    newest = max(
        (path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    resumed = assert_resumes_like(folder, finished_run[0])
    assert str(newest) in resumed.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "lenett"], "no model named `lenett`; did you mean `lenet`"),
        (["--learning-rate", "-1"], "`learning_rate` (=-1.0) must be above 0"),
        (["--batch-size", "0"], "`batch_size` (=0) must be from 1 to 1000000"),
        (["--batch-size", "5000"], "`batch_size` (=5000) is more than the 1,295 training images"),
        (["--image-size", "8", "8"], "too small for `lenet`: the smallest size is 12x12"),
        (["--data", "nosuch"], "nosuch"),
        (["--recipe", "lenett"], "no recipe named `lenett`; did you mean `lenet`"),
        (["--augment", "flip_horizontl"], "flip_horizontl"),
        (["--mean", "0.5", "0.5", "--std", "1", "1"], "`mean` (=[0.5, 0.5]) must have one number per channel"),
        (["--resume", "nowhere"], "`nowhere` is not a run folder"),
        (["--resume", "nowhere", "--epochs", "3"], "start a new run from its weights with `--init-from nowhere`"),
        (["--seeds", "0"], "`seeds` (=0) must be from 1 to 1000"),
        (["--seeds", "1000000000"], "`seeds` (=1000000000) must be from 1 to 1000"),
        (["--mean", "nan", "--std", "1"], "`mean` (=(nan,)) must be from -1000 to 1000 in every item (item 1 is nan)"),
        (["--epochs", "1e18"], "`epochs` (=1e+18) must be above 0 and at most 1000000"),
        (["--epochs", "1e6", "--batch-size", "1", "--train-images", "200000"], "`train_images` (=200000) is more than"),
        (["--accumulate-steps", "100000000000"], "`accumulate_steps` (=100000000000) must be from 1 to 1000000"),
        (["--image-size", "100000", "100000"], "must be from 1 to 4096 in every item (item 1 is 100000)"),
        (["--augment", "random_crop(padding=1000000000)"], "`padding` (=1000000000) of `random_crop` must be from 0"),
        (["--augment", "random_crop(padding=40)"], "`padding` (=40) must be at most the image's height and width"),
        (["--augment", "cutout(size=40)"], "`size` (=40) of `cutout` must be at most the image's 28x28"),
        (["--augment", "1+" * 10_000], "must be a string of at most 4096 characters (it has 20000) in every item"),
        (["--augment", "1+" * 1000], "has 2000 characters: write at most 500"),
        (["--architecture", "hidden=" + "1+" * 1000], "`hidden` in `architecture` has 2000 characters"),
        (["--architecture", "hidden=" + "(" * 500], "`hidden` in `architecture`"),
        (["--learning-rate-factors", "a=" + "1" * 50_000 + "!"], "`learning_rate_factors` (="),
        (["--resume", "x" * 300], "is not a run folder: it has no recipe.yaml"),
        (["--resume", "/dev/null"], "`/dev/null` is not a run folder"),
        (["--resume", "a\0b"], "`resume` (=PosixPath('a\\x00b')) must be a string without NUL characters"),
        (["--runs", "a\0b"], "must be a string without NUL characters"),
        (["--runs", "/dev/null"], "cannot be made: Not a directory"),
        (["--runs", "x" * 300], "cannot be made: File name too long"),
        (["--recipe", "x" * 300], "there is no recipe named `xxx"),
        (["--recipe", "x" * 300 + ".yaml"], "cannot be read: File name too long"),
        (["--recipe", "a\0.yaml"], "embedded null"),
        (["--recipe", "."], "is not a regular file"),
        (["--recipe", "/dev/zero"], "`/dev/zero` is not a regular file"),
        (["--recipe", "~nosuch/x"], "no recipe named `~nosuch/x`"),
        (["--init-from", "~nosuch/x"], "`init_from` (='~nosuch/x') does not exist"),
        (["--init-from", "x" * 300], "does not exist: give a finished run"),
        (["--init-from", "\udce9"], "`init_from` (='\\udce9') must be valid UTF-8 text"),
        (["--init-from", "nowhere"], "`init_from` (='nowhere') does not exist"),
        (["--dry-run", "--no-jit"], "a dry run measures compiled steps"),
    ],
)
def test_invalid_arguments_give_one_sentence_and_exit_code_1(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, stderr = run_main(train.main, arguments, capsys)
    assert code == 1
    last = stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last
    assert not (tmp_path / "runs").exists()


def test_misspelled_flag_suggests_the_nearest(capsys):
    code, _, stderr = run_main(train.main, ["--modle", "lenet"], capsys)
    assert code == 2
    assert "--model" in stderr


def test_flag_without_a_value_is_a_parser_error(capsys):
    assert run_main(train.main, ["--recipe"], capsys)[0] == 2


def test_help_lists_settings(capsys):
    code, stdout, _ = run_main(train.main, ["--help"], capsys)
    assert code == 0
    for flag in ("--model", "--data", "--recipe", "--resume", "--learning-rate", "--on-bad-image"):
        assert flag in stdout


@pytest.mark.slow
def test_finished_run_is_not_resumed(finished_run, capsys):
    code, _, stderr = run_main(train.main, ["--resume", finished_run[0]], capsys)
    assert code == 1
    assert "is finished" in stderr


@pytest.mark.slow
def test_flags_override_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model: mlp\nepochs: 1\nbatch_size: 32\nseed: 3\n")
    code, _, stderr = run_main(train.main, ["--recipe", "mine.yaml", "--batch-size", "128"], capsys)
    assert code == 0, stderr
    recipe = yaml.safe_load((only_run(tmp_path / "runs") / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["batch_size"], recipe["seed"]) == ("mlp", 128, 3)


@pytest.mark.slow
def test_seed_sweep_prints_mean_and_deviation_and_refuses_to_resume_when_finished(tmp_path, capsys):
    arguments = ["--model", "mlp", "--epochs", "1", "--seeds", "2", "--runs", tmp_path, "--name", "two"]
    code, stdout, stderr = run_main(train.main, arguments, capsys)
    assert code == 0, stderr
    folder = only_run(tmp_path)
    assert folder.name == "two"
    summary = json.loads((folder / "seeds.json").read_text())
    assert f"test accuracy {summary['mean']:.2%} ± {summary['deviation']:.2%}, mean and deviation of 2 seeds" in stdout
    code, _, stderr = run_main(train.main, ["--resume", folder], capsys)
    assert (code, stderr.splitlines()[-1][:6]) == (1, "error:")


@pytest.mark.slow
def test_dry_run_prints_time_and_memory_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = run_main(train.main, ["--dry-run", "--model", "mlp"], capsys)
    assert code == 0, stderr
    assert re.search(r"101,770 parameters; compiled in .* s; a step takes .* ms .*; .* MiB of memory", stdout)
    assert list(tmp_path.iterdir()) == []


def test_list_recipes_prints_every_recipe(capsys):
    _, stdout, _ = run_main(train.main, ["--list-recipes"], capsys)
    names = [line.split()[0] for line in stdout.splitlines()]
    assert names == list_recipes()


def test_runs_created_in_one_second_have_different_folders(tmp_path):
    folders = set()
    for _ in range(3):
        with Run.create(tmp_path, Recipe(), "digits") as run:
            folders.add(run.folder)
    assert len(folders) == 3


def test_full_disk_error_while_logging_names_the_file(tmp_path):
    with Run.create(tmp_path, Recipe(), "digits") as run:
        (run.folder / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(InputError, match=r"metrics\.jsonl` cannot be written: No space left on device"):
            run.log({"epoch": 1})


def test_run_is_locked_by_one_process_at_a_time(tmp_path):
    with Run.create(tmp_path, Recipe(), "digits") as run:
        process = python_m("train", "--resume", run.folder)
        assert process.returncode == 1
        assert process.stderr.startswith("error: another process is training")
    with pytest.raises(InputError, match=r"is not a run folder"):
        Run.open(tmp_path)


@pytest.mark.slow
def test_evaluate_prints_the_test_accuracy_of_training(finished_run, capsys):
    folder, process = finished_run
    evaluated = python_m("evaluate", folder)
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stdout.split()[1] == process.stdout.split()[2]  # the accuracy
    assert len(evaluated.stdout.splitlines()) == 3 + 10
    _, with_data, _ = run_main(evaluate.main, [folder / "model", "--data", "digits"], capsys)
    assert with_data == evaluated.stdout


@pytest.mark.slow
def test_predict_prints_the_classes_of_image_files(finished_run, tmp_path, capsys):
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    path = tmp_path / "zero.png"
    Image.fromarray((digits.images[0] * 255 / 16).round().astype(np.uint8)).save(path)
    (tmp_path / "text.png").write_text("no picture")
    process = python_m("predict", finished_run[0], path, "--top", "2")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"{path}: 0 ")
    assert process.stdout.count("%") == 2
    code, stdout, stderr = run_main(predict.main, [finished_run[0], path, tmp_path / "text.png"], capsys)
    assert code == 1
    assert stdout.startswith(f"{path}: 0 ")  # The readable image is not lost.
    assert "text.png" in stderr.splitlines()[-2]
    assert stderr.splitlines()[-1] == "error: 1 of 2 images could not be read"
    assert "Traceback" not in stderr
