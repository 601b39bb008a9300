"""Seed sweeps: one recipe with several seeds, for the mean and standard deviation of its accuracy."""

import dataclasses
import json
import os
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, TypeAlias

from ..errors import InputError
from ..parsing import parse_json, read_text
from ..ranges import Items, Range, coerce
from ..recipe import Recipe
from ..recipe.files import recipe_from
from ..runs.folder import Run, create_folder, read_metrics, run_name
from ..runs.logs import check_logs
from ..runtime.interrupts import Interrupted
from ..runtime.memory import keep_freed_memory
from ..runtime.processes import current_peers
from ..runtime.promotion import standard_promotion
from ..weights import write_text_atomically
from .job import Job
from .parts import Parts, make_parts
from .preparation import prepare
from .trainer import fit, resume
from .vmapped_seeds import can_vmap_seeds, train_vmapped

__all__ = ["SeedSweepResult", "fit_seeds", "is_seed_sweep", "resume_seeds"]

_FILE = "seeds.json"
_MAX_SEEDS = 1000
_Seeds: TypeAlias = Annotated[tuple[Annotated[int, Range(0, 2**32 - 1)], ...], Items(_MAX_SEEDS)]


@dataclass(frozen=True)
class SeedSweepResult:
    """The result of `fit_seeds`.

    - `folder`: contains one run folder per seed (`seed-0` and so on), and `seeds.json` with the results.
    - `accuracies`: test accuracy of each seed.
    """

    folder: Path
    accuracies: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean of the accuracies."""
        return statistics.fmean(self.accuracies.values())

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the accuracies (with denominator n - 1)."""
        return statistics.stdev(self.accuracies.values())


@standard_promotion()
def fit_seeds(
    recipe: Recipe, count: int, *, runs: Path | str = "runs", name: str | None = None, **parts: Any
) -> SeedSweepResult:
    """Trains a recipe once with each of `count` seeds, and writes the runs into one new folder under `runs`. The first
    seed is the recipe's `seed`.

    All seeds train in one program where that is faster: on accelerators, and for models without convolutions. Otherwise
    they train one after another.

    **Arguments:**

    - `runs`: folder in which the sweep's folder is made.
    - `name`: name of the sweep's folder; by default `<model>-<data>-<timestamp>-seeds`.
    - `parts`: your own parts of the runs, as for `fit`; your `model` starts with the same weights for every seed.

    **Raises:** `InputError` in the same cases as `fit`; `Interrupted`, which holds the folder to pass to
        `resume_seeds`.
    """
    if count not in Range(2, _MAX_SEEDS) or recipe.seed + count > 2**32:
        raise InputError(
            f"the number of seeds (={count}) must be from 2 to {_MAX_SEEDS}, and the last seed must be below 2**32: "
            "give another number of seeds, or leave out the number for a single run"
        )
    started = monotonic()
    check_logs(recipe.log)
    keep_freed_memory()
    own = make_parts(**parts)
    peers = current_peers()
    with peers.guard():
        first = prepare(recipe, own)
        seeds = range(recipe.seed, recipe.seed + count)
        plan = {"recipe": dataclasses.asdict(recipe), "seeds": list(seeds)}
        if peers.is_first:
            if name is None:
                name = f"{run_name(first.short_model_name, first.info.name)}-seeds"
            name = create_folder(Path(runs), name).name
            write_text_atomically(Path(runs) / name / _FILE, json.dumps(plan, indent=2) + "\n")
        folder = Path(runs) / str(peers.gather(name)[0])
        peers.enter_run(folder)
        if can_vmap_seeds(first):
            _train_in_one_program(first, recipe, own, seeds, folder, started)
        return _train_one_by_one(folder, plan, parts)


