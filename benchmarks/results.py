"""`python -m benchmarks.results`: records finished runs of the shipped recipes, and writes the pages of results.

`python -m benchmarks.results rebuild` repeats the training of the networks whose weights are in the package.
"""

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
from eqxcnn.parsing import parse_json, read_text
from eqxcnn.recipe.files import list_recipes
from eqxcnn.report import write_report
from eqxcnn.report.gather import RunRecord, read_run
from eqxcnn.runs.folder import read_metrics
from eqxcnn.training import Recipe, load_recipe
from eqxcnn.weights import write_text_atomically
from eqxcnn.weights.bundled import BUNDLED

from . import results_page, speed_page

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
SPEED_PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "images" / "systems"

#: Settings that may differ from the recipe's: they do not affect the accuracy, apart from the seed's random effect.
_FREE_SETTINGS = (
    "data", "seed", "checkpoint_seconds", "keep_checkpoints", "device_budget", "decode", "disk_budget",
    "decode_processes", "devices",
)  # fmt: skip
#: Without `platform`, which names the machine's kernel build.
_ENVIRONMENT = (
    "python", "jax", "jaxlib", "equinox", "optax", "numpy", "processor", "cores", "devices", "commit",
)  # fmt: skip
#: Pictures of a report that are published: SVG for line art, PNG for pixels.
_PICTURES = ("training.svg", "confusion.svg", "kernels.png", "augment.png", "wrong.png")
_ABSOLUTE_PATH = re.compile(r"""(?:^|[\s='":])(?:~|/|[A-Za-z]:[\\/])""")


@dataclass(frozen=True)
class Add:
    """Record finished runs of a shipped recipe in benchmarks/results/runs."""

    recipe: Annotated[str, tyro.conf.Positional]
    """The shipped recipe's name."""
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    pictures: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also draw the pictures of a single run into docs/images/systems."""
    data: str | None = None
    """With --pictures: path of the images, if they have moved since training."""


@dataclass(frozen=True)
class Write:
    """Write docs/results.md and docs/benchmarks.md from the records in benchmarks/results."""


@dataclass(frozen=True)
class Rebuild:
    """Repeat the training of networks with weights in the package, and compare the results with the records.

    A run that was stopped is resumed.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(BUNDLED)
    """Names of networks; by default all with weights in the package, which takes hours."""
    data: Path = Path("data")
    """The folder that contains the data sets, each in a folder with its name, such as data/mnist."""
    runs: Path = Path("runs")
    """Folder in which the folders of the runs are made."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, records runs or writes the pages, and prints the paths of the written files."""
    options = tyro.cli(Add | Write | Rebuild, prog="python -m benchmarks.results", args=arguments)
    if isinstance(options, Write):
        for path, render in ((PAGE, results_page.render_page), (SPEED_PAGE, speed_page.render_page)):
            write_text_atomically(path, render(RESULTS))
            print(path)
        return
    if isinstance(options, Rebuild):
        _rebuild(options)
        return
    if not options.runs:
        raise InputError("`runs` must name one run folder or more")
    if options.pictures and len(options.runs) > 1:
        raise InputError(f"`--pictures` draws one run, not {len(options.runs)}: add the others without `--pictures`")
    for path in add_runs(options.recipe, options.runs, RESULTS):
        print(path)
    for run in options.runs if options.pictures else ():
        for path in copy_pictures(options.recipe, run, data=options.data, destination=PICTURES):
            print(path)


def _rebuild(options: Rebuild) -> None:
    """Repeats the training of each network, and prints a line about the result.

    **Raises:** `InputError` after all networks are trained, if the result of a network differs from its record.
    """
    from .rebuild import rebuild  # Imported late, because it uses `make_record`.

    failed = []
    for name in options.models:
        rebuilt = rebuild(name, options.data, options.runs)
        print(rebuilt.describe(), flush=True)
        failed += [] if rebuilt.is_as_recorded else [name]
    if failed:
        raise InputError(f"not as recorded: {', '.join(failed)}; the runs are in `{options.runs}`")


def add_runs(recipe: str, runs: Sequence[Path], results: Path) -> list[Path]:
    """Records runs of a shipped recipe in `results/runs/RECIPE-seedN.json`; if one run is refused, none is recorded.

    **Raises:** `InputError` if a run is not finished, was resumed or had other settings, or if its command names an
    absolute path.
    """
    records = [make_record(recipe, run) for run in runs]
    paths = [results / "runs" / f"{recipe}-seed{record['seed']}.json" for record in records]
    if len(set(paths)) < len(paths):
        raise InputError(f"`runs` ({len(runs)} folders) must have different seeds: there is one record per seed")
    for path, record in zip(paths, records, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(record, indent=2) + "\n")
    return paths


