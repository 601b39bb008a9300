"""Fixtures and small image sets shared by the tests of `eqxcnn.data`."""

from pathlib import Path

import datasets
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def private_caches(tmp_path, monkeypatch):
    """Keeps the tests out of the user's caches."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def draw():
    """Writes an image of one color: a gray image for a number, and an RGB image for a triple."""

    def draw_image(path: Path, value: int | tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if isinstance(value, int) else "RGB", size, value).save(path, "PNG")

    return draw_image


@pytest.fixture
def make_classes(draw):
    """Writes one folder of `count` gray images for each class; every image has a different value."""

    def make(folder: Path, names: str | tuple[str, ...] = "ab", count: int = 5, start: int = 0) -> Path:
        for number, name in enumerate(names):
            for index in range(count):
                draw(folder / name / f"{index}.png", start + 50 * number + index)
        return folder

    return make
