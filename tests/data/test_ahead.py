"""Images decoded during training are the same with threads, with processes, and from any start position."""

import io
import os
import signal
import time

import datasets
import numpy as np
import pytest
from PIL import Image

from eqxcnn.data import DecodeAhead, Preprocess, from_dataset, open_source
from eqxcnn.errors import InputError
from eqxcnn.images.crops import RandomCrop

SIZE = Preprocess((8, 8), 3, "crop")


def encode(value, size=(20, 16)):
    """A PNG whose left half is brighter than its right half."""
    pixels = np.full((size[1], size[0], 3), value, np.uint8)
    pixels[:, : size[0] // 2] += 20
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_split(bad=(), count=24, on_bad_image="stop", preprocess=SIZE):
    """Makes a split whose images get brighter by 9 gray levels per row; the images of rows in `bad` are unreadable."""
    images = [{"bytes": b"?" if row in bad else encode(9 * row), "path": None} for row in range(count)]
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    labels = [row % 3 for row in range(count)]
    rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    opened = from_dataset(datasets.DatasetDict(train=rows, test=rows))
    return opened.stream("train", preprocess=preprocess, on_bad_image=on_bad_image)


def order(epoch):
    return np.random.default_rng(epoch).permutation(24)


def read(split, epoch=0, first=0, shapes=((4,), (4,)), **settings):
    reader = DecodeAhead(split.images, split.labels, order, 24, **settings)
    found = list(reader.batches(epoch, first, shapes))
    reader.close()
    return found


def test_streamed_images_equal_decoded_ones():
    split, decoded = make_split(), make_split().array
    assert split.images.shape == decoded.shape == (24, 8, 8, 3)
    assert split.images.nbytes == decoded.nbytes
    rows = np.array([5, 3, 5])
    np.testing.assert_array_equal(split.images[rows], decoded[rows])
    for number, (images, labels, rows) in enumerate(read(split)):
        np.testing.assert_array_equal(rows, order(0)[4 * number : 4 * number + 4])
        np.testing.assert_array_equal(labels, rows % 3)
        np.testing.assert_array_equal(images, decoded[rows])


def test_batches_of_several_steps_are_stacked_and_epochs_follow_each_other():
    split = make_split()
    (images, labels, rows), (rest, _, later) = read(split, 1, 16, [(2, 4), (1, 4)])
    assert (images.shape, labels.shape, rest.shape) == ((2, 4, 8, 8, 3), (2, 4), (1, 4, 8, 8, 3))
    assert [*rows.ravel(), *later.ravel()] == [*order(1)[16:], *order(2)[:4]]


def test_crops_depend_on_seed_epoch_and_row_alone():
    split, crop = make_split(), RandomCrop((0.2, 0.5), (0.75, 1.33), seed=1)
    whole = read(split, 0, 0, [(24,), (24,)], crop=crop)
    late = read(split, 1, 8, [(16,)], crop=crop)
    np.testing.assert_array_equal(late[0][0], whole[1][0][8:])
    # Another epoch shows another part of an image.
    first, second = (dict(zip(rows.tolist(), images, strict=True)) for images, _, rows in whole)
    assert sum(np.array_equal(first[row], second[row]) for row in range(24)) < 8


@pytest.mark.slow
def test_processes_give_the_same_as_threads():
    split, crop = make_split(bad=(3, 4), on_bad_image="skip"), RandomCrop((0.2, 0.5), (0.75, 1.33), seed=1)
    for ours, theirs in zip(
        read(split, 0, 4, [(2, 4), (8,)], crop=crop, processes=2),
        read(split, 0, 4, [(2, 4), (8,)], crop=crop),
        strict=True,
    ):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_process_that_dies_is_reported_in_one_sentence():
    import multiprocessing

    split = make_split()
    reader = DecodeAhead(split.images, split.labels, order, 24, processes=2)
    batches = reader.batches(0, 0, [(4,)] * 5000)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(InputError, match=r"a process that decodes images has died \(.*-9\): resume the run"):
        list(batches)
    # It starts again afterwards.
    assert next(reader.batches(0, 0, [(4,)]))[2].tolist() == order(0)[:4].tolist()
    reader.close()


def test_an_unreadable_image_ends_the_loop_by_its_row():
    split = make_split(bad=(7,))
    with pytest.raises(InputError, match="row 7 of split `train` cannot be used: its content is not an image"):
        read(split, shapes=[(24,)])
    with pytest.raises(InputError, match="row 7 of split `train`"):
        split.images[:]


def test_a_skipped_image_is_replaced_by_the_next_one_or_marked(capsys):
    split = make_split(bad=(7, 8), on_bad_image="skip")
    ((images, labels, rows),) = read(split, shapes=[(24,)])
    places = {row: place for place, row in enumerate(order(0).tolist())}
    following = order(0)[(places[7] + 1) % 24]
    assert rows[places[7]] == following != 8
    np.testing.assert_array_equal(images[places[7]], images[places[following]])
    assert labels[places[7]] == following % 3
    printed = capsys.readouterr().err
    assert "skipping row 7 of split `train`: its content is not an image" in printed
    assert len(printed.splitlines()) == 2
    ((images, labels, _),) = read(split, shapes=[(24,)], replaces=False)
    assert labels[places[7]] == labels[places[8]] == -1
    assert (labels >= 0).sum() == 22
    assert not images[places[7]].any()
    # An array has no place for unreadable images, so they are left out of it.
    left = split.without_unreadable()
    assert (len(left.labels), left.skipped) == (22, 2)
    np.testing.assert_array_equal(left.array[6:8], split.images[np.array([6, 9])])
    assert left.labels[6:8].tolist() == [0, 0]
    np.testing.assert_array_equal(split.images.first_readable(np.arange(6, 24), 3), split.images[np.array([6, 9, 10])])
    assert len(split.images.first_readable(np.array([7, 8]), 2)) == 0
    assert len(split.images.first_readable(np.array([7, 8]), 0)) == 0


def test_too_many_unreadable_images_in_succession_end_the_loop(monkeypatch):
    monkeypatch.setattr("eqxcnn.data.ahead._MAX_BAD", 20)
    split = make_split(bad=range(1, 24), on_bad_image="skip")
    with pytest.raises(InputError, match="of split `train` cannot be used"):
        read(split, shapes=[(24,)])


def test_files_that_vanish_while_they_are_read_are_named(make_classes, tmp_path):
    folder = make_classes(tmp_path / "set")
    split = open_source(str(folder)).stream("train", preprocess=Preprocess((4, 4), 1))
    (folder / "a" / "1.png").unlink()
    with pytest.raises(InputError, match=r"a/1\.png`: there is no such file"):
        split.images[:]


@pytest.mark.parametrize("keeps_times", [False, True])
def test_a_file_that_changes_while_it_is_read_is_named(make_classes, draw, tmp_path, keeps_times):
    folder = make_classes(tmp_path / "set")
    split, file = open_source(str(folder)).stream("train", preprocess=Preprocess((4, 4), 1)), folder / "a" / "1.png"
    assert len(split.array) == 8
    before = file.stat()
    time.sleep(0.02)
    draw(file, 9)
    if keeps_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=r"a/1\.png` has changed since the data were opened"):
        split.images[:]
    # Opened again, it has another fingerprint and the new pixels.
    assert 9 in open_source(str(folder)).stream("train", preprocess=Preprocess((4, 4), 1)).array


