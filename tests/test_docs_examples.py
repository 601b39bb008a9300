"""Runs the examples of documentation pages, the blocks of a page in order in one namespace."""

import re
import textwrap
from pathlib import Path

import pytest

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
