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
TEST_ROW = {"test_accuracy": 0.5, "from_step": 0}


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Runs Weights & Biases offline, isolated from the user's settings."""
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
        # wandb reads its settings once per process.
        wandb.teardown()
        yield
        wandb.teardown()


@pytest.fixture(scope="module")
def finished_run(offline, tmp_path_factory):
    return fit(RECIPE, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path, RECIPE, "digits") as run:
        yield run


def log_rows(run, names, rows):
    with open_logs(names, run) as logs:
        for row in rows:
            run.log(row)
            logs.row(row)


def read_csv(folder):
    """Returns the rows of the CSV file; leaves out empty cells."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: json.loads(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def read_events(folder):
    """Returns the events of each TensorBoard file, in the order in which TensorBoard reads them."""
    return [list(_parse_events(path.read_bytes())) for path in sorted((folder / "tensorboard").iterdir())]


def _parse_events(data):
    """Parses TFRecords: length, its checksum, event, its checksum; https://www.tensorflow.org/tutorials/load_data/tfrecord."""
    # Importing it takes seconds if torch is installed.
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, check = data[12 : 12 + length], data[12 + length : 16 + length]
        assert struct.pack("<I", masked_crc32c(data[:8])) == data[8:12]
        assert struct.pack("<I", masked_crc32c(event)) == check
        yield event_pb2.Event.FromString(event)
        data = data[16 + length :]


def get_scalars(logged):
    return [(event.step, value.tag, value.simple_value) for event, value in get_values(logged, "simple_value")]


def get_images(logged):
    return {
        (event.step, value.tag): np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
        for event, value in get_values(logged, "image")
    }


def get_values(logged, kind):
    pairs = [(event, value) for event in logged for value in event.summary.value]
    return [(event, value) for event, value in pairs if value.WhichOneof("value") == kind]


def expected_scalars(rows):
    """Returns the expected TensorBoard scalars: float32 values; a row without `step` belongs to the previous step."""
    step, result = 0, []
    for row in rows:
        step = row.get("step", step)
        result += [(step, name, float(np.float32(value))) for name, value in row.items() if name != "step"]
    return result


@pytest.mark.slow
def test_all_logs_hold_the_same_numbers(finished_run):
    rows = finished_run.metrics
    assert [row.get("epoch") for row in rows] == [1, 2, None]
    assert read_csv(finished_run.folder) == rows
    (logged,) = read_events(finished_run.folder)
    assert get_scalars(logged) == expected_scalars(rows)
    ((run, history),) = read_wandb_runs(finished_run.folder)
    assert history == {9: rows[0], 18: rows[1] | rows[2]}
    assert run.project == "eqxcnn"
    assert run.display_name == finished_run.folder.name


@pytest.mark.slow
def test_first_images_and_confusion_matrix_are_logged(finished_run):
    (logged,) = read_events(finished_run.folder)
    shown = get_images(logged)
    assert list(shown) == [(0, "first_images"), (18, "confusion")]
    job = prepare(RECIPE)
    # 20 images of 28x28 in three rows of eight, each with a border of one pixel.
    assert shown[0, "first_images"].shape == (3 * 30, 8 * 30, 3)
    np.testing.assert_array_equal(shown[0, "first_images"], tile_images(first_images(job)))
    raster = rasterize(confusion_matrix(finished_run.test.confusion, job.info.class_names))
    np.testing.assert_array_equal(shown[18, "confusion"], raster)
    files = sorted((finished_run.folder / "wandb").rglob("media/images/*.png"))
    assert [Image.open(path).size for path in files] == [raster.shape[1::-1], (240, 90)]


