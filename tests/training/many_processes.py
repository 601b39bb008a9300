"""The script that `test_processes.py` runs in several processes: `many_processes.py PART FOLDER ADDRESS COUNT INDEX`.

Process 0 prints one JSON object. `EQXCNN_TEST_DEVICES` is the number of CPU devices of each process.
"""

import json
import os
from pathlib import Path

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.environ.get('EQXCNN_TEST_DEVICES', '1')}"

import jax
import numpy as np
from layouts import RESNET20, losses, make_recipe

from eqxcnn import data
from eqxcnn.cli import run_command
from eqxcnn.runtime import processes
from eqxcnn.runtime.peers import Peers
from eqxcnn.training import Callback, dry_run, fit, fit_seeds, prepare


def shared(folder, peers):
    """Trains a run with logs, callbacks and other options that only process 0 handles, and a run on photographs."""
    callback = StopAtOnce()
    recipe = make_recipe(
        "mlp", epochs=3, mixup=0.0, log=("csv",), keep="best", checkpoint_seconds=0.0,
        device_budget=0.0, shard_params=True,
    )  # fmt: skip
    run = fit(recipe, runs=folder, name="files", callbacks=[callback])
    return {
        "scores": [run.test.loss, run.test.count, run.metrics[0]["validation_loss"]],
        "calls": peers.gather(callback.calls),
        "epochs": len(run.metrics) - 1,
        **decode_photographs(folder),
    }


def layouts(folder, peers):
    """Returns the losses with all images on every device, with streamed images, and with images split over devices."""
    mlp = make_recipe("mlp", mixup=0.0)
    small = mlp.replace(device_budget=0.0)
    # 1.08 MiB of images: too much for one device, but not for all together.
    split = mlp.replace(device_budget=0.6 / 1024)
    return {
        "losses": losses(make_recipe("mlp"), 10),
        "streamed": losses(small, 3),
        "split": losses(split, 3),
        "is_split": prepare(split).setup.data is not None,
    }


def fifty(folder, peers):
    """The losses of 50 steps of LeNet and ResNet-20."""
    return {
        "lenet": losses(make_recipe("lenet", epochs=3, learning_rate=0.005), 50),
        "resnet20": losses(make_recipe("resnet20", **RESNET20), 50),
    }


class StopAtOnce(Callback):
    """A callback that requests a stop of the run, and counts its own calls."""

    def __init__(self):
        self.calls = 0

    def on_epoch(self, run):
        self.calls += 1
        assert run.model is not None
        assert np.isfinite(run.loss)
        run.request_stop("enough")


def sweep(folder, peers):
    """A seed sweep and a dry run."""
    seeds = fit_seeds(make_recipe("mlp", mixup=0.0), 2, runs=folder)
    return {"seeds": list(seeds.accuracies), "memory": dry_run(make_recipe("mlp")).memory}


def decode_photographs(folder):
    """Trains on images that are decoded during training; each process decodes its own part of the images."""
    recipe = make_recipe("mlp", mixup=0.0, decode="stream", augment=("random_resized_crop",)).replace(
        data=str(folder / "pictures"), image_size=(28, 28), batch_size=8, validation=0.0, epochs=2
    )
    job = prepare(recipe)
    shapes = [pixels.shape for pixels, _, _ in job.batches(0, 0)]
    job.close()
    return {"photographs": losses(recipe, 4), "shapes": shapes}


def different_recipe(folder, peers):
    """Gives process 1 another learning rate."""
    fit(make_recipe("mlp", learning_rate=0.02 + peers.index), runs=folder)


def different_data(folder, peers):
    """Gives process 1 other images."""
    rng = np.random.default_rng(peers.index)
    images, labels = rng.integers(0, 255, (128, 28, 28, 1), np.uint8), np.arange(128) % 10
    fit(make_recipe("mlp", batch_size=16), data=data.from_arrays(images, labels), runs=folder)


def one_fails(folder, peers):
    """Makes process 1 fail where process 0 does not."""
    if peers.index == 1:
        with peers.guard():
            raise MemoryError("no more")
    peers.gather(None)


def main(arguments):
    """Joins the processes and runs a part; without an address, runs it in this process alone."""
    part, folder, *place = arguments
    if part == "different_version" and place[2] == "1":
        processes._version = lambda package: "9.9"
    peers = Peers()
    if place:
        address, count, index = place
        peers = processes.join_processes(address, int(count), int(index), timeout=60, logs=folder)
    report = globals()[part](Path(folder), peers)
    if peers.is_first:
        print(json.dumps({"devices": jax.device_count(), **report}))


if __name__ == "__main__":
    run_command(main)