def resume_seeds(folder: Path | str, **parts: Any) -> SeedSweepResult:
    """Continues a stopped seed sweep, one run after another.

    **Arguments:**

    - `parts`: the same parts as when the sweep was started.

    **Raises:** the same exceptions as `resume`.
    """
    folder, peers = Path(folder), current_peers()
    with peers.guard():
        (plan, *_) = peers.gather(_read_plan(folder) if peers.is_first else None)
        return _train_one_by_one(folder, plan, parts)


def _read_plan(folder: Path) -> dict[str, Any]:
    """Returns the recipe and the seeds of a stopped sweep."""
    path = folder / _FILE
    plan = parse_json(read_text(path), f"`{path}`")
    if not isinstance(plan, dict) or not isinstance(plan.get("recipe"), dict):
        raise InputError(f"`{path}` does not hold the recipe of a seed sweep: start a new sweep")
    seeds = coerce("seeds", plan.get("seeds"), _Seeds, f" in `{path}`")
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise InputError(f"`{path}` must list two seeds or more, each once: start a new sweep")
    plan["seeds"] = list(seeds)
    if "mean" in plan:
        raise InputError(f"the seed sweep in `{folder}` is finished: start a new one")
    return plan


def is_seed_sweep(folder: Path) -> bool:
    """Returns whether the folder was made by `fit_seeds`."""
    # For a name that is too long, `os.path.isfile` returns `False`, but `Path.is_file` raises an error.
    return os.path.isfile(folder / _FILE)


def _train_in_one_program(first: Job, recipe: Recipe, parts: Parts, seeds: range, folder: Path, started: float) -> None:
    # All jobs share the images, so the device holds them once.
    data = first.setup.data
    jobs = [first]
    for seed in seeds[1:]:
        job = prepare(replace(recipe, seed=seed), parts)
        jobs.append(replace(job, setup=replace(job.setup, data=data)))
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                Run.create(
                    folder,
                    job.recipe,
                    job.info.name,
                    _folder_name(job.recipe.seed),
                    job.info.fingerprint,
                    parts.record(),
                )
            )
            for job in jobs
        ]
        train_vmapped(jobs, runs, started)


def _train_one_by_one(folder: Path, plan: dict[str, Any], parts: Mapping[str, Any]) -> SeedSweepResult:
    """Trains the seeds whose runs are not finished, and writes the results of all seeds."""
    recipe, peers = recipe_from(plan["recipe"], origin=str(folder / _FILE)), current_peers()
    for seed in plan["seeds"]:
        run = folder / _folder_name(seed)
        ((is_started, is_finished), *_) = peers.gather(
            [(run / "recipe.yaml").exists(), (run / "model" / "config.json").exists()]
        )
        try:
            if not is_started:
                fit(replace(recipe, seed=seed), runs=folder, name=_folder_name(seed), **parts)
            elif not is_finished:
                resume(run, **parts)
        except Interrupted as stop:
            raise Interrupted(stop.signal, folder) from stop
    (accuracies, *_) = peers.gather(_collect(folder, plan) if peers.is_first else None)
    return SeedSweepResult(folder, dict(zip(plan["seeds"], accuracies, strict=True)))


def _collect(folder: Path, plan: dict[str, Any]) -> list[float]:
    """Writes the results of all seeds, and returns their accuracies."""
    rows = {seed: (read_metrics(folder / _folder_name(seed)) or [{}])[-1] for seed in plan["seeds"]}
    for seed, row in rows.items():
        if "test_accuracy" not in row:
            run = folder / _folder_name(seed)
            raise InputError(
                f"`{run / 'metrics.jsonl'}` has no test accuracy: restore the file, or train the seed again"
            )
    result = SeedSweepResult(folder, {seed: row["test_accuracy"] for seed, row in rows.items()})
    table = [{"seed": seed, "folder": _folder_name(seed), **row} for seed, row in rows.items()]
    summary = {**plan, "runs": table, "mean": result.mean, "deviation": result.deviation}
    write_text_atomically(folder / _FILE, json.dumps(summary, indent=2) + "\n")
    return list(result.accuracies.values())


def _folder_name(seed: int) -> str:
    return f"seed-{seed}"
