"""`python -m benchmarks.results`: which runs it records, and the page that it writes."""

import json
import re
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import pytest

from benchmarks import results, speed_page
from benchmarks.results import main
from benchmarks.results_page import render_page
from eqxcnn import zoo
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier
from eqxcnn.recipe.files import recipe_from, to_yaml
from eqxcnn.saved_classifier import save
from eqxcnn.training import load_recipe

COMMAND = "python -m eqxcnn.train --recipe mlp --data data/mnist"
ENVIRONMENT = {
    "command": COMMAND,
    "python": "3.11.7",
    "jax": "0.10.2",
    "jaxlib": "0.10.1",
    "equinox": "0.13.8",
    "optax": "0.2.8",
    "numpy": "2.4.6",
    "platform": "Linux-kernel-build",
    "processor": "AMD EPYC",
    "cores": 2,
    "devices": ["cpu"],
    "commit": "528e7aa77077400a470be3d5a213e8161b638a98",
}
EPOCHS = [
    {"epoch": 1, "step": 937, "train_loss": 1.5, "train_accuracy": 0.6, "seconds": 2.0, "validation_accuracy": 0.7},
    {"epoch": 2, "step": 1874, "train_loss": 0.5, "train_accuracy": 0.8, "seconds": 0.25, "validation_accuracy": 0.9},
    {"epoch": 3, "step": 2811, "train_loss": 0.25, "train_accuracy": 0.9, "seconds": 0.35, "validation_accuracy": 0.95},
]
TEST = {"test_loss": 0.2, "test_accuracy": 0.94, "test_count": 10000, "from_step": 0, "wall_seconds": 65.4}


@cache
def make_classifier():
    key = jax.random.key(0)
    model, state = zoo.create_model("mlp", key=key)
    return ImageClassifier(model, state, jnp.zeros(1), jnp.ones(1), "mlp", (28, 28), tuple("0123456789"))


def make_run(folder, *, rows=(*EPOCHS, TEST), environment=ENVIRONMENT, finished=True, **settings):
    """Writes a run of the shipped recipe `mlp` with the given changes, as training does, and returns its folder."""
    resolved = {"data": str(folder / "mnist"), "image_size": (28, 28), "train_images": 60000}
    recipe = replace(load_recipe("mlp"), **(resolved | settings))
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        save(folder / "model", make_classifier())
    return folder


def read_table(text, section):
    """Returns the cells of the table between a section's markers."""
    inside = re.search(rf"\[start:{section}\] -->\n(.*?)<!-- --8<-- \[end:{section}\]", text, flags=re.DOTALL)
    assert inside is not None
    return read_rows(inside[1])


def read_rows(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


# Records


def test_a_record_has_the_runs_numbers(tmp_path):
    run = make_run(tmp_path / "run", seed=3, keep_checkpoints=5)
    (path,) = results.add_runs("mlp", [run], tmp_path)
    assert path == tmp_path / "runs" / "mlp-seed3.json"
    record = json.loads(path.read_text())
    settings = record.pop("settings")
    assert record == {
        "recipe": "mlp",
        "model": "mlp",
        "parameters": 101_770,
        "data": "mnist",
        "seed": 3,
        "command": COMMAND,
        "test_accuracy": 0.94,
        "test_loss": 0.2,
        "test_count": 10000,
        "train_accuracy": 0.9,
        "train_loss": 0.25,
        "validation_accuracy": 0.95,
        "epochs": 3,
        "train_images_per_epoch": 937 * 64,
        "train_seconds": 2.6,
        "epoch_seconds_median": 0.35,
        "wall_seconds": 65.4,
        "environment": {key: value for key, value in ENVIRONMENT.items() if key not in ("command", "platform")},
    }
    assert (settings["batch_size"], settings["train_images"], settings["shuffle"]) == (64, 60000, False)
    assert str(tmp_path) not in path.read_text()


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"finished": False}, "must be finished, but has no model/"),
        ({"rows": EPOCHS}, "must be finished, but has no test row with from_step"),
        ({"rows": []}, "has no epochs in metrics.jsonl, and no test row"),
        ({"rows": [*EPOCHS, without(TEST, "wall_seconds")]}, "has no test row with from_step and wall_seconds"),
        ({"environment": {}}, "has no command in environment.json"),
        ({"rows": [*EPOCHS, TEST | {"from_step": 1874}]}, "was resumed from step 1,874"),
        ({"learning_rate": 0.02}, r"`learning_rate` \(=0.02\) of the run `.*` must be 0.01, as in the recipe `mlp`"),
        ({"validation": 0.0}, r"`validation` \(=0.0\).* 'test'"),
        ({"data": "cifar10"}, r"`data` \(='cifar10'\) .* must be `mnist`"),
    ],
)
def test_a_run_that_is_not_a_complete_run_of_the_recipe_is_refused(tmp_path, made, sentence):
    run = make_run(tmp_path / "run", **made)
    with pytest.raises(InputError, match=sentence) as caught:
        results.add_runs("mlp", [run], tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_record_of_a_resumed_run_has_no_wall_time(tmp_path):
    run = make_run(tmp_path / "run", rows=[*EPOCHS, TEST | {"from_step": 1874}])
    record = results.make_record("mlp", run, allow_resumed=True)
    assert (record["wall_seconds"], record["train_seconds"], record["test_accuracy"]) == (None, 2.6, 0.94)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--data /home/me/mnist", "names an absolute path"),
        ("--data=/home/me/mnist", "names an absolute path"),
        ("--data '~/mnist'", "names an absolute path"),
        (r"--data 'C:\mnist'", "names an absolute path"),
        ("--train-images 1000", "sets `train_images`, which the recipe `mlp` leaves open"),
        ("--image_size=14 14", "sets `image_size`, which"),
    ],
)
def test_a_command_with_an_absolute_path_or_an_open_setting_is_refused(tmp_path, flags, sentence):
    command = f"python -m eqxcnn.train --recipe mlp {flags}"
    run = make_run(tmp_path / "run", environment=ENVIRONMENT | {"command": command})
    with pytest.raises(InputError, match=sentence):
        results.add_runs("mlp", [run], tmp_path)