def make_record(name: str, folder: Path, *, allow_resumed: bool = False) -> dict[str, Any]:
    """Returns a run's scores, times, environment and settings, without the path of its data.

    If the run was resumed, `wall_seconds` is `None`; resuming a run does not change its weights.
    """
    shipped = _load_shipped_recipe(name)
    run, classifier, test = _read_finished_run(folder)
    is_resumed = test["from_step"] != 0
    if is_resumed and not allow_resumed:
        raise InputError(
            f"the run `{folder}` was resumed from step {test['from_step']:,}, so its wall time is incomplete: "
            "train without interruption"
        )
    # The path of the data may differ, but not the data set.
    if Path(run.recipe.data).name != shipped.data:
        raise InputError(
            f"`data` (={run.recipe.data!r}) of the run `{folder}` must be `{shipped.data}`, as in the recipe `{name}`, "
            "or a folder of that name"
        )
    check_settings(name, shipped, run.recipe, str(folder))
    _check_command(name, shipped, run.environment["command"])
    seconds = [epoch["seconds"] for epoch in run.epochs]
    last_epoch = run.epochs[-1]
    return {
        "recipe": name,
        "model": run.recipe.model,
        "parameters": count_parameters(classifier.model),
        "data": shipped.data,
        **_read_fingerprint(folder / "data.json"),
        "seed": run.recipe.seed,
        "command": run.environment["command"],
        **{key: test[key] for key in ("test_accuracy", "test_loss", "test_count")},
        **{key: last_epoch.get(key) for key in ("train_accuracy", "train_loss", "validation_accuracy")},
        "epochs": len(run.epochs),
        "train_images_per_epoch": run.epochs[0]["step"] * run.recipe.batch_size,
        "train_seconds": round(sum(seconds), 3),
        "epoch_seconds_median": round(median(seconds), 3),
        "wall_seconds": None if is_resumed else test["wall_seconds"],
        "environment": {key: run.environment.get(key) for key in _ENVIRONMENT},
        "settings": {key: value for key, value in asdict(run.recipe).items() if key != "data"},
    }


def _read_fingerprint(path: Path) -> dict[str, str]:
    """Returns the digest of a run's images, but not their path; runs of older versions have no digest."""
    recorded = parse_json(read_text(path), f"`{path}`") if path.exists() else {}
    return {"data_fingerprint": recorded["fingerprint"]} if recorded.get("fingerprint") else {}


def _read_finished_run(folder: Path) -> tuple[RunRecord, ImageClassifier, dict[str, Any]]:
    """Returns a finished run, its classifier, and the row of `metrics.jsonl` with the test results."""
    run = read_run(folder)
    last_row = next(reversed(read_metrics(folder)), {})
    parts = {
        "model/": run.classifier is not None,
        "epochs in metrics.jsonl": bool(run.epochs),
        "test row with from_step and wall_seconds in metrics.jsonl": (
            {"test_accuracy", "from_step", "wall_seconds"} <= last_row.keys()
        ),
        "command in environment.json": "command" in run.environment,
    }
    missing = [part for part, is_present in parts.items() if not is_present]
    if missing or run.classifier is None:
        raise InputError(f"the run `{folder}` must be finished, but has no {', and no '.join(missing)}")
    return run, run.classifier, last_row


def check_settings(name: str, shipped: Recipe, recipe: Recipe, run: str) -> None:
    """Checks that a run had the settings of the shipped recipe; a setting that is `None` in the recipe may differ.

    **Raises:** `InputError` if a setting differs; the error names the first such setting.
    """
    for setting in (field.name for field in fields(Recipe) if field.name not in _FREE_SETTINGS):
        expected, found = getattr(shipped, setting), getattr(recipe, setting)
        if setting == "resize" and found is None:
            found = "stretch"  # as all runs did before the setting existed
        if expected is not None and expected != found:
            raise InputError(
                f"`{setting}` (={found!r}) of the run `{run}` must be {expected!r}, as in the recipe `{name}`: train "
                "the recipe as it is shipped"
            )


def _load_shipped_recipe(name: str) -> Recipe:
    if name not in list_recipes():
        raise InputError(f"there is no shipped recipe named `{name}`; {nearest(name, list_recipes())}")
    return load_recipe(name)


def _check_command(name: str, shipped: Recipe, command: str) -> None:
    """Refuses a command that names an absolute path, or that sets a setting whose value in the recipe is `None`."""
    if _ABSOLUTE_PATH.search(command):
        raise InputError(f"the published command `{command}` names an absolute path: train with a relative one")
    flags = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in command.split() if word[:2] == "--"}
    open_settings = [field.name for field in fields(Recipe) if getattr(shipped, field.name) is None]
    if given := [setting for setting in open_settings if setting in flags]:
        raise InputError(f"the command `{command}` sets `{given[0]}`, which the recipe `{name}` leaves open")


def copy_pictures(recipe: str, run: Path, *, data: str | None, destination: Path) -> list[Path]:
    """Writes a run's report, and copies its pictures into `destination/RECIPE`."""
    plots = write_report(run, data=data).parent
    names = [name for name in _PICTURES if (plots / name).exists()]
    (destination / recipe).mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(plots / name, destination / recipe / name)) for name in names]


if __name__ == "__main__":
    run_command(main)
