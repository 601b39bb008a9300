"""The choice of the training and the test split."""

import datasets
import numpy as np
import pytest

from eqxcnn.data import from_dataset, load, open_source
from eqxcnn.errors import InputError


def rows(labels, start=0, feature=None):
    images = [np.full((4, 6), start + 10 * index, np.uint8).tolist() for index in range(len(labels))]
    table = datasets.Dataset.from_dict({"image": images, "label": labels})
    return table.cast_column("label", feature) if feature else table


TRAIN = [0, 1] * 4
CLASSES = datasets.ClassLabel(names=["x", "y"])


@pytest.mark.parametrize("missing", [[-1, -1], [None, None], ["", ""], [float("nan")] * 2, None])
@pytest.mark.parametrize("named", [True, False])
def test_a_test_split_without_labels_is_passed_over(missing, named, capsys):
    train = ["p", "q"] * 4 if missing == ["", ""] else TRAIN
    feature = CLASSES if named and train is TRAIN else None
    test = rows([0, 1], 100).remove_columns("label") if missing is None else rows(missing, 100)
    if feature and missing in ([-1, -1], [None, None]):
        test = test.cast_column("label", feature)
    splits = {"train": rows(train, feature=feature), "test": test, "val": rows(train[:2], 200, feature)}
    capsys.readouterr()
    opened = from_dataset(splits)
    assert capsys.readouterr().err == "`test` of own has no labels: `val` is used for testing\n"
    assert opened.info.test_split == "val"
    assert len(opened.info.class_names) == 2
    assert opened.decode("test", progress=False).images[:, 0, 0, 0].tolist() == [200, 210]
    del splits["val"]
    opened = from_dataset(splits)
    assert capsys.readouterr().err == "`test` of own has no labels: a part of `train` is held out for testing\n"
    assert (opened.info.test_split, len(opened.parts["test"].labels)) == (None, 2)


def test_several_splits_without_labels_are_passed_over(capsys):
    empty = rows([-1, -1])
    from_dataset({"train": rows(TRAIN), "validation": empty, "test": empty})
    assert "`test` and `validation` of own have no labels: a part of `train`" in capsys.readouterr().err


def test_a_test_split_with_some_labels_is_used(capsys):
    opened = from_dataset({"train": rows(TRAIN), "test": rows([-1, 1]), "validation": rows([0, 1])})
    assert (opened.info.test_split, capsys.readouterr().err) == ("test", "")


def test_minus_one_is_a_class_beside_one(capsys):
    opened = from_dataset({"train": rows([-1, 1] * 4), "test": rows([-1, -1])})
    assert (opened.info.test_split, opened.info.class_names) == ("test", ("-1", "1"))
    assert opened.decode("test", progress=False).labels.tolist() == [0, 0]


def test_a_chosen_test_split_needs_rows_and_labels():
    splits = {"train": rows(TRAIN), "test": rows([0, 1]), "contest": rows([-1, -1]), "none": rows([0]).select([])}
    with pytest.raises(InputError, match=r"`test_split` .=`contest`. of `own` has no labels in `label`"):
        from_dataset(splits, test_split="contest")
    for name in ("none", "tset"):
        with pytest.raises(
            InputError, match=rf"`test_split` .=`{name}`. must be a split with rows, .* to train on; `own` has `train`"
        ):
            from_dataset(splits, test_split=name)
    with pytest.raises(InputError, match=r"`test_split` .=`train`. must be a split with rows, and another split"):
        from_dataset(rows(TRAIN), test_split="train")


def test_the_test_split_of_a_source_is_chosen(tmp_path):
    three = {name: rows(TRAIN, start) for name, start in (("train", 0), ("test", 50), ("fold", 100))}
    datasets.DatasetDict(three).save_to_disk(tmp_path / "set")
    assert open_source(str(tmp_path / "set")).info.test_split == "test"
    assert open_source(str(tmp_path / "set"), test_split="fold").info.test_split == "fold"
    assert load(str(tmp_path / "set"), "test", test_split="fold", progress=False).images[0, 0, 0, 0] == 100


def test_any_folder_beside_the_training_folder_can_be_tested_on(tmp_path, make_classes):
    make_classes(tmp_path / "set" / "train")
    make_classes(tmp_path / "set" / "test", count=2, start=10)
    make_classes(tmp_path / "set" / "hard ones", count=3, start=20)
    source = str(tmp_path / "set")
    assert open_source(source).info.splits == {"train": 10, "test": 4}
    chosen = open_source(source, test_split="hard ones")
    assert (chosen.info.splits, chosen.info.test_split) == ({"train": 10, "hard ones": 6}, "hard ones")
    with pytest.raises(InputError, match=r"`test_split` .=`easy`. must be a split with rows, and another split"):
        open_source(source, test_split="easy")
