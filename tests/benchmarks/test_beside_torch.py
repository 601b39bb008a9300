"""The PyTorch side of the benchmarks; PyTorch comes with the extra `bench`."""

import json
from math import prod

import numpy as np
import pytest

from benchmarks import layer_cases, layers, throughput
from benchmarks.layer_cases import LAYERS, our_case
from benchmarks.torch_layers import torch_case
from benchmarks.torch_loader import ImageDataset, make_loader
from eqxcnn import zoo

torch = pytest.importorskip("torch", reason="compares with PyTorch: `pip install -e '.[bench]'`")


def test_torch_networks_have_the_same_parameter_counts():
    from benchmarks.peers.pytorch import NETS

    for name, make in NETS.items():
        assert sum(prod(tensor.shape) for tensor in make().parameters()) == zoo.card(name).params, name


def test_throughput_is_compared_with_the_fastest_torch_variant(tmp_path):
    out = tmp_path / "throughput.json"
    options = ["--only", "lenet_64", "--peers", "torch", "--rounds", "2", "--seconds", "0.01"]
    throughput.main([*options, "--out", str(out)])
    written = json.loads(out.read_text())
    libraries = ("eqxcnn", "torch eager", "torch eager channels last")
    assert list(written["times"]) == [f"lenet_64, {library}" for library in libraries]
    assert list(written["ratios"]) == ["lenet_64, fastest torch / lenet_64, eqxcnn"]


def test_the_gpu_suite_lists_both_libraries(tmp_path):
    out = tmp_path / "gpu.json"
    options = ["--suite", "gpu", "--only", "resnet18_256", "--batch", "2", "--image-size", "32", "--peers", "torch"]
    throughput.main([*options, "--rounds", "2", "--seconds", "0.01", "--out", str(out)])
    written = json.loads(out.read_text())
    assert list(written["times"]) == ["resnet18_2, eqxcnn", "resnet18_2, torch eager channels last"]
    (speeds,) = written["tables"]
    for (_, speed, share), (median, _, _) in zip(speeds["lines"], written["times"].values(), strict=True):
        assert float(speed) == pytest.approx(2000 / median, rel=0.01)
        assert share == "-"


def test_torch_layers_compute_the_same_values(tmp_path, monkeypatch):
    monkeypatch.setattr(layer_cases, "BATCH", 2)
    name = next(name for name in LAYERS if name.startswith("max pool 3x3"))
    theirs = torch_case(LAYERS[name], False, "channels_last")().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(our_case(LAYERS[name], False)(), theirs, rtol=1e-6)
    layers.main(["--only", "global", "--rounds", "2", "--out", str(tmp_path / "layers.json")])
    forward, _ = json.loads((tmp_path / "layers.json").read_text())["tables"]
    assert forward["head"] == ["forward (ms)", "ours", "plain JAX", "torch", "ours / plain JAX"]


def test_the_torch_loader_yields_normalized_batches():
    pixels = np.full((6, 8, 8, 3), 51, np.uint8)
    rows = ImageDataset(pixels, None, np.arange(6), (4, 4), [0.1, 0.2, 0.3], [0.1, 0.1, 0.1])
    batches = list(make_loader(rows, 4, 1))
    assert len(batches) == 1
    images, labels = batches[0]
    # 51 / 255 = 0.2, whatever the crop.
    np.testing.assert_allclose(images.numpy()[:, :, 0, 0], [[1, 0, -1]] * 4, atol=1e-4)
    assert len(set(labels.tolist())) == 4
