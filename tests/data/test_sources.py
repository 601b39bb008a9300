"""Tables, folders and Hub ids open as splits, columns and classes, or are rejected in one sentence."""

import http.server
import shutil
import socket
import threading

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.table import InMemoryTable
from PIL import Image

from eqxcnn import hub_connection
from eqxcnn.data import SOURCES, load, open_source
from eqxcnn.data.columns import find_label_column, read_labels
from eqxcnn.data.sources import find_source
from eqxcnn.errors import InputError


def rows(labels, feature=None) -> datasets.Dataset:
    images = [np.full((4, 6), 10 * index, np.uint8) for index in range(len(labels))]
    table = datasets.Dataset.from_dict({"image": images}, features=datasets.Features(image=datasets.Image()))
    column = datasets.Dataset.from_dict({"label": labels})
    table = datasets.concatenate_datasets([table, column], axis=1)
    return table.cast_column("label", feature) if feature else table


def values(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


# --- names ---


def test_digits_need_no_network():
    opened = open_source("digits")
    assert opened.info.class_names == tuple("0123456789")
    assert opened.info.channels == 1
    assert opened.info.image_size is None
    assert opened.info.splits == {"train": 1797}
    train, test = opened.decode("train"), opened.decode("test", image_size=(16, 12), channels=3)
    assert train.images.shape == (1438, 8, 8, 1)
    assert test.images.shape == (359, 16, 12, 3)
    assert (train.images.min(), train.images.max()) == (0, 255)
    # scikit-learn's first image, a zero, starts with 0, 0, 5, 13, 9, 1, 0, 0 of 16.
    assert train.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert train.labels[0] == 0
    assert np.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_known_names_are_hub_repositories():
    for name, source in SOURCES.items():
        assert (source.hub is None) == (name == "digits")
        assert source.hub is None or find_source(source.hub)[1].hub == source.hub
        assert source.url is None or source.url.startswith("https://huggingface.co/datasets/")
    assert find_source("mnist") == ("mnist", SOURCES["mnist"])
    assert find_source("org/my-set:small")[1].config == "small"
    assert find_source("org/my-set")[0] == "my-set"


def test_known_names_come_before_folders_and_folders_before_hub_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "set").mkdir(parents=True)
    (tmp_path / "mnist").mkdir()
    assert find_source("org/set")[1].folder == tmp_path / "org" / "set"
    assert find_source("mnist")[1].hub == "ylecun/mnist"
    assert find_source("./mnist")[1].folder == tmp_path / "mnist"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", "did you mean `mnist`"),
        ("no_such_thing", "known: .*`digits`"),
        ("./none", "no folder `./none`"),
        ("/no/such/folder", "no folder `/no/such/folder`"),
        ("", "no folder ``"),
        ("a/b/c", "no folder `a/b/c`"),
    ],
)
def test_unknown_names_are_rejected(name, message):
    with pytest.raises(InputError, match=message):
        open_source(name)


def test_a_file_is_rejected(tmp_path, draw):
    draw(tmp_path / "x.png", 1)
    with pytest.raises(InputError, match="is a file: give the folder"):
        open_source(str(tmp_path / "x.png"))


# --- folders ---


def test_class_folders_without_splits(tmp_path, make_classes):
    opened = open_source(str(make_classes(tmp_path / "pets", count=10)))
    assert opened.info.name == "pets"
    assert opened.info.class_names == ("a", "b")
    assert (opened.info.image_size, opened.info.channels) == ((4, 6), 1)
    assert (opened.info.splits, opened.info.test_split) == ({"train": 20}, None)
    train, test = opened.decode("train"), opened.decode("test")
    assert (len(train.labels), len(test.labels)) == (16, 4)
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert sorted(values(train) + values(test)) == [*range(10), *range(50, 60)]
    assert all((value >= 50) == label for value, label in zip(values(test), test.labels, strict=True))


@pytest.mark.parametrize("test_name", ["test", "val", "validation", "valid"])
def test_class_folders_with_splits(tmp_path, test_name, make_classes):
    make_classes(tmp_path / "train")
    make_classes(tmp_path / test_name, count=2, start=10)
    train, test = (load(str(tmp_path), split) for split in ("train", "test"))
    assert sorted(values(train)) == [0, 1, 2, 3, 4, 50, 51, 52, 53, 54]
    assert sorted(values(test)) == [10, 11, 60, 61]
    assert train.class_names == test.class_names == ("a", "b")


