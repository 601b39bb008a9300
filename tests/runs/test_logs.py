import csv
import dataclasses
import io
import json
import resource
import struct
import subprocess
import sys
from time import monotonic, sleep

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from eqxcnn.errors import InputError
from eqxcnn.plots.figures import confusion_matrix
from eqxcnn.plots.raster import rasterize, tile_images
from eqxcnn.runs.folder import Run
from eqxcnn.runs.logs.backends import open_logs
from eqxcnn.training import Recipe, fit, prepare
from eqxcnn.training.inputs import make_input, step_keys
from eqxcnn.training.preview import first_images

RECIPE = Recipe(
    model="mlp",
    data="digits",
    epochs=2,
    batch_size=20,
    train_images=200,
    augment=("random_crop(padding=3)",),
    log=("csv", "tensorboard", "wandb"),
)
ROWS = [
    {"epoch": 1, "step": 9, "train_loss": 2.25, "seconds": 0.5},
    {"epoch": 2, "step": 18, "train_loss": 0.1, "seconds": 0.25, "skipped_steps": 1},
    {"epoch": 3, "step": 27, "train_loss": 1e-7, "seconds": 0.25},
]
LAST = {"test_accuracy": 0.5, "from_step": 0}


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Weights & Biases on this machine only, and apart from the user's own settings."""
    import wandb

    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        home = tmp_path_factory.mktemp("home")
        for name, value in {"HOME": home, "NETRC": home / "netrc", "WANDB_CONFIG_DIR": home}.items():
            patch.setenv(name, str(value))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.chdir(home)
        # It looks at its settings once a process.
        wandb.teardown()
        yield
        wandb.teardown()


@pytest.fixture(scope="module")
def finished(offline, tmp_path_factory):
    return fit(RECIPE, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path, RECIPE, "digits") as run:
        yield run


def log(run, names, rows):
    with open_logs(names, run) as logs:
        for row in rows:
            run.log(row)
            logs.row(row)


def table(folder):
    """The rows of a CSV file, the empty cells left out."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: json.loads(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def events(folder):
    """The events of each file in TensorBoard's folder, in the order in which it reads them."""
    return [list(_events(path.read_bytes())) for path in sorted((folder / "tensorboard").iterdir())]


def _events(data):
    """Length, its checksum, an event, its checksum: https://www.tensorflow.org/tutorials/load_data/tfrecord."""
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, check = data[12 : 12 + length], data[12 + length : 16 + length]
        assert struct.pack("<I", masked_crc32c(data[:8])) == data[8:12]
        assert struct.pack("<I", masked_crc32c(event)) == check
        yield event_pb2.Event.FromString(event)
        data = data[16 + length :]


def scalars(found):
    return [(event.step, each.tag, each.simple_value) for event, each in values(found, "simple_value")]


def images(found):
    shown = values(found, "image")
    return {
        (event.step, each.tag): np.asarray(Image.open(io.BytesIO(each.image.encoded_image_string)))
        for event, each in shown
    }


def values(found, kind):
    pairs = [(event, each) for event in found for each in event.summary.value]
    return [(event, each) for event, each in pairs if each.WhichOneof("value") == kind]


def numbers(rows):
    """What TensorBoard is to have of rows: it keeps 32 bits of each number, and the last row is of the last step."""
    step, found = 0, []
    for row in rows:
        step = row.get("step", step)
        found += [(step, name, float(np.float32(value))) for name, value in row.items() if name != "step"]
    return found


def test_a_run_leaves_the_same_numbers_everywhere(finished):
    rows = finished.metrics
    assert [row.get("epoch") for row in rows] == [1, 2, None]
    assert table(finished.folder) == rows
    (found,) = events(finished.folder)
    assert scalars(found) == numbers(rows)
    ((run, history),) = wandb_runs(finished.folder)
    assert history == {9: rows[0], 18: rows[1] | rows[2]}
    assert run.project == "eqxcnn"
    assert run.display_name == finished.folder.name


def test_a_run_shows_its_first_images_and_its_confusions(finished):
    (found,) = events(finished.folder)
    shown = images(found)
    assert list(shown) == [(0, "first_images"), (18, "confusion")]
    job = prepare(RECIPE)
    # 20 images of 28x28 in three rows of eight, each with an edge of a pixel.
    assert shown[0, "first_images"].shape == (3 * 30, 8 * 30, 3)
    np.testing.assert_array_equal(shown[0, "first_images"], tile_images(first_images(job)))
    picture = rasterize(confusion_matrix(finished.test.confusion, job.info.class_names))
    np.testing.assert_array_equal(shown[18, "confusion"], picture)
    files = sorted((finished.folder / "wandb").rglob("media/images/*.png"))
    assert [Image.open(path).size for path in files] == [picture.shape[1::-1], (240, 90)]


