"""A long run needs no more memory in its last epoch than in its first epochs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eqxcnn.runtime.compile import async_jit
from eqxcnn.training import Recipe, prepare
from eqxcnn.training.step import train_steps

STATM = Path("/proc/self/statm")


def resident_mebibytes():
    """The memory that this process uses now."""
    return int(STATM.read_text().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads Linux's account of a process")
def test_streamed_epochs_do_not_accumulate_memory(tmp_path):
    recipe = Recipe(model="mlp", data="digits", validation=0.0, batch_size=500, device_budget=0.0)
    job = prepare(replace(recipe, augment=("flip_horizontal",)))
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (10_000, 28, 28, 1), np.uint8))
    images = np.asarray(np.load(tmp_path / "images.npy", mmap_mode="r"))
    train = replace(job.splits.train, images=images, labels=np.arange(10_000, dtype=np.int32) % 10)
    order = replace(job.order, rows=np.arange(10_000, dtype=np.int32))
    job = replace(job, splits=replace(job.splits, train=train), order=order, steps=16 * 20)
    steps, state = async_jit(train_steps, donate=True), job.make_start()
    used = []
    for epoch in range(16):
        for batches in job.batches(epoch, 0):
            state = steps(job.setup, state, batches)
        assert int(state.step) == 20 * (epoch + 1)
        used.append(resident_mebibytes())
    # The images of one epoch take 7.5 MiB; those of twelve would take 90.
    assert used[-1] - used[3] < 30
