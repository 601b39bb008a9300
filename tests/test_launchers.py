"""The commands and manifests of docs/many_machines.md use flags and variables that the package reads."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from eqxcnn.recipe.command_line import parse_flags
from eqxcnn.runtime.processes import _find_place

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_command_on_the_page_parses():
    found = [line for block in blocks("sh") for line in block.splitlines() if "eqxcnn.train" in line]
    assert len(found) == 5
    for line in found:
        words = shlex.split(line.replace('"', ""), comments=True)
        flags = parse_flags(words[words.index("eqxcnn.train") + 1 :])
        assert flags.recipe == "airbench94"


def test_the_job_set_gives_each_pod_its_place(monkeypatch):
    (manifest,) = (each for each in map(yaml.safe_load, blocks("yaml")) if each["kind"] == "JobSet")
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    variables = {each["name"]: each for each in container["env"]}
    assert variables["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"].endswith("job-completion-index']")
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"):
        monkeypatch.setenv(name, variables[name]["value"])
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    place = _find_place(None, None, None, timeout=1.0)
    # JobSet names pod i of the job `JOBSET-REPLICATED-0` with the suffix `-i`, in the subdomain of the set's name.
    name = manifest["metadata"]["name"]
    assert place.coordinator.partition(":")[0] == f"{name}-{replicated['name']}-0-0.{name}"
    assert (place.count, place.index) == (job["parallelism"], 3)
    assert job["completions"] == job["parallelism"]
    assert f"runs/{name}" in container["args"][0]
    assert subprocess.run(["sh", "-n", "-c", container["args"][0]]).returncode == 0


def test_the_train_job_starts_training():
    (manifest,) = (each for each in map(yaml.safe_load, blocks("yaml")) if each["kind"] == "TrainJob")
    _, _, module, *arguments = manifest["spec"]["trainer"]["command"]
    assert module == "eqxcnn.train"
    assert parse_flags(arguments).recipe == "airbench94"


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "launchers").iterdir()), ids=lambda path: path.name)
def test_the_scripts_are_valid(path):
    assert subprocess.run([shutil.which("bash"), "-n", path]).returncode == 0
