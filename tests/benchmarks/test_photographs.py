"""`benchmarks.photographs` with a few photographs, and the set of synthetic photographs itself."""

import io
import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from benchmarks import photographs, synthetic_photographs
from benchmarks.photograph_cases import BOTH, DECODING, INPUT, STEP, TORCH, WAITING
from benchmarks.startup import Probe
from benchmarks.synthetic_photographs import Photographs
from eqxcnn.data import open_source
from eqxcnn.errors import InputError
from eqxcnn.training import load_recipe, prepare


@pytest.fixture(autouse=True)
def few_textures(monkeypatch):
    monkeypatch.setattr(synthetic_photographs, "_NUM_TEXTURES", 2)


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_photographs_are_written_once_and_open_as_a_data_set(tmp_path, layout):
    made = Photographs(4, 2, 2, layout)
    made.write(tmp_path / "set")
    info = open_source(str(tmp_path / "set")).info
    assert (info.splits, info.image_size, info.channels) == ({"train": 4, "test": 2}, (375, 500), 3)
    assert info.class_names == ("class_000", "class_001")
    files = sorted(path for path in (tmp_path / "set").rglob("*.*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in files]
    made.write(tmp_path / "set")
    assert [path.stat().st_mtime_ns for path in files] == times
    with pytest.raises(InputError, match=r"`folder` .* holds other photographs: delete it"):
        Photographs(5, 2, 2, layout).write(tmp_path / "set")


def test_an_unfinished_set_is_completed_and_a_folder_of_other_files_is_refused(tmp_path, monkeypatch):
    made, folder = Photographs(2, 2, 2, "folders"), tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(synthetic_photographs, "_write_class_folders", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.write(folder)
    made.write(folder)
    assert len(list(folder.rglob("*.jpg"))) == 4
    with pytest.raises(InputError, match=r"`folder` .* must be new or empty, and it holds other files"):
        made.write(folder / "train")


def test_a_photograph_is_the_same_for_its_number_and_has_the_size_of_a_real_one(monkeypatch):
    first, second = map(synthetic_photographs.make_photograph, (0, 1))
    assert synthetic_photographs.make_photograph(0) == first != second
    assert 60_000 < len(first) < 140_000
    image = Image.open(io.BytesIO(first))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (500, 375))
    assert 30 < np.asarray(image).std() < 90


def test_the_slower_of_decoding_and_training_is_compared_with_both():
    seconds = {DECODING: [1.0], STEP: [2.0], BOTH: [2.1], WAITING: [1.05], INPUT: [1.0], TORCH: [1.5]}
    labels = [(ratio.label, ratio.target) for ratio in photographs.make_ratios(seconds)]
    waiting, torch = (f"{DECODING} / {WAITING}", ">= 0.9"), (f"{TORCH} / {INPUT}", ">= 1.3")
    assert labels == [(f"{STEP} / {BOTH}", ">= 0.9"), waiting, torch]
    seconds = {DECODING: [3.0], STEP: [2.0], BOTH: [3.1], WAITING: [3.0], INPUT: [3.0]}
    labels = [(ratio.label, ratio.target) for ratio in photographs.make_ratios(seconds)]
    assert labels == [(f"{DECODING} / {BOTH}", ">= 0.9"), waiting]


def test_memory_is_reported_after_each_multiple_of_the_images_per_epoch(tmp_path):
    options = photographs.Options(tmp_path, images_per_epoch=130, batch_size=64)
    moments = {"imported": 1.0, "prepared": 2.0, "stepped": 3.0, "ended": 9.0}
    long = Probe(moments, 900.0, {step: 100.0 + step for step in range(1, 7)})
    short = Probe({name: seconds + 1 for name, seconds in moments.items()}, 700.0, {1: 700.0})
    times, memory = photographs.make_tables(options, [long, short])
    assert memory.lines == [
        ("after 128 images", "102"), ("after 256 images", "104"), ("after 384 images", "106"), ("peak", "900"),
    ]  # fmt: skip
    assert times.lines[-1] == ("until the first step is done", "3.50", "3.25", "3.75")
    assert len(times.lines) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "31"], r"`images` \(=31\) must be at least one batch of 32 and at most the 50,000 `photographs`"),
        (["--photographs", "99", "--images", "100"], r"`images` \(=100\) must be .* at most the 99 `photographs`"),
        (["--images-per-epoch", "1"], r"`images_per_epoch` \(=1\) must be at least one batch of 32"),
        (["--layout", "parquet"], "with torch reads class folders: leave `layout` out, or add `--no-torch`"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_photographs_are_made(tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        photographs.main(["--folder", str(tmp_path / "set"), *flags, "--out", str(tmp_path / "out.json")])
    assert not (tmp_path / "set").exists()


@pytest.mark.exhaustive
def test_a_few_photographs_are_measured(tmp_path, monkeypatch):
    use_torch, jobs = find_spec("torchvision") is not None, []

    def probe(*flags):
        # The process itself is tested in `test_startup.py`.
        assert flags[0] == "--recipe"
        jobs.append(prepare(load_recipe(flags[1])))
        memory = dict.fromkeys(range(1, jobs[-1].steps + 1), 500.0)
        return Probe({"imported": 1.0, "prepared": 2.0, "stepped": 3.0}, 500.0, memory)

    monkeypatch.setattr(photographs, "run_probe", probe)
    out = tmp_path / "photographs.json"
    flags = {"photographs": 25, "images": 16, "images-per-epoch": 18, "batch-size": 8, "rounds": 2, "model": "lenet"}
    words = [f"--{name}={value}" for name, value in flags.items()]
    photographs.main([f"--folder={tmp_path / 'set'}", *words, *["--no-torch"] * (not use_torch), f"--out={out}"])
    assert [(job.steps, job.recipe.decode, job.image_size) for job in jobs] == [
        (6, "stream", (224, 224)), (1, "stream", (224, 224)),
    ]  # fmt: skip
    record = json.loads(out.read_text())
    assert list(record["times"]) == [DECODING, STEP, BOTH, WAITING, INPUT, *[TORCH] * use_torch]
    assert all(speed > 0 for speed in record["images_per_second"].values())
    assert record["rounds"] == 2
    assert len(record["ratios"]) == 2 + use_torch
    times, memory = record["tables"]
    assert [line[0] for line in memory["lines"]] == [*(f"after {count} images" for count in (16, 32, 48)), "peak"]
    assert len(times["lines"]) == 3
    assert "--folder=set" in record["command"]
