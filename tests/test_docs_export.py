"""The commands and the examples of docs/export.md do what the page says."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp
import onnx
import pytest
from PIL import Image

import eqxcnn
from eqxcnn.export.__main__ import main
from eqxcnn.registry import build
from eqxcnn.weights import load_safetensors, to_torch

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "export.md").read_text(encoding="utf-8")
NAME = "squeezenet1_1"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def install(monkeypatch, name, **members):
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def imitate_torch(monkeypatch, expected):
    """Replaces PyTorch's modules, so that the tests do not need PyTorch; the fake model requires `expected` shapes."""
    loaded = []

    class Twin:
        def __init__(self, num_classes):
            assert num_classes == 5

        def load_state_dict(self, tensors):
            assert {name: tensor.shape for name, tensor in tensors.items()} == expected
            loaded.append(len(tensors))

    models = install(monkeypatch, "torchvision.models", **{NAME: Twin})
    install(monkeypatch, "torchvision", models=models)
    install(monkeypatch, "safetensors.torch", load_file=lambda path: load_safetensors(Path(path)))
    return loaded


@pytest.mark.slow
def test_the_commands_and_examples_run_in_order(tmp_path, monkeypatch, capsys, fast_compilation):
    monkeypatch.chdir(tmp_path)
    key = jax.random.key(0, impl="unsafe_rbg")
    model, state = eqx.filter_jit(lambda key: build(NAME, num_classes=5, image_size=32, key=key))(key)
    moments = jnp.full(3, 0.5), jnp.full(3, 0.25)
    photos = eqxcnn.ImageClassifier(model, state, *moments, NAME, (32, 32), tuple("abcde"))
    eqxcnn.save("runs/photos/model", photos)
    Image.new("L", (40, 40)).save("digit.png")
    loaded = imitate_torch(monkeypatch, {name: each.shape for name, each in to_torch(NAME, model, state).items()})

    others = []
    for line in "".join(blocks("bash")).splitlines():
        program, *arguments = shlex.split(line.removeprefix("python -m "))
        if program == "eqxcnn.export":
            main(arguments)
        else:
            others.append(line)
    # test_docs_export_web.py runs these.
    assert others == ["cd web", "npm install onnxruntime-web", "python -m http.server"]
    capsys.readouterr()
    names = {}
    for block in blocks("python"):
        exec(compile(block, "export.md", "exec"), names)

    lenet = eqxcnn.load("lenet")
    best = lenet.top_k(lenet.prepare("digit.png"), k=1)[0][0][0]
    assert capsys.readouterr().out == f"{best}\n{best} ('cpu', 'cuda', 'tpu')\n"
    assert names["logits"].shape == (1, 10)
    assert loaded == [len(to_torch(NAME, model, state))]
    assert names["difference"] < 1e-5
    assert onnx.load("digits.onnx").graph.output[0].name == "probabilities"
