"""The script that `test_devices.py` runs in a process with four CPU devices; it prints one JSON object."""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np
from layouts import RESNET20, losses, losses_of, make_recipe

import eqxcnn
from eqxcnn import evaluate, predict
from eqxcnn.errors import InputError
from eqxcnn.recipe import Recipe
from eqxcnn.runtime.devices import choose_devices
from eqxcnn.training import Callback, dry_run, fit, fit_seeds, prepare, resume
from eqxcnn.training.epochs import SingleRun


class Stop(Callback):
    """Interrupts the run at a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step >= self.step:
            raise KeyboardInterrupt


def same_runs(model, steps, counts=(1, 2, 4), **settings):
    """Compares losses on one device with losses on several, and two runs on four devices with each other."""
    programs = {count: SingleRun(prepare(make_recipe(model, devices=count, **settings))) for count in counts}
    found = {count: losses_of(program, steps) for count, program in programs.items()}
    one = np.array(found[1])
    return {
        "errors": [float(np.abs(np.array(found[count]) / one - 1).max()) for count in counts[1:]],
        "repeats": losses_of(programs[4], steps) == found[4],
    }


def restored(folder):
    """Compares a run on one device with runs that are stopped and resumed on several devices."""
    whole = fit(make_short("mlp", devices=1), runs=folder, name="whole")
    return {"moved": other_numbers(folder, whole), "sharded": sharded(folder, whole)}


def make_short(model, **settings):
    """Returns a recipe with two epochs of nine steps each, without augmentation or mixup."""
    return make_recipe(model, epochs=2, train_images=640, augment=(), mixup=0.0, **settings)


def other_numbers(folder, whole):
    """Stops a run on four devices, continues it on one, and finishes it on two."""
    for number, (count, stop) in enumerate(((4, 4), (1, 13), (2, None))):
        recipe, callbacks = make_short("mlp", devices=count, checkpoint_seconds=0.0), []
        if stop is not None:
            callbacks = [Stop(stop)]
        try:
            if number == 0:
                fit(recipe, runs=folder, name="moved", callbacks=callbacks)
            else:
                path = folder / "moved" / "recipe.yaml"
                path.write_text(path.read_text().replace(f"devices: {(4, 1, 2)[number - 1]}", f"devices: {count}"))
                moved = resume(folder / "moved", callbacks=callbacks)
        except KeyboardInterrupt:
            pass
    return {"losses": [train_losses(run) for run in (whole, moved)], "tests": [whole.test.loss, moved.test.loss]}


def train_losses(run):
    return [row["train_loss"] for row in run.metrics if "train_loss" in row]


def streamed(folder):
    """Trains on four devices with streamed images, and evaluates on four devices."""
    digits = prepare(make_recipe("mlp", devices=1, device_budget=0.0))
    recipe = make_recipe("mlp", device_budget=0.0, eval_batch_size=90)
    assert prepare(recipe).setup.data is None
    assert digits.devices.count == 1
    result = fit(recipe, runs=folder)
    same = fit(make_recipe("mlp", devices=1, eval_batch_size=90), runs=folder)
    return {"losses": [result.test.loss, same.test.loss], "count": result.test.count}


def split_rows():
    """Compares a run whose images are split over the devices with a run where every device holds all images."""
    whole = Recipe(model="mlp", data="digits", devices=4, batch_size=64, epochs=1)
    # The images take 1.08 MiB: too much for one device, but not for four.
    split = whole.replace(device_budget=0.5 / 1024)
    shards = [len(shard.data) for shard in prepare(split).setup.data[0].addressable_shards]
    streamed = prepare(whole.replace(device_budget=0.2 / 1024)).setup.data is None
    return {"losses": [losses(recipe, 10) for recipe in (whole, split)], "shards": shards, "streamed": streamed}


def sharded(folder, whole):
    """Compares a run on one device with a run whose parameters are split over the devices."""
    recipe = make_short("mlp", shard_params=True)
    train = prepare(recipe).make_start()
    largest = max(jax.tree.leaves(train), key=lambda leaf: leaf.size)
    shapes = [list(largest.shape), list(largest.addressable_shards[0].data.shape)]
    run = fit(recipe, runs=folder)
    with contextlib.suppress(KeyboardInterrupt):
        fit(recipe.replace(checkpoint_seconds=0.0), runs=folder, name="sharded", callbacks=[Stop(5)])
    resumed = resume(folder / "sharded")
    files = [(run.folder / "model" / "model.safetensors").read_bytes() for run in (run, resumed)]
    return {
        "shapes": shapes,
        "losses": [train_losses(each) for each in (whole, run)],
        "tests": [whole.test.loss, run.test.loss],
        "same_bytes": files[0] == files[1],
        "from_step": resumed.metrics[-1]["from_step"],
    }


def commands(folder):
    """Evaluates and predicts with one and with four devices."""
    from PIL import Image

    run = fit(make_recipe("mlp"), runs=folder).folder
    pictures = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(pictures):
        Image.new("L", (28, 28), 80 * number).save(path)
    found = {}
    for name, count in (("one", 1), ("four", 4)):
        printed = io.StringIO()
        chosen = choose_devices(count)
        for command in (evaluate, predict):
            command.choose_devices = lambda chosen=chosen: chosen
        with contextlib.redirect_stdout(printed):
            evaluate.main([str(run), "--batch-size", "90"])
            predict.main([str(run), *map(str, pictures), "--top", "1"])
        found[name] = printed.getvalue()
    return found


def seeds(folder):
    """Trains two seeds in one program on four devices."""
    recipe = make_recipe("mlp", mixup=0.0)
    accuracies = [
        list(fit_seeds(recipe.replace(devices=count), 2, runs=folder).accuracies.values()) for count in (1, 4)
    ]
    return {"accuracies": accuracies}


def refusals():
    """Returns the error messages for batch sizes that four devices cannot split evenly, and for too many devices."""
    found = []
    for settings in ({"batch_size": 62}, {"batch_size": 3}, {"devices": 5}):
        try:
            prepare(make_recipe("mlp", **settings))
        except InputError as error:
            found.append(str(error))
    return {"messages": found}


def main(parts, folder):
    """Runs the named parts, and prints their results as JSON."""
    report = {"devices": jax.device_count(), "version": eqxcnn.__version__}
    if "mlp" in parts:
        report["mlp"] = same_runs("mlp", 20, counts=(1, 4))
    if "lenet50" in parts:
        report["lenet50"] = same_runs("lenet", 50, epochs=3, learning_rate=0.005)
    if "resnet20" in parts:
        report["resnet20"] = same_runs("resnet20", 50, **RESNET20)
    if "restored" in parts:
        report |= restored(folder) | {"split_rows": split_rows(), "refusals": refusals()}
    if "commands" in parts:
        report |= {"streamed": streamed(folder), "seeds": seeds(folder), "commands": commands(folder)}
        report["dry_run"] = dry_run(make_recipe("mlp")).memory
    shutil.rmtree(folder / "moved", ignore_errors=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[2:], Path(sys.argv[1]))
