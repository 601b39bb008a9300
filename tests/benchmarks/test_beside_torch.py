"""The PyTorch side of the benchmarks; PyTorch comes with the extra `bench`."""

import json
import math
import runpy
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import layer_cases, layers, throughput
from benchmarks.layer_cases import LAYERS, our_case
from benchmarks.torch_layers import torch_case
from benchmarks.torch_loader import ImageDataset, import_torch_module, make_loader
from benchmarks.workloads import SUITES
from eqxcnn import zoo
from eqxcnn.images import Preprocess
from eqxcnn.weights.imagenet import class_names
from eqxcnn.weights.presets import PRESETS

GOLDEN = Path(__file__).parents[1] / "golden"

torch = pytest.importorskip("torch", reason="compares with PyTorch: `pip install -e '.[bench]'`")


def test_torch_networks_have_the_same_parameter_counts():
    from benchmarks.peers.pytorch import NETS

    for name, make in NETS.items():
        assert sum(math.prod(tensor.shape) for tensor in make().parameters()) == zoo.card(name).params, name


@pytest.fixture
def fast_workers(monkeypatch):
    """Makes worker processes compile without optimizations, because their steps run only a few times."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.mark.usefixtures("fast_workers")
def test_throughput_is_compared_with_the_fastest_torch_variant(tmp_path):
    out = tmp_path / "throughput.json"
    options = ["--only", "lenet_64", "--peers", "torch", "--rounds", "2", "--seconds", "0.01"]
    throughput.main([*options, "--out", str(out)])
    written = json.loads(out.read_text())
    libraries = ("eqxcnn", "torch eager", "torch eager channels last")
    assert list(written["times"]) == [f"lenet_64, {library}" for library in libraries]
    assert list(written["ratios"]) == ["lenet_64, fastest torch / lenet_64, eqxcnn"]


@pytest.mark.usefixtures("fast_workers")
def test_the_gpu_suite_lists_both_libraries(tmp_path, monkeypatch):
    # The networks of the suite are too large for a test.
    small = SUITES["gpu"]["resnet18_256"]._replace(net="cifar_cnn")
    monkeypatch.setitem(SUITES["gpu"], small.name, small)
    out = tmp_path / "gpu.json"
    options = ["--suite", "gpu", "--only", small.name, "--batch", "2", "--image-size", "32", "--peers", "torch"]
    throughput.main([*options, "--rounds", "2", "--seconds", "0.01", "--out", str(out)])
    written = json.loads(out.read_text())
    assert list(written["times"]) == ["cifar_cnn_2, eqxcnn", "cifar_cnn_2, torch eager channels last"]
    speeds, memory = written["tables"]
    # JAX and PyTorch report no memory of a CPU.
    assert memory["lines"] == [["cifar_cnn_2, ours", "unknown"], ["cifar_cnn_2, torch", "unknown"]]
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


def test_presets_are_those_that_torchvision_publishes():
    models = import_torch_module("torchvision").models
    twins = {twin: preset for twin, preset in PRESETS.items() if not twin.startswith("timm/")}
    assert len(twins) > 70
    for twin, preset in twins.items():
        names = models.get_model_weights(twin).__members__
        transforms = names.get("IMAGENET1K_V1", names.get("IMAGENET1K_SWAG_LINEAR_V1")).transforms()
        (resized,), (side,) = transforms.resize_size, transforms.crop_size
        assert preset.size == (side, side), twin
        # The length that `Preprocess` computes, which allows for the rounding error of 224 / 236, for example.
        assert math.floor(side / preset.crop_fraction + 1e-6) == resized, twin
        assert preset.crop_fraction == side / resized, twin
        assert preset.interpolation == transforms.interpolation.value, twin
        assert (preset.mean, preset.std) == (tuple(transforms.mean), tuple(transforms.std)), twin


@pytest.mark.parametrize(("resized", "interpolation"), [(256, "bilinear"), (236, "bilinear"), (248, "bicubic")])
def test_every_pixel_is_torchvisions(resized, interpolation, cats_vs_dogs):
    import_torch_module("torchvision")
    transforms = import_module("torchvision.transforms")
    mode = transforms.InterpolationMode(interpolation)
    reference = transforms.Compose([transforms.Resize(resized, mode), transforms.CenterCrop(224)])
    preprocess = Preprocess((224, 224), resize="crop", crop_fraction=224 / resized, interpolation=interpolation)
    photographs = SimpleNamespace(**runpy.run_path(str(GOLDEN / "photographs.py")))
    files = photographs.cats_and_dogs(cats_vs_dogs)
    images = [photographs.decode(files[row]) for row in (95, 150, 241, 549, *range(16))]
    for image in [*photographs.parts(), *images]:
        theirs = np.asarray(reference(image.convert("RGB")))
        np.testing.assert_array_equal(preprocess(image), theirs)


def test_class_names_are_torchvisions():
    weights = import_torch_module("torchvision").models.get_model_weights("resnet18")
    assert list(class_names()) == weights.IMAGENET1K_V1.meta["categories"]
