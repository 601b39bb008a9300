"""`python -m eqxcnn.predict` classifies every readable image in bounded batches and reports the others."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn import predict, zoo
from eqxcnn.errors import InputError
from eqxcnn.images import Preprocess
from eqxcnn.inference import ImageClassifier
from eqxcnn.saved_classifier import save
from eqxcnn.weights.published import PUBLISHED, Published
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


def test_two_batches_are_in_memory_while_the_next_one_is_decoded(run, images, monkeypatch):
    started, in_memory, out = [], [], io.StringIO()
    second_batch = threading.Event()
    decode, top_k = Preprocess.__call__, ImageClassifier.top_k

    def watch(self, path):
        started.append(path)
        in_memory.append(len(started) - out.getvalue().count("\n"))
        if len(started) > 2:
            second_batch.set()
        return decode(self, path)

    def wait(self, x, k):
        assert second_batch.wait(20)  # This batch is computed only after the next one has begun.
        return top_k(self, x, k)

    monkeypatch.setattr(Preprocess, "__call__", watch)
    monkeypatch.setattr(ImageClassifier, "top_k", wait)
    monkeypatch.setattr("sys.stdout", out)
    predict.main([str(run), *map(str, images), "--batch-size", "2"])
    assert len(out.getvalue().splitlines()) == len(started) == 7
    assert 3 <= max(in_memory) <= 4


def test_an_interrupt_keeps_the_results_so_far(run, images, capsys, monkeypatch):
    expected = lines(capsys, run, *images)
    top_k, calls = ImageClassifier.top_k, []

    def interrupt(self, x, k):
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return top_k(self, x, k)

    monkeypatch.setattr(ImageClassifier, "top_k", interrupt)
    with pytest.raises(SystemExit) as exit_:
        predict.main([str(run), *map(str, images), "--batch-size", "2"])
    assert exit_.value.code == 130
    out, err = capsys.readouterr()
    assert out.splitlines() == expected[:4]
    assert err == "interrupted after 4 of 7 images\n"


def test_a_name_stands_for_published_weights(images, capsys, monkeypatch, tmp_path):
    arguments = {"num_classes": 1000, "in_channels": 3, "image_size": (8, 8), "widths": (4,)}
    empty = eqx.filter_eval_shape(zoo.create_model, "mlp", **arguments, key=jax.random.key(0))
    weights = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(*empty).items()}
    weights["head.bias"][[281, 285]] = 10, 8
    preprocess = Preprocess((8, 8), 3, "crop", 0.875, mean=(0.5,) * 3, std=(0.5,) * 3)
    monkeypatch.setitem(PUBLISHED, "mlp", Published("someone/weights", "0", "0", preprocess))
    monkeypatch.setattr("eqxcnn.saved_classifier.build_published", lambda *_, **__: from_tensors(*empty, weights))
    monkeypatch.chdir(tmp_path)
    (line,) = lines(capsys, "mlp", images[0], "--top", 2)
    assert re.fullmatch(r".*a\.png: tabby [\d.]+%, Egyptian cat [\d.]+%", line), line
    with pytest.raises(InputError, match=r"there is no folder `resnet19`: .* the name of a model with trained"):
        predict.main(["resnet19", str(images[0])])


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


def test_a_progress_bar_appears_on_a_terminal_that_shows_no_results(run, images, monkeypatch):
    (images[0].parent / "z.png").write_text("no picture")
    out, err = io.StringIO(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    with pytest.raises(InputError, match="1 of 8 images"):
        predict.main([str(run), str(images[0].parent), "--batch-size", "3"])
    assert "8/8" in err.getvalue()
    assert "error:" in err.getvalue()
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == list(map(str, images))
    monkeypatch.setattr("sys.stdout", Terminal())
    err.seek(0)
    err.truncate()
    predict.main([str(run), str(images[0])])
    assert err.getvalue() == ""


@pytest.mark.slow
def test_the_first_answer_waits_for_the_compilation_of_the_network_only(tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    command = [sys.executable, "-m", "eqxcnn.predict", "lenet", tmp_path / "black.png"]
    done = subprocess.run(command, env={**os.environ, "JAX_LOG_COMPILES": "1"}, capture_output=True, text=True)
    assert done.returncode == 0
    compiled = re.findall(r"Finished XLA compilation of (.*?) in", done.stderr)
    assert "jit(_logits)" in compiled
    # Random weights or small operations outside of jit would be further programs, beside the two for a key.
    assert len(compiled) <= 4
