"""Runs the examples of docs/data.md, in order and in one namespace."""

import re
from pathlib import Path

import pytest

from eqxcnn.data import sources

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_examples_do_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_registered", {})
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    namespace = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, "data.md", "exec"), namespace)
    for expression, value in re.findall(r"^([a-z][^\n=]*)  # ([({].*)$", "\n".join(blocks), flags=re.MULTILINE):
        found = str(eval(expression, namespace))
        assert found.startswith(value.replace('"', "'").replace(", ...)", "")), expression
    assert namespace["result"].test.accuracy > 0.8
    assert (namespace["train"].images.shape[1:], namespace["train"].images.dtype) == ((8, 8, 1), "uint8")


def test_the_entry_point_of_the_page_has_the_right_group():
    assert f'[project.entry-points."{sources.GROUP}"]' in PAGE
