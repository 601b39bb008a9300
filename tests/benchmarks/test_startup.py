"""`benchmarks.startup` and `benchmarks.time_to_accuracy`: what they make of the processes that they start."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import startup, time_to_accuracy
from benchmarks.time_to_accuracy import Trained, line
from eqxcnn.errors import InputError


@pytest.fixture
def processes(monkeypatch):
    """Stands in for processes: keeps their commands, and answers each by a function of the command."""
    commands = []

    def answer_by(answer):
        def run(command, **_):
            commands.append(command[1:])
            return answer(command)

        for module in (startup, time_to_accuracy):
            monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
        return commands

    return answer_by


def finished(accuracy):
    """A process that trains: leaves a run with this accuracy where it was told to."""

    def answer(command):
        folder = Path(command[command.index("--runs") + 1]) / "run"
        folder.mkdir()
        rows = [{"epoch": 1, "train_loss": 1.0}, {"test_accuracy": accuracy}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    return answer


def failed(command):
    return SimpleNamespace(returncode=1, stdout="", stderr="a warning\nerror: the disk is full\n")


def test_a_recipe_is_trained_for_each_seed(processes, tmp_path):
    commands, out = processes(finished(0.9912)), tmp_path / "time.json"
    chosen = ("--recipes", "mlp", "--data", "digits", "--accuracies", "0.99", "--seconds", "60", "--seeds", "2")
    time_to_accuracy.main([*chosen, "--out", str(out)])
    flags = [command[2 : command.index("--runs")] for command in commands]
    assert flags == [["--recipe", "mlp", "--data", "digits", "--seed", seed] for seed in "01"]
    assert all(command[:2] == ["-m", "eqxcnn.train"] for command in commands)
    (table,) = json.loads(out.read_text())["tables"]
    (row,) = table["lines"]
    assert row[:5] == ["`mlp`", "2", "99.12 ± 0.00", "99.12", ">= 99"]
    assert row[7:] == ["<= 60", "yes"]


def test_a_target_is_met_when_every_seed_meets_it():
    # Mean 99.1 and both 0.1 from it: the deviation is sqrt(2 * 0.01 / (2 - 1)) = 0.141.
    runs = [Trained(20.0, 0.992), Trained(29.0, 0.99)]
    assert line("a", runs, 0.99, 30)[2:] == ("99.10 ± 0.14", "99.00", ">= 99", "24.5", "29.0", "<= 30", "yes")
    assert line("a", runs[:1], 0.99, 30)[1:3] == ("1", "99.20")
    assert line("a", runs, 0.991, 30)[-1] == "no"
    assert line("a", runs, 0.99, 28)[-1] == "no"


def test_lists_of_different_lengths_are_refused(processes):
    commands = processes(finished(1.0))
    with pytest.raises(InputError, match=r"`seconds` \(=\(1.0, 2.0\)\) must be as many as the recipes, 1"):
        time_to_accuracy.main(["--recipes", "mlp", "--accuracies", "0.9", "--seconds", "1", "2"])
    with pytest.raises(InputError, match=r"`seeds` \(=0\) must be 1 or more"):
        time_to_accuracy.main(["--seeds", "0"])
    assert commands == []


def test_a_process_that_fails_is_told_by_its_last_line(processes):
    processes(failed)
    with pytest.raises(InputError, match="training `mlp` on `digits` with seed 0 failed, and said: error: the disk is"):
        time_to_accuracy.train("mlp", "digits", 0)
    with pytest.raises(InputError, match="training `lenet` failed, and said: error: the disk is full"):
        startup.start("lenet")


def test_moments_are_counted_from_the_start_of_the_process(processes, monkeypatch):
    told = json.dumps({"imported": 101.5, "ended": 110.0, "megabytes": 640.0})
    processes(lambda _: SimpleNamespace(returncode=0, stdout=f"test accuracy 97 %\n{told}\n", stderr=""))
    monkeypatch.setattr(startup, "monotonic", lambda: 100.0)
    assert startup.start("lenet") == {"imported": 1.5, "ended": 10.0, "megabytes": 640.0}


@pytest.mark.slow
def test_the_probe_trains_and_tells_its_moments_in_order():
    told = startup.start("mlp")
    moments = [told[name] for name in startup._MOMENTS]
    assert moments[0] > 0
    assert moments == sorted(moments)
    # No upper bound: to Linux, a process has had what its parent had when it was started.
    assert told["megabytes"] > 100
