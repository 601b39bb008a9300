"""Preparation of a job from a recipe: steps per call, limits on steps, and data that changed since a run started."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from eqxcnn.data import Split
from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, fit, resume
from eqxcnn.training.preparation import _count_steps, _resolve_steps_per_call
from eqxcnn.training.runner import EpochRunner


@pytest.mark.parametrize(
    ("side", "is_streamed", "expected"),
    # A batch of 64 images has 64 * 224 * 224 * 3 = 9.6 million bytes, of which 64 MiB hold six.
    [(224, True, 6), (224, False, 100), (32, True, 100), (1024, True, 1)],
)
def test_streamed_calls_on_an_accelerator_are_bounded_in_bytes(monkeypatch, side, is_streamed, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    split = Split(np.zeros((1, side, side, 3), np.uint8), np.zeros(1, np.int32), ("a",), 0)
    assert _resolve_steps_per_call(Recipe(batch_size=64), split, is_streamed) == expected
    given = Recipe(batch_size=64, steps_per_call=7)
    assert _resolve_steps_per_call(given, split, is_streamed) == 7
    assert _resolve_steps_per_call(dataclasses.replace(given, jit=False), split, is_streamed) == 1


def test_more_steps_than_fit_32_bits_are_refused():
    assert _count_steps(Recipe(epochs=1e6, batch_size=1), 2000) == (1e6, 2000, 2_000_000_000)
    with pytest.raises(InputError, match=r"`epochs` .=1000000.0. makes 3,000,000,000 steps, .* at most 2,147,483,647"):
        _count_steps(Recipe(epochs=1e6, batch_size=1), 3000)


@pytest.mark.slow
def test_run_does_not_resume_on_changed_images(tmp_path, monkeypatch):
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))
    for name in ("dark", "light"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("L", (12, 12), 200 * (name == "light") + index).save(tmp_path / "images" / name / f"{index}.png")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(EpochRunner, "finish", interrupt)
    recipe = Recipe(model="mlp", data=str(tmp_path / "images"), epochs=1, batch_size=8, validation=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(dataclasses.replace(recipe, checkpoint_seconds=0.0), runs=tmp_path / "runs", name="run")
    monkeypatch.undo()
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))
    Image.new("L", (12, 12), 99).save(tmp_path / "images" / "dark" / "0.png")
    with pytest.raises(InputError, match="have changed since the run"):
        resume(tmp_path / "runs" / "run")
