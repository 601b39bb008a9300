"""Several devices in one process give the same run as one device; four CPU devices stand for accelerators."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("many_devices.py")


def run(tmp_path, *parts):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, *parts], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The report of one process, for those tests of this file that CI runs; its start and compilation take long."""
    return run(tmp_path_factory.mktemp("devices"), "mlp", "restored")


@pytest.mark.slow
def test_several_devices_train_the_same_run(found):
    assert found["devices"] == 4
    assert max(found["mlp"]["errors"]) < 1e-5
    assert found["mlp"]["repeats"]


@pytest.mark.exhaustive
def test_fifty_steps_on_one_two_and_four_devices(tmp_path):
    found = run(tmp_path, "lenet50")
    assert max(found["lenet50"]["errors"]) < 1e-5
    assert found["lenet50"]["repeats"]


@pytest.mark.exhaustive
def test_batch_statistics_are_those_of_the_whole_batch(tmp_path):
    found = run(tmp_path, "resnet20")
    assert max(found["resnet20"]["errors"]) < 1e-5
    assert found["resnet20"]["repeats"]


@pytest.mark.slow
def test_sharded_parameters_train_the_same_run(found):
    # The script trains with `shard_params=True` and `devices="all"`.
    found = found["sharded"]
    assert found["shapes"] == [[128, 784], [128, 196]]
    one, sharded = found["losses"]
    assert len(one) == 2
    assert sharded == pytest.approx(one, rel=1e-5)
    assert found["tests"][1] == pytest.approx(found["tests"][0], rel=1e-5)
    assert found["same_bytes"]
    assert 0 < found["from_step"] < 9


@pytest.mark.slow
def test_images_are_split_over_the_devices_if_each_has_too_little_memory(found):
    found = found["split_rows"]
    assert found["shards"] == [360] * 4
    assert found["streamed"]
    assert found["losses"][1] == pytest.approx(found["losses"][0], rel=1e-6)


@pytest.mark.slow
def test_checkpoints_restore_on_another_number_of_devices(found):
    one, moved = found["moved"]["losses"]
    assert len(one) == 2
    assert moved == pytest.approx(one, rel=1e-5)
    assert found["moved"]["tests"][1] == pytest.approx(found["moved"]["tests"][0], rel=1e-5)


@pytest.mark.slow
def test_batches_that_do_not_divide_and_missing_devices_are_refused(found):
    uneven, small, many = found["refusals"]["messages"]
    rule = "must be a multiple of 4, the number of devices that share each batch"
    assert f"`batch_size` (=62) {rule}: give 60 or 64" in uneven
    assert f"`batch_size` (=3) {rule}: give 4, or choose" in small
    assert "`devices` (=5) exceeds the number of devices of this machine (4)" in many


@pytest.mark.exhaustive
def test_streams_seeds_and_commands_use_all_devices(tmp_path):
    found = run(tmp_path, "commands")
    assert found["streamed"]["losses"][0] == pytest.approx(found["streamed"]["losses"][1], rel=1e-5)
    assert found["streamed"]["count"] == 359
    assert found["seeds"]["accuracies"][0] == pytest.approx(found["seeds"]["accuracies"][1], abs=0.01)
    assert found["dry_run"] > 0
    assert found["commands"]["one"] == found["commands"]["four"]
