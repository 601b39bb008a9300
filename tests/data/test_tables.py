"""Tables and streams of `datasets` that are passed from Python."""

import datasets
import numpy as np
import pytest
from PIL import Image

from eqxcnn.data import as_data_set, fingerprint, from_arrays, from_dataset, open_source
from eqxcnn.errors import InputError

CLASSES = datasets.ClassLabel(names=["x", "y"])
FEATURES = datasets.Features(image=datasets.Image(), label=CLASSES)


def rows(labels, start=0, features=FEATURES):
    images = [Image.new("L", (6, 4), start + 10 * index) for index in range(len(labels))]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def values(split):
    return split.images[:, 0, 0, 0].tolist()


def parts(opened):
    return [values(opened.decode(split, progress=False)) for split in ("train", "test")]


BOTH = datasets.DatasetDict(train=rows([0, 1, 1, 0]), test=rows([1, 0], start=100))


def test_tables_in_memory():
    opened = from_dataset(BOTH, name="cells")
    assert (opened.info.name, opened.info.source) == ("cells", "own")
    assert (opened.info.class_names, opened.info.image_size, opened.info.channels) == (("x", "y"), (4, 6), 1)
    assert (opened.info.splits, opened.info.test_split) == ({"train": 4, "test": 2}, "test")
    assert parts(opened) == [[0, 10, 20, 30], [100, 110]]
    assert opened.decode("train", progress=False).labels.tolist() == [0, 1, 1, 0]


def test_a_table_without_splits_has_a_part_held_out():
    opened = from_dataset(rows([0, 1] * 5), test_fraction=0.4, seed=1)
    train, test = parts(opened)
    assert (len(train), len(test)) == (6, 4)
    assert sorted(train + test) == list(range(0, 100, 10))


def test_saved_tables_have_the_same_fingerprint_as_the_folder(tmp_path):
    BOTH.save_to_disk(tmp_path / "set")
    mapped = from_dataset(datasets.load_from_disk(tmp_path / "set"))
    named = open_source(str(tmp_path / "set"))
    assert mapped.info.fingerprint == named.info.fingerprint == from_dataset(BOTH).info.fingerprint
    assert mapped.info.fingerprint != from_dataset(BOTH["train"]).info.fingerprint


def test_selections_of_large_files_have_their_own_fingerprints(tmp_path, monkeypatch):
    """The cached fingerprint of a large file is not used, because it does not depend on which rows a table selects."""
    monkeypatch.setattr(fingerprint, "_NOTE_BYTES", 0)
    monkeypatch.setattr(fingerprint, "_CLOCK_TICK_SECONDS", -60.0)
    rows([0, 1] * 8).save_to_disk(tmp_path / "set")
    table = datasets.load_from_disk(tmp_path / "set")
    first, second = (from_dataset(table.select(range(start, start + 8))) for start in (0, 8))
    assert first.info.fingerprint != second.info.fingerprint
    assert sorted(value for part in parts(second) for value in part) == list(range(80, 160, 10))


def test_columns_and_test_split_are_chosen():
    both = datasets.concatenate_datasets(
        [rows([0, 1, 0, 1]), rows([0, 0, 1, 1], start=100).rename_columns({"image": "back", "label": "kind"})], axis=1
    )
    splits = datasets.DatasetDict(train=both, test=both, fold=both.select([1, 2]))
    opened = from_dataset(splits, image_column="back", label_column="kind", test_split="fold")
    assert parts(opened) == [[100, 110, 120, 130], [110, 120]]
    assert opened.decode("test", progress=False).labels.tolist() == [0, 1]
    assert opened.info.test_split == "fold"


def test_one_of_two_splits_is_trained_on_when_the_other_is_tested_on():
    opened = from_dataset(datasets.DatasetDict(a=BOTH["train"], b=BOTH["test"]), test_split="b")
    assert parts(opened) == [[0, 10, 20, 30], [100, 110]]


# --- streams ---


def generate(labels=(0, 1, 1, 0), start=0):
    for index, label in enumerate(labels):
        yield {"image": Image.new("L", (6, 4), start + 10 * index), "label": label, "id": index}


@pytest.mark.parametrize("features", [None, datasets.Features(**FEATURES, id=datasets.Value("int64"))])
def test_a_stream_of_a_generator_is_read_into_memory(features, capsys):
    stream = datasets.IterableDataset.from_generator(generate, features=features)
    opened = from_dataset(stream, test_fraction=0.5, name="cells")
    assert opened.info.class_names == (("0", "1") if features is None else ("x", "y"))
    assert sorted(value for part in parts(opened) for value in part) == [0, 10, 20, 30]
    assert capsys.readouterr().err.startswith("reading cells/train into memory ...\n")


