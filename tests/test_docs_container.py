"""Tests the Dockerfile of docs/serve.md without Docker: its files, installation, command and health check."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

import eqxcnn
from tests.serve.test_service import SEVEN
from tests.serve.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")
(DOCKERFILE,) = re.findall(r"^```dockerfile\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
#: The instructions in their order, as pairs of a name and its arguments.
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in DOCKERFILE.splitlines()]


def arguments(name):
    return [text for found, text in INSTRUCTIONS if found == name]


def copies():
    """Returns pairs: a path in the checkout, and its destination in the container image."""
    pairs = []
    for text in arguments("COPY"):
        *sources, target = text.split()
        # With a slash at its end, the destination is a folder for the sources; otherwise, it is the copy itself.
        assert len(sources) == 1 or target.endswith("/")
        pairs += [(source, target + Path(source).name if target.endswith("/") else target) for source in sources]
    return pairs


def test_the_copied_files_are_those_that_the_build_reads():
    sources = [source for source, _ in copies()]
    assert all((ROOT / source).exists() for source in sources if source != "model")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    named = set(re.findall(r'^readme = "(.+)"$|^license-files = \["(.+)"\]$', project, re.MULTILINE))
    assert {name for pair in named for name in pair if name} <= set(sources)


def test_the_python_of_the_image_is_one_that_the_ci_tests():
    (version,) = re.findall(r"^python:(3\.\d+)-slim$", "\n".join(arguments("FROM")), re.MULTILINE)
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    (setup,) = [step for step in workflow["jobs"]["run"]["steps"] if "setup-python" in step.get("uses", "")]
    assert version in setup["with"]["python-version"].split()


def test_the_service_runs_as_a_user_without_rights():
    names = [name for name, _ in INSTRUCTIONS]
    (user,) = arguments("USER")
    assert any(re.fullmatch(rf"useradd --system .*\b{user}", each) for each in arguments("RUN"))
    assert names.index("USER") < names.index("CMD")


def test_the_commands_copy_the_model_and_publish_the_port():
    copy, build, run = re.findall(r"^(?:cp|docker) .+$", PAGE, re.MULTILINE)
    assert copy.split()[-1] in [source for source, _ in copies()]
    (exposed,) = arguments("EXPOSE")
    assert f"-p {exposed}:{exposed}" in run
    assert run.split()[-1] == build.split()[build.split().index("-t") + 1]


@contextmanager
def started(command, **options):
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_the_dockerfile_installs_and_serves(tmp_path):
    """Runs the Dockerfile's instructions in a temporary folder; a virtual environment replaces its Python."""
    eqxcnn.save(tmp_path / "context" / "model", eqxcnn.load("lenet"))
    image, programs = tmp_path / "image", tmp_path / "environment" / "bin"
    for source, target in copies():
        target = image / target.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((tmp_path / "context" if source == "model" else ROOT) / source)

    def mapped(words):
        words = [re.sub(r"^(?=/)", str(image), word) for word in words]
        return [str(programs / words[0]), *words[1:]]

    # Packages of the checkout and of the test's environment must not be found.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    (install,) = [shlex.split(each) for each in arguments("RUN") if each.startswith("pip ")]
    subprocess.run(mapped(install), cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)

    (exposed,), (command,), (check,) = arguments("EXPOSE"), arguments("CMD"), arguments("HEALTHCHECK")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    assert f"127.0.0.1:{exposed}/" in check
    check = mapped(json.loads(check.partition(" CMD ")[2].replace(f":{exposed}/", f":{port}/")))

    def is_healthy():
        return subprocess.run(check, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL).returncode == 0

    assert not is_healthy()
    with started([*mapped(json.loads(command)), "--port", port], cwd=tmp_path, env=environment) as service:
        wait_until(lambda: service.poll() is None and is_healthy(), 300)
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=SEVEN, timeout=60, trust_env=False)
        assert answer.json()["predictions"][0]["classes"][0]["name"] == "7"
