"""The decoded cache: bad rows, hits, damaged entries, full disks, and processes that start together."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from eqxcnn.data import Preprocess, load, open_source, parts
from eqxcnn.data.cache import cache_root
from eqxcnn.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """20 gray training images of 6x4, values 0 to 9 in class `a` and 100 to 109 in `b`, and 2 test images."""
    for split, count in (("train", 10), ("test", 1)):
        for start, name in ((0, "a"), (100, "b")):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("L", (6, 4), start + index).save(tmp_path / "set" / split / name / f"{index}.png")
    return tmp_path / "set"


ALL = [*range(10), *range(100, 110)]


def values(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def entries(tmp_path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


# --- bad rows ---


def test_a_bad_image_stops_with_its_row_named(folder, tmp_path):
    (folder / "train" / "a" / "3.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"row 3 of split `train` cannot be used: `.*/a/3.png`: .*--on-bad-image skip"):
        load(str(folder), "train")
    assert entries(tmp_path) == []
    # The other split has no bad row.
    assert len(load(str(folder), "test").labels) == 2


def test_bad_images_are_skipped_and_counted(folder, tmp_path):
    for name in ("a/3.png", "b/9.png"):
        (folder / "train" / name).write_bytes(b"broken")
    for _ in range(2):  # Decoded, then from the cache.
        split = load(str(folder), "train", on_bad_image="skip")
        assert split.skipped == 2
        assert values(split) == [value for value in ALL if value not in (3, 109)]
        assert split.labels.tolist() == [0] * 9 + [1] * 9
    assert '"its content' not in (entries(tmp_path)[0] / "meta.json").read_text()
    assert "a/3.png`: its content is not an image" in (entries(tmp_path)[0] / "meta.json").read_text()


def test_a_missing_label_stops_or_is_skipped(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["x", "y"]))
    images = [np.full((4, 6), index, np.uint8) for index in range(5)]
    rows = datasets.Dataset.from_dict({"image": images, "label": [0, -1, 1, None, 0]}, features=features)
    test = rows.select([0, 2])
    datasets.DatasetDict(train=rows, test=test).save_to_disk(tmp_path / "set")
    with pytest.raises(InputError, match="row 1 of split `train` cannot be used: it has no label"):
        load(str(tmp_path / "set"), "train")
    split = load(str(tmp_path / "set"), "train", on_bad_image="skip")
    assert (values(split), split.labels.tolist(), split.skipped) == ([0, 2, 4], [0, 1, 0], 2)


def test_bad_rows_of_a_held_out_part_are_numbered_as_in_the_split(tmp_path):
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("L", (6, 4), index).save(tmp_path / "set" / name / f"{index}.png")
    held = open_source(str(tmp_path / "set")).parts["test"].numbers
    assert len(held) == 4
    row = int(held[-1])
    assert row >= 10
    (tmp_path / "set" / "b" / f"{row - 10}.png").write_bytes(b"")
    with pytest.raises(InputError, match=f"row {row} of split `train` cannot be used: `.*/b/{row - 10}.png`"):
        load(str(tmp_path / "set"), "test")
    split = load(str(tmp_path / "set"), "test", on_bad_image="skip")
    assert values(split) == [number % 10 for number in held[:-1]]
    assert split.skipped == 1


def test_a_split_of_bad_rows_only_is_rejected(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["x", "y"]))
    good = [np.zeros((4, 6), np.uint8)] * 2
    train = datasets.Dataset.from_dict({"image": good, "label": [0, 1]}, features=features)
    bad = [{"bytes": b"no", "path": None}] * 2
    test = datasets.Dataset.from_dict({"image": bad, "label": [0, 1]}, features=features)
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "set")
    with pytest.raises(InputError, match=r"none of the 2 rows of split `test` can be used \(row 0: its content"):
        load(str(tmp_path / "set"), "test", on_bad_image="skip")


# --- hits and keys ---


def test_a_cached_split_is_memory_mapped_and_not_decoded(folder, monkeypatch, capsys):
    first = load(str(folder), "train")
    assert "decoding 20 images of set/train to 4x6x1" in capsys.readouterr().err

    monkeypatch.setattr(parts, "decode_rows", None)
    again = load(str(folder), "train")
    assert values(first) == values(again) == ALL
    assert isinstance(again.images.base, np.memmap)
    assert type(again.images) is np.ndarray
    assert not again.images.flags.writeable
    assert capsys.readouterr().err == ""


def test_options_that_change_the_arrays_change_the_key(folder, tmp_path):
    load(str(folder), "train")
    load(str(folder), "train", on_bad_image="skip")
    load(str(folder), "train", image_size=(3, 3))
    load(str(folder), "train", channels=3)
    load(str(folder), "test")
    assert len(entries(tmp_path)) == 5
    Image.new("L", (6, 4), 200).save(folder / "train" / "a" / "0.png")
    assert values(load(str(folder), "train"))[0] == 200
    assert len(entries(tmp_path)) == 6


def test_hold_outs_of_different_seeds_and_sizes_differ(tmp_path, folder):
    options = ((0, 0.2), (1, 0.2), (0, 0.4), (0, 0.2))
    splits = [load(str(folder / "train"), "test", seed=seed, test_fraction=fraction) for seed, fraction in options]
    assert [len(split.labels) for split in splits] == [4, 4, 8, 4]
    assert values(splits[0]) != values(splits[1])
    assert values(splits[0]) == values(splits[3])
    assert len(entries(tmp_path)) == 3


def test_the_folder_of_the_cache(tmp_path, monkeypatch, folder):
    assert cache_root(tmp_path / "x") == tmp_path / "x"
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("EQXCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "eqxcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "eqxcnn"
    load(str(folder), "train", cache_dir=tmp_path / "given")
    assert (tmp_path / "given").is_dir()
    assert not (tmp_path / "home").exists()


def test_chunks_keep_their_order(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("eqxcnn.data.decode._CHUNK_ROWS", 3)
    (folder / "train" / "a" / "4.png").write_bytes(b"")
    split = load(str(folder), "train", on_bad_image="skip")
    assert values(split) == [value for value in ALL if value != 4]
    assert split.labels.tolist() == [0] * 9 + [1] * 10


# --- damage ---


def cut(name):
    def damage(entry):
        os.truncate(entry / name, (entry / name).stat().st_size - 1)

    return damage


def empty(name):
    return lambda entry: os.truncate(entry / name, 0)


def lengthen(entry):
    with (entry / "images.npy").open("ab") as file:
        file.write(b"\0")


def other_labels(entry):
    np.save(entry / "labels.npy", np.zeros(7, np.int32))


def swap_labels(entry):
    data = (entry / "labels.npy").read_bytes()
    (entry / "labels.npy").write_bytes(data[:-4] + bytes(4))


def change_header(name, at):
    """Returns a function that writes a bracket at byte `at` of a `.npy` file, whose text header starts at byte 10.

    NumPy tokenizes a header that it cannot parse.
    """

    def damage(entry):
        data = bytearray((entry / name).read_bytes())
        data[at : at + 1] = b"["
        (entry / name).write_bytes(data)

    return damage


def other_skipped(entry):
    meta = (entry / "meta.json").read_text()
    (entry / "meta.json").write_text(meta.replace('"skipped": []', '"skipped": [[3, "x"]]'))


def other_meta(entry):
    (entry / "meta.json").write_text("[1, 2]")


def no_meta(entry):
    (entry / "meta.json").unlink()


FILES = ("images.npy", "labels.npy", "meta.json")
HEADERS = [change_header(name, at) for name in FILES[:2] for at in (3, 9, 20, 60)]
OTHERS = [lengthen, other_labels, swap_labels, other_skipped, other_meta, no_meta]
DAMAGES = [*map(cut, FILES), *map(empty, FILES), *HEADERS, *OTHERS]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_reported_and_built_again(folder, tmp_path, capsys, damage):
    load(str(folder), "train", progress=False)
    entry = entries(tmp_path)[0]
    damage(entry)
    split = load(str(folder), "train", progress=False)
    assert values(split) == ALL
    assert split.labels.tolist() == [0] * 10 + [1] * 10
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"the image cache {entry} is damaged" in printed
    assert values(load(str(folder), "train", progress=False)) == ALL
    assert capsys.readouterr().err == ""


def test_the_remains_of_a_killed_process_are_removed(folder, tmp_path):
    opened = open_source(str(folder))
    key = opened._cache_key("train", Preprocess((4, 6), 1), "stop")
    partial = tmp_path / "cache" / f"{key}.partial"
    partial.mkdir(parents=True)
    (partial / "images.npy").write_bytes(b"half")
    assert values(opened.decode("train")) == ALL
    assert [path.name for path in entries(tmp_path)] == [key]


@pytest.mark.parametrize("place", ["eqxcnn.data.cache._write_images", "os.fsync"])
def test_a_full_disk_is_reported_in_one_sentence_and_leaves_no_files(folder, tmp_path, monkeypatch, place):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, full)
    with pytest.raises(InputError, match=r"no room in `.*/cache` for 480 bytes") as caught:
        load(str(folder), "train")
    assert isinstance(caught.value.__cause__, OSError)
    assert entries(tmp_path) == []


def test_an_unwritable_cache_folder_is_reported(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written in `.*/file/x`.*set `EQXCNN_CACHE`"):
        load(str(folder), "train", cache_dir=tmp_path / "file" / "x")


# --- two processes ---

LOADER = """
import hashlib, sys
from eqxcnn.data import load
split = load(sys.argv[1], "train")
print(hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_build_one_entry(folder, tmp_path):
    opened = open_source(str(folder))
    key = opened._cache_key("train", Preprocess((4, 6), 1), "stop")
    (tmp_path / "cache").mkdir()
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf")}
    # The lock is held until both processes wait for it, so that they do start together.
    with FileLock(str(tmp_path / "cache" / f"{key}.lock")):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", LOADER, str(folder)],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        for process in processes:
            lines = iter(process.stderr.readline, "")
            assert any("waiting for another process" in line for line in lines)
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(error.count("decoding 20 images") for _, error in results) == [0, 1]
    split = opened.decode("train")
    digest = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
    assert [out.strip() for out, _ in results] == [digest, digest]
    assert [path.name for path in entries(tmp_path)] == [key]


# --- real data ---


def test_mnist(mnist, tmp_path):
    opened = open_source(mnist)
    assert opened.info.class_names == tuple("0123456789")
    assert (opened.info.image_size, opened.info.channels) == ((28, 28), 1)
    assert opened.info.splits == {"train": 60000, "test": 10000}
    test = opened.decode("test", cache_dir=tmp_path)
    # The published counts of the test set's digits, and its mean pixel.
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.images.shape == (10000, 28, 28, 1)
    assert test.images.mean() == pytest.approx(33.791, abs=1e-3)
