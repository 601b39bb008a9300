"""Runs that must have the same losses on any number of devices and processes; import it after choosing the devices."""

from dataclasses import replace

from eqxcnn.recipe import Recipe
from eqxcnn.training import prepare
from eqxcnn.training.epochs import SingleRun
from eqxcnn.training.state import Sums

# At a learning rate of 0.02, ResNet-20 turns a change of its weights by one unit in the last place into a change of its
# loss by 1 % after 50 steps, on a single device too; at this one, into less than 1e-5.
RESNET20 = {"epochs": 3, "image_size": (16, 16), "batch_size": 32, "learning_rate": 1e-4}


def make_recipe(model, **settings):
    settings = {
        "batch_size": 64, "epochs": 1, "optimizer": "sgd", "learning_rate": 0.02, "mixup": 0.2, "average": "ema",
        "clip_norm": 1.0, "accumulate_steps": 2, "augment": ("flip_horizontal", "random_crop(padding=2)"), **settings,
    }  # fmt: skip
    return Recipe(model=model, data="digits", **settings)


def losses(recipe, steps):
    """Returns the losses of a recipe's first steps."""
    return losses_of(SingleRun(prepare(recipe)), steps)


def losses_of(program, steps):
    """Returns the losses of a program's first steps.

    Each call trains from the initial weights; only the first call compiles.
    """
    job, found = program.job, []
    train = job.make_start()
    for epoch in range(job.epochs):
        for batches in program.batches(epoch, 0):
            # The differences of growing sums would be less precise than the losses.
            train = program.run(replace(train, sums=job.devices.replicate(Sums.zero())), batches)
            found.append(float(train.sums.loss))
            if len(found) == steps:
                return found
    raise ValueError("the recipe has too few steps")
