from dataclasses import replace

import numpy as np
import pytest

from benchmarks import pipeline, torch_loader
from benchmarks.mlp_epoch import Training
from benchmarks.pipeline import Input
from benchmarks.timing import Benchmark, results
from eqxcnn.errors import InputError
from eqxcnn.runtime.compile import async_jit


def test_what_is_compared_without_torch(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(pipeline, "run", lambda *each: given.append(each[0]))
    pipeline.main(["--data", "digits", "--images", "300", "--no-torch", "--out", str(tmp_path / "pipeline.json")])
    (benchmark,) = given
    assert benchmark.title.startswith("An epoch of digits, 1,438 images: ")
    assert benchmark.images == 1438
    assert [each.target for each in benchmark.ratios] == ["<= 1.15", ">= 0.9"]
    calls = {name: case.call for name, case in benchmark.cases.items()}
    jobs = {name: call.job for name, call in calls.items() if isinstance(call, Training | Input)}
    assert [(job.setup.data is None, job.setup.augment is None) for job in jobs.values()] == [
        (False, False),
        (False, True),
        (True, False),
        (False, False),
        (True, False),
    ]
    # Two full batches, from `datasets` a rest of them too; each time stands for all images.
    assert [job.steps_per_epoch for job in jobs.values()] == [2] * 5
    assert [case.scale for case in benchmark.cases.values()] == [1438 / 256] * 7
    assert calls['datasets, with_format("numpy"), nothing changed']() == 2


def test_the_streamed_input_is_the_resident_one(monkeypatch):
    made = []
    monkeypatch.setattr(pipeline, "async_jit", lambda f: lambda *each: made.append(async_jit(f)(*each)))
    job = pipeline.prepared(pipeline.Options(data="digits", images=128))
    Input(job)()
    Input(replace(job, setup=replace(job.setup, data=None)))()
    (resident, labels), (streamed, _) = made
    np.testing.assert_allclose(resident, streamed, rtol=1e-5, atol=1e-5)
    assert resident.shape == (128, 32, 32, 1)
    assert labels.tolist() == job.train.labels[next(job.batches(0, 0))[0]].tolist()


def test_speeds_follow_from_the_times():
    benchmark = Benchmark("toy", "A toy", (), "ms", {}, (), images=1000)
    assert results(benchmark, {"ours": [0.5, 0.5, 4.0]})["images_per_second"] == {"ours": 2000}


@pytest.mark.parametrize(("images", "message"), [("127", "a batch of 128"), ("2000", r"at most the 1,438 that")])
def test_too_few_and_too_many_images_are_refused(images, message):
    with pytest.raises(InputError, match=rf"`images` \(={images}\).*{message}"):
        pipeline.main(["--data", "digits", "--images", images, "--no-torch"])


def test_without_torch_a_sentence_says_what_to_install():
    with pytest.raises(InputError, match=r"no_such_torch, which is not .*`pip install torch==2.13.0.*`--no-torch`"):
        torch_loader.need("no_such_torch")
