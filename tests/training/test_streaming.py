"""A run that decodes images during training gives the same bytes with threads, with processes, and after a kill."""

import dataclasses
import io
import multiprocessing
import os
import shutil
import signal

import datasets
import numpy as np
import pytest
from PIL import Image

import eqxcnn
from eqxcnn import evaluate
from eqxcnn.data import EncodedImages, open_source
from eqxcnn.errors import InputError
from eqxcnn.features import extract
from eqxcnn.recipe import Recipe, load_recipe
from eqxcnn.report.gather import augmented_examples, predict_test_split
from eqxcnn.runs.folder import Run
from eqxcnn.training import Callback, fit, prepare, resume


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """120 JPEG files of several sizes in two classes: either the left half or the top half of the image is bright."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("across", "down")):
        (root / "data" / name).mkdir(parents=True)
        for number in range(60):
            height, width = rng.integers(40, 90, 2)
            pixels = rng.integers(0, 80, (height, width, 3), np.uint8)
            half = pixels[: height // 2] if label else pixels[:, : width // 2]
            half += 150
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG")
            (root / "data" / name / f"{number}.jpg").write_bytes(file.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQXCNN_CACHE", str(root / "cache"))
        yield str(root / "data")


def make_recipe(photographs, **settings):
    settings = {
        "decode": "stream", "image_size": (16, 16), "batch_size": 16, "epochs": 3, "learning_rate": 0.003,
        "augment": ("flip_horizontal", "random_resized_crop(scale=(0.5, 1.0))"), **settings,
    }  # fmt: skip
    return Recipe(model="mlp", data=photographs, architecture=("widths=(32,)",), **settings)


def weights(result):
    return (result.folder / "model" / "model.safetensors").read_bytes()


class StopAt(Callback):
    """Interrupts the run at a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step >= self.step:
            raise KeyboardInterrupt


def test_a_streamed_run_learns_and_repeats(photographs, tmp_path):
    result = fit(make_recipe(photographs, epochs=6), runs=tmp_path)
    assert result.test.accuracy > 0.9
    assert result.test.count == 24
    again = fit(make_recipe(photographs, epochs=6, metrics=("top_k(1)",)), runs=tmp_path)
    assert weights(again) == weights(result)
    assert again.test.metrics["top_k_1"] == result.test.accuracy
    assert [row.get("validation_loss") for row in again.metrics] == [
        row.get("validation_loss") for row in result.metrics
    ]
    assert eqxcnn.load(result.folder).resize == "crop"


@pytest.mark.parametrize(
    "step", [7, pytest.param(1, marks=pytest.mark.exhaustive), pytest.param(10, marks=pytest.mark.exhaustive)]
)
def test_a_killed_run_resumes_to_the_same_bytes(photographs, tmp_path, step):
    recipe = make_recipe(photographs, checkpoint_seconds=0.0)
    whole = fit(recipe, runs=tmp_path, name="whole")
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, runs=tmp_path, name="stopped", callbacks=[StopAt(step)])
    resumed = resume(tmp_path / "stopped")
    assert weights(resumed) == weights(whole)
    assert resumed.test.loss == whole.test.loss


