"""Several processes give the same run as one process; they run on this machine and exchange sums over gloo."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).with_name("many_processes.py")
#: The fewest operations to compile: the processes of one test share two cores.
FAST = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def started(commands, **options):
    """Starts commands; at the end, kills the processes that are still running."""
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run_script(part, folder, count, devices=1, expect=0):
    """Runs a part of the script in `count` processes; returns the standard output and error of each process."""
    address = f"127.0.0.1:{free_port()}"
    commands = [[sys.executable, SCRIPT, part, folder, address, str(count), str(index)] for index in range(count)]
    with started(commands, env={**FAST, "EQXCNN_TEST_DEVICES": str(devices)}) as processes:
        printed = [process.communicate(timeout=280) for process in processes]
        assert [process.returncode for process in processes] == [expect] * count, (printed, read_logs(folder))
    return printed


def read_logs(folder):
    return "\n".join(path.read_text() for path in Path(folder).rglob("process-*.log"))


def run_alone(part, folder, devices=1):
    """Runs a part of the script in one process without peers."""
    done = subprocess.run(
        [sys.executable, SCRIPT, part, folder],
        capture_output=True, text=True, timeout=280, env={**FAST, "EQXCNN_TEST_DEVICES": str(devices)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return report(done.stdout)


def report(stdout):
    return json.loads(stdout.splitlines()[-1])


def train_commands(count, *arguments):
    address = f"127.0.0.1:{free_port()}"
    flags = ("--coordinator", address, "--processes", str(count))
    return [
        [sys.executable, "-m", "eqxcnn.train", *flags, "--process", str(index), *map(str, arguments)]
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One run in two processes with two devices each, the same run in one process, and what the two processes printed.

    Several tests share these runs, because starting and compiling take most of the time.
    """
    folder = tmp_path_factory.mktemp("shared")
    for name in ("one", "two"):
        rng = np.random.default_rng(0)
        for number in range(32):
            path = folder / name / "pictures" / "train" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    printed = run_script("shared", folder / "two", 2, devices=2)
    return run_alone("shared", folder / "one"), report(printed[0][0]), printed, folder / "two"


@pytest.mark.slow
def test_two_processes_of_two_devices_train_the_run_of_one(shared):
    one, two, printed, _ = shared
    assert (two["devices"], one["devices"]) == (4, 1)
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-5)
    assert printed[1] == ("", "")
    # Each process decodes its own half of every batch.
    assert two["photographs"] == pytest.approx(one["photographs"], rel=1e-5)
    assert two["shapes"][0] == [1, 4, 28, 28, 3]
    assert one["shapes"][0] == [1, 8, 28, 28, 3]


@pytest.mark.slow
def test_process_0_writes_logs_and_calls_the_callbacks(shared):
    one, two, _, folder = shared
    # The callback asks to stop after the first of three epochs.
    assert (one["calls"], two["calls"]) == ([1], [1, 0])
    assert two["epochs"] == 1
    run = folder / "files"
    assert {"recipe.yaml", "metrics.jsonl", "metrics.csv", "checkpoints", "best", "model", "process-1.log"} <= {
        path.name for path in run.iterdir()
    }
    assert len(run.joinpath("metrics.jsonl").read_text().splitlines()) == 2
    assert "test accuracy" not in run.joinpath("metrics.jsonl").read_text()


@pytest.mark.exhaustive
def test_images_on_every_device_streamed_or_split_are_the_same(tmp_path):
    one = run_alone("layouts", tmp_path)
    two = report(run_script("layouts", tmp_path, 2, devices=2)[0][0])
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    # Streamed or split by rows: the same images in the same order.
    for name in ("streamed", "split"):
        assert two[name] == pytest.approx(one["streamed"], rel=1e-5)
    assert two["is_split"]


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("count", "devices"), [(2, 1), (2, 2)])
def test_fifty_steps_in_two_processes(tmp_path, count, devices):
    one = run_alone("fifty", tmp_path / "one")
    two = [report(run_script("fifty", tmp_path / str(each), count, devices=devices)[0][0]) for each in (0, 1)]
    assert two[0] == two[1]
    for name in ("lenet", "resnet20"):
        assert two[0][name] == pytest.approx(one[name], rel=1e-5)


@pytest.mark.exhaustive
def test_a_sweep_of_seeds_and_a_dry_run_in_two_processes(tmp_path):
    found = report(run_script("sweep", tmp_path, 2)[0][0])
    assert found["seeds"] == ["0", "1"] or found["seeds"] == [0, 1]
    assert found["memory"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("different_recipe", "process 1 has a different recipe than process 0: `learning_rate` (1.02 and 0.02);"),
        ("different_data", "the `data` of process 1 differ from those of process 0"),
        ("different_version", "process 1 has version of eqxcnn 9.9, and process 0 has"),
        ("one_fails", "process 1: there is not enough memory (no more)"),
    ],
)
def test_a_process_that_differs_or_fails_ends_all(tmp_path, part, sentence):
    (_, error), other = run_script(part, tmp_path, 2, expect=1)
    assert error.count("error:") == 1
    assert sentence in error
    assert "Traceback" not in error
    assert other == ("", "")
    assert sentence in read_logs(tmp_path)