@pytest.mark.parametrize("device_budget", [2.0, 0.0])
def test_first_images_are_the_batch_of_the_first_step(device_budget):
    job = prepare(dataclasses.replace(RECIPE, augment=(), device_budget=device_budget))
    (batches,) = list(job.batches(0, 0))[:1]
    rows = batches[0] if job.setup.data is not None else batches[2][0]
    tiles = tile_images(first_images(job))
    for index, row in enumerate(rows):
        top, left = 30 * (index // 8) + 1, 30 * (index % 8) + 1
        tile = tiles[top : top + 28, left : left + 28]
        np.testing.assert_array_equal(tile, np.broadcast_to(job.splits.train.images[row], tile.shape))
    assert (tiles[60:, 4 * 30 :] == 255).all()


@pytest.mark.slow
def test_first_images_are_augmented_as_in_the_step():
    job = prepare(RECIPE)
    (batches,) = list(job.batches(0, 0))[:1]
    step = jnp.zeros((), jnp.int32)
    seen, _ = make_input(job.setup, jnp.asarray(batches[0]), step, step_keys(job.setup.key, step))
    pixels = 255 * np.asarray(seen * job.setup.std + job.setup.mean)
    tile = first_images(job)[1, ..., 0].astype(float)
    np.testing.assert_allclose(tile, pixels[1, ..., 0], atol=0.51)
    assert np.abs(tile - job.splits.train.images[batches[0, 1], ..., 0]).max() > 50


def test_confusion_matrix_names_up_to_40_classes_and_ignores_user_rcparams():
    def render(count, name):
        names = [f"{name}{number}" for number in range(count)]
        return rasterize(confusion_matrix(np.eye(count, dtype=np.int32), names))

    before = dict(matplotlib.rcParams)
    plain = render(40, "a")
    assert dict(matplotlib.rcParams) == before
    assert (plain != render(40, "b")).any()
    np.testing.assert_array_equal(render(41, "a"), render(41, "b"))
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 30}):
        np.testing.assert_array_equal(render(40, "a"), plain)
    # Names like mathtext, long names and classes without images must not fail.
    assert rasterize(confusion_matrix(np.zeros((2, 2), np.int32), ["$x_1", 100 * "long"])).any()


def test_csv_includes_columns_that_appear_late(run):
    log_rows(run, ["csv"], [*ROWS, TEST_ROW])
    head = (run.folder / "metrics.csv").read_text().splitlines()[0]
    assert head == "epoch,step,train_loss,seconds,skipped_steps,test_accuracy,from_step"
    assert read_csv(run.folder) == [*ROWS, TEST_ROW]


def test_resume_truncates_the_csv_to_the_kept_epochs(run):
    log_rows(run, ["csv"], [*ROWS, TEST_ROW])
    run.rewind(1)
    with open_logs(["csv"], run) as logs:
        assert read_csv(run.folder) == ROWS[:1]
        again = ROWS[1] | {"seconds": 7.0}
        run.log(again)
        logs.row(again)
    assert read_csv(run.folder) == [ROWS[0], again]


def test_csv_of_a_run_without_rows_is_empty(run):
    log_rows(run, ["csv"], [])
    assert (run.folder / "metrics.csv").read_text() == ""


def test_resume_tells_tensorboard_which_steps_are_logged_again(run):
    job = prepare(RECIPE)
    for epochs_kept, rows in ((0, ROWS), (1, ROWS[1:2]), (2, [])):
        run.rewind(epochs_kept)
        with open_logs(["tensorboard"], run) as logs:
            if logs.is_new:
                logs.image("first_images", lambda: tile_images(first_images(job)))
            for row in rows:
                run.log(row)
                logs.row(row)
            # A run that stopped after its last epoch logs only the test row.
            logs.row(TEST_ROW)
    first, second, third = read_events(run.folder)
    assert get_scalars(first) == expected_scalars([*ROWS, TEST_ROW])
    assert get_scalars(second) == expected_scalars([ROWS[1], TEST_ROW])
    assert get_scalars(third) == expected_scalars([{"step": 18}, TEST_ROW])
    from tensorboardX.proto import event_pb2

    starts = [
        [event.step for event in file if event.session_log.status == event_pb2.SessionLog.START]
        for file in (first, second, third)
    ]
    assert starts == [[], [10], [19]]
    assert [len(get_images(file)) for file in (first, second, third)] == [1, 0, 0]


