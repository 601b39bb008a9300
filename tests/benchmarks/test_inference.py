"""`python -m benchmarks.inference`: a small measurement, and the same scores in every runtime."""

import json

import numpy as np
import pytest

from benchmarks import inference
from eqxcnn.errors import InputError


@pytest.mark.exhaustive
def test_a_small_measurement(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    out = tmp_path / "inference.json"
    inference.main([
        "--models", "lenet", "--batches", "1", "4", "--no-compiled", "--rounds", "2", "--seconds", "0.01",
        "--out", str(out),
    ])  # fmt: skip
    speeds, ratios = json.loads(out.read_text())["tables"]
    assert speeds["head"][2:] == ["eqxcnn", "StableHLO", "ONNX", "torch eager", "torch eager channels last"]
    assert [line[:2] for line in speeds["lines"]] == [["`lenet`", "1"], ["`lenet`", "4"]]
    assert all(float(speed.replace(",", "")) > 1 for line in speeds["lines"] for speed in line[2:])
    assert [line[3] for line in ratios["lines"]] == [">= 1", ">= 1.2"]


def test_ratios_are_those_of_the_fastest_torch_and_of_onnx():
    options = inference.Options(batches=(1, 64))
    seconds = {"eqxcnn": [2.0, 2.0], "StableHLO": [9.0, 9.0], "ONNX": [3.0, 3.0], "torch eager": [8.0, 8.0],
               "torch compiled": [4.0, 4.0]}  # fmt: skip
    assert inference._format_ratios("lenet", 64, seconds, options) == [
        "`lenet`",
        "64",
        "2.00",
        ">= 1.2",
        "1.50",
        ">= 1.2",
    ]
    assert inference._format_ratios("lenet", 1, seconds, options)[2:4] == ["2.00", ">= 1"]
    assert inference._format_speeds("lenet", 64, seconds)[:3] == ["`lenet`", "64", "32.0"]


def test_the_classifier_repeats_batches_of_its_own_size():
    calls = []
    run = inference._repeat(lambda pixels: calls.append(pixels.shape) or np.zeros(1), inference.make_pixels("lenet", 3))
    run(2)
    assert calls == [(3, 28, 28, 1)] * 2


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="must not be empty"):
        inference.main(["--batches"])
