from dataclasses import replace

import numpy as np
import pytest

from benchmarks import pipeline, torch_loader
from benchmarks.mlp_epoch import EpochTrainer
from benchmarks.pipeline import InputEpoch
from benchmarks.timing import Benchmark, make_record
from eqxcnn.errors import InputError
from eqxcnn.runtime.compile import async_jit


def test_the_cases_without_torch(tmp_path, monkeypatch):
    benchmarks = []
    monkeypatch.setattr(pipeline, "run_benchmark", lambda benchmark, *_: benchmarks.append(benchmark))
    pipeline.main(["--data", "digits", "--images", "300", "--no-torch", "--out", str(tmp_path / "pipeline.json")])
    (benchmark,) = benchmarks
    assert benchmark.title.startswith("An epoch of digits (1,438 images) with ")
    assert benchmark.images == 1438
    assert [ratio.target for ratio in benchmark.ratios] == ["<= 1.15", ">= 0.9"]
    calls = {name: case.call for name, case in benchmark.cases.items()}
    jobs = {name: call.job for name, call in calls.items() if isinstance(call, EpochTrainer | InputEpoch)}
    assert [(job.setup.data is None, job.setup.augment is None) for job in jobs.values()] == [
        (False, False),
        (False, True),
        (True, False),
        (False, False),
        (True, False),
    ]
    # Two full batches; the times are scaled to all images.
    assert [job.steps_per_epoch for job in jobs.values()] == [2] * 5
    assert [case.scale for case in benchmark.cases.values()] == [1438 / 256] * 7
    assert calls['datasets, with_format("numpy"), not augmented']() == 2


@pytest.mark.slow
def test_streamed_and_resident_images_give_the_same_input(monkeypatch):
    inputs = []
    monkeypatch.setattr(pipeline, "async_jit", lambda f: lambda *args: inputs.append(async_jit(f)(*args)))
    job = pipeline.prepare_job(pipeline.Options(data="digits", images=128))
    InputEpoch(job)()
    InputEpoch(replace(job, setup=replace(job.setup, data=None)))()
    (resident, labels), (streamed, _) = inputs
    np.testing.assert_allclose(resident, streamed, rtol=1e-5, atol=1e-5)
    assert resident.shape == (128, 32, 32, 1)
    assert labels.tolist() == job.splits.train.labels[next(job.batches(0, 0))[0]].tolist()


def test_images_per_second_follow_from_the_median_time():
    benchmark = Benchmark("toy", "A toy", (), "ms", {}, (), images=1000)
    assert make_record(benchmark, {"ours": [0.5, 0.5, 4.0]})["images_per_second"] == {"ours": 2000}


@pytest.mark.parametrize(("images", "message"), [("127", "one batch of 128"), ("2000", r"at most 1,438, the training")])
def test_too_few_and_too_many_images_are_refused(images, message):
    with pytest.raises(InputError, match=rf"`images` \(={images}\).*{message}"):
        pipeline.main(["--data", "digits", "--images", images, "--no-torch"])


def test_a_missing_torch_is_refused_with_the_command_to_install_it():
    with pytest.raises(InputError, match=r"no_such_torch, which is not .*`pip install torch==2.13.0.*`--no-torch`"):
        torch_loader.import_torch_module("no_such_torch")
