"""`benchmarks/gpu.sh`, on a machine without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def run(out, **environment):
    environment = os.environ | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run([SCRIPT, "digits", out], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_machine_without_a_gpu_is_refused(tmp_path):
    done = run(tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("error: JAX has found no GPU on this machine (only cpu cpu): install JAX for your GPU\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.exhaustive
def test_a_rehearsal_on_a_cpu_writes_both_results(tmp_path):
    done = run(tmp_path, EQXCNN_GPU_REHEARSAL="1")
    assert done.returncode == 0, done.stderr
    accuracy, steps = (
        json.loads((tmp_path / f"{name}_gpu.json").read_text()) for name in ("time_to_accuracy", "throughput")
    )
    assert accuracy["tables"][0]["lines"][0][:2] == ["`mlp`", "1"]
    assert [table["head"][1] for table in steps["tables"]] == ["images/s", "peak memory on the device, GiB"]
