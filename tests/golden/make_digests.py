"""Writes digests.json: digests of the results of a few short runs, to show that a change keeps every bit of training.

Run `python tests/golden/make_digests.py` after a change that is meant to change the numbers, and mention the change in
the changelog. Each record names the processor and the version of jaxlib for which it is valid. The change invalidates
the records of other machines, so remove these records.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from eqxcnn.runs.environment import environment
from eqxcnn.training import Recipe, fit
from eqxcnn.weights import load_safetensors

FILE = Path(__file__).with_name("digests.json")

_SHORT: dict[str, Any] = {"validation": 0.0, "epochs": 2}
RECIPES = {
    "lenet": Recipe(model="lenet", **_SHORT),
    "many parts": Recipe(
        model="lenet", **_SHORT, average="ema", lookahead_every=5, accumulate_steps=2, clip_norm=1.0, clip_agc=0.1,
        weight_decay=0.01, optimizer="adamw", schedule="cosine", warmup_fraction=0.1,
        learning_rate_factors=("*.bias=2",),
        augment=("random_crop(padding=1)", "flip_horizontal", "random_rotation(degrees=5)"),
    ),
    "streamed": Recipe(
        model="lenet", **_SHORT, device_budget=0.0, sampling="balanced", precision="bf16", steps_per_call=3
    ),
    "by hand": Recipe(
        model="scratch", **_SHORT, gradients="by_hand", optimizer="sgd", momentum=0.0, schedule="constant",
        learning_rate=0.01, batch_size=8,
    ),
    "averaged": Recipe(model="mlp", **_SHORT, optimizer="muon", average="swa", image_size=(28, 28)),
}  # fmt: skip


def digest_run(recipe: Recipe, runs: Path) -> str:
    """Trains a recipe, and returns a digest of the weights and of the logged numbers except times."""
    result = fit(recipe, runs=runs)
    tensors = load_safetensors(result.folder / "model" / "model.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    rows = [{key: value for key, value in row.items() if "second" not in key} for row in result.metrics]
    digest.update(json.dumps(rows).encode())
    return digest.hexdigest()[:16]


def machine() -> dict[str, Any]:
    """Returns the properties of the machine that affect a run's bits: versions, cores, and the processor's features."""
    found = environment()
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    features = sorted({line for line in lines if line.startswith(("cpu family", "model\t", "flags"))})
    digest = hashlib.sha256("\n".join(features).encode()).hexdigest()[:16]
    return {name: found[name] for name in ("processor", "cores", "jax", "jaxlib")} | {"features": digest}


def main() -> None:
    """Trains each recipe, and replaces or adds this machine's record."""
    with tempfile.TemporaryDirectory() as folder:
        digests = {name: digest_run(recipe, Path(folder)) for name, recipe in RECIPES.items()}
    here = machine()
    others = [record for record in json.loads(FILE.read_text()) if record["machine"] != here]
    FILE.write_text(json.dumps([*others, {"machine": here, "digests": digests}], indent=1) + "\n")


if __name__ == "__main__":
    main()