@pytest.mark.parametrize("device_budget", [2.0, 0.0])
def test_the_first_images_are_those_of_the_first_step(device_budget):
    job = prepare(dataclasses.replace(RECIPE, augment=(), device_budget=device_budget))
    (batches,) = list(job.batches(0, 0))[:1]
    rows = batches[0] if job.setup.data is not None else batches[2][0]
    picture = tile_images(first_images(job))
    for place, row in enumerate(rows):
        top, left = 30 * (place // 8) + 1, 30 * (place % 8) + 1
        tile = picture[top : top + 28, left : left + 28]
        np.testing.assert_array_equal(tile, np.broadcast_to(job.train.images[row], tile.shape))
    assert (picture[60:, 4 * 30 :] == 255).all()


def test_the_first_images_are_augmented_as_the_step_does_it():
    job = prepare(RECIPE)
    (batches,) = list(job.batches(0, 0))[:1]
    step = jnp.zeros((), jnp.int32)
    seen, _ = make_input(job.setup, jnp.asarray(batches[0]), step, step_keys(job.setup.key, step))
    pixels = 255 * np.asarray(seen * job.setup.std + job.setup.mean)
    tile = first_images(job)[1, ..., 0].astype(float)
    np.testing.assert_allclose(tile, pixels[1, ..., 0], atol=0.51)
    assert np.abs(tile - job.train.images[batches[0, 1], ..., 0]).max() > 50


def test_a_confusion_matrix_names_up_to_forty_classes_and_ignores_the_users_matplotlib_settings():
    def picture(count, name):
        names = [f"{name}{number}" for number in range(count)]
        return rasterize(confusion_matrix(np.eye(count, dtype=np.int32), names))

    before = dict(matplotlib.rcParams)
    plain = picture(40, "a")
    assert dict(matplotlib.rcParams) == before
    assert (plain != picture(40, "b")).any()
    np.testing.assert_array_equal(picture(41, "a"), picture(41, "b"))
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 30}):
        np.testing.assert_array_equal(picture(40, "a"), plain)
    # Formulas, long names and classes without an image do no harm.
    assert rasterize(confusion_matrix(np.zeros((2, 2), np.int32), ["$x_1", 100 * "long"])).any()


def test_the_table_has_columns_that_come_up_late(run):
    log(run, ["csv"], [*ROWS, LAST])
    head = (run.folder / "metrics.csv").read_text().splitlines()[0]
    assert head == "epoch,step,train_loss,seconds,skipped_steps,test_accuracy,from_step"
    assert table(run.folder) == [*ROWS, LAST]


def test_after_a_resume_the_table_is_that_of_the_run(run):
    log(run, ["csv"], [*ROWS, LAST])
    run.rewind(1)
    with open_logs(["csv"], run) as logs:
        assert table(run.folder) == ROWS[:1]
        again = ROWS[1] | {"seconds": 7.0}
        run.log(again)
        logs.row(again)
    assert table(run.folder) == [ROWS[0], again]


def test_a_run_that_has_logged_nothing_yet_has_an_empty_table(run):
    log(run, ["csv"], [])
    assert (run.folder / "metrics.csv").read_text() == ""


def test_after_a_resume_tensorboard_is_told_what_is_logged_again(run):
    job = prepare(RECIPE)
    for kept, rows in ((0, ROWS), (1, ROWS[1:2]), (2, [])):
        run.rewind(kept)
        with open_logs(["tensorboard"], run) as logs:
            if logs.is_new:
                logs.image("first_images", lambda: tile_images(first_images(job)))
            for row in rows:
                run.log(row)
                logs.row(row)
            # A run that was stopped after its last epoch has only this left.
            logs.row(LAST)
    first, second, third = events(run.folder)
    assert scalars(first) == numbers([*ROWS, LAST])
    assert scalars(second) == numbers([ROWS[1], LAST])
    assert scalars(third) == numbers([{"step": 18}, LAST])
    starts = [
        [event.step for event in found if event.session_log.status == event_pb2.SessionLog.START]
        for found in (first, second, third)
    ]
    assert starts == [[], [10], [19]]
    assert [len(images(found)) for found in (first, second, third)] == [1, 0, 0]


