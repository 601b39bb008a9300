import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hub.fake_hub import FakeHub

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hub():
    """A fake Hub on loopback."""
    with FakeHub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def environment(hub, tmp_path_factory):
    """Environment variables for a process that uses the Hub. The Hub's client reads them when it is imported."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_HUB_DISABLE_XET": "1",
        # The machine may be busy.
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
        "HF_HUB_ETAG_TIMEOUT": "60",
        "HF_TOKEN": "hf_ann",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(ROOT),
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def commands_in(folder, environment):
    """Yields a function that runs a command of the package in a folder, as the fixture `run` does."""
    command = [sys.executable, "-m", "tests.hub.commands"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:

        def run_one(name, *arguments, **variables):
            module = {"hub": "eqxcnn.hub.__main__"}.get(name, f"eqxcnn.{name}")
            variables = {"HF_TOKEN": "hf_ann", **variables}
            process.stdin.write(json.dumps([module, list(map(str, arguments)), variables]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run_one
        process.stdin.close()


@pytest.fixture(scope="module")
def run(environment, tmp_path_factory):
    """Runs a command of the package, `run("predict", ...)`; returns exit code, standard output and standard error."""
    # An empty working directory, so that no folder of the checkout is taken for a model.
    with commands_in(tmp_path_factory.mktemp("work"), environment) as run:
        yield run