def test_streams_keep_images_encoded_and_equal_the_tables(capsys):
    streams = datasets.IterableDatasetDict({name: split.to_iterable_dataset() for name, split in BOTH.items()})
    assert from_dataset(streams).info.fingerprint == from_dataset(BOTH).info.fingerprint
    opened = from_dataset(streams)
    assert opened.parts["train"].rows.with_format("arrow")[0]["image"][0]["bytes"].as_py()[:4] == b"\x89PNG"


def test_only_the_splits_that_are_used_are_read(capsys):
    def fail():
        raise RuntimeError("read for nothing")
        yield {}

    streams = {name: split.to_iterable_dataset() for name, split in BOTH.items()}
    extra = datasets.IterableDataset.from_generator(fail, features=FEATURES)
    assert parts(from_dataset(datasets.IterableDatasetDict(extra=extra, **streams)))[1] == [100, 110]


def test_a_long_stream_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr("eqxcnn.data.tables._SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("eqxcnn.data.tables._BATCH_ROWS", 3)
    from_dataset(datasets.IterableDataset.from_generator(generate), test_fraction=0.5)
    assert "reading own/train into memory: 3 rows ...\n" in capsys.readouterr().err


def test_a_stream_of_changing_types_is_refused(monkeypatch):
    monkeypatch.setattr("eqxcnn.data.tables._BATCH_ROWS", 2)
    stream = datasets.IterableDataset.from_generator(generate, gen_kwargs={"labels": [0, 1, "a", "b"]})
    with pytest.raises(InputError, match=r"rows 2 to 4 of `own/train` have values of different types .*: declare"):
        from_dataset(stream)


def test_an_empty_stream_is_refused():
    stream = datasets.IterableDataset.from_generator(generate, gen_kwargs={"labels": []})
    with pytest.raises(InputError, match=r"`own` has no rows"):
        from_dataset(stream)


# --- refusals ---


def test_a_transform_is_refused():
    with pytest.raises(InputError, match=r"split `train` of `own` has a transform.*`map`.*`reset_format\(\)`"):
        from_dataset(rows([0, 1] * 4).with_transform(lambda batch: batch))
    assert from_dataset(rows([0, 1] * 4).with_format("numpy")).info.splits == {"train": 8}


MANY = datasets.List(datasets.Value("int64"))


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"labels": [[0, 1], [1]] * 4}, None),
        ({"labels": [[0, 1], [1]] * 4, "id": [0, 1] * 4}, None),
        ({"tags": [["a"], ["a", "b"]] * 4}, "tags"),
        ({"label": [[1.0, 0.0], [0.0, 1.0]] * 4}, None),
        ({"label": [[True, False], [False, True]] * 4}, "label"),
    ],
)
def test_several_labels_per_row_are_refused(columns, chosen):
    images = rows([0, 1] * 4).select_columns("image")
    for name, column in columns.items():
        images = images.add_column(name, column)
    message = (
        f"`{chosen or next(iter(columns))}` cannot be the label column: it holds a list in each row.*one class per"
    )
    with pytest.raises(InputError, match=message):
        from_dataset(images, label_column=chosen)


def test_several_label_columns_are_refused():
    images = rows([0, 1] * 4).add_column("is_cat", [True, False] * 4).add_column("is_dog", [True] * 8)
    with pytest.raises(InputError, match=r"`label_column` \(=is_cat, is_dog\) must be the name of one column"):
        from_dataset(images, label_column=["is_cat", "is_dog"])
    assert from_dataset(images, label_column="is_cat").info.class_names == ("False", "True")


# --- as_data_set ---


def test_everything_that_holds_images_and_labels_becomes_a_data_set():
    images, labels = np.zeros((8, 4, 4), np.uint8), [0, 1] * 4
    made = from_arrays(images, labels)
    assert as_data_set(made) is made
    for pair in ((images, labels), [images, labels]):
        assert as_data_set(pair).info.fingerprint == made.info.fingerprint
    assert as_data_set(BOTH).info.fingerprint == from_dataset(BOTH).info.fingerprint
    assert as_data_set(BOTH["train"]).info.splits == {"train": 4}
    assert as_data_set(dict(BOTH)).info.splits == {"train": 4, "test": 2}
    assert as_data_set(BOTH["train"].to_iterable_dataset()).info.splits == {"train": 4}


@pytest.mark.parametrize("value", ["mnist", None, {}, [1, 2, 3], (1, 2, 3), {"train": 3}, np.zeros((3, 3))])
def test_anything_else_is_refused(value):
    with pytest.raises(InputError, match=r"`data` must be a pair of images and labels, a `Dataset`") as caught:
        as_data_set(value)
    assert ("the recipe's `data`" in str(caught.value)) == (value == "mnist" if isinstance(value, str) else False)
