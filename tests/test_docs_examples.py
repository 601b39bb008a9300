"""Runs the examples of documentation pages. The blocks of each page run in order and share one namespace."""

import re
import textwrap
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import pytest
from PIL import Image

from eqxcnn import zoo

DOCS = Path(__file__).resolve().parents[1] / "docs"


def python_blocks(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        textwrap.dedent(block) for block in re.findall(r"^( *```python\n.*?^ *)```$", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "blocks"), [("own_parts.md", 11), ("from_a_script.md", 1)])
def test_examples_of_a_page_run(page, blocks, tmp_path, monkeypatch):
    found = [block.partition("\n")[2] for block in python_blocks(page)]
    assert len(found) == blocks
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "example"}
    for block in found:
        exec(compile(block, page, "exec"), namespace)
    assert namespace["result"].test.accuracy > 0.5
    assert (tmp_path / "runs").is_dir()


def test_the_preprocessing_example_prints_the_class_of_the_largest_logit(tmp_path, monkeypatch, capsys):
    (block,) = [block.partition("\n")[2] for block in python_blocks("weights.md") if "preprocess(" in block]
    create_model, pretrained = zoo.create_model, []
    # The mean of the normalized image is negative, so the first logit is the largest.
    network = eqx.nn.Lambda(lambda image: image.mean() * jnp.arange(1000))

    def without_download(name, **arguments):
        if arguments.pop("pretrained", False):
            pretrained.append(name)
            return network, None
        return create_model(name, **arguments)

    monkeypatch.setattr(zoo, "create_model", without_download)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 200), "brown").save("dog.jpg")
    namespace = {}
    exec(compile(block, "weights.md", "exec"), namespace)
    assert pretrained == ["resnet18"]
    assert namespace["pixels"].shape == (224, 224, 3)
    assert capsys.readouterr().out == "tench\n"