def test_full_disk_stops_the_run_with_one_sentence(run):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sentence = rf"^`{run.folder / 'tensorboard'}` cannot be written: File too large; the checkpoints are still there$"
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(InputError, match=sentence), open_logs(["tensorboard"], run) as logs:
            logs.image("noise", lambda: np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_existing_file_at_the_log_path_is_named(run):
    (run.folder / "tensorboard").write_text("")
    with (
        pytest.raises(InputError, match=r"tensorboard` cannot be written: File exists"),
        open_logs(["tensorboard"], run),
    ):
        pass


def read_wandb_runs(folder):
    """Returns, for each file that `wandb sync` would upload, the run and its logged numbers by step."""
    from wandb.proto import wandb_internal_pb2

    result = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        # A separate process writes the file and may finish after the run.
        deadline = monotonic() + 60
        records = []
        while not any(record.HasField("exit") for record in records) and monotonic() < deadline:
            sleep(0.05)
            records = [wandb_internal_pb2.Record.FromString(data) for data in _parse_records(path.read_bytes())]
        (run,) = [record.run for record in records if record.HasField("run")]
        history = {}
        for record in records:
            row = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            # Keys with a dot belong to images; keys that start with an underscore are wandb's.
            ours = {name: value for name, value in row.items() if "." not in name and not name.startswith("_")}
            if ours:
                history[row["_step"]] = ours
        result.append((run, history))
    return result


def _parse_records(data):
    """Parses the records of a LevelDB log that has a header of 7 bytes.

    Blocks of 32 KiB hold fragments of records: 4 bytes of checksum, 2 of length, 1 of type (1: whole, 2 to 4: first,
    middle and last fragment); https://github.com/google/leveldb/blob/main/doc/log_format.md.
    """
    offset, record = 7, b""
    while offset + 7 <= len(data):
        left = 2**15 - offset % 2**15
        if left < 7:
            offset += left
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + 7])
        record += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_wandb_receives_the_recipe_and_keeps_the_run_id_after_a_resume(offline, run):
    log_rows(run, ["wandb"], ROWS)
    run.rewind(1)
    log_rows(run, ["wandb"], [*ROWS[1:], TEST_ROW])
    (first, before), (second, after) = read_wandb_runs(run.folder)
    assert first.run_id == second.run_id == (run.folder / "wandb_id").read_text()
    assert before == {row["step"]: row for row in ROWS}
    assert after == {18: ROWS[1], 27: ROWS[2] | TEST_ROW}
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    config.pop("_wandb", None)
    settings = dataclasses.asdict(RECIPE)
    assert config == {name: [*value] if isinstance(value, tuple) else value for name, value in settings.items()}


def test_two_runs_can_be_logged_at_the_same_time(offline, tmp_path):
    with Run.create(tmp_path, RECIPE, "a") as one, Run.create(tmp_path, RECIPE, "b") as other:
        with open_logs(["wandb"], one) as first, open_logs(["wandb"], other) as second:
            first.row(ROWS[0])
            second.row(ROWS[1])
            first.row(ROWS[2])
        assert [*read_wandb_runs(one.folder)[0][1].values()] == [ROWS[0], ROWS[2]]
        assert [*read_wandb_runs(other.folder)[0][1].values()] == [ROWS[1]]


def test_wandb_without_a_login_raises_instead_of_prompting(offline, run, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr("wandb.errors.term.can_use_terminput", lambda: True)
    monkeypatch.setattr("wandb.util.prompt_choices", lambda *arguments, **options: pytest.fail("wandb prompted"))
    wandb.teardown()
    with pytest.raises(InputError, match=r"needs a login: call `wandb login`, or set WANDB_MODE=offline"):
        log_rows(run, ["wandb"], [])
    monkeypatch.setenv("WANDB_API_KEY", "short")
    wandb.teardown()
    with pytest.raises(
        InputError, match=r"^`log` \(='wandb'\) cannot start: WANDB_API_KEY invalid: .*; set WANDB_MODE"
    ):
        log_rows(run, ["wandb"], [])
    monkeypatch.undo()
    wandb.teardown()


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_missing_package_is_reported_before_anything_is_written(run, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    before = sorted(run.folder.iterdir())
    sentence = rf"^`log` \(='{name}'\) needs the package {package}: pip install 'eqxcnn\[log\]'$"
    with pytest.raises(InputError, match=sentence):
        log_rows(run, ["csv", name], [])
    assert sorted(run.folder.iterdir()) == before


def test_folder_named_like_the_package_is_not_the_package(run, tmp_path, monkeypatch):
    (tmp_path / "here" / "wandb").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here")])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(InputError, match="needs the package wandb"):
        log_rows(run, ["wandb"], [])


def test_log_packages_are_not_imported_unless_requested():
    code = "import sys, eqxcnn.training; assert not {'matplotlib', 'tensorboardX', 'wandb'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
