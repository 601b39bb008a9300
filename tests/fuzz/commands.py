"""Command lines: each command's `main` with hostile flags and values; exit code and output are checked."""

import dataclasses
import io
import random
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from eqxcnn import evaluate, predict, train
from eqxcnn.cli import run_command
from eqxcnn.data import __main__ as data
from eqxcnn.errors import InputError
from eqxcnn.recipe import Recipe
from eqxcnn.report import __main__ as report
from eqxcnn.zoo import __main__ as zoo

from .case import Entrance, RawOutput, Silent
from .images import make_images
from .mutate import mutate_bytes, write_hostile
from .runs import train_small

_LONGEST_LINE = 2_000
_SETTINGS = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Recipe)]
_FLAGS = {
    "train": [*_SETTINGS, *(f"--no-{name[2:]}" for name in _SETTINGS), "--recipe", "--resume", "--seeds", "--import"],
    "evaluate": [
        "--data", "--split", "--batch-size", "--on-bad-image", "--metrics", "--image-column", "--test-split",
        "--import",
    ],
    "predict": ["--top", "--format", "--batch-size", "--import"],
    "data": [
        "--image-column", "--label-column", "--test-split", "--image-size", "--max-rows", "--sheet", "--per-class",
        "--json", "--import",
    ],
    "report": ["--data", "--recipe", "--augment", "--out", "--show-augment", "--import"],
    "zoo": [
        "list", "card", "summary", "--task", "--image-size", "--num-classes", "--in-channels", "--import", "lenet",
    ],
}  # fmt: skip
_MAIN: dict[str, Callable[..., None]] = {
    "train": train.main, "evaluate": evaluate.main, "predict": predict.main, "data": data.main, "report": report.main,
    "zoo": zoo.main,
}  # fmt: skip
_VALUES = (
    "1", "0", "-1", "2", "1000000", "999999", "1e-3", "nan", "digits", "best", "csv", "json", "test", "mlp", "lenet",
    "64x", "top_k(3)", "os",
)  # fmt: skip


def make_run(folder: Path) -> dict[str, Any]:
    """Trains a small run, and makes an image to predict."""
    return {"run": train_small(folder).folder, "images": make_images(folder)}


def attack_command(rng: random.Random, folder: Path, base: dict[str, Any]) -> None:
    """Runs a command line; only exit codes 0, 1 and 2 are allowed."""
    name = rng.choice(list(_MAIN))
    words = _write_line(rng, name, folder, base)
    (folder / "case.txt").write_text(f"{name} {words!a}\n")
    code, out, err = _run(name, words)
    _check_output(out, is_free=name == "predict")
    _check_output(err, is_free=False)
    if code not in (0, 1, 2):
        raise Silent(f"a command ends with another exit code: {code}")
    if code != 0 and not err.strip():
        raise Silent("a command fails without a message")
    if code != 0:
        raise InputError("refused")


def _write_line(rng: random.Random, name: str, folder: Path, base: dict[str, Any]) -> list[str]:
    run = base["run"]
    words: list[str] = []
    if name == "train":
        words = [
            "--dry-run",
            "--data",
            "digits",
            "--model",
            "mlp",
            "--image-size",
            "8",
            "8",
            "--runs",
            str(folder / "runs"),
        ]
    elif name == "predict":
        image = folder / rng.choice(("a.png", "\x1b[31m.png", "b\n.jpg", "\u202e.png", "=1+1.png"))
        image.write_bytes(mutate_bytes(rng, rng.choice(base["images"])[1]))
        words = [str(run), str(image)]
    elif name == "data":
        words = [str(_write_classes(rng, folder / "classes", base)), "--sheet", str(folder / "sheet.png")]
    elif name == "evaluate" or (name == "report" and rng.random() < 0.3):
        words = [str(run)]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        words += _write_flag(rng, name)
    # A process has no arguments with NUL.
    return [
        word.replace("\0", "0")
        .encode("utf-8", "surrogateescape" if _fits(word) else "replace")
        .decode("utf-8", "surrogateescape")
        for word in words
    ]


def _write_classes(rng: random.Random, folder: Path, base: dict[str, Any]) -> Path:
    """Writes class folders with odd names, in which some images are intact and others are mutated."""
    for name in rng.sample(("a", "\x1b[31m", "b\n", "\u202e", "x" * 200), 2):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            image = rng.choice(base["images"])[1]
            (folder / name / f"{number}\x1b.png").write_bytes(image if number else mutate_bytes(rng, image))
    return folder


def _fits(word: str) -> bool:
    return all(not 0xD800 <= ord(sign) <= 0xDFFF or 0xDC80 <= ord(sign) <= 0xDCFF for sign in word)


def _write_flag(rng: random.Random, name: str) -> list[str]:
    flag = rng.choice(_FLAGS[name])
    value = rng.choice(_VALUES) if rng.random() < 0.5 else write_hostile(rng)
    match rng.randrange(8):
        case 0:
            return [value]
        case 1:
            return [f"--{value}"]
        case 2:
            return [flag[:-1], value]
        case 3:
            return [f"{flag}={value}"]
        case 4:
            return [flag]
        case 5:
            return [flag, value, value]
        case _:
            return [flag, value]


def _run(name: str, words: list[str]) -> tuple[Any, str, str]:
    """Returns exit code, output and errors of a command line."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2))
    before = sys.argv
    sys.argv = [f"eqxcnn.{name}", *words]
    code: Any = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            run_command(_MAIN[name])
    except SystemExit as exit_:
        code = exit_.code or 0
    finally:
        sys.argv = before
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(errors="backslashreplace"))  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


def _check_output(text: str, is_free: bool) -> None:
    for line in text.split("\n"):
        raw = [sign for sign in line if not sign.isprintable()]
        if raw:
            raise RawOutput(f"a command prints control characters: {raw[:5]} in {line[:200]!r}")
        if len(line) > _LONGEST_LINE and not is_free:
            raise RawOutput(f"a command prints a line of too many characters: {len(line):,}, {line[:200]!r}")


ENTRANCES = {"command": Entrance(attack_command, make_run)}
