"""Folders: class folders with odd names and files, tables, cards, metadata files, and `save_to_disk` folders."""

import json
import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from eqxcnn.data import EncodedImages, Preprocess, open_source

from .case import Entrance, Silent
from .mutate import mutate_bytes, mutate_text

_NAMES = (
    b"cat", b"dog", b"a b", b"\x1b[31mred", b"line\nbreak", b"tab\t", b"\xff\xfe", "\u202egnp".encode(),
    "K\u00e4fer".encode(), b"a::b", b"http:", b"*", b"[a]", b"{a,b}", b"?", b"~", b"$HOME", b"-x", b"train2", b"test_1",
    b"a'b", b'"', b"%s", b"{0}", b"\\", b"a:b", b"a=b", b"x" * 250, b"nan", b"None", b"0", b"-1", b"1e5", b"con",
    b"a.png", b"metadata", b"state.json.d",
)  # fmt: skip
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.parquet
dataset_info:
  features:
  - name: image
    dtype: image
---
# A card
"""


def make_sources(folder: Path) -> dict[str, Any]:
    """Writes an intact data set as a table and with `save_to_disk`."""
    datasets.disable_progress_bars()
    images = [Image.fromarray(np.full((6, 6), 10 * number, np.uint8)) for number in range(12)]
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    rows = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 6}, features=kinds)
    rows.to_parquet(str(folder / "train.parquet"))
    rows.save_to_disk(str(folder / "split"))
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(folder / "both"))
    images[3].save(folder / "image.png")
    return {"folder": folder, "image": (folder / "image.png").read_bytes()}


def attack_classes(rng: random.Random, folder: Path, base: dict[str, Any]) -> None:
    """Class folders, intact or damaged. Of folders that are accepted and intact, no image or class may be missing."""
    root = Path(os.fsdecode(os.fsencode(folder) + b"/" + rng.choice((b"data", b"data", rng.choice(_NAMES)))))
    root.mkdir(exist_ok=True)
    inner = root / rng.choice(("train", ".", "."))
    inner.mkdir(exist_ok=True)
    names = rng.sample(_NAMES, rng.choice((2, 2, 3)))
    count = rng.choice((2, 5))
    for name in names:
        path = Path(os.fsdecode(os.fsencode(inner) + b"/" + name))
        path.mkdir()
        for number in range(count):
            (path / f"{number}.png").write_bytes(base["image"])
    is_plain = rng.random() < 0.4
    if not is_plain:
        for _ in range(rng.choice((1, 2))):
            _add_trap(rng, rng.choice((root, inner, *filter(Path.is_dir, inner.iterdir()))), base["image"])
    rows, classes = _read(rng, root, rng.choice(("stop", "skip")))
    if is_plain and (rows, classes) != (len(names) * count, len(names)):
        raise Silent(f"images or classes are missing: {rows} images of {classes} classes from {names}")


def _add_trap(rng: random.Random, folder: Path, image: bytes) -> None:
    """Adds something other than an intact image to a folder, such as a pipe, a link or a damaged file."""
    name = rng.choice(
        ("x", "x.png", "x.txt", "README.md", "metadata.csv", "metadata.jsonl", "train", "test", "x.parquet")
    )
    path = folder / name
    match rng.randrange(10) if not os.path.lexists(path) else 10:
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to(path)
        case 2:
            path.symlink_to(folder)
        case 3:
            path.symlink_to(rng.choice(("/dev/zero", "/dev/stdin", "/nowhere", "/proc/self/mem", "/proc/self/fd/0")))
        case 4:
            with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("../../evil.png", bytes(10_000_000))
        case 5:
            path.write_bytes(mutate_bytes(rng, image))
        case 6:
            path.write_bytes(b"")
        case 7:
            (path / "deep" / "deeper").mkdir(parents=True)
            (path / "deep" / "deeper" / "y.png").write_bytes(image)
        case 8:
            path.write_bytes(
                mutate_text(rng, rng.choice((_CARD, "file_name,label\n0.png,a\n", '{"file_name": "0.png"}\n')))
            )
        case 9:
            path.mkdir(mode=rng.choice((0o700, 0)))


def attack_tables(rng: random.Random, folder: Path, base: dict[str, Any]) -> None:
    """Parquet files, cards and metadata files, mutated."""
    root = folder / "data"
    root.mkdir()
    table = (base["folder"] / "train.parquet").read_bytes()
    match rng.randrange(4):
        case 0:
            (root / "train.parquet").write_bytes(mutate_bytes(rng, table))
        case 1:
            (root / "train.parquet").write_bytes(table)
            (root / "README.md").write_bytes(mutate_text(rng, _CARD))
        case 2:
            (root / rng.choice(("test.parquet", "x.parquet", "x.arrow", "x.json"))).write_bytes(table)
            (root / "train.parquet").write_bytes(mutate_bytes(rng, table) if rng.random() < 0.5 else table)
        case _:
            lines = [{"file_name": f"{number}.png", "label": number % 2} for number in range(6)]
            for line in lines:
                (root / str(line["file_name"])).write_bytes(base["image"])
            if rng.random() < 0.5:
                text, name = "".join(json.dumps(line) + "\n" for line in lines), "metadata.jsonl"
            else:
                rows = "".join(f"{line['file_name']},{line['label']}\n" for line in lines)
                text, name = f"file_name,label\n{rows}", "metadata.csv"
            (root / name).write_bytes(mutate_text(rng, text))
    if rng.random() < 0.3:
        _read_stream(root)
    _read(rng, root, "stop")


def attack_saved(rng: random.Random, folder: Path, base: dict[str, Any]) -> None:
    """A `save_to_disk` folder with one damaged, missing or replaced file."""
    root = folder / "data"
    shutil.copytree(base["folder"] / rng.choice(("split", "both")), root)
    path = rng.choice(sorted(path for path in root.rglob("*") if path.is_file()))
    data = path.read_bytes()
    match rng.randrange(8):
        case 0:
            path.unlink()
        case 1:
            path.unlink()
            os.mkfifo(path)
        case 2:
            path.unlink()
            path.symlink_to(rng.choice((path, "/dev/zero", "/nowhere")))
        case _:
            is_text = path.suffix == ".json" and rng.random() < 0.7
            path.write_bytes(mutate_text(rng, data.decode()) if is_text else mutate_bytes(rng, data))
    _read(rng, root, "stop")


def attack_cache(rng: random.Random, folder: Path, base: dict[str, Any]) -> None:
    """A damaged cache of decoded images must give the same result; only pixels, which have no digest, may change."""
    opened = open_source(str(base["folder"] / "split"))
    intact = opened.decode("train", image_size=(5, 5), cache_dir=base["folder"] / "cache", progress=False)
    shutil.copytree(base["folder"] / "cache", folder / "cache")
    path = rng.choice(sorted(path for path in (folder / "cache").rglob("*.*") if path.is_file()))
    data = path.read_bytes()
    damaged = mutate_text(rng, data.decode()) if path.suffix == ".json" else mutate_bytes(rng, data)
    path.write_bytes(damaged)
    found = opened.decode("train", image_size=(5, 5), cache_dir=folder / "cache", progress=False)
    if not np.array_equal(found.labels, intact.labels) or found.images.shape != intact.images.shape:
        raise Silent(f"a damaged cache gives other labels or shapes: {found.images.shape}, {found.labels}")
    if path.name != "images.npy" and not np.array_equal(found.images, intact.images):
        raise Silent(f"a damaged cache gives other pixels: {path.name}")


def _read(rng: random.Random, root: Path, on_bad_image: Any) -> tuple[int, int]:
    """Reads both splits, and returns the number of their images and the number of classes."""
    opened = open_source(str(root))
    names = opened.info.class_names
    if not names or len(set(names)) != len(names):
        raise Silent(f"a data set has no classes, or one twice: {names}")
    counts = 0
    for split in ("train", "test"):
        found = opened.decode(split, image_size=(4, 4), on_bad_image=on_bad_image, progress=False)
        counts += len(found.images) + found.skipped
        if len(found.images) != len(found.labels) or not ((found.labels >= 0) & (found.labels < len(names))).all():
            raise Silent(f"labels do not fit images or classes: {found.labels} of {names}")
        preprocess = Preprocess((4, 4), opened.info.channels)
        streamed = opened.stream(split, preprocess=preprocess, on_bad_image=on_bad_image).images
        assert isinstance(streamed, EncodedImages)
        if not np.array_equal(streamed.readable(np.arange(len(streamed))), found.array):
            raise Silent(f"split {split} has other images when they are streamed")
    return counts, len(names)


def _read_stream(root: Path) -> None:
    """Checks that a folder gives the same rows, whether it is read as a stream or as a table."""
    opened, table = open_source(str(root), streaming=True), open_source(str(root))
    preprocess = Preprocess((4, 4), 3)
    for split in ("train", "test"):
        ours, theirs = (each.stream(split, preprocess=preprocess) for each in (opened, table))
        same_names = opened.info.class_names == table.info.class_names
        if not same_names or not np.array_equal(ours.labels, theirs.labels):
            raise Silent(f"split {split} has other labels when it is streamed")
        if not np.array_equal(ours.array, theirs.array):
            raise Silent(f"split {split} has other images when it is streamed")


ENTRANCES = {
    "classes": Entrance(attack_classes, make_sources),
    "tables": Entrance(attack_tables, make_sources),
    "saved": Entrance(attack_saved, make_sources),
    "cache": Entrance(attack_cache, make_sources),
}
