"""Training and evaluation on the user's arrays and tables, and on chosen columns and splits."""

from dataclasses import replace

import datasets
import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

import eqxcnn
from eqxcnn import data, evaluate
from eqxcnn.errors import InputError
from eqxcnn.runs.folder import read_metrics
from eqxcnn.training import Recipe, prepare, resume
from eqxcnn.training.parts import make_parts

RECIPE = Recipe(model="mlp", data="own", image_size=(8, 8), batch_size=8, epochs=2, validation=0.25)


@pytest.fixture(scope="module")
def digits():
    opened = data.open_source("digits")
    train, test = (opened.decode(split, progress=False) for split in ("train", "test"))
    return (train.images[:160], train.labels[:160]), (test.images[:40], test.labels[:40])


@pytest.fixture
def tables(tmp_path):
    """A folder with two image columns, two label columns and three splits."""

    def make(start):
        def images(value):
            return [Image.new("L", (8, 8), value + index) for index in range(16)]

        columns = {"front": images(start), "back": images(start + 100), "kind": [0, 1] * 8, "grade": [3, 3, 4, 5] * 4}
        kinds = {
            "front": datasets.Image(),
            "back": datasets.Image(),
            **dict.fromkeys(("kind", "grade"), datasets.Value("int8")),
        }
        return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))

    splits = {name: make(start) for name, start in (("train", 0), ("test", 20), ("fold", 40))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "tables")
    return str(tmp_path / "tables")


CHOICES = {"image_column": "back", "label_column": "grade", "test_split": "fold"}


def test_a_recipe_chooses_columns_and_test_split(tables):
    job = prepare(Recipe(model="mlp", data=tables, batch_size=8, epochs=1, **CHOICES))
    assert job.info.class_names == ("3", "4", "5")
    assert job.splits.train.images[:, 0, 0, 0].tolist() == list(range(100, 116))
    assert job.splits.test.images[:, 0, 0, 0].tolist() == list(range(140, 156))
    for name in ("image_column", "label_column"):
        with pytest.raises(InputError, match=f"choose one with `{name}`"):
            prepare(Recipe(model="mlp", data=tables, batch_size=8, **{**CHOICES, name: None}))
    default = prepare(Recipe(model="mlp", data=tables, batch_size=8, **{**CHOICES, "test_split": None}))
    assert default.splits.test.images[:, 0, 0, 0].tolist() == list(range(120, 136))


@pytest.mark.slow
def test_evaluation_uses_the_runs_choices_or_its_own(tables, tmp_path, capsys):
    result = eqxcnn.fit(Recipe(model="mlp", data=tables, batch_size=8, epochs=1, **CHOICES), runs=tmp_path / "runs")
    capsys.readouterr()
    evaluate.main([str(result.folder)])
    assert "images 16" in capsys.readouterr().out
    flags = [part for name, value in CHOICES.items() for part in (f"--{name.replace('_', '-')}", value)]
    evaluate.main([str(result.folder), "--data", tables, *flags])
    assert "images 16" in capsys.readouterr().out
    with pytest.raises(InputError, match="`front` and `back` can each be the image column"):
        evaluate.main([str(result.folder), "--data", tables, "--label-column", "grade"])


def test_choices_of_a_recipe_do_not_go_with_own_data(digits):
    train, test = digits
    recipe = Recipe(model="mlp", batch_size=8, label_column="label", test_split="test")
    with pytest.raises(InputError, match="the recipe's `label_column` and `test_split` cannot be applied to `data`"):
        prepare(recipe, make_parts(data=data.from_arrays(*train, test=test)))


def test_an_own_network_needs_an_image_size_if_the_data_have_none():
    recipe = Recipe(model="own", data="digits")
    with pytest.raises(InputError, match="`image_size` is needed, because neither the data nor your `model`"):
        prepare(recipe, make_parts(model=eqx.nn.Identity()))


@pytest.mark.parametrize("kind", ["uint8", "float32", "streamed float32", "table"])
@pytest.mark.slow
def test_own_data_are_trained_on(kind, digits, tmp_path):
    (images, labels), test = digits
    if "float32" in kind:
        images, test = (images / 255).astype(np.float32), ((test[0] / 255).astype(np.float32), test[1])
    own = data.from_arrays(images, labels, test=test)
    if kind == "table":
        pixels = {"image": images[..., 0].tolist(), "label": labels}
        own = datasets.Dataset.from_dict(pixels)
    recipe = replace(RECIPE, device_budget=0.0 if "streamed" in kind else 2.0)
    result = eqxcnn.fit(recipe, data=own, runs=tmp_path)
    assert result.test.count == (33 if kind == "table" else 40)
    assert len(read_metrics(result.folder)) == 3
    assert np.isfinite(result.test.loss)


@pytest.mark.slow
def test_pixels_in_floating_point_train_as_the_same_bytes_do(digits, tmp_path):
    (images, labels), (test_images, test_labels) = digits
    bytes_ = data.from_arrays(images, labels, test=(test_images, test_labels))
    floats = data.from_arrays(images / 255, labels, test=(test_images / 255, test_labels))
    first, second = (eqxcnn.fit(RECIPE, data=each, runs=tmp_path / str(at)) for at, each in enumerate((bytes_, floats)))
    assert abs(first.test.loss - second.test.loss) < 1e-3
    assert bytes_.info.fingerprint != floats.info.fingerprint


@pytest.mark.slow
def test_a_run_resumes_on_the_same_arrays_only(digits, tmp_path, monkeypatch):
    (images, labels), test = digits
    own = data.from_arrays(images, labels, test=test)
    result = eqxcnn.fit(RECIPE, data=own, runs=tmp_path)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    (result.folder / "model" / "config.json").unlink()  # The last file of a run: without it the run counts as stopped.
    with pytest.raises(InputError, match="have changed since the run"):
        resume(result.folder, data=data.from_arrays(changed, labels, test=test))
    again = resume(result.folder, data=data.from_arrays(images.copy(), labels, test=test))
    assert again.test.loss == result.test.loss
    assert jax.tree.all(jax.tree.map(np.array_equal, again.test.confusion, result.test.confusion))