def test_strips_animations_and_deep_images_are_streamed(tmp_path):
    kinds = {
        "wide.png": Image.new("RGB", (400, 1), (200, 10, 10)),
        "tall.png": Image.new("RGB", (1, 400), (200, 10, 10)),
        "deep.png": Image.fromarray(np.full((30, 20), 257 * 77, np.uint16)),
        "large.png": Image.new("L", (6000, 4500), 9),
    }
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for kind, image in kinds.items():
            image.save(tmp_path / "set" / name / kind)
        frames = [Image.new("L", (20, 20), value) for value in (50, 150, 250)]
        frames[0].save(tmp_path / "set" / name / "x.gif", save_all=True, append_images=frames[1:])
    split = open_source(str(tmp_path / "set"), test_fraction=0.01).stream("train", preprocess=SIZE)
    crop = RandomCrop((0.1, 1.0), (0.75, 1.33), 0)
    reader = DecodeAhead(split.images, split.labels, lambda _: np.arange(len(split.labels)), len(split.labels), crop)
    ((images, _, _),) = reader.batches(0, 0, [(len(split.labels),)])
    reader.close()
    names = [
        os.path.basename(split.images.rows.rows.data["image"][int(row)].as_py()["path"]) for row in split.images.numbers
    ]
    values = {"wide.png": 200, "tall.png": 200, "deep.png": 77, "large.png": 9, "x.gif": 50}
    for image, name in zip(images, names, strict=True):
        assert (image[..., 0] == values[name]).all(), name


def test_a_large_set_is_opened_by_a_sample(make_classes, tmp_path, draw, monkeypatch):
    folder = make_classes(tmp_path / "set", count=40)
    whole, quick = (open_source(str(folder), quick=each) for each in (False, True))
    assert (whole.info.is_sampled, quick.info.is_sampled) == (False, True)
    assert whole.info.fingerprint != quick.info.fingerprint
    assert quick.info.image_size == whole.info.image_size == (4, 6)
    assert open_source(str(folder), quick=None).info == whole.info
    monkeypatch.setattr("eqxcnn.data.fingerprint._LARGE_BYTES", 1)
    assert open_source(str(folder), quick=None).info == quick.info
    # A changed length is always noticed, and so is other content of a sampled image.
    draw(folder / "a" / "7.png", 200)
    assert open_source(str(folder), quick=True).info.fingerprint != quick.info.fingerprint