def test_no_run_is_recorded_if_one_is_refused(tmp_path):
    good, bad = make_run(tmp_path / "good"), make_run(tmp_path / "bad", finished=False)
    with pytest.raises(InputError, match="bad` must be finished"):
        results.add_runs("mlp", [good, bad], tmp_path)
    with pytest.raises(InputError, match=r"`runs` \(2 folders\) must have different seeds"):
        results.add_runs("mlp", [good, make_run(tmp_path / "again")], tmp_path)
    assert not (tmp_path / "runs").exists()


def test_line_art_is_copied_as_svg_and_pixels_as_png(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")

    def report(folder, *, data):
        assert (folder, data) == (run, "data/mnist")
        (folder / "plots").mkdir()
        for name in ("report.html", "training.svg", "training.png", "kernels.png"):
            (folder / "plots" / name).write_text(name)
        return folder / "plots" / "report.html"

    monkeypatch.setattr(results, "write_report", report)
    copied = results.copy_pictures("mlp", run, data="data/mnist", destination=tmp_path / "to")
    assert copied == [tmp_path / "to" / "mlp" / name for name in ("training.svg", "kernels.png")]
    assert sorted(path.name for path in (tmp_path / "to" / "mlp").iterdir()) == ["kernels.png", "training.svg"]
    assert copied[0].read_text() == "training.svg"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "mlp"], "must name one run folder or more"),
        (["add", "mlp", "one", "two", "--pictures"], "`--pictures` draws one run, not 2"),
        (["add", "mlpp", "one"], "no shipped recipe named `mlpp`; did you mean `mlp`"),
        (["add", "mlp", "nowhere"], "`nowhere` is not a run folder"),
    ],
)
def test_invalid_arguments_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        main(arguments)


