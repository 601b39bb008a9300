"""The examples of docs/features.md do what the page says."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "features.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        # One block per stage, because each operation is compiled for itself here.
        exec(block.replace('create_model("resnet20",', 'create_model("resnet20", depth=1,'), names)
    assert names["train"].features.shape[1] == 84
    assert names["accuracy"] > 0.9
    assert (names["same"].features == names["test"].features).all()
    assert names["features"].shape == (2, 64)
    assert {name: each.shape for name, each in names["maps"].items()} == {
        "stage1": (2, 32, 32, 16), "stage2": (2, 16, 16, 32), "stage3": (2, 8, 8, 64),
    }  # fmt: skip
    assert names["heat"].shape == names["saliency"].shape == (12, 12)
    assert list(names["pyramid"]) == ["stage2", "stage3"]