@pytest.mark.slow
@pytest.mark.parametrize("step", [9, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_a_stream_from_shards_resumes_to_the_same_bytes(photographs, tmp_path, step):
    folder = tmp_path / "shards"
    folder.mkdir()
    rows = datasets.load_dataset("imagefolder", data_dir=photographs, split="train", cache_dir=str(tmp_path / "hub"))
    for number in range(3):
        rows.shuffle(0).shard(3, number).to_parquet(folder / f"train-{number:05d}-of-00003.parquet")
    recipe = make_recipe(str(folder), data_streaming=True, shuffle_buffer=20, checkpoint_seconds=0.0)
    whole = fit(recipe, runs=tmp_path, name="whole")
    assert whole.test.count == 24
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, runs=tmp_path, name="stopped", callbacks=[StopAt(step)])
    assert weights(resume(tmp_path / "stopped")) == weights(whole)
    jobs = [prepare(recipe.replace(shuffle_buffer=size)) for size in (20, 60)]
    rows = [np.concatenate([np.ravel(rows) for *_, rows in job.batches(0, 0)]) for job in jobs]
    for job in jobs:
        job.close()
    assert rows[0].shape == rows[1].shape
    assert list(rows[0]) != list(rows[1])
    for settings, message in (
        ({"decode": "once"}, r"`decode` \(=once\) does not go with `data_streaming`"),
        ({"sampling": "balanced"}, "`sampling` .* does not go with"),
        ({"decode_processes": 2}, "`decode_processes` .* set `decode_processes` to 0"),
        ({"decode": "auto", "cache_size": (40, 40)}, "`cache_size`"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(recipe, **settings)


@pytest.mark.slow
def test_processes_train_the_same_bytes_as_threads(photographs, tmp_path):
    threads = fit(make_recipe(photographs), runs=tmp_path)
    processes = fit(make_recipe(photographs, decode_processes=2), runs=tmp_path)
    assert weights(threads) == weights(processes)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_one_sentence(photographs, tmp_path):
    def kill(run):
        if run.step == 2:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    class Kill(Callback):
        def on_step(self, run):
            kill(run)

    recipe = make_recipe(photographs, decode_processes=2, epochs=200, checkpoint_seconds=0.0)
    with pytest.raises(InputError, match=r"a process that decodes images has died .* with fewer `decode_processes`"):
        fit(recipe, runs=tmp_path, name="killed", callbacks=[Kill()])
    with Run.open(tmp_path / "killed") as run:
        assert run.checkpoints.steps()


def test_images_are_streamed_if_they_exceed_the_budget_or_the_disk(photographs, monkeypatch):
    recipe = make_recipe(photographs, decode="auto")
    job = prepare(recipe)
    assert (job.recipe.decode, job.reader) == ("once", None)
    assert not isinstance(job.splits.train.images, EncodedImages)
    # 120 images of 16 x 16 x 3 pixels.
    budget = 120 * 768 / 2**30
    assert prepare(recipe.replace(disk_budget=budget)).recipe.decode == "once"
    streamed = prepare(recipe.replace(disk_budget=budget * 0.99))
    assert streamed.recipe.decode == "stream"
    assert isinstance(streamed.splits.train.images, EncodedImages)
    assert streamed.setup.data is None
    # A resumed run opens its data for streaming, and must find the same fingerprint.
    assert prepare(streamed.recipe).info.fingerprint == streamed.info.fingerprint
    monkeypatch.setattr("eqxcnn.training.reading._free_bytes", lambda _: 1000)
    # The images are in the cache already, unless their size is another.
    assert prepare(recipe).recipe.decode == "once"
    assert prepare(recipe.replace(image_size=(17, 16))).recipe.decode == "stream"
    assert prepare(recipe.replace(decode="once")).recipe.decode == "once"


def test_streamed_and_decoded_runs_evaluate_the_same(photographs, tmp_path, capsys):
    streamed = fit(make_recipe(photographs, augment=()), runs=tmp_path)
    decoded = fit(make_recipe(photographs, augment=(), decode="once"), runs=tmp_path)
    # Without random crops the images are the same; only mean and deviation may come from a sample.
    assert streamed.test.loss == decoded.test.loss
    evaluate.main([str(streamed.folder)])
    assert f"loss {streamed.test.loss:.4f}" in capsys.readouterr().out


@pytest.mark.slow
def test_skipped_images_do_not_count(photographs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    for name in ("across", "down"):
        for number in (3, 30, 31, 50):
            (data / name / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(
        InputError, match=r"row \d+ of split `train` cannot be used: .*jpg`: its content is not an image"
    ):
        fit(make_recipe(str(data)), runs=tmp_path / "runs")
    result = fit(make_recipe(str(data), on_bad_image="skip"), runs=tmp_path / "runs")
    decoded = fit(make_recipe(str(data), on_bad_image="skip", decode="once"), runs=tmp_path / "runs")
    assert result.test.count == decoded.test.count < 24
    recipe = load_recipe(result.folder / "recipe.yaml")
    assert len(predict_test_split(eqxcnn.load(result.folder), recipe).labels) == result.test.count
    examples = augmented_examples(recipe, rows=100)
    assert examples is not None
    assert [len(each) for each in examples] == [100, 100]
    test = open_source(str(data)).stream("test", preprocess=prepare(recipe).preprocess, on_bad_image="skip")
    assert len(extract(result.folder, test).labels) == result.test.count
    whitened = recipe.replace(model="airbench94", architecture=(), image_size=(32, 32), init_images=80)
    assert prepare(whitened).template is not None


def test_crops_come_from_the_larger_cached_images(photographs):
    recipe = make_recipe(photographs, decode="once", cache_size=(40, 48), crop_fraction=0.9)
    job = prepare(recipe)
    assert job.splits.train.images.shape[1:] == (40, 48, 3)
    assert job.splits.validation.images.shape[1:] == job.splits.test.images.shape[1:] == (16, 16, 3)
    images, _ = _first_input(job)
    assert images.shape == (16, 16, 16, 3)
    for settings, message in (
        ({"augment": ("flip_horizontal",)}, "`cache_size` .* needs `random_resized_crop` in `augment`"),
        ({"decode": "stream"}, "`cache_size` .* needs images that are decoded once"),
        ({"cache_size": (8, 48)}, "`cache_size` .* must be at least `image_size`"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(recipe, **settings)


@pytest.mark.parametrize("settings", [{}, {"decode": "once"}, {"decode": "once", "cache_size": (40, 48)}])
def test_training_images_may_be_smaller_than_test_images(photographs, tmp_path, settings):
    recipe = make_recipe(photographs, augment=("random_resized_crop(size=(8, 12))", "flip_horizontal"), **settings)
    job = prepare(recipe)
    images, _ = _first_input(job)
    assert images.shape == (16, 8, 12, 3)
    assert job.splits.test.images.shape[1:] == (16, 16, 3)
    with pytest.raises(InputError, match=r"\(8, 12, 3\)"):
        fit(recipe, runs=tmp_path)  # An MLP takes images of one size.


def _first_input(job):
    import jax
    import jax.numpy as jnp

    from eqxcnn.training.inputs import make_input, step_keys

    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), next(job.batches(0, 0)))
    return make_input(job.setup, batch, jnp.int32(0), step_keys(job.setup.key, jnp.int32(0)))


def test_crops_of_cached_images_equal_pillows():
    import jax.numpy as jnp

    from eqxcnn.augment.geometry import antialiased_crop

    small = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize((90, 80), Image.Resampling.BICUBIC)
    pixels = jnp.asarray(np.asarray(image), jnp.float32)
    for box in ((0, 0, 80, 90), (10, 5, 50, 60), (30, 40, 12, 9)):
        top, left, height, width = box
        edges = (left, top, left + width, top + height)
        expected = np.asarray(image.resize((24, 16), Image.Resampling.BILINEAR, edges))
        found = antialiased_crop(pixels, jnp.array(box), (16, 24))
        np.testing.assert_allclose(found, expected, atol=1.01)


def test_a_streamed_run_continues_only_on_the_same_images(photographs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    with pytest.raises(KeyboardInterrupt):
        fit(make_recipe(str(data), checkpoint_seconds=0.0), runs=tmp_path, name="run", callbacks=[StopAt(3)])
    (data / "across" / "5.jpg").write_bytes((data / "across" / "6.jpg").read_bytes())
    with pytest.raises(InputError, match="data"):
        resume(tmp_path / "run")
    with Run.open(tmp_path / "run") as run:
        assert run.checkpoints.steps()
