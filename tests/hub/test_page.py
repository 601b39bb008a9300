"""The commands and examples of docs/hub.md, in their order, against a fake Hub."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import eqxcnn
from tests.hub.conftest import commands_in

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "hub.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
#: The commit in the examples.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def serve(arguments, environment):
    """Starts the service, and returns its first line of output."""
    command = [sys.executable, "-m", "eqxcnn.serve", *arguments, "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            return process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.timeout(900)
def test_the_commands_and_examples_run_in_order(hub, environment, tmp_path):
    """Runs the page's commands with a user of the fake Hub, and with shorter training on the bundled digits."""
    Image.new("L", (28, 28)).save(tmp_path / "digit.png")
    output = {}

    def run_line(line, run):
        line = re.sub(r"\buser/", "ann/", line).replace("RUN", output.get("folder", "RUN"))
        program, *arguments = shlex.split(line.removeprefix("python -m eqxcnn."))
        if program == "serve":
            assert serve(arguments, environment).startswith(f"compiling {arguments[0]}, then serving")
            return
        file = arguments.pop() if ">" in arguments else None
        if program == "train":
            arguments = [each.replace("mnist", "digits") for each in arguments] + ["--epochs", "1"]
        if "v1.0" in arguments:
            hub.repositories["ann/lenet-digits"]["branches"]["v1.0"] = output["commit"]
        code, printed, errors = run(program, *(each for each in arguments if each != ">"))
        assert code == 0, (line, errors)
        if program == "train":
            output["folder"] = str(max((tmp_path / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns))
        elif match := re.fullmatch(r"hub:ann/lenet-digits@([0-9a-f]{40})\n", printed):
            output["commit"] = match[1]
        if file:
            (tmp_path / file).write_text(printed, encoding="utf-8")

    with commands_in(tmp_path, environment) as run:
        for language, block in BLOCKS:
            if language == "bash":
                for line in block.splitlines():
                    run_line(line, run)
            else:
                code = re.sub(r"\buser/", "ann/", block).replace(COMMIT, output["commit"])
                done = ["import eqxcnn", code, "print(classifier.name)"]
                shown = subprocess.run(
                    [sys.executable, "-c", "\n".join(done)],
                    cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
                ).stdout  # fmt: skip
                assert shown == "lenet\n"
    for name in ("lenet-digits", "lenet-digits-v1"):
        assert eqxcnn.load(tmp_path / name).name == "lenet"
    assert {language for language, _ in BLOCKS} == {"bash", "python"}
