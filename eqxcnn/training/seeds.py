"""The same recipe under many seeds: what it reaches on average, and by how much that varies."""

import dataclasses
import json
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from ..errors import InputError
from ..recipe.files import recipe_from
from ..recipe.recipe import Recipe
from ..runs.folder import Run, new_folder, read_metrics, run_name
from ..runs.logs.backends import check_logs
from ..runtime.interrupts import Interrupted
from ..runtime.memory import keep_freed_memory
from ..weights import write_text_atomically
from .job import Job, prepare
from .trainer import fit, resume
from .vmapped_seeds import can_vmap_seeds, train_together

_FILE = "seeds.json"


@dataclass(frozen=True)
class SeedSweepResult:
    """What `fit_seeds` gives back.

    - `folder`: holds a run's folder for each seed, `seed-0` and so on, and `seeds.json` with these numbers.
    - `accuracies`: on the test split, of each seed.
    """

    folder: Path
    accuracies: dict[int, float]

    @property
    def mean(self) -> float:
        """Of the accuracies."""
        return statistics.fmean(self.accuracies.values())

    @property
    def deviation(self) -> float:
        """Standard deviation of the accuracies, estimated from as many as there are (divided by one less)."""
        return statistics.stdev(self.accuracies.values())


def fit_seeds(recipe: Recipe, count: int, *, runs: Path | str = "runs") -> SeedSweepResult:
    """Trains a recipe under `count` seeds, from its own on, into one new folder under `runs`.

    All seeds train in one program where that is faster: on accelerators, and for models without convolutions. Elsewhere
    one run follows another.

    **Raises:** as `fit` does; `Interrupted` tells the folder that `resume_seeds` goes on with.
    """
    if count < 2:
        raise InputError(f"`seeds` (={count}) must be 2 or more: leave it out for one run")
    started = monotonic()
    check_logs(recipe.log)
    keep_freed_memory()
    first = prepare(recipe)
    folder = new_folder(Path(runs), f"{run_name(recipe, first.info.name)}-seeds")
    seeds = range(recipe.seed, recipe.seed + count)
    plan = {"recipe": dataclasses.asdict(recipe), "seeds": list(seeds)}
    write_text_atomically(folder / _FILE, json.dumps(plan, indent=2) + "\n")
    if can_vmap_seeds(first):
        _together(first, recipe, seeds, folder, started)
    return _one_by_one(folder, plan)


def resume_seeds(folder: Path | str) -> SeedSweepResult:
    """Goes on with seeds that were stopped, one run after another.

    **Raises:** as `resume` does.
    """
    folder = Path(folder)
    try:
        plan = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        seeds = [int(seed) for seed in plan["seeds"]]
        plan |= {"recipe": dict(plan["recipe"]), "seeds": seeds}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"`{folder / _FILE}` does not tell which seeds were to be trained: start new ones") from error
    if "mean" in plan:
        raise InputError(f"the seeds in `{folder}` are finished: start new ones")
    return _one_by_one(folder, plan)


def is_seed_sweep(folder: Path) -> bool:
    """Whether a folder is one that `fit_seeds` made."""
    return (folder / _FILE).is_file()


def _together(first: Job, recipe: Recipe, seeds: range, folder: Path, started: float) -> None:
    # The images are the same: the device holds them once.
    data = first.setup.data
    jobs = [first]
    for seed in seeds[1:]:
        job = prepare(replace(recipe, seed=seed))
        jobs.append(replace(job, setup=replace(job.setup, data=data)))
    with ExitStack() as stack:
        made = [Run.create(folder, job.recipe, job.info.name, _name(job.recipe.seed)) for job in jobs]
        train_together(jobs, [stack.enter_context(run) for run in made], started)


def _one_by_one(folder: Path, plan: dict[str, Any]) -> SeedSweepResult:
    """Trains what is not trained yet, and writes down what came of all."""
    recipe = recipe_from(plan["recipe"], origin=str(folder / _FILE))
    for seed in plan["seeds"]:
        run = folder / _name(seed)
        try:
            if not (run / "recipe.yaml").exists():
                fit(replace(recipe, seed=seed), runs=folder, name=_name(seed))
            elif not (run / "model" / "config.json").exists():
                resume(run)
        except Interrupted as stop:
            raise Interrupted(stop.signal, folder) from stop
    rows = {seed: read_metrics(folder / _name(seed))[-1] for seed in plan["seeds"]}
    found = SeedSweepResult(folder, {seed: row["test_accuracy"] for seed, row in rows.items()})
    told = [{"seed": seed, "folder": _name(seed), **row} for seed, row in rows.items()]
    whole = {**plan, "runs": told, "mean": found.mean, "deviation": found.deviation}
    write_text_atomically(folder / _FILE, json.dumps(whole, indent=2) + "\n")
    return found


def _name(seed: int) -> str:
    return f"seed-{seed}"
