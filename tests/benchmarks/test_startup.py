"""`benchmarks.startup` and `benchmarks.time_to_accuracy`, with most of their processes replaced by fakes."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import startup, time_to_accuracy
from benchmarks.time_to_accuracy import TrainingResult, make_row
from eqxcnn.errors import InputError


@pytest.fixture
def fake_processes(monkeypatch):
    """Returns `replace_by(fake)`, which replaces processes by calls of `fake` and returns the list of commands."""
    commands = []

    def replace_by(fake):
        def run(command, **_):
            commands.append(command[1:])
            return fake(command)

        for module in (startup, time_to_accuracy):
            monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
        return commands

    return replace_by


def train_to(accuracy):
    """Returns a fake training process that writes the metrics of a run with this test accuracy."""

    def fake(command):
        folder = Path(command[command.index("--runs") + 1]) / "run"
        folder.mkdir()
        rows = [{"epoch": 1, "train_loss": 1.0}, {"test_accuracy": accuracy}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    return fake


def fail(command):
    return SimpleNamespace(returncode=1, stdout="", stderr="a warning\nerror: the disk is full\n")


def test_a_recipe_is_trained_for_each_seed(fake_processes, tmp_path):
    commands, out = fake_processes(train_to(0.9912)), tmp_path / "time.json"
    flags = ("--recipes", "mlp", "--data", "digits", "--accuracies", "0.99", "--seconds", "60", "--seeds", "2")
    time_to_accuracy.main([*flags, "--epochs", "2.5", "--out", str(out)])
    recipes = [[*command[2 : command.index("--runs")], *command[command.index("--epochs") :]] for command in commands]
    shared = ["--recipe", "mlp", "--data", "digits", "--seed"]
    assert recipes == [[*shared, seed, "--epochs", "2.5"] for seed in "01"]
    assert all(command[:2] == ["-m", "eqxcnn.train"] for command in commands)
    (table,) = json.loads(out.read_text())["tables"]
    (row,) = table["lines"]
    assert row[:6] == ["`mlp`", "2.5", "2", "99.12 ± 0.00", "99.12", ">= 99"]
    assert row[8:] == ["<= 60", "yes"]


def test_a_target_is_met_if_every_seed_meets_it():
    # Mean 99.1 and both 0.1 from it: the deviation is sqrt(2 * 0.01 / (2 - 1)) = 0.141.
    runs = [TrainingResult(20.0, 0.992), TrainingResult(29.0, 0.99)]
    assert make_row("a", 9.9, runs, 0.99, 30)[3:] == ("99.10 ± 0.14", "99.00", ">= 99", "24.5", "29.0", "<= 30", "yes")
    assert make_row("a", 9.9, runs[:1], 0.99, 30)[1:4] == ("9.9", "1", "99.20")
    assert make_row("a", None, runs, 0.991, 30)[1::8] == ("default", "no")
    assert make_row("a", 9.9, runs, 0.99, 28)[-1] == "no"


def test_lists_of_different_lengths_are_refused(fake_processes):
    commands = fake_processes(train_to(1.0))
    with pytest.raises(InputError, match=r"`seconds` \(=\(1.0, 2.0\)\) must have one item per recipe, 1"):
        time_to_accuracy.main(["--recipes", "mlp", "--accuracies", "0.9", "--seconds", "1", "2"])
    with pytest.raises(InputError, match=r"`seeds` \(=0\) must be 1 or more"):
        time_to_accuracy.main(["--seeds", "0"])
    assert commands == []


def test_a_failed_process_is_reported_with_its_last_line(fake_processes):
    fake_processes(fail)
    with pytest.raises(InputError, match="training `mlp` on `digits` with seed 0 failed with: error: the disk is"):
        time_to_accuracy.train("mlp", "digits", None, 0)
    with pytest.raises(InputError, match="training with `--model lenet` failed with: error: the disk is full"):
        startup.run_probe("--model", "lenet")


def test_moments_are_counted_from_the_start_of_the_process(fake_processes, monkeypatch):
    reported = json.dumps(
        {"moments": {"imported": 101.5, "ended": 110.0}, "peak": 640.0, "memory": [[1, 600.0], [2, 630.0]]}
    )
    fake_processes(lambda _: SimpleNamespace(returncode=0, stdout=f"test accuracy 97 %\n{reported}\n", stderr=""))
    monkeypatch.setattr(startup, "monotonic", lambda: 100.0)
    probe = startup.run_probe("--model", "lenet")
    assert probe == ({"imported": 1.5, "ended": 10.0}, 640.0, {1: 600.0, 2: 630.0})


@pytest.mark.slow
def test_the_probe_trains_and_reports_moments_in_order_and_memory():
    probe = startup.run_probe("--model", "mlp")
    moments = [probe.seconds[name] for name in startup.MOMENTS]
    assert moments[0] > 0
    assert moments == sorted(moments)
    assert list(probe.memory) == list(range(1, len(probe.memory) + 1))
    assert 100 < max(probe.memory.values()) <= probe.peak
