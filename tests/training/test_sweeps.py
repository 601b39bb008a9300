"""Runs the sweep examples of docs/training.md."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from eqxcnn.runs.folder import read_metrics

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
SWEEPS = PAGE.partition("## Sweeps")[2]

pytestmark = pytest.mark.slow


def code_block(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", SWEEPS, flags=re.MULTILINE | re.DOTALL)[0]


@pytest.mark.exhaustive
def test_shell_loop(tmp_path):
    script = code_block("bash").replace("python -m", f"{sys.executable} -m")
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    runs = list((tmp_path / "runs" / "rates").iterdir())
    assert len(runs) == 2
    assert all(read_metrics(run)[-1]["test_accuracy"] > 0.5 for run in runs)


def test_python_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(code_block("python"), namespace)
    runs = [read_metrics(run) for run in (tmp_path / "runs" / "search").iterdir()]
    best = max(max(row.get("validation_accuracy", 0) for row in rows) for rows in runs)
    assert len(runs) == 3
    assert namespace["study"].best_value == best
    assert "learning_rate" in capsys.readouterr().out