def test_a_validation_split_is_not_needed_beside_a_test_split(tmp_path):
    three = {name: rows([0, 1] * (2 + place)) for place, name in enumerate(("validation", "train", "test"))}
    datasets.DatasetDict(three).save_to_disk(tmp_path / "set")
    opened = open_source(str(tmp_path / "set"))
    assert opened.info.splits == {"validation": 4, "train": 6, "test": 8}
    assert (len(opened.decode("train").labels), len(opened.decode("test").labels)) == (6, 8)


def test_words_in_paths_are_not_mistaken_for_splits(tmp_path, draw, make_classes):
    # `datasets` alone would make the class `train` the training split, and drop all other images.
    folder = make_classes(tmp_path / "vehicles", names=("car", "train"))
    draw(folder / "car" / "test_1.png", 99)
    info = open_source(str(folder)).info
    assert info.class_names == ("car", "train")
    assert info.splits == {"train": 11}


def test_unlabeled_test_images_are_ignored(tmp_path, draw, make_classes):
    make_classes(tmp_path / "train")
    draw(tmp_path / "test" / "1.png", 1)
    assert open_source(str(tmp_path)).info.splits == {"train": 10}


def test_odd_files_and_names_in_class_folders(tmp_path, make_classes):
    folder = make_classes(tmp_path / "my [set] *", names=("a", "b [c]"))
    shutil.copy(folder / "a" / "0.png", folder / "a" / "UPPER.PNG")
    for name in (".DS_Store", "._0.png", "notes.txt"):
        (folder / "a" / name).write_bytes(b"no image")
    (folder / ".git").mkdir()
    shutil.copy(folder / "a" / "0.png", folder / ".git" / "x.png")
    (folder / "empty").mkdir()
    (folder / "labels.csv").write_text("a,b\n1,2\n")
    (folder / "README.md").write_text("# My pictures\n")
    info = open_source(str(folder)).info
    assert info.class_names == ("a", "b [c]")
    assert info.splits == {"train": 11}


def test_a_class_folder_may_be_a_link(tmp_path, make_classes):
    # `datasets` alone skips it.
    folder = make_classes(tmp_path / "set")
    (folder / "linked").symlink_to(make_classes(tmp_path / "elsewhere", names="z") / "z")
    info = open_source(str(folder)).info
    assert info.class_names == ("a", "b", "linked")
    assert info.splits == {"train": 15}


def test_parquet_with_splits(tmp_path):
    feature = datasets.ClassLabel(names=["cat", "dog"])
    for name, labels in {"train": [0, 1, 1], "test": [1, 0]}.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        rows(labels, feature).to_parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
    opened = open_source(str(tmp_path))
    assert opened.info.class_names == ("cat", "dog")
    assert (opened.info.splits, opened.info.test_split) == ({"train": 3, "test": 2}, "test")
    train = opened.decode("train")
    assert train.labels.tolist() == [0, 1, 1]
    assert train.labels.dtype == np.int32
    assert values(train) == [0, 10, 20]
    assert opened.decode("test").labels.tolist() == [1, 0]


def test_plain_parquet_of_bytes_and_names(tmp_path, draw):
    draw(tmp_path / "x.png", 7)
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "set").mkdir()
    table = pa.table({"id": list(range(8)), "image": [data] * 8, "label": ["dog", "cat"] * 4})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    train = load(str(tmp_path / "set"), "train")
    assert train.class_names == ("cat", "dog")
    assert values(train) == [7] * 6
    assert np.bincount(train.labels).tolist() == [3, 3]


@pytest.mark.parametrize("with_splits", [True, False])
def test_save_to_disk(tmp_path, with_splits):
    train = rows([0, 1, 0, 1, 1, 0], datasets.ClassLabel(names=["x", "y"]))
    if with_splits:
        # The same names in another order.
        other = rows([1, 0], datasets.ClassLabel(names=["y", "x"]))
        datasets.DatasetDict(train=train, test=other).save_to_disk(tmp_path / "saved")
    else:
        train.save_to_disk(tmp_path / "saved")
    opened = open_source(str(tmp_path / "saved"))
    assert opened.info.class_names == ("x", "y")
    assert opened.info.splits == ({"train": 6, "test": 2} if with_splits else {"train": 6})
    if with_splits:
        assert opened.decode("train").labels.tolist() == [0, 1, 0, 1, 1, 0]
        assert opened.decode("test").labels.tolist() == [0, 1]
    else:
        assert np.bincount(opened.decode("test").labels).tolist() == [1, 1]


