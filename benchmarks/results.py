"""`python -m benchmarks.results`: what the shipped recipes reach, from the runs' own files to the site's pages."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import tyro

from eqxcnn.cli import run_command
from eqxcnn.cost import count_parameters
from eqxcnn.errors import InputError, nearest
from eqxcnn.inference import ImageClassifier
from eqxcnn.recipe.files import list_recipes
from eqxcnn.report import write_report
from eqxcnn.report.gather import RunRecord, read_run
from eqxcnn.runs.folder import read_metrics
from eqxcnn.training import Recipe, load_recipe
from eqxcnn.weights import write_text_atomically

from . import results_page, speed_page

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
SPEED_PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "images" / "systems"

#: Settings that do not decide what a recipe reaches, or, as the seed, only by luck.
_FREE = ("data", "seed", "checkpoint_seconds", "keep_checkpoints", "device_budget")
#: `platform` names the machine's own kernel build, and is left out.
_ENVIRONMENT = (
    "python", "jax", "jaxlib", "equinox", "optax", "numpy", "processor", "cores", "devices", "commit",
)  # fmt: skip
#: Line art where the report draws it, and pixels.
_PICTURES = (
    "training.svg", "confusion.svg", "kernels.png", "augment.png", "wrong.png",
)  # fmt: skip
_ABSOLUTE = re.compile(r"""(?:^|[\s='":])(?:~|/|[A-Za-z]:[\\/])""")


@dataclass(frozen=True)
class Add:
    """Record finished runs of a shipped recipe in benchmarks/results/runs."""

    recipe: Annotated[str, tyro.conf.Positional]
    """The shipped recipe's name."""
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The runs' folders."""
    pictures: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also draw the run, one only, into docs/images/systems."""
    data: str | None = None
    """With --pictures: where the images are now, when not where the run's recipe says."""


@dataclass(frozen=True)
class Write:
    """Write docs/results.md and docs/benchmarks.md from what is recorded in benchmarks/results."""


def main(arguments: Sequence[str]) -> None:
    """Parses, records or writes, prints the paths of what was written."""
    options = tyro.cli(Add | Write, prog="python -m benchmarks.results", args=arguments)
    if isinstance(options, Write):
        for path, make in ((PAGE, results_page.page), (SPEED_PAGE, speed_page.page)):
            write_text_atomically(path, make(RESULTS))
            print(path)
        return
    if not options.runs:
        raise InputError("there is nothing to add: give the folder of a run, or several")
    if options.pictures and len(options.runs) > 1:
        raise InputError(f"`--pictures` draws one run, not {len(options.runs)}: add the others without it")
    for path in add(options.recipe, options.runs, RESULTS):
        print(path)
    for run in options.runs if options.pictures else ():
        for path in draw(options.recipe, run, data=options.data, to=PICTURES):
            print(path)


def add(recipe: str, runs: Sequence[Path], results: Path) -> list[Path]:
    """Records runs of a shipped recipe, all or none of them, each in `results/runs/RECIPE-seedN.json`.

    **Raises:** `InputError` for a run that is not finished, was resumed, had other settings, or whose command tells
    an absolute path.
    """
    records = [record(recipe, run) for run in runs]
    paths = [results / "runs" / f"{recipe}-seed{each['seed']}.json" for each in records]
    if len(set(paths)) < len(paths):
        raise InputError(f"two of the {len(runs)} runs have the same seed: a recipe's record has one run a seed")
    for path, each in zip(paths, records, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(each, indent=2) + "\n")
    return paths


def record(name: str, folder: Path) -> dict[str, Any]:
    """What is published of a run: its scores, times and environment, and its settings but for where its data lay."""
    shipped = _shipped(name)
    run, classifier, last = _finished(folder)
    # Where the images lay is free; which they are is not.
    if Path(run.recipe.data).name != shipped.data:
        raise InputError(
            f"`data` (={run.recipe.data!r}) of the run `{folder}` must be `{shipped.data}`, as in the recipe `{name}`, "
            "or a folder of that name"
        )
    check_settings(name, shipped, run.recipe, str(folder))
    _check_command(name, shipped, run.environment["command"])
    seconds = [row["seconds"] for row in run.epochs]
    final = run.epochs[-1]
    return {
        "recipe": name,
        "model": run.recipe.model,
        "parameters": count_parameters(classifier.model),
        "data": shipped.data,
        "seed": run.recipe.seed,
        "command": run.environment["command"],
        **{key: last[key] for key in ("test_accuracy", "test_loss", "test_count")},
        **{key: final.get(key) for key in ("train_accuracy", "train_loss", "validation_accuracy")},
        "epochs": len(run.epochs),
        "train_images_per_epoch": run.epochs[0]["step"] * run.recipe.batch_size,
        "train_seconds": round(sum(seconds), 3),
        "epoch_seconds_median": round(median(seconds), 3),
        "wall_seconds": last["wall_seconds"],
        "environment": {key: run.environment.get(key) for key in _ENVIRONMENT},
        "settings": {key: value for key, value in asdict(run.recipe).items() if key != "data"},
    }


def _finished(folder: Path) -> tuple[RunRecord, ImageClassifier, dict[str, Any]]:
    """A run that went through in one go, its classifier, and the row of its test."""
    run = read_run(folder)
    last = next(reversed(read_metrics(folder)), {})
    parts = {
        "a model/": run.classifier is not None,
        "epochs in its metrics.jsonl": bool(run.epochs),
        "a test with from_step and wall_seconds there": {"test_accuracy", "from_step", "wall_seconds"} <= last.keys(),
        "a command in its environment.json": "command" in run.environment,
    }
    missing = [part for part, is_there in parts.items() if not is_there]
    if missing or run.classifier is None:
        raise InputError(f"the run `{folder}` is not finished: it lacks {', '.join(missing)}; give one that is")
    if last["from_step"] != 0:
        raise InputError(
            f"the run `{folder}` was resumed, from step {last['from_step']:,}, so its wall time is not the whole "
            "run's: train it in one go"
        )
    return run, run.classifier, last


def check_settings(name: str, shipped: Recipe, had: Recipe, whose: str) -> None:
    """Refuses settings other than the shipped recipe's; what that leaves open (`None`) may have become anything.

    **Raises:** `InputError` naming the first setting that differs.
    """
    for setting in (field.name for field in fields(Recipe) if field.name not in _FREE):
        wanted, found = getattr(shipped, setting), getattr(had, setting)
        if wanted is not None and wanted != found:
            raise InputError(
                f"`{setting}` (={found!r}) of the run `{whose}` differs from the recipe `{name}`, which has "
                f"{wanted!r}: train the recipe as it is shipped"
            )


def _shipped(name: str) -> Recipe:
    if name not in list_recipes():
        raise InputError(f"there is no shipped recipe named `{name}`; {nearest(name, list_recipes())}")
    return load_recipe(name)


def _check_command(name: str, shipped: Recipe, command: str) -> None:
    """Refuses a command that tells where a machine keeps its files, or sets what the recipe leaves open."""
    if _ABSOLUTE.search(command):
        raise InputError(
            f"the command `{command}` names an absolute path, and it is published: train with a relative one"
        )
    given = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in command.split() if word[:2] == "--"}
    is_open = [field.name for field in fields(Recipe) if getattr(shipped, field.name) is None]
    if chosen := [setting for setting in is_open if setting in given]:
        raise InputError(f"the command `{command}` sets `{chosen[0]}`, which the recipe `{name}` leaves open")


def draw(recipe: str, run: Path, *, data: str | None, to: Path) -> list[Path]:
    """Draws a run's report and copies its pictures into `to/RECIPE`."""
    plots = write_report(run, data=data).parent
    drawn = [name for name in _PICTURES if (plots / name).exists()]
    (to / recipe).mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(plots / name, to / recipe / name)) for name in drawn]


if __name__ == "__main__":
    run_command(main)
