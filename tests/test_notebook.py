"""Executes the tutorial notebook as Jupyter does, and interrupts its kernel."""

import re
import time
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"

pytestmark = pytest.mark.slow
nbformat = pytest.importorskip("nbformat", reason="needs nbclient: pip install '.[dev]'")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install '.[dev]'")


def outputs(cell, kind):
    return [output["data"][kind] for output in cell["outputs"] if kind in output.get("data", {})]


def test_tutorial_runs_and_shows_its_figures(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    started = time.monotonic()
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    seconds = time.monotonic() - started
    by_source = {cell["source"]: cell for cell in notebook.cells if cell["cell_type"] == "code"}
    for source in ("result.plot()", "result.confusion()"):
        assert outputs(by_source[source], "image/png")
    (shown,) = [outputs(cell, "text/plain") for source, cell in by_source.items() if source.endswith("\nresult")]
    assert re.fullmatch(
        r"Result\(9\d\.\d\d% of 397 test images classified correctly, folder 'runs/Net-own-.*'\)", shown[-1]
    )
    # Two minutes on an idle laptop; a test machine may be busy.
    assert seconds < 240


@pytest.mark.exhaustive
def test_interrupted_kernel_keeps_the_run(tmp_path):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(source)
        for source in (
            "import os, signal, threading, eqxcnn\n"
            "threading.Timer(8, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
            "recipe = eqxcnn.Recipe(model='mlp', epochs=100_000, schedule='constant')\n"
            "try:\n    eqxcnn.fit(recipe, name='run')\n"
            "except eqxcnn.training.Interrupted as stop:\n    print(stop)",
            "import asyncio\nassert asyncio.get_running_loop()\n"
            "import concurrent.futures\n"
            "short = eqxcnn.Recipe(model='mlp', epochs=1)\n"
            "with concurrent.futures.ThreadPoolExecutor() as pool:\n"
            "    print(pool.submit(eqxcnn.fit, short, name='thread').result())",
        )
    ]
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    first, second = ("".join(output.get("text", "") for output in cell["outputs"]) for cell in notebook.cells)
    assert "stopped by SIGINT and saved" in first
    assert any(path.name.isdigit() for path in (tmp_path / "runs" / "run" / "checkpoints").iterdir())
    assert "Result(" in second
