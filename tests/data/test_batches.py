"""Hold-outs, orders and batches lose no row, repeat no row, and are the same for equal seeds."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqxcnn.data import Prefetch, balanced_order, epoch_order, eval_batches, hold_out, train_batches
from eqxcnn.errors import InputError


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda labels: np.array(labels, np.int32)),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_hold_out_splits_every_class(labels, fraction, seed):
    kept, held = hold_out(labels, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept)
    assert held.tolist() == sorted(held)
    for label, rows in zip(*np.unique(labels, return_counts=True), strict=True):
        held_rows = int((labels[held] == label).sum())
        if rows == 1:
            assert held_rows == 0
        else:
            assert 1 <= held_rows < rows
            assert abs(held_rows - fraction * rows) <= 1
    assert hold_out(labels, fraction, seed)[0].tolist() == kept.tolist()


def test_hold_out_counts_and_seeds():
    labels = np.repeat(np.array([0, 1], np.int32), [100, 50])
    kept, held = hold_out(labels, 0.2, 3)
    assert np.bincount(labels[held]).tolist() == [20, 10]
    assert np.bincount(labels[kept]).tolist() == [80, 40]
    assert held.dtype == kept.dtype == np.int32
    assert held.tolist() != hold_out(labels, 0.2, 4)[1].tolist()


def test_the_number_of_held_out_rows_is_rounded():
    # 0.3 * 8 = 2.4 rows and 0.3 * 6 = 1.8 rows.
    labels = np.repeat(np.array([0, 1], np.int32), [8, 6])
    assert np.bincount(labels[hold_out(labels, 0.3, 0)[1]]).tolist() == [2, 2]


def test_every_row_is_held_out_for_some_seed():
    counts = sum(np.bincount(hold_out(np.zeros(5, np.int32), 0.4, seed)[1], minlength=5) for seed in range(100))
    assert sum(counts) == 200
    assert min(counts) > 20


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_hold_out_rejects_a_fraction_out_of_range(fraction):
    with pytest.raises(InputError, match=rf"`fraction` \(={fraction}\)"):
        hold_out(np.zeros(4, np.int32), fraction, 0)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_every_purpose_has_its_own_random_stream(monkeypatch, seed):
    seen = []
    make = np.random.default_rng

    def record(source):
        seen.append(make(source).random(4).tolist())
        return make(source)

    monkeypatch.setattr(np.random, "default_rng", record)
    labels = np.zeros(8, np.int32)
    hold_out(labels, 0.5, seed)
    hold_out(labels, 0.5, seed, "test")
    for epoch in range(3):
        epoch_order(8, seed, epoch)
    assert len(seen) == 5
    assert len({tuple(draws) for draws in seen}) == 5


def test_the_hold_out_is_independent_of_the_order_of_epoch_0():
    # With one class and one stream, the held-out rows would be the first rows of the order.
    held = hold_out(np.zeros(1000, np.int32), 0.5, 3)[1]
    assert 200 < len(set(held) & set(epoch_order(1000, 3, 0)[:500])) < 300
    assert 200 < len(set(held) & set(hold_out(np.zeros(1000, np.int32), 0.5, 3, "test")[1])) < 300


def test_a_balanced_order_draws_every_class_equally_often():
    labels = np.array([0] * 900 + [1] * 90 + [3] * 10)
    order = balanced_order(labels, 1, 0)
    assert order.shape == (1000,)
    assert order.dtype == np.int32
    counts = np.bincount(labels[order])
    # Four standard deviations of a count of 1000 draws with probability 1/3.
    assert counts[2] == 0
    assert (np.abs(counts[[0, 1, 3]] - 1000 / 3) < 4 * np.sqrt(1000 * 2 / 9)).all()
    assert order.tolist() == balanced_order(labels, 1, 0).tolist()
    assert order.tolist() != balanced_order(labels, 1, 1).tolist()
    assert order.tolist() != balanced_order(labels, 2, 0).tolist()


def test_epoch_order_is_a_function_of_seed_and_epoch():
    first = epoch_order(1000, 1, 0)
    assert first.dtype == np.int32
    assert sorted(first.tolist()) == list(range(1000))
    assert first.tolist() == epoch_order(1000, 1, 0).tolist()
    assert first.tolist() != epoch_order(1000, 1, 1).tolist()
    assert first.tolist() != epoch_order(1000, 2, 0).tolist()
    # Seed and epoch are not interchangeable.
    assert epoch_order(1000, 1, 2).tolist() != epoch_order(1000, 2, 1).tolist()
    assert epoch_order(4, 1, 7, shuffle=False).tolist() == [0, 1, 2, 3]


def test_the_order_of_an_epoch_stays_the_same_between_versions():
    assert epoch_order(8, 3, 2).tolist() == np.random.default_rng([3, 2]).permutation(8).tolist()


def test_train_batches():
    order = np.array([5, 3, 1, 0, 2, 4, 6], np.int32)
    assert train_batches(order, 3).tolist() == [[5, 3, 1], [0, 2, 4]]
    assert train_batches(order, 7).tolist() == [order.tolist()]
    assert train_batches(order, 1).shape == (7, 1)
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
    with pytest.raises(InputError, match=r"`batch_size` \(=0\)"):
        eval_batches(5, 0)


# --- prefetch ---


def split(n=20):
    return np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), np.arange(n, dtype=np.int32) * 10


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_prefetch_gathers_the_rows_in_order(tmp_path):
    images, labels = split()
    np.save(tmp_path / "images.npy", images)
    mapped = np.asarray(np.load(tmp_path / "images.npy", mmap_mode="r"))
    rows = train_batches(epoch_order(20, 0, 0), 4)
    batches = Prefetch(mapped, labels, rows)
    for _ in range(2):  # The iterable can be used for several epochs.
        out = list(batches)
        assert [batch[0].ravel().tolist() for batch in out] == rows.tolist()
        assert [batch[1].tolist() for batch in out] == (rows * 10).tolist()
        assert [batch[2].tolist() for batch in out] == rows.tolist()
        assert type(out[0][0]) is np.ndarray


def test_prefetch_gathers_stacked_batches():
    images, labels = split()
    rows = np.array([[1, 2], [3, 4], [5, 6]], np.int32)
    (out, numbers, seen), (rest, _, _) = Prefetch(images, labels, [rows, rows[:1]])
    assert (out.shape, rest.shape) == ((3, 2, 1, 1, 1), (1, 2, 1, 1, 1))
    assert numbers.tolist() == (rows * 10).tolist()
    assert seen.tolist() == rows.tolist()


def test_prefetch_raises_an_error_at_the_batch_it_belongs_to():
    images, labels = split()
    batches = iter(Prefetch(images, labels, [np.array([1], np.int32), np.array([99], np.int32)]))
    assert next(batches)[1].tolist() == [10]
    with pytest.raises(IndexError):
        next(batches)
    assert not prefetch_threads()


def test_leaving_the_loop_early_ends_the_thread():
    images, labels = split()
    batches = iter(Prefetch(images, labels, np.zeros((1000, 4), np.int32)))
    next(batches)
    assert prefetch_threads()
    batches.close()
    assert not prefetch_threads()


class Reader:
    """Yields the rows of batches of 2 images with 10 values each, and counts the bytes that `Prefetch` requests."""

    def __init__(self, batches=10, stacked=1, dtype=np.uint8):
        self.images = np.zeros((batches * 2 * stacked, 5, 2, 1), dtype)
        self.labels = np.zeros(len(self.images), np.int32)
        self.batches = np.arange(len(self.images), dtype=np.int32).reshape(batches, stacked, 2)
        self.asked = 0

    def __iter__(self):
        for rows in self.batches:
            self.asked += rows.size * self.images[0].nbytes
            yield rows

    def most_bytes_ahead(self, **bounds):
        """Returns the largest number of bytes read ahead while the loop works on a batch."""
        handed, most = 0, []
        for images, _, _ in Prefetch(self.images, self.labels, self, **bounds):
            handed += images.nbytes
            most.append(self.asked - handed)
        assert handed == self.images.nbytes
        return max(most)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, 40),
        ({"depth": 3}, 60),
        ({"depth": 3, "max_bytes": 1000}, 60),
        # Whole batches of 20 bytes within the bound ...
        ({"depth": 9, "max_bytes": 60}, 60),
        ({"depth": 9, "max_bytes": 59}, 40),
        ({"depth": 9, "max_bytes": 20}, 20),
        # ... but always one.
        ({"depth": 9, "max_bytes": 19}, 20),
        ({"depth": 9, "max_bytes": 0}, 20),
        ({"depth": 1}, 20),
    ],
)
def test_prefetch_bounds_the_batches_and_bytes_read_ahead(bounds, expected):
    assert Reader().most_bytes_ahead(**bounds) == expected


def test_prefetch_bounds_the_bytes_of_stacked_batches():
    # A call of 5 steps reads 100 bytes.
    assert Reader(stacked=5).most_bytes_ahead(max_bytes=250) == 200
    assert Reader(stacked=5).most_bytes_ahead(max_bytes=150) == 100


def test_prefetch_bounds_the_bytes_of_floating_point():
    # A batch has 80 bytes.
    assert Reader(dtype=np.float32).most_bytes_ahead(depth=9, max_bytes=170) == 160


def test_prefetch_reads_at_most_256_mebibytes_ahead():
    assert Prefetch(*split(), []).max_bytes == 256 * 2**20


class Announced(np.ndarray):
    """An array that counts how often it was read."""

    reads = 0

    def __getitem__(self, rows):
        Announced.reads += 1
        return super().__getitem__(rows)


def test_prefetch_reads_the_next_batch_while_the_loop_works_on_one():
    images, labels = split()
    rows = np.arange(20, dtype=np.int32).reshape(10, 2)
    batches = iter(Prefetch(images.view(Announced), labels, rows, max_bytes=0))
    next(batches)
    deadline = time.monotonic() + 20
    while Announced.reads < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Announced.reads == 2
    batches.close()
