"""Data sets that are read forward in every epoch, from parquet files and tar shards, without a copy."""

import io
import os
import shutil
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image

from eqxcnn.data import DecodeAhead, EncodedImages, Preprocess, open_source
from eqxcnn.data.batches import buffered_order
from eqxcnn.data.row_sources import StreamRows
from eqxcnn.errors import InputError

SIZE = Preprocess((8, 8), 3, "crop")


def encode(value, width):
    file = io.BytesIO()
    Image.new("RGB", (width, 12), (value, 255 - value, 0)).save(file, "PNG")
    return file.getvalue()


def make_rows(count, start=0):
    return [
        {"image": {"bytes": encode(3 * row, 10 + row), "path": None}, "label": row % 3} for row in range(start, count)
    ]


@pytest.fixture
def parquet(tmp_path):
    """70 training rows in two parquet files and 9 test rows, without a dataset card."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))
    folder = tmp_path / "parquet"
    folder.mkdir()
    for name, rows in (
        ("train-00000", make_rows(40)),
        ("train-00001", make_rows(70, 40)),
        ("test-00000", make_rows(79, 70)),
    ):
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{name}-of-00002.parquet")
    return folder


@pytest.fixture
def shards(tmp_path):
    """Tar shards with the same rows as the parquet files."""
    folder = tmp_path / "shards"
    for split, start, count in (("train", 0, 40), ("train", 40, 70), ("test", 70, 79)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / split / f"{split}-{start:05d}.tar", "w") as shard:
            for row in range(start, count):
                for ending, data in (("png", encode(3 * row, 10 + row)), ("cls", str(row % 3).encode())):
                    info = tarfile.TarInfo(f"{row:06d}.{ending}")
                    info.size = len(data)
                    shard.addfile(info, io.BytesIO(data))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "shards"])
def test_a_stream_holds_the_same_as_the_tables(kind, request):
    folder = str(request.getfixturevalue(kind))
    stream, table = open_source(folder, streaming=True), open_source(folder)
    assert stream.info.splits == table.info.splits == {"train": 70, "test": 9}
    assert stream.info.class_names == table.info.class_names
    assert stream.info.varies_in_size
    assert stream.info.test_split == "test"
    for split in ("train", "test"):
        ours, theirs = (each.stream(split, preprocess=SIZE) for each in (stream, table))
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.array, theirs.array)
    with pytest.raises(InputError, match="is read as a stream, so its images cannot be decoded once and kept"):
        stream.decode("train", preprocess=SIZE)


def test_labels_are_read_once_and_kept(parquet, monkeypatch, capsys):
    first = open_source(str(parquet), streaming=True)
    assert "reading the labels of parquet/train ..." in capsys.readouterr().err
    assert open_source(str(parquet), streaming=True).info == first.info
    assert "reading the labels" not in capsys.readouterr().err
    file = parquet / "train-00001-of-00002.parquet"
    datasets.Dataset.from_parquet(str(file)).select(range(5)).to_parquet(file)
    changed = open_source(str(parquet), streaming=True).info
    assert changed.splits["train"] == 45
    assert changed.fingerprint != first.info.fingerprint


@pytest.mark.parametrize("kind", ["parquet", "shards"])
def test_other_images_with_the_same_labels_change_the_fingerprint(request, tmp_path, kind):
    folder = request.getfixturevalue(kind)
    before = open_source(str(folder), streaming=True).info.fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    assert open_source(str(copy), streaming=True).info.fingerprint == before
    file = next(path for path in sorted(folder.rglob("*")) if "00040" in path.name or "00001-of" in path.name)
    content, times = bytearray(file.read_bytes()), file.stat()
    place = content.index(b"IDAT") + 10
    content[place] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert open_source(str(folder), streaming=True).info.fingerprint != before


def make_reader(opened, buffer=16):
    split = opened.stream("train", preprocess=SIZE)
    count = len(split.labels)
    return split, DecodeAhead(split.images, split.labels, lambda epoch: buffered_order(count, 5, epoch, buffer), count)


def test_epochs_of_a_stream_are_shuffled_and_resumable(parquet):
    split, reader = make_reader(open_source(str(parquet), streaming=True))
    whole = [list(reader.batches(epoch, 0, [(10,)] * 7)) for epoch in (0, 1)]
    reader.close()
    decoded = split.array
    for epoch, batches in enumerate(whole):
        rows = np.concatenate([rows for *_, rows in batches])
        assert rows.tolist() == buffered_order(70, 5, epoch, 16).tolist()
        assert sorted(rows) == list(range(70))
        for images, labels, rows in batches:
            np.testing.assert_array_equal(images, decoded[rows])
            np.testing.assert_array_equal(labels, rows % 3)
    _, late = make_reader(open_source(str(parquet), streaming=True))
    for ours, theirs in zip(late.batches(1, 40, [(10,)] * 3), whole[1][4:], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
    late.close()


@pytest.mark.parametrize(("count", "size"), [(1, 1), (5, 1), (5, 100), (1000, 64)])
def test_a_buffer_moves_rows_no_further_than_its_size(count, size):
    order = buffered_order(count, 0, 0, size)
    assert sorted(order) == list(range(count))
    assert (order <= np.arange(count) + size - 1).all()
    if count == 1000:
        assert np.abs(order - np.arange(count)).mean() > 20
        assert order.tolist() != buffered_order(count, 0, 1, size).tolist()
    elif size == 1:
        assert order.tolist() == list(range(count))


def test_a_pass_keeps_only_the_rows_it_needs():
    opened = []

    def open_rows():
        opened.append(1)
        return iter(range(100, 200))

    rows = StreamRows(open_rows, 100, "split `train`")
    order = buffered_order(100, 0, 0, 10)[20:]
    found = []
    for place, row in enumerate(order.tolist()):
        found.append(rows.value(row, 0, lambda place=place: order[place:]))
        assert len(rows._passes[0]._kept) <= 10
    assert found == (order + 100).tolist()
    # Recent rows are still there, and earlier ones need another pass.
    assert rows.value(int(order[-1]), 0, lambda: order) == order[-1] + 100
    assert len(opened) == 1
    assert rows.value(0, 0, lambda: order) == 100
    assert len(opened) == 2


def test_passes_at_the_same_time_have_positions_of_their_own(parquet, monkeypatch):
    from datasets.iterable_dataset import ArrowExamplesIterable

    start, started = ArrowExamplesIterable._init_state_dict, []

    def note_the_start(self):
        started.append(self)
        return start(self)

    monkeypatch.setattr(ArrowExamplesIterable, "_init_state_dict", note_the_start)
    images = open_source(str(parquet), streaming=True).stream("train", preprocess=SIZE).images
    assert isinstance(images, EncodedImages)
    passes = []
    for _ in range(2):
        started.clear()
        images.rows.fresh().value(0, 0, lambda: np.arange(70))
        passes.append(list(started))
    # `datasets` keeps the position in the object, so that a pass in another thread would move it on to another shard.
    assert all(passes)
    assert not {id(each) for each in passes[0]} & {id(each) for each in passes[1]}


def test_a_stream_that_ends_early_or_breaks_is_named():
    rows = StreamRows(lambda: iter(range(7)), 100, "split `train`")
    with pytest.raises(InputError, match="the stream of split `train` ended after 7 of 100 rows: it has changed"):
        rows.value(9, 0, lambda: np.arange(100))

    def break_off():
        yield 0
        raise ConnectionError("no route to host")

    rows = StreamRows(break_off, 100, "split `train`")
    with pytest.raises(InputError, match=r"ended after 1 of 100 rows \(no route to host\): check the connection"):
        rows.value(1, 0, lambda: np.arange(100))


def test_a_shard_truncated_after_the_start_ends_the_loop(shards):
    _, reader = make_reader(open_source(str(shards), streaming=True))
    shard = shards / "train" / "train-00040.tar"
    shard.write_bytes(shard.read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"the stream of split `train` ended after .* of 70 rows"):
        list(reader.batches(0, 0, [(70,)]))
    reader.close()


def test_sources_that_cannot_be_streamed_are_refused(make_classes, tmp_path, monkeypatch):
    for source, message in (
        ("digits", "`data_streaming` needs a data set on the Hub, or a folder"),
        (str(make_classes(tmp_path / "set")), "has class folders, which are read file by file"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(source, streaming=True)
    monkeypatch.setattr("eqxcnn.hub_connection.why_unreachable", lambda: ConnectionError("no route"))
    with pytest.raises(
        InputError, match=r"`org/name` cannot be streamed, because the .* Hub cannot be reached \(no route"
    ):
        open_source("org/name", streaming=True)