def test_a_single_split_may_have_any_name_and_several_need_train(tmp_path):
    both = rows([0, 1, 0, 1], datasets.ClassLabel(names=["x", "y"]))
    datasets.DatasetDict(validation=both).save_to_disk(tmp_path / "one")
    assert len(load(str(tmp_path / "one"), "train").labels) == 2
    datasets.DatasetDict(validation=both, test=both).save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match="has the splits `validation`, `test`, and none of them is called `train`"):
        open_source(str(tmp_path / "two"))
    datasets.DatasetDict(train=both, validation=both, test=both).save_to_disk(tmp_path / "three")
    with pytest.raises(InputError, match=r"\(=`train`\) leaves no split called `train` among the other 2 splits"):
        open_source(str(tmp_path / "three"), test_split="train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images or tables"),
        ({"a/1.png": 1, "a/2.png": 2}, "at least two classes"),
        ({"1.png": 1}, "one folder of images per class"),
        ({"1.txt": b"hello"}, "no image column among `text`"),
        ({"train.parquet": b"PAR1 and then nothing"}, "train.parquet` is not a parquet file: Parquet magic bytes"),
        ({"a/1.png": 1, "b/1.png": 2}, "each class has only one row"),
        ({"a/1.png": b"", "b/1.png": b""}, "none of the 2 images of split `train`"),
    ],
)
def test_unusable_folders_are_rejected_in_one_sentence(tmp_path, draw, files, message):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, int):
            draw(folder / name, content)
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_source(str(folder))
    assert "\n" not in str(caught.value)


# --- columns and labels ---


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([10, 2, 10, 7], ("2", "7", "10"), [2, 0, 2, 1]),
        (["dog", "cat", "dog", "ant"], ("ant", "cat", "dog"), [2, 1, 2, 0]),
        ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
        ([3.0, None, 5.0, 3.0], ("3", "5"), [0, -1, 1, 0]),
        ([3.0, float("nan"), 5.0, 3.0], ("3", "5"), [0, -1, 1, 0]),
        ([4, -1, None, 6], ("4", "6"), [0, -1, -1, 1]),
        (["x", "", None, "y"], ("x", "y"), [0, -1, -1, 1]),
        ([-1, 1, 1, -1], ("-1", "1"), [0, 1, 1, 0]),
    ],
)
def test_labels_of_every_type(tmp_path, labels, names, numbers):
    datasets.DatasetDict(train=rows(labels), test=rows(labels[:1])).save_to_disk(tmp_path / "set")
    opened = open_source(str(tmp_path / "set"))
    assert opened.info.class_names == names
    assert opened.parts["train"].labels.tolist() == numbers


def test_plain_numbers_are_numbered_across_splits(tmp_path):
    datasets.DatasetDict(train=rows([1, 9, 9]), test=rows([5, 1])).save_to_disk(tmp_path / "set")
    opened = open_source(str(tmp_path / "set"))
    assert opened.info.class_names == ("1", "5", "9")
    assert opened.decode("train").labels.tolist() == [0, 2, 2]
    assert opened.decode("test").labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, 1], "at least two classes; the column `label` has only `1`"),
        ([None, -1, -1], "at least two classes; the column `label` has none"),
        ([0.5, 1.0, 2.0], "must be whole numbers or names"),
        (["p", "q", "r"], "`label` differs in every row"),
    ],
)
def test_columns_that_hold_no_classes_are_rejected(tmp_path, labels, message):
    rows(labels).save_to_disk(tmp_path / "set")
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path / "set"))


def test_the_choice_of_columns(tmp_path):
    def saved(name, **columns):
        table = rows([0, 1, 0, 1]).remove_columns("label")
        for column, content in columns.items():
            table = table.add_column(column, content)
        table.save_to_disk(tmp_path / name)
        return str(tmp_path / name)

    fine, coarse = ["a", "b", "a", "b"], ["x", "x", "y", "y"]
    two = saved("two", fine=fine, coarse=coarse)
    with pytest.raises(InputError, match=r"`fine` and `coarse` can each be the label column: .*`label_column`"):
        open_source(two)
    assert open_source(two, label_column="coarse").info.class_names == ("x", "y")
    with pytest.raises(InputError, match=r"`label_column` \(=`rough`\) must be one of the columns `image`, `fine`"):
        open_source(two, label_column="rough")
    # A usual name is preferred, then a column declared to hold classes.
    assert open_source(saved("usual", caption=fine, Class=coarse)).info.class_names == ("x", "y")
    declared = datasets.load_from_disk(two).cast_column("coarse", datasets.ClassLabel(names=["y", "x"]))
    declared.save_to_disk(tmp_path / "declared")
    assert open_source(str(tmp_path / "declared")).info.class_names == ("y", "x")
    masks = datasets.load_from_disk(two).rename_column("coarse", "label")
    masks = masks.rename_column("image", "picture1").add_column("mask", masks["fine"])
    masks = datasets.concatenate_datasets([masks, rows([0] * 4).select_columns("image")], axis=1)
    masks.save_to_disk(tmp_path / "masks")
    assert open_source(str(tmp_path / "masks")).image_column == "image"
    assert open_source(str(tmp_path / "masks"), image_column="picture1").image_column == "picture1"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        # A usual name of a class label, then a usual name, then a class label, then any suitable column.
        ({"label": "string", "target": "classes", "kind": "classes"}, "target"),
        ({"label": "int64", "kind": "classes"}, "label"),
        ({"caption": "string", "kind": "classes"}, "kind"),
        ({"caption": "string"}, "caption"),
    ],
)
def test_the_label_column_is_found_by_name_and_type(features, expected):
    classes = datasets.ClassLabel(names=["x", "y"])
    columns = {name: classes if kind == "classes" else datasets.Value(kind) for name, kind in features.items()}
    assert find_label_column(datasets.Features(columns)) == expected


