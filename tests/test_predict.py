"""`python -m eqxcnn.predict` classifies every readable image in bounded batches and reports the others."""

import csv
import io
import json
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn import predict, zoo
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier
from eqxcnn.saved_classifier import save
from eqxcnn.weights.tensors import from_tensors, tensor_shapes

NAMES = ("ant", "b,e\x1be", "cat")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a small classifier of 28x28 gray images into three classes."""
    empty = eqx.filter_eval_shape(zoo.create_model, "mlp", num_classes=3, widths=(8,), key=jax.random.key(0))
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in tensor_shapes(*empty).items()}
    model, state = from_tensors(*empty, weights)
    mean, std = jnp.array([0.25]), jnp.array([0.5])
    folder = tmp_path_factory.mktemp("model")
    save(folder, ImageClassifier(model, state, mean, std, "mlp", (28, 28), NAMES, (("widths", (8,)),)))
    return folder


@pytest.fixture
def images(tmp_path):
    """Seven different images of several formats, some in subfolders."""
    paths = [
        tmp_path / "set" / name for name in ("a.png", "b.jpg", "c.bmp", "d.png", "x/e.gif", "x/f.png", "x/y/g.png")
    ]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20 + number, 30), np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def lines(capsys, *arguments) -> list[str]:
    predict.main([str(argument) for argument in arguments])
    return capsys.readouterr().out.splitlines()


def test_batches_change_nothing_and_bound_the_images_at_once(run, images, capsys, monkeypatch):
    expected = lines(capsys, run, *images)
    assert [line.split(": ")[0] for line in expected] == list(map(str, images))
    sizes = []
    top_k = ImageClassifier.top_k
    monkeypatch.setattr(ImageClassifier, "top_k", lambda self, x, k: sizes.append(len(x)) or top_k(self, x, k))
    assert lines(capsys, run, *images, "--batch-size", 3) == expected
    assert sizes == [3, 3, 3]  # The last one is padded, so that one program serves all.
    lines(capsys, run, images[0])
    assert sizes[3:] == [1]


def test_a_batch_is_printed_before_the_next_one_is_read(run, images, capsys, monkeypatch):
    seen = []
    prepare = ImageClassifier.prepare

    def watch(self, path):
        seen.append(capsys.readouterr().out.count("\n"))
        return prepare(self, path)

    monkeypatch.setattr(ImageClassifier, "prepare", watch)
    lines(capsys, run, *images, "--batch-size", 3)
    assert seen == [0, 0, 0, 3, 0, 0, 3]


def test_a_folder_stands_for_its_images(run, images, capsys):
    assert lines(capsys, run, images[0].parent) == lines(capsys, run, *images)
    with pytest.raises(InputError, match="holds no image files"):
        predict.main([str(run), str(run)])


def test_an_unreadable_image_loses_no_other(run, images, capsys):
    expected = lines(capsys, run, *images)
    os.mkfifo(images[0].parent / "pipe.png")
    (images[0].parent / "text.png").write_text("no picture")
    bad = [images[0].parent / name for name in ("pipe.png", "text.png", "none.png", "n" * 300)]
    with pytest.raises(InputError, match="4 of 11 images could not be read"):
        predict.main([str(path) for path in (run, *bad[:2], *images, *bad[2:], "--batch-size", 2)])
    out, err = capsys.readouterr()
    assert out.splitlines() == expected
    assert [line.split("`")[1] for line in err.splitlines()] == list(map(str, bad))


def test_csv_and_json_hold_the_same_as_text(run, images, capsys):
    table = list(csv.reader(io.StringIO("\n".join(lines(capsys, run, *images, "--format", "csv", "--top", 2)))))
    objects = [json.loads(line) for line in lines(capsys, run, *images, "--format", "json", "--top", 2)]
    assert table[0] == ["path", "class_1", "probability_1", "class_2", "probability_2"]
    for row, found, path in zip(table[1:], objects, images, strict=True):
        pairs = [(pair["name"], pair["probability"]) for pair in found["classes"]]
        assert found["path"] == row[0] == str(path)
        assert [row[1], row[3]] == [name for name, _ in pairs]
        assert [float(row[2]), float(row[4])] == [probability for _, probability in pairs]
        assert 1 >= pairs[0][1] >= pairs[1][1] >= 0


def test_names_cannot_write_to_the_terminal(run, images, capsys):
    path = images[0].rename(images[0].with_name("a\x1b[31m\nb\u202e.png"))
    text = lines(capsys, run, path)
    assert len(text) == 1
    assert "a\\x1b[31m\\nb\\u202e.png: " in text[0]
    assert "b,e\\x1be" in text[0]
    assert "\x1b" not in text[0]
    assert json.loads(*lines(capsys, run, path, "--format", "json"))["path"] == str(path)
    predict.main([str(run), str(path), "--format", "csv"])
    assert list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))[1][0] == str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], r"`--top` \(=0\) must be 1 or more"),
        (["--batch-size", "-1"], r"`--batch-size` \(=-1\) must be 1 or more"),
    ],
)
def test_flags_out_of_range_are_refused(run, images, arguments, message):
    with pytest.raises(InputError, match=message):
        predict.main([str(run), str(images[0]), *arguments])


def test_more_classes_than_there_are_means_all(run, images, capsys):
    assert lines(capsys, run, images[0], "--top", 10**9)[0].count("%") == 3
    header, row = lines(capsys, run, images[0], "--top", 10**9, "--format", "csv")
    assert header.count("class_") == 3
    assert len(next(csv.reader([row]))) == 7


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_appears_on_a_terminal_that_shows_no_results(run, images, monkeypatch):
    out, err = io.StringIO(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    predict.main([str(run), *map(str, images), "--batch-size", "3"])
    assert err.getvalue() == "\r3 of 7 images\r6 of 7 images\r7 of 7 images\n"
    monkeypatch.setattr("sys.stdout", Terminal())
    predict.main([str(run), str(images[0])])
    assert err.getvalue().endswith("7 of 7 images\n")
