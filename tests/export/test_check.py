"""The comparison of an exported program with the classifier, and the files on disk after a failed comparison."""

import os

import jax
import numpy as np
import pytest
from PIL import Image

from eqxcnn import export
from eqxcnn.errors import InputError
from eqxcnn.export import stablehlo
from eqxcnn.export.check import check_outputs, choose_images, compare_scores
from eqxcnn.export.program import Program
from eqxcnn.export.staging import file_stem, stage


@pytest.fixture(scope="module")
def logits(lenet):
    return np.asarray(lenet(choose_images(lenet)))


def run_by_row(scores):
    """Returns a program that returns the next rows of `scores` for any images."""
    rows = iter(scores)
    return lambda pixels: np.stack([next(rows) for _ in pixels])


def test_equal_logits_pass(lenet, logits):
    assert check_outputs(Program(lenet), run_by_row(logits), choose_images(lenet)) == 0


def test_the_difference_is_relative_to_the_largest_logit(lenet, logits):
    images, scale = choose_images(lenet), np.abs(logits).max()
    changed = logits.copy()
    changed[7, 2] += 0.5e-4 * scale
    assert check_outputs(Program(lenet), run_by_row(changed), images) == pytest.approx(0.5e-4, rel=0.01)
    changed[7, 2] += 1e-4 * scale
    with pytest.raises(InputError, match=r"differ .* by 1\.5e-04 of the largest logit, but at most 0\.0001 is allowed"):
        check_outputs(Program(lenet), run_by_row(changed), images)
    assert check_outputs(Program(lenet, precision="bf16"), run_by_row(changed), images) > 1e-4


@pytest.mark.parametrize("gap", [0.04, 0.06])
def test_another_class_is_refused_unless_the_logits_tie(lenet, gap):
    # In bf16, logits that differ by 0.05 of the largest tie.
    wanted = np.tile(np.float32([1, 1 - gap, *[0] * 8]), (32, 1))
    found = np.tile(np.float32([0.969, 0.971, *[0] * 8]), (32, 1))
    program = Program(lenet, precision="bf16")
    if gap < 0.05:
        assert compare_scores(program, found, wanted) == pytest.approx(0.031, abs=1e-3)
    else:
        with pytest.raises(InputError, match="32 of 32 images differently"):
            compare_scores(program, found, wanted)


def test_probabilities_are_compared_by_their_logarithms(lenet, logits):
    images, program = choose_images(lenet), Program(lenet, outputs="probabilities")
    probabilities = np.asarray(jax.nn.softmax(logits))
    assert check_outputs(program, run_by_row(probabilities), images) < 1e-6
    with pytest.raises(InputError, match="differ"):
        check_outputs(program, run_by_row(np.asarray(jax.nn.softmax(1.01 * logits))), images)


def test_scores_that_are_not_finite_are_refused(lenet, logits):
    nans = np.full_like(logits, np.nan)
    with pytest.raises(InputError, match="the exported `lenet` gives scores that are not finite"):
        check_outputs(Program(lenet), run_by_row(nans), choose_images(lenet))
    with pytest.raises(InputError, match=r"the classifier `lenet` gives logits that are not finite.*eqxcnn\.evaluate"):
        compare_scores(Program(lenet), nans, nans)


def test_scores_of_another_shape_are_refused(lenet, logits):
    with pytest.raises(InputError, match=r"scores of shape \(32, 9\) instead of \(32, 10\)"):
        compare_scores(Program(lenet), logits[:, :9], logits)


@pytest.mark.parametrize("batch", [5, 32, 40])
def test_a_fixed_batch_is_filled_up(lenet, logits, batch):
    images, sizes = choose_images(lenet), []

    def run(pixels):
        sizes.append(len(pixels))
        return np.asarray(lenet(pixels))

    check_outputs(Program(lenet, batch=batch), run, images)
    assert set(sizes) == {batch}


def test_random_images_are_the_same_in_every_call_and_differ_from_each_other(lenet):
    images = choose_images(lenet)
    np.testing.assert_array_equal(images, choose_images(lenet))
    assert images.shape == (32, 28, 28, 1)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 32


def test_images_of_a_folder_are_preprocessed(lenet, tmp_path):
    Image.new("RGB", (50, 40), "brown").save(tmp_path / "a.png")
    Image.new("L", (28, 28), 7).save(tmp_path / "b.png")
    (tmp_path / "empty").mkdir()
    images = choose_images(lenet, tmp_path)
    assert images.shape == (2, 28, 28, 1)
    assert (images[1] == 7).all()
    with pytest.raises(InputError, match="holds no image files"):
        choose_images(lenet, tmp_path / "empty")


def test_nothing_is_written_when_the_check_fails(lenet, tmp_path, monkeypatch):
    kept = tmp_path / "kept.zip"
    kept.write_text("mine")
    load = stablehlo.load
    monkeypatch.setattr(stablehlo, "load", lambda path: lambda pixels: load(path)(pixels) + 0.1)
    for path in (kept, tmp_path / "new.zip"):
        with pytest.raises(InputError, match="so nothing was written"):
            export.export_stablehlo(lenet, path, platforms=["cpu"], overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.zip"]
    assert kept.read_text() == "mine"


def test_staged_files_are_moved_together(tmp_path, monkeypatch):
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: moved.append(new.name) or replace(old, new))
    with stage(tmp_path / "new" / "a.onnx") as path:
        path.write_text("a")
        (path.parent / "a.onnx.data").write_text("b")
        assert not (tmp_path / "new" / "a.onnx").exists()
    assert {file.name: file.read_text() for file in (tmp_path / "new").iterdir()} == {"a.onnx": "a", "a.onnx.data": "b"}
    assert moved == ["a.onnx.data", "a.onnx"]


def test_nothing_is_left_after_an_exception(tmp_path):
    def write_and_fail(path):
        path.write_text("a")
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"), stage(tmp_path / "a.onnx") as path:
        write_and_fail(path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), stage(tmp_path / "file" / "a.onnx"):
        pass


@pytest.mark.parametrize(
    ("name", "stem"), [("lenet", "lenet"), ("my_net.models.Net", "my_net.models.Net"), ("a/b c", "a_b_c")]
)
def test_file_names(name, stem):
    assert file_stem(name) == stem
