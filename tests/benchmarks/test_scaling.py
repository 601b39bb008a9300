"""`python -m benchmarks.scaling`: its plan compared with a hand-worked case, and a small measurement."""

import json

import pytest

from benchmarks import scaling
from benchmarks.scaling_worker import find_sums

PROGRAM = """
  %add.1 = f32[10,3]{1,0} add(f32[10,3]{1,0} %a, f32[10,3]{1,0} %b)
  %all-reduce.5 = f32[] all-reduce(f32[] %x), channel_id=1, replica_groups={{0,1}}
  %all-reduce.6 = (f32[3,3,16]{2,1,0}, bf16[7]{0}) all-reduce(f32[3,3,16]{2,1,0} %y, bf16[7]{0} %z), channel_id=2
  %all-reduce-start.1 = s32[4]{0} all-reduce-start(s32[4]{0} %w), channel_id=3
  %all-reduce-done.1 = s32[4]{0} all-reduce-done(s32[4]{0} %all-reduce-start.1)
"""


def test_the_sums_of_a_program_are_found():
    assert find_sums(PROGRAM) == [4, 3 * 3 * 16 * 4 + 7 * 2, 16]


def test_the_plan_of_a_case_worked_by_hand():
    options = scaling.Options(
        gpu_images_per_second=1000.0, gpu_batch=100, node_gigabytes=100.0, network_gigabytes=10.0,
        latency_microseconds=50.0, core_images_per_second=100.0, cores_per_gpu=4,
    )  # fmt: skip
    # One machine of 2 GPUs: 1 GB of gradients takes 2 (0.5 GB / 100 GB/s + 10 us) = 10.02 ms; each of 10 sums of 100
    # bytes takes 20.001 us, 0.2 ms in all.
    one = scaling.plan(options, 1, 2, 10**9, 1000, 10)
    assert one.compute == pytest.approx(100.0)
    assert one.communicate == pytest.approx(10.22, rel=1e-4)
    assert one.images == pytest.approx(2 * 100 / 0.11022, rel=1e-4)
    assert one.efficiency == pytest.approx(100 / 110.22, rel=1e-4)
    assert one.best_efficiency == pytest.approx(100 / 100.2, rel=1e-4)
    assert one.input_images == 800
    # Two of them: half of the gradients also crosses the network, in 2 (0.25 GB / 10 GB/s + 50 us) = 50.1 ms; each of
    # the small sums takes 100 us more, 1 ms in all.
    two = scaling.plan(options, 2, 2, 10**9, 1000, 10)
    assert two.communicate == pytest.approx(10.22 + 50.1 + 1.0, rel=1e-4)


def test_a_single_gpu_communicates_nothing():
    found = scaling.plan(scaling.Options(), 1, 1, 10**9, 1000, 10)
    assert (found.communicate, found.efficiency) == (0, 1)


@pytest.mark.exhaustive
def test_processes_are_measured_beside_one(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    out = tmp_path / "scaling.json"
    options = ["--model", "mlp", "--batch-size", "8", "--processes", "1", "2", "--steps", "3", "--rounds", "2"]
    scaling.main([*options, "--out", str(out)])
    measured, planned = json.loads(out.read_text())["tables"]
    one, two = measured["lines"]
    assert (one[0], two[0]) == ("1", "2")
    assert one[4:6] == ["0", "0"]
    # At least the gradients of the dense layers, of 3072 and of 128 inputs.
    assert int(two[5].replace(",", "")) >= 4 * (3072 * 128 + 128 * 10)
    assert [line[0] for line in planned["lines"]] == ["1 x 1", "1 x 8", "8 x 8"]
