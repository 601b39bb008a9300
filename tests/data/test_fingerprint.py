"""The fingerprint of a source depends on its content, not on its name or the age of its files."""

import io
import os
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.table import InMemoryTable
from PIL import Image

from eqxcnn.data import fingerprint, open_source

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---

# A toy set
"""


def encode(value):
    """Returns a gray image as a BMP file, whose size does not depend on the gray value."""
    file = io.BytesIO()
    Image.new("L", (6, 4), value).save(file, "BMP")
    return file.getvalue()


def write_table(path, start, labels=(0, 1, 0, 1)):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [encode(start + index) for index in range(len(labels))], "label": labels})
    pq.write_table(table, path, compression=None)


def write_hub_layout(folder, start, with_card=True):
    for split, first in (("train", start), ("test", start + 10)):
        write_table(folder / "data" / f"{split}-00000-of-00001.parquet", first)
    if with_card:
        (folder / "README.md").write_text(CARD)
    return str(folder)


def read_values(source, split="train"):
    return open_source(source).decode(split, progress=False).images[:, 0, 0, 0].tolist()


def fingerprint_of(source, **options):
    return open_source(str(source), **options).info.fingerprint


# --- images ---


def test_two_folders_with_a_card_and_one_name_keep_their_own_images(tmp_path):
    first = write_hub_layout(tmp_path / "one" / "toyset", 0)
    second = write_hub_layout(tmp_path / "two" / "toyset", 100)
    assert (read_values(first), read_values(first, "test")) == ([0, 1, 2, 3], [10, 11, 12, 13])
    assert (read_values(second), read_values(second, "test")) == ([100, 101, 102, 103], [110, 111, 112, 113])
    assert read_values(first) == [0, 1, 2, 3]


@pytest.mark.parametrize("with_card", [True, False])
def test_a_folder_replaced_in_place_gives_its_new_images(tmp_path, with_card):
    source = write_hub_layout(tmp_path / "toyset", 0, with_card)
    tables = sorted((tmp_path / "toyset" / "data").iterdir())
    assert read_values(source) == [0, 1, 2, 3]
    before = open_source(source).info.fingerprint
    stats = [table.stat() for table in tables]
    shutil.rmtree(tmp_path / "toyset")
    write_hub_layout(tmp_path / "toyset", 100, with_card)
    # An archive or a copy may restore the modification time.
    for table, stat in zip(tables, stats, strict=True):
        os.utime(table, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert table.stat().st_size == stat.st_size
    assert read_values(source) == [100, 101, 102, 103]
    assert open_source(source).info.fingerprint != before


def test_an_image_file_replaced_with_the_same_size_and_time_gives_its_new_pixels(tmp_path):
    files = [tmp_path / "set" / split / name / "0.bmp" for split in ("train", "test") for name in "ab"]
    for value, file in enumerate(files):
        file.parent.mkdir(parents=True)
        file.write_bytes(encode(value))
    assert read_values(str(tmp_path / "set")) == [0, 1]
    stat = files[0].stat()
    files[0].write_bytes(encode(9))
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert files[0].stat().st_size == stat.st_size
    assert read_values(str(tmp_path / "set")) == [9, 1]


# --- fingerprints ---


def test_a_fingerprint_depends_on_neither_place_nor_layout(tmp_path, make_classes):
    images = make_classes(tmp_path / "one")
    shutil.copytree(images, tmp_path / "two" / "other")
    expected = fingerprint_of(images)
    assert fingerprint_of(tmp_path / "two" / "other") == expected
    files = sorted(images.glob("*/*.png"))
    features = datasets.Features(picture=datasets.Image(), kind=datasets.ClassLabel(names=["a", "b"]))
    columns = {"picture": [{"bytes": path.read_bytes(), "path": None} for path in files], "kind": [0] * 5 + [1] * 5}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved", num_shards=2)
    assert fingerprint_of(tmp_path / "saved") == expected
    plain = {"image": [path.read_bytes() for path in files], "label": ["a"] * 5 + ["b"] * 5}
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table(plain), tmp_path / "tables" / "train.parquet", row_group_size=3)
    assert fingerprint_of(tmp_path / "tables") == expected


def test_a_fingerprint_follows_images_labels_names_order_and_hold_out(tmp_path, draw, make_classes):
    folder = make_classes(tmp_path / "set")
    seen = [fingerprint_of(folder), fingerprint_of(folder, seed=1), fingerprint_of(folder, test_fraction=0.4)]
    draw(folder / "a" / "0.png", 9)
    seen.append(fingerprint_of(folder))
    (folder / "b").rename(folder / "c")
    seen.append(fingerprint_of(folder))
    (folder / "a" / "1.png").rename(folder / "a" / "9.png")
    seen.append(fingerprint_of(folder))
    (folder / "a" / "9.png").rename(folder / "c" / "9.png")
    seen.append(fingerprint_of(folder))
    (folder / "c" / "9.png").unlink()
    seen.append(fingerprint_of(folder))
    assert len(set(seen)) == len(seen)


def test_a_fingerprint_follows_the_test_split(tmp_path):
    source = write_hub_layout(tmp_path / "set", 0)
    before = fingerprint_of(source)
    write_table(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", 10, labels=(0, 1, 1, 1))
    assert fingerprint_of(source) != before


def test_the_fingerprint_of_the_digits_is_always_the_same():
    assert fingerprint_of("digits")[:16] == "45bbc198f97d32c6"


def test_bytes_that_move_between_images_change_the_fingerprint(tmp_path):
    def digest(*images):
        features = datasets.Features(image=datasets.Value("binary"))
        return fingerprint.fingerprint_images(datasets.Dataset.from_dict({"image": images}, features=features), "image")

    digests = [digest(b"ab", b"c"), digest(b"a", b"bc"), digest(b"abc"), digest(b"abc", b""), digest(b"abc", None)]
    assert len(set(digests)) == 5
    assert digest(b"ab", b"c") == digests[0]


def test_only_the_rows_of_a_sliced_table_count():
    def digest(table):
        return fingerprint.fingerprint_images(datasets.Dataset(InMemoryTable(table)), "image")

    table = pa.table({"image": [b"zz", b"ab", None, b"c", b"y"]})
    assert digest(table.slice(1, 3)) == digest(pa.table({"image": [b"ab", None, b"c"]}))


def test_a_missing_file_has_a_fingerprint_too(tmp_path):
    features = datasets.Features(image=datasets.Image())
    columns = {"image": [{"bytes": None, "path": str(tmp_path / "x.png")}]}
    rows = datasets.Dataset.from_dict(columns, features=features)
    before = fingerprint.fingerprint_images(rows, "image")
    (tmp_path / "x.png").write_bytes(b"new")
    assert fingerprint.fingerprint_images(rows, "image") != before


# --- fingerprints of large sets ---


@pytest.fixture
def old_classes(make_classes, tmp_path, monkeypatch):
    """Class folders that count as large, with files that count as old."""
    monkeypatch.setattr(fingerprint, "_NOTE_BYTES", 100)
    monkeypatch.setattr(fingerprint, "_CLOCK_TICK_SECONDS", -60.0)
    return make_classes(tmp_path / "set")


def notes(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("images-*"))


def test_unchanged_files_of_a_large_set_are_not_read_again(old_classes, tmp_path, monkeypatch):
    before = fingerprint_of(old_classes)
    assert len(notes(tmp_path)) == 1
    monkeypatch.setattr(fingerprint, "_read_file", None)
    assert fingerprint_of(old_classes) == before


def test_a_changed_file_of_a_large_set_is_read_again(old_classes, tmp_path, draw):
    before = fingerprint_of(old_classes)
    stat = (old_classes / "a" / "0.png").stat()
    draw(old_classes / "a" / "0.png", 9)
    os.utime(old_classes / "a" / "0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint_of(old_classes) != before
    assert len(notes(tmp_path)) == 2


def test_the_fingerprint_of_files_just_written_is_not_kept(old_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_CLOCK_TICK_SECONDS", 60.0)
    fingerprint_of(old_classes)
    assert notes(tmp_path) == []


def test_a_cache_that_cannot_be_written_costs_only_time(old_classes, tmp_path, monkeypatch):
    before = fingerprint_of(old_classes)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "file" / "x"))
    assert fingerprint_of(old_classes) == before


def test_a_damaged_note_is_ignored(old_classes, tmp_path):
    before = fingerprint_of(old_classes)
    for path in (tmp_path / "cache").rglob("images-*"):
        path.write_text("[")
    assert fingerprint_of(old_classes) == before