def wait_for_checkpoint(run, step, processes):
    """Waits until a run has a checkpoint of this step or a later one."""
    for _ in range(1200):
        found = [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()]
        if max(found, default=0) >= step:
            return
        assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
        time.sleep(0.1)
    raise TimeoutError("there is no checkpoint")


@pytest.mark.parametrize(
    "victims", [pytest.param([1], marks=pytest.mark.slow), pytest.param([0, 1], marks=pytest.mark.exhaustive)]
)
def test_a_run_stopped_and_killed_resumes_to_the_same_bytes(tmp_path, victims):
    # Four epochs of 13 steps.
    settings = (
        *("--model", "mlp", "--epochs", 4, "--train-images", 240, "--batch-size", 16),
        *("--checkpoint-seconds", 0, "--runs", tmp_path),
    )
    with started(train_commands(2, *settings, "--name", "whole"), env=FAST) as processes:
        for process in processes:
            assert process.wait(timeout=120) == 0, process.communicate()
    run = tmp_path / "stopped"
    # A preemption of one process makes both save the same step.
    with started(train_commands(2, *settings, "--name", "stopped"), env=FAST) as processes:
        wait_for_checkpoint(run, 4, processes)
        processes[1].send_signal(signal.SIGTERM)
        (_, error), _ = (process.communicate(timeout=60) for process in processes)
        assert [process.returncode for process in processes] == [143, 143]
        assert "stopped by SIGTERM and saved; continue with --resume" in error
    saved = max(int(path.name) for path in run.glob("checkpoints/*"))
    for victim in victims:
        teller = 1 - victim
        with started(train_commands(2, "--resume", run), env=FAST) as processes:
            saved += 4
            wait_for_checkpoint(run, saved, processes)
            processes[victim].kill()
            _, error = processes[teller].communicate(timeout=60)
            assert processes[teller].returncode != 0
            lost = rf"error: process {victim} of the 2 of this run on \S+ has ended before its work was done"
            assert re.search(lost, error), error
            assert f"continue with --resume {run}" in error
    with started(train_commands(2, "--resume", run), env=FAST) as processes:
        for process in processes:
            assert process.wait(timeout=120) == 0, process.communicate()
    whole, stopped = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
    rows = [json.loads(line) for line in run.joinpath("metrics.jsonl").read_text().splitlines()]
    assert [row.get("epoch") for row in rows] == [1, 2, 3, 4, None]


@pytest.mark.slow
def test_processes_that_do_not_meet_say_so(tmp_path):
    commands = train_commands(2, "--model", "mlp", "--join-timeout", 2, "--runs", tmp_path)
    for command, sentence in (
        (commands[0], "process 1 of 2 did not connect to process 0 within 2 s"),
        (commands[1], "process 1 could not connect to process 0 at 127.0.0.1:"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert sentence in done.stderr + read_logs(tmp_path)
        assert "Traceback" not in done.stderr + read_logs(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_checkpoints_restore_in_other_numbers_of_processes(tmp_path):
    settings = (
        *("--model", "mlp", "--epochs", 6, "--batch-size", 32, "--checkpoint-seconds", 0, "--runs", tmp_path),
        *("--optimizer", "sgd", "--learning-rate", 0.02),
    )
    plain = [sys.executable, "-m", "eqxcnn.train"]
    subprocess.run([*plain, *map(str, settings), "--name", "whole"], check=True, env=FAST, timeout=120)
    run, saved = tmp_path / "moved", 0
    # Two processes with two devices each, then one device, then two processes with one device each.
    four = {**FAST, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    for commands, environment in (
        (train_commands(2, *settings, "--name", "moved"), four),
        ([[*plain, "--resume", str(run)]], FAST),
        (train_commands(2, "--resume", run), FAST),
    ):
        with started(commands, env=environment) as processes:
            if saved < 80:
                saved += 40
                wait_for_checkpoint(run, saved, processes)
                processes[-1].send_signal(signal.SIGTERM)
            codes = [process.wait(timeout=120) for process in processes]
            assert codes in ([143] * len(codes), [0] * len(codes)), [process.communicate() for process in processes]
    assert codes == [0, 0]
    rows = [
        [json.loads(line) for line in tmp_path.joinpath(name, "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "moved")
    ]
    for one, other in zip(*rows, strict=True):
        names = [name for name in one if name.endswith(("loss", "accuracy"))]
        assert [other[name] for name in names] == pytest.approx([one[name] for name in names], rel=1e-4)
