"""The commands and programs of docs/serve.md, against a running service."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import tyro

from eqxcnn.serve.__main__ import Options
from tests.serve.conftest import lenet, running
from tests.serve.test_service import ONE, SEVEN

__all__ = ["lenet"]

pytestmark = pytest.mark.usefixtures("fast_compilation")

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def address(lenet):
    with running(lenet) as (_, client):
        yield str(client.base_url).rstrip("/")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("seven.png").write_bytes(SEVEN)
    Path("one.png").write_bytes(ONE)


def test_the_python_example_prints_the_class(address, capsys):
    (block,) = blocks("python")
    assert ADDRESS in block
    exec(compile(block.replace(ADDRESS, address), "serve.md", "exec"), {})
    assert re.fullmatch(r"7: \d\d\.\d%\n", capsys.readouterr().out)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_commands_are_answered(address):
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl ")]
    assert all(ADDRESS in command for command in commands)
    *predictions, health, metrics = [
        subprocess.run(
            ["bash", "-c", command.replace("curl ", "curl -sS ").replace(ADDRESS, address)],
            capture_output=True, check=True, text=True,
        ).stdout
        for command in commands
    ]  # fmt: skip
    found = [[each["classes"][0]["name"] for each in json.loads(answer)["predictions"]] for answer in predictions]
    assert found == [["7"], ["7", "1"], ["7"]]
    assert json.loads(health)["status"] == "ready"
    (shown,) = blocks("json")
    answer = json.loads(predictions[-1])
    assert [list(each) for each in (answer, answer["predictions"][0]["classes"][0])] == [
        list(each) for each in (json.loads(shown), json.loads(shown)["predictions"][0]["classes"][0])
    ]
    listed = set(re.findall(r"^\| `(eqxcnn_\w+)` \|", PAGE, re.MULTILINE))
    assert listed == set(re.findall(r"^# HELP (\w+)", metrics, re.MULTILINE))


def test_the_defaults_and_the_commands_of_the_page():
    starts = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python ")]
    (dockerfile,) = blocks("dockerfile")
    starts.append(shlex.join(json.loads(re.search(r"^CMD (.*)$", dockerfile, re.MULTILINE)[1])))
    for start in starts:
        options = tyro.cli(Options, args=start.removeprefix("python -m eqxcnn.serve ").split())
        assert options.port == 8000
    assert options.host == "0.0.0.0"
    for flag, words in (
        ("max_pixels", "16 million"), ("max_bytes", "16 million"), ("timeout", "30 seconds"), ("queue", "256"),
        ("max_batch", "32"),
    ):  # fmt: skip
        number = float(words.split()[0]) * (1e6 if "million" in words else 1)
        assert getattr(options, flag) == number
        assert re.search(rf"`--{flag.replace('_', '-')}`,? \(?{words} by\s+default", PAGE), flag
