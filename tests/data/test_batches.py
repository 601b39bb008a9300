"""The order of rows: nothing lost, nothing twice, the same again for the same seed."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqxcnn.data import Prefetch, balanced_order, epoch_order, eval_batches, hold_out, train_batches
from eqxcnn.errors import InputError


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda each: np.array(each, np.int32)),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_hold_out_parts_every_class(labels, fraction, seed):
    kept, held = hold_out(labels, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept)
    assert held.tolist() == sorted(held)
    for label, rows in zip(*np.unique(labels, return_counts=True), strict=True):
        aside = int((labels[held] == label).sum())
        if rows == 1:
            assert aside == 0
        else:
            assert 1 <= aside < rows
            assert abs(aside - fraction * rows) <= 1
    again = hold_out(labels, fraction, seed)
    assert again[0].tolist() == kept.tolist()


def test_hold_out_counts_and_seeds():
    labels = np.repeat(np.array([0, 1], np.int32), [100, 50])
    kept, held = hold_out(labels, 0.2, 3)
    assert np.bincount(labels[held]).tolist() == [20, 10]
    assert np.bincount(labels[kept]).tolist() == [80, 40]
    assert held.dtype == kept.dtype == np.int32
    assert held.tolist() != hold_out(labels, 0.2, 4)[1].tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_hold_out_refuses_a_fraction_that_is_none(fraction):
    with pytest.raises(InputError, match="`fraction`"):
        hold_out(np.zeros(4, np.int32), fraction, 0)


def test_a_balanced_order_shows_every_class_as_often():
    labels = np.array([0] * 900 + [1] * 90 + [3] * 10)
    order = balanced_order(labels, 1, 0)
    assert order.shape == (1000,)
    counts = np.bincount(labels[order])
    # Four deviations of a count of 1000 draws with a chance of one third.
    assert counts[2] == 0
    assert (np.abs(counts[[0, 1, 3]] - 1000 / 3) < 4 * np.sqrt(1000 * 2 / 9)).all()
    assert order.tolist() == balanced_order(labels, 1, 0).tolist()
    assert order.tolist() != balanced_order(labels, 1, 1).tolist()


def test_epoch_order_is_a_function_of_seed_and_epoch():
    first = epoch_order(1000, 1, 0)
    assert first.dtype == np.int32
    assert sorted(first.tolist()) == list(range(1000))
    assert first.tolist() == epoch_order(1000, 1, 0).tolist()
    assert first.tolist() != epoch_order(1000, 1, 1).tolist()
    assert first.tolist() != epoch_order(1000, 2, 0).tolist()
    # Seed and epoch do not stand for each other.
    assert epoch_order(1000, 1, 2).tolist() != epoch_order(1000, 2, 1).tolist()
    assert epoch_order(4, 1, 7, shuffle=False).tolist() == [0, 1, 2, 3]


def test_train_batches():
    order = np.array([5, 3, 1, 0, 2, 4, 6], np.int32)
    assert train_batches(order, 3).tolist() == [[5, 3, 1], [0, 2, 4]]
    assert train_batches(order, 7).tolist() == [order.tolist()]
    with pytest.raises(InputError, match=r"`batch_size` \(=8\) is more than the 7 images"):
        train_batches(order, 8)
    with pytest.raises(InputError, match=r"`batch_size` \(=0\)"):
        train_batches(order, 0)


def test_eval_batches_pad_and_never_drop():
    rows, mask = eval_batches(5, 3)
    assert rows.tolist() == [[0, 1, 2], [3, 4, 0]]
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert rows.dtype == np.int32
    assert eval_batches(6, 3)[1].all()
    assert eval_batches(0, 3)[0].shape == (0, 3)
    assert eval_batches(2, 3)[1].tolist() == [[True, True, False]]


def split(n=20):
    return np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), np.arange(n, dtype=np.int32) * 10


def test_prefetch_gathers_the_rows_in_order(tmp_path):
    images, labels = split()
    np.save(tmp_path / "images.npy", images)
    mapped = np.asarray(np.load(tmp_path / "images.npy", mmap_mode="r"))
    rows = train_batches(epoch_order(20, 0, 0), 4)
    batches = Prefetch(mapped, labels, rows)
    for _ in range(2):  # An epoch after an epoch.
        out = list(batches)
        assert [each[0].ravel().tolist() for each in out] == rows.tolist()
        assert [each[1].tolist() for each in out] == (rows * 10).tolist()
        assert [each[2].tolist() for each in out] == rows.tolist()
        assert type(out[0][0]) is np.ndarray


def test_prefetch_gathers_stacked_batches():
    images, labels = split()
    rows = np.array([[1, 2], [3, 4], [5, 6]], np.int32)
    (out, numbers, seen), (rest, _, _) = Prefetch(images, labels, [rows, rows[:1]])
    assert (out.shape, rest.shape) == ((3, 2, 1, 1, 1), (1, 2, 1, 1, 1))
    assert numbers.tolist() == (rows * 10).tolist()
    assert seen.tolist() == rows.tolist()


def test_prefetch_raises_where_the_error_belongs():
    images, labels = split()
    batches = iter(Prefetch(images, labels, [np.array([1], np.int32), np.array([99], np.int32)]))
    assert next(batches)[1].tolist() == [10]
    with pytest.raises(IndexError):
        next(batches)
    assert not [each for each in threading.enumerate() if each.name.startswith("prefetch")]


def test_prefetch_left_early_ends_its_thread():
    images, labels = split()
    batches = iter(Prefetch(images, labels, np.zeros((1000, 4), np.int32)))
    next(batches)
    assert [each for each in threading.enumerate() if each.name.startswith("prefetch")]
    batches.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("prefetch")]


def test_prefetch_reads_only_a_little_ahead():
    images, labels = split()
    asked = []

    def rows():
        for batch in np.arange(20, dtype=np.int32).reshape(10, 2):
            asked.append(batch)
            yield batch

    batches = iter(Prefetch(images, labels, rows(), depth=3))
    next(batches)
    assert len(asked) == 4
