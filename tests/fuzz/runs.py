"""Run folders: damaged files of stopped and finished runs, which are then resumed or reported."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eqxcnn.recipe import Recipe
from eqxcnn.report import write_report
from eqxcnn.report.gather import read_run
from eqxcnn.runs.folder import Run
from eqxcnn.training import fit, prepare, resume_seeds
from eqxcnn.training import seeds as seed_sweeps

from .case import Entrance, Silent
from .mutate import mutate_bytes, mutate_text, mutate_value

SMALL = Recipe(
    model="mlp", architecture=("widths=(8,)",), epochs=0.15, image_size=(8, 8), validation=0.0, checkpoint_seconds=0.0
)


@dataclass(frozen=True)
class Base:
    """A finished run: its folder, and the restored state of each checkpoint by step."""

    folder: Path
    saved: dict[int, Any]


def train_small(folder: Path) -> Base:
    """Trains a few steps; a copy of the finished run without its model serves as an unfinished run."""
    finished = fit(SMALL, runs=folder, name="finished").folder
    shutil.copytree(finished, folder / "stopped", ignore=shutil.ignore_patterns("model"))
    template = prepare(SMALL).template
    with Run.open(folder / "stopped") as run:
        checkpoints = run.checkpoints
        return Base(
            finished, {step: checkpoints.restore_latest(template, steps=[step]) for step in checkpoints.steps()}
        )


def _damage(rng: random.Random, path: Path) -> None:
    """Damages one file; mutates values in JSON files and lines in text files."""
    data = path.read_bytes()
    action = rng.random()
    if action < 0.06:
        path.unlink()
    elif action < 0.1:
        path.unlink()
        rng.choice((lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to(path)))()
    elif path.suffix in (".json", ".jsonl") and action < 0.6:
        lines = data.decode().splitlines() if path.suffix == ".jsonl" else [data.decode()]
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(mutate_value(rng, json.loads(lines[at])), ensure_ascii=rng.random() < 0.5)
        path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
    elif path.suffix in (".json", ".jsonl", ".yaml") and action < 0.9:
        path.write_bytes(mutate_text(rng, data.decode()))
    else:
        path.write_bytes(mutate_bytes(rng, data))


def attack_resume(rng: random.Random, folder: Path, base: Base) -> None:
    """Runs the beginning of `resume` on a damaged run; a restored checkpoint must equal the saved state."""
    root = folder / "run"
    shutil.copytree(base.folder, root, ignore=shutil.ignore_patterns("model", "plots"))
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    named = [path for path in files if path.parent == root]
    changed = rng.choice(named if rng.random() < 0.6 else files)
    _damage(rng, changed)
    is_signed = changed not in named and rng.random() < 0.5
    if is_signed:
        _sign(root / "checkpoints")
    with Run.open(root) as run:
        if run.recipe.model != "mlp" or run.recipe.data != "digits" or max(run.recipe.image_size or (8,)) > 64:
            return  # Preparing a run of this recipe may rightly take long.
        job = prepare(run.recipe, is_resumed=bool(run.checkpoints.steps()))
        run.check_data(job.info.fingerprint)
        restored = run.checkpoints.restore_latest(job.template, notify=str)
        run.rewind(job.epochs_after(0 if restored is None else restored[0]))
    if changed.name == "data.json" and changed.is_file() and b"fingerprint" not in changed.read_bytes():
        raise Silent("a run was resumed though data.json had lost its fingerprint")
    if restored is not None and changed.name != "recipe.yaml" and not is_signed:
        _require_same(restored, base.saved[restored[0]])


def _sign(checkpoints: Path) -> None:
    """Updates the checksums after damage, so that the checksums do not reveal the damage."""
    for folder in checkpoints.iterdir():
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]
        sums = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files)
        if folder.is_dir():
            # It may be a pipe or a loop of links by now.
            (folder / "SHA256SUMS").unlink(missing_ok=True)
            (folder / "SHA256SUMS").write_text("".join(sums))


def _require_same(found: tuple[int, Any], saved: tuple[int, Any] | None) -> None:
    leaves = [[leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")] for tree in (found, saved)]
    for one, other in zip(*leaves, strict=True):
        if jax.numpy.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        if not np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True):
            raise Silent(f"a damaged checkpoint was restored with other values: step {found[0]}")


def attack_report(rng: random.Random, folder: Path, base: Base) -> None:
    """Reads a damaged run, and sometimes writes its report."""
    root = folder / "run"
    is_finished = rng.random() < 0.5
    ignored = ("checkpoints", "plots") if is_finished else ("checkpoints", "plots", "model")
    shutil.copytree(base.folder, root, ignore=shutil.ignore_patterns(*ignored))
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != ".lock"]
    _damage(rng, rng.choice(files))
    record = read_run(root)
    if record.recipe.data != "digits":
        return
    if rng.random() < 0.2:
        text = write_report(root).read_text(encoding="utf-8")
        if any(sign in text for sign in ("\x1b", "\0", "<script>alert")):
            raise Silent("the page holds characters or tags from a file of the run")


class _AcceptedError(Exception):
    """Raised instead of training or resuming the first unfinished run of a sweep."""


def attack_seeds(rng: random.Random, folder: Path, base: Base) -> None:
    """Resumes a sweep with a damaged `seeds.json`, and stops before a run is trained."""

    def accept(*_: Any, **__: Any) -> None:
        raise _AcceptedError

    seed_sweeps.fit = seed_sweeps.resume = accept  # type: ignore[assignment]
    plan = {"recipe": dataclasses.asdict(SMALL), "seeds": [0, 1, 2]}
    text = json.dumps(mutate_value(rng, json.loads(json.dumps(plan))), ensure_ascii=rng.random() < 0.5)
    data = text.encode("utf-8", "surrogatepass")
    (folder / "seeds.json").write_bytes(mutate_bytes(rng, data) if rng.random() < 0.3 else data)
    for seed in (0, 1):
        shutil.copytree(base.folder, folder / f"seed-{seed}", ignore=shutil.ignore_patterns("checkpoints", "plots"))
    _damage(rng, folder / "seed-1" / "metrics.jsonl")
    try:
        result = resume_seeds(folder)
    except _AcceptedError:
        return
    if not all(0 <= accuracy <= 1 for accuracy in result.accuracies.values()):
        raise Silent(f"accuracies that are not between 0 and 1 were accepted: {result.accuracies}")


ENTRANCES = {
    "resume": Entrance(attack_resume, train_small),
    "report": Entrance(attack_report, train_small),
    "seeds": Entrance(attack_seeds, train_small),
}