@pytest.mark.parametrize("label", [2, -2, -3, -(2**56), 2**62])
def test_a_class_number_beyond_the_names_is_rejected(label):
    info = datasets.DatasetInfo(features=datasets.Features(label=datasets.ClassLabel(names=["x", "y"])))
    table = datasets.Dataset(InMemoryTable(pa.table({"label": [0, 1, label]})), info=info)
    with pytest.raises(
        InputError, match=f"label {label} of split `train` is out of range: the split has 2 class names"
    ):
        read_labels({"train": table}, "label")


def test_sizes_and_channels_are_found(tmp_path, draw, make_classes):
    folder = make_classes(tmp_path / "set")
    draw(folder / "a" / "wide.png", 3, size=(9, 4))
    Image.new("RGB", (6, 4), (1, 2, 3)).save(folder / "b" / "color.png")
    opened = open_source(str(folder))
    assert (opened.info.image_size, opened.info.channels) == (None, 3)
    with pytest.raises(InputError, match="differ in size: give an `image_size`"):
        opened.decode("train")
    assert opened.decode("train", image_size=(5, 3)).images.shape[1:] == (5, 3, 3)


# --- the Hub ---


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(hub_connection, "why_unreachable", lambda: ConnectionError("no route"))


@pytest.mark.usefixtures("offline")
def test_a_hub_set_without_network_or_cache_is_reported():
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(InputError, match=r"cannot be reached \(no route\).*`ylecun/mnist`.*--data FOLDER.*digits") as e:
        open_source("mnist")
    assert isinstance(e.value.__cause__, ConnectionError)
    assert "\n" not in str(e.value)
    assert datasets.config.HF_HUB_OFFLINE is before


@pytest.mark.usefixtures("offline")
def test_a_hub_set_without_network_comes_from_the_hubs_cache(tmp_path, make_classes):
    # The files of an online run, made from a local set: org___name/config/version/hash/name-split.arrow.
    datasets.load_dataset("imagefolder", data_dir=str(make_classes(tmp_path / "set")), cache_dir=str(tmp_path / "made"))
    kept = tmp_path / "hub" / "org___animals" / "default"
    shutil.copytree(next((tmp_path / "made" / "imagefolder").iterdir()), kept)
    for path in kept.rglob("*.arrow"):
        path.rename(path.with_name(path.name.replace("imagefolder-", "animals-")))
    for path in kept.rglob("dataset_info.json"):
        config = '"config_name": "default"'
        text = path.read_text().replace('"dataset_name": "imagefolder"', '"dataset_name": "animals"')
        path.write_text(text[: text.index('"config_name"')] + config + text[text.index(', "version"') :])
    opened = open_source("org/animals")
    assert opened.info.name == "animals"
    assert opened.info.splits == {"train": 10}
    assert opened.decode("train").images.shape == (8, 4, 6, 1)


def test_an_unknown_hub_set_is_reported(monkeypatch):
    def refuse(*_):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'org/none' doesn't exist on the Hub")

    monkeypatch.setattr(hub_connection, "why_unreachable", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError, match="no data set `org/none` that you may read"):
        open_source("org/none")


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(503)

    def log_message(self, *_):
        pass


def test_an_unreachable_hub_is_detected(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(hub_connection, "_TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert isinstance(hub_connection.why_unreachable(), OSError)  # It accepts the connection and never answers.
    assert isinstance(hub_connection.why_unreachable(), OSError)  # Nothing listens on the port any more.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "no address")
    assert isinstance(hub_connection.why_unreachable(), ConnectionError)
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(hub_connection, "_TIMEOUT_SECONDS", 20.0)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert hub_connection.why_unreachable() is None