def test_the_commands_write_the_records_and_the_pages(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(results, "SPEED_PAGE", tmp_path / "benchmarks.md")
    main(["add", "mlp", str(run)])
    main(["write"])
    written = ("runs/mlp-seed0.json", "results.md", "benchmarks.md")
    assert capsys.readouterr().out == "".join(f"{tmp_path / name}\n" for name in written)
    assert (tmp_path / "results.md").read_text() == render_page(tmp_path)
    assert (tmp_path / "benchmarks.md").read_text() == speed_page.render_page(tmp_path)


# The page


def test_two_seeds_give_mean_and_sample_deviation(tmp_path):
    last = TEST | {"test_accuracy": 0.946, "wall_seconds": 75.0}
    one_core = ENVIRONMENT | {"cores": 1, "commit": None}
    runs = [make_run(tmp_path / "0"), make_run(tmp_path / "1", seed=1, rows=[*EPOCHS, last], environment=one_core)]
    results.add_runs("mlp", runs, tmp_path)
    text = render_page(tmp_path)
    # Mean of 94.0 and 94.6 is 94.3; both are 0.3 from it, so the deviation is sqrt(2 * 0.09 / (2 - 1)) = 0.424.
    # The median of 65.4 and 75.0 seconds is 70.2.
    line = next(row for row in read_rows(text) if row[0] == "[mlp](#mlp)")
    assert line[1:5] == ["`mlp`", "101,770", "2", "94.30 ± 0.42"]
    assert line[5].startswith("94.7 % on validation ([Up and Running with JAX](https://")
    assert line[6:] == ["1 min 10 s", "1 or 2"]
    assert f"### mlp\n\n```bash\n{COMMAND}\n```\n\n<!-- --8<-- [start:mlp] -->\n" in text
    head, _, *rows = read_table(text, "mlp")
    assert (head[0], head[-1]) == ("seed", "commit")
    assert rows == [
        ["0", "94.00", "90.00", "95.00", "65.4", "2.60", "0.350", "2", "528e7aa"],
        ["1", "94.60", "90.00", "95.00", "75.0", "2.60", "0.350", "1", "-"],
    ]
    machines = [line for line in text.splitlines() if line.startswith("**AMD EPYC")]
    assert [(line.split(",")[1], line.split(": ")[-1]) for line in machines] == [
        (" cores: 2", "`mlp` (seed 0)."),
        (" cores: 1", "`mlp` (seed 1)."),
    ]
    assert "Linux-kernel-build" not in text


def write_record(folder, recipe, data, **entries):
    """Writes a record with these entries; the other entries are copied from the record in `folder/made/runs`."""
    record = json.loads(next(folder.glob("made/runs/*.json")).read_text())
    (folder / "runs").mkdir(exist_ok=True)
    changed = record | {"recipe": recipe, "data": data} | entries
    (folder / "runs" / f"{recipe}.json").write_text(json.dumps(changed))


def test_each_data_set_has_a_table_and_a_note_on_its_images(tmp_path):
    results.add_runs("mlp", [make_run(tmp_path / "run")], tmp_path / "made")
    write_record(tmp_path, "some_cnn", "cats_vs_dogs", validation_accuracy=None, wall_seconds=9.96)
    write_record(tmp_path, "cifar_cnn", "cifar10", wall_seconds=3599.6, test_accuracy=0.7)
    write_record(tmp_path, "a_cnn", "mnist")
    parts = re.split(r"^#+ (.*)\n", render_page(tmp_path), flags=re.MULTILINE)
    assert parts[1::2][1:5] == ["Accuracy", "MNIST", "CIFAR-10", "Cats and dogs"]
    text = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert text["MNIST"].startswith("\n| recipe")
    assert text["CIFAR-10"].startswith("\n| recipe")
    assert re.match(r"\nThese recipes .* on a subset of .* 9,000 .* 2,000 .*\n\n\| recipe", text["Cats and dogs"])
    assert read_rows(text["CIFAR-10"])[2][4:7] == [
        "70.00",
        '72.74 % ("Convolutional Neural Networks (CNN) in JAX")',
        "60 min 0 s",
    ]
    assert read_rows(text["Cats and dogs"])[2][5:7] == ["-", "10.0 s"]
    assert read_table(render_page(tmp_path), "some_cnn")[2][3] == "-"


def test_a_record_has_the_fingerprint_of_its_data(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "data.json").write_text(json.dumps({"source": "data/mnist", "fingerprint": "f00"}))
    (path,) = results.add_runs("mlp", [run], tmp_path)
    assert json.loads(path.read_text())["data_fingerprint"] == "f00"


def test_a_section_that_other_pages_include_has_no_heading(tmp_path):
    results.add_runs("mlp", [make_run(tmp_path / "run")], tmp_path)
    (inner,) = re.findall(r"\[start:mlp\] -->\n(.*)<!-- --8<-- \[end:mlp\]", render_page(tmp_path), flags=re.DOTALL)
    assert inner.count("\n| 0 | 94.00 |") == 1
    assert not re.search(r"^#", inner, flags=re.MULTILINE)


def test_a_page_without_measurements_says_so(tmp_path):
    text = render_page(tmp_path)
    assert text.startswith("<!-- Generated by `python -m benchmarks.results write`")
    assert text.endswith("\nThere are no measurements yet.\n")


# Committed files


@pytest.mark.parametrize(
    ("path", "render"), [(results.PAGE, render_page), (results.SPEED_PAGE, speed_page.render_page)]
)
def test_the_committed_pages_are_rendered_from_the_committed_records(path, render):
    assert path.read_text(encoding="utf-8") == render(results.RESULTS), "run python -m benchmarks.results write"


def test_the_committed_records_have_the_settings_of_the_shipped_recipes():
    for path in sorted((results.RESULTS / "runs").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        shipped = load_recipe(record["recipe"])
        recipe = recipe_from(record["settings"] | {"data": record["data"]}, origin=path.name)
        results.check_settings(record["recipe"], shipped, recipe, path.name)
        assert path.name == f"{record['recipe']}-seed{record['seed']}.json"
        assert record["data"] == shipped.data