def test_a_disk_without_room_ends_the_run_in_a_sentence(run):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sentence = rf"^`{run.folder / 'tensorboard'}` cannot be written: File too large; the checkpoints are still there$"
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(InputError, match=sentence), open_logs(["tensorboard"], run) as logs:
            logs.confusion(np.eye(41, dtype=np.int32), 41 * ["a"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_place_that_is_taken_is_named(run):
    (run.folder / "tensorboard").write_text("")
    with (
        pytest.raises(InputError, match=r"tensorboard` cannot be written: File exists"),
        open_logs(["tensorboard"], run),
    ):
        pass


def wandb_runs(folder):
    """What each of the files for `wandb sync` says: the run, and the logged numbers by step."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        # Another process writes it, which on a busy machine is not done when the run is.
        deadline = monotonic() + 60
        records = []
        while not any(record.HasField("exit") for record in records) and monotonic() < deadline:
            sleep(0.05)
            records = [wandb_internal_pb2.Record.FromString(each) for each in _log_records(path.read_bytes())]
        (run,) = [record.run for record in records if record.HasField("run")]
        history = {}
        for record in records:
            row = {".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in record.history.item}
            # What has a dot is a part of a picture, and what begins with a line is wandb's own.
            ours = {name: value for name, value in row.items() if "." not in name and not name.startswith("_")}
            if ours:
                history[row["_step"]] = ours
        found.append((run, history))
    return found


def _log_records(data):
    """The records of LevelDB's log format, after a header of 7 bytes.

    Blocks of 32 KiB hold pieces of records: 4 bytes of checksum, 2 of length, 1 of type (1: whole, 2 to 4: first,
    middle and last piece); https://github.com/google/leveldb/blob/main/doc/log_format.md.
    """
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_wandb_knows_the_recipe_and_a_resumed_run_by_its_name(offline, run):
    log(run, ["wandb"], ROWS)
    run.rewind(1)
    log(run, ["wandb"], [*ROWS[1:], LAST])
    (first, before), (second, after) = wandb_runs(run.folder)
    assert first.run_id == second.run_id == (run.folder / "wandb_id").read_text()
    assert before == {row["step"]: row for row in ROWS}
    assert after == {18: ROWS[1], 27: ROWS[2] | LAST}
    config = {each.key: json.loads(each.value_json) for each in first.config.update}
    config.pop("_wandb", None)
    settings = dataclasses.asdict(RECIPE)
    assert config == {name: [*value] if isinstance(value, tuple) else value for name, value in settings.items()}


def test_two_runs_are_logged_at_once(offline, tmp_path):
    with Run.create(tmp_path, RECIPE, "a") as one, Run.create(tmp_path, RECIPE, "b") as other:
        with open_logs(["wandb"], one) as first, open_logs(["wandb"], other) as second:
            first.row(ROWS[0])
            second.row(ROWS[1])
            first.row(ROWS[2])
        assert [*wandb_runs(one.folder)[0][1].values()] == [ROWS[0], ROWS[2]]
        assert [*wandb_runs(other.folder)[0][1].values()] == [ROWS[1]]


def test_without_a_login_wandb_asks_nobody(offline, run, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr("wandb.errors.term.can_use_terminput", lambda: True)
    monkeypatch.setattr("wandb.util.prompt_choices", lambda *arguments, **options: pytest.fail("it asked"))
    wandb.teardown()
    with pytest.raises(InputError, match=r"needs a login: call `wandb login`, or set WANDB_MODE=offline"):
        log(run, ["wandb"], [])
    monkeypatch.setenv("WANDB_API_KEY", "short")
    wandb.teardown()
    with pytest.raises(
        InputError, match=r"^`log` \(='wandb'\) cannot start: WANDB_API_KEY invalid: .*; set WANDB_MODE"
    ):
        log(run, ["wandb"], [])
    monkeypatch.undo()
    wandb.teardown()


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_told_before_anything_is_written(run, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    before = sorted(run.folder.iterdir())
    sentence = rf"^`log` \(='{name}'\) needs the package {package}: pip install 'eqxcnn\[log\]'$"
    with pytest.raises(InputError, match=sentence):
        log(run, ["csv", name], [])
    assert sorted(run.folder.iterdir()) == before


def test_a_folder_that_is_called_like_the_package_is_not_it(run, tmp_path, monkeypatch):
    (tmp_path / "here" / "wandb").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here")])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(InputError, match="needs the package wandb"):
        log(run, ["wandb"], [])


def test_what_is_not_asked_for_is_not_imported():
    code = "import sys, eqxcnn.training; assert not {'matplotlib', 'tensorboardX', 'wandb'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
