"""Tests of runs with the user's own model, data, optimizer, loss, augmentation, metrics and callbacks."""

import functools
import importlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqxcnn
from eqxcnn import metrics, train
from eqxcnn.errors import InputError
from eqxcnn.networks import ChannelsFirst
from eqxcnn.runs.folder import read_metrics
from eqxcnn.training import Callback, Interrupted, Recipe, dry_run, fit, fit_seeds, prepare, resume
from eqxcnn.training.parts import Parts
from eqxcnn.weights import to_tensors

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
own_parts = importlib.import_module("own_parts")
sys.path.pop(0)

DIGITS = Recipe(model="own", data="digits", image_size=(8, 8), epochs=1, train_images=320, batch_size=32)
VARYING = ("seconds", "images_per_second", "wall_seconds", "from_step")


class Plain(eqx.Module):
    """A network without state and without key."""

    layer: eqx.nn.Linear

    def __init__(self, outputs=10, *, key):
        self.layer = eqx.nn.Linear(64, outputs, key=key)

    def __call__(self, x):
        return self.layer(x.ravel())


@functools.cache
def plain():
    return Plain(key=jax.random.key(0))


def command(*arguments):
    """Returns a command that runs `own_parts.main` in a new process; the qualified names of the parts are the same."""
    return [sys.executable, "-c", f"import own_parts; own_parts.main(*{arguments!r})"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run with the user's own parts."""
    recipe = own_parts.RECIPE.replace(checkpoint_seconds=60.0)
    return fit(recipe, **own_parts.make_parts(), runs=tmp_path_factory.mktemp("runs"), name="run")


@pytest.mark.slow
def test_run_with_own_parts_learns_and_is_recorded(finished):
    assert finished.test.accuracy > 0.9
    assert finished.test.metrics["top2"] >= finished.test.accuracy
    row = finished.metrics[-1]
    assert (row["test_top2"], row["test_brier"]) == (finished.test.metrics["top2"], finished.test.metrics["brier"])
    assert {"validation_top2", "validation_brier"} <= finished.metrics[0].keys()
    parts = json.loads((finished.folder / "parts.json").read_text())
    assert {name: part["name"] for name, part in parts.items()} == {
        "model": "own_parts.Net",
        "data": "own",
        "optimizer": "own_parts.make_optimizer.<locals>.<lambda>",
        "loss": "own_parts.focal",
        "augment": "own_parts.add_noise",
        "metrics.top2": "eqxcnn.metrics.top_k.<locals>.sums",
        "metrics.brier": "eqxcnn.metrics.brier_score.<locals>.sums",
    }
    recipe = (finished.folder / "recipe.yaml").read_text()
    assert all(f"{name}: own" in recipe for name in ("model", "data", "optimizer", "loss"))


@pytest.mark.slow
def test_trained_own_model_is_loaded_into_a_network_of_its_structure(finished):
    classifier = eqxcnn.load(finished.folder, model=own_parts.make_model(seed=5))
    data = own_parts.make_data().decode("test")
    logits = classifier(data.images)
    assert (np.asarray(logits).argmax(1) == data.labels).mean() == finished.test.accuracy
    with pytest.raises(InputError, match=r"trained with `own_parts.Net`, which is not from the zoo: .*model=net"):
        eqxcnn.load(finished.folder)
    with pytest.raises(InputError, match="do not fit this model"):
        eqxcnn.load(finished.folder, model=own_parts.make_model(width=5))
    with pytest.raises(InputError, match=r"`Net` has stateful layers"):
        eqxcnn.load(finished.folder, model=own_parts.make_model()[0])


def assert_same_run(folder, other):
    """Compares the weights of two runs, and their logs except the times."""
    weights = [(each / "model" / "model.safetensors").read_bytes() for each in (folder, other)]
    assert weights[0] == weights[1]
    rows = [
        [{name: value for name, value in row.items() if name not in VARYING} for row in read_metrics(each)]
        for each in (folder, other)
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_interrupted_run_with_own_parts_resumes_to_the_same_bytes(finished, interrupted, tmp_path):
    copy = shutil.copytree(interrupted, tmp_path / "copy")
    assert_same_run(resume(copy, **own_parts.make_parts()).folder, finished.folder)


@pytest.mark.exhaustive
def test_killed_run_with_own_parts_resumes_to_the_same_bytes(finished, tmp_path):
    process = subprocess.Popen(command("fit", str(tmp_path)), cwd=HERE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        steps = [int(path.name) for path in tmp_path.glob("run/checkpoints/*") if path.name.isdigit()]
        if steps and max(steps) > 20:  # an epoch has 15 steps
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "run" / "model").exists()
    resume_it = command("resume", str(tmp_path / "run"))
    done = subprocess.run(resume_it, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", finished.folder)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that has the user's own parts and was interrupted in its second epoch."""

    def interrupt(run):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as interruption:
        fit(own_parts.RECIPE, **own_parts.make_parts(), callbacks=[interrupt], runs=tmp_path_factory.mktemp("runs"))
    return interruption.value.folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, r"started with your own `model` \(`own_parts.Net`\): pass it again"),
        ({"loss": None}, r"started with your own `loss` \(`own_parts.focal`\): pass it again"),
        ({"loss": optax.softmax_cross_entropy}, r"`loss` is `optax.*`, but the run was started with `own_parts.focal`"),
        ({"loss": functools.partial(own_parts.focal, gamma=1.0)}, r"`loss` .* has different settings"),
        ({"optimizer": own_parts.make_optimizer(0.8)}, r"`optimizer` .* has different settings"),
        (
            {"model": functools.partial(own_parts.make_model, width=5)},
            r"`model` \(`own_parts.Net`\) has different settings",
        ),
        ({"metrics": {"top2": metrics.top_k(3), "brier": metrics.brier_score()}}, r"`metrics.top2` .* settings"),
        ({"metrics": {"top2": metrics.top_k(2)}}, r"started with your own `metrics.brier`"),
        ({"data": 1}, r"images of `data` \(='own'\) have changed"),
    ],
)
def test_other_parts_are_refused(interrupted, change, message):
    if "data" in change:
        change = {"data": own_parts.make_data(seed=change["data"])}
    if change.get("model"):
        change = {"model": change["model"]()}
    with pytest.raises(InputError, match=message):
        resume(interrupted, **{**own_parts.make_parts(), **change})


def test_initial_weights_matter_only_without_a_checkpoint():
    recorded = Parts(model=own_parts.make_model()).record()
    other = Parts(model=own_parts.make_model(seed=1))
    other.check_same(recorded, starts_anew=False)
    with pytest.raises(InputError, match="has different weights than when the run was started"):
        other.check_same(recorded, starts_anew=True)
    Parts(model=own_parts.make_model()).check_same(recorded, starts_anew=True)


def test_command_line_names_the_parts_it_lacks(interrupted):
    with pytest.raises(InputError, match=r"started with your own `model` \(`own_parts.Net`\)"):
        train.main(["--resume", str(interrupted)])
    with pytest.raises(InputError, match=r"says `own` for `model`, which only Python code can pass: `eqxcnn.fit"):
        train.main(["--model", "own"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_network",
    [
        plain,
        lambda: eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.MLP(64, 10, 8, 1, key=jax.random.key(1))]),
        lambda: ChannelsFirst(
            eqx.nn.Sequential([
                eqx.nn.Conv2d(1, 3, 3, 2, key=jax.random.key(2)),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Dropout(0.1),
                eqx.nn.Linear(27, 10, key=jax.random.key(3)),
            ])
        ),
    ],
    ids=["plain", "sequential", "channels first"],
)  # fmt: skip
def test_networks_of_equinox_layers_train_without_a_state(make_network, tmp_path):
    network = make_network()
    before = jax.tree.map(np.asarray, eqx.filter(network, eqx.is_array))
    result = fit(DIGITS, model=network, runs=tmp_path)
    assert result.test.count == 359
    # The caller's network is neither changed nor used up.
    assert eqx.tree_equal(jax.tree.map(np.asarray, eqx.filter(network, eqx.is_array)), before)
    loaded = eqxcnn.load(result.folder, model=network)
    assert loaded.state is None
    assert not eqx.tree_equal(eqx.filter(loaded.model, eqx.is_array), eqx.filter(network, eqx.is_array))


@pytest.mark.slow
def test_own_copy_of_a_zoo_model_gives_the_zoos_run(tmp_path):
    recipe = DIGITS.replace(model="mlp")
    start = prepare(recipe).make_start()
    network = start.model, start.state
    own, named = fit(recipe, model=network, runs=tmp_path), fit(recipe, runs=tmp_path)
    classifiers = eqxcnn.load(own.folder, model=network), eqxcnn.load(named.folder)
    one, other = (to_tensors(each.model, each.state) for each in classifiers)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_own_optimizer_equals_the_named_one(tmp_path):
    recipe = DIGITS.replace(model="mlp", optimizer="sgd", momentum=0.0, freeze=("head",))
    named = prepare(recipe)
    own = prepare(recipe, Parts(optimizer=lambda schedule: optax.sgd(schedule)))
    fixed = prepare(recipe.replace(schedule="constant", learning_rate=0.01), Parts(optimizer=optax.sgd(0.01)))
    constant = prepare(recipe.replace(schedule="constant", learning_rate=0.01))
    for first, second in ((named, own), (fixed, constant)):
        params = eqx.filter(first.make_start().model, eqx.is_inexact_array)
        gradients = jax.tree.map(jnp.ones_like, params)
        one, other = (
            each.setup.optimizer.update(gradients, each.setup.optimizer.init(params), params)[0]
            for each in (first, second)
        )
        assert eqx.tree_equal(one, other)
        assert not one.head.weight.any()
        assert one.hidden[0].weight.any()


def test_own_loss_of_each_image_is_mixed_and_averaged():
    from eqxcnn.optim.losses import FunctionLoss, Loss, MixedLabels

    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    own, other = (jnp.asarray(rng.integers(0, 3, 5), jnp.int32) for _ in range(2))
    mixed = MixedLabels(own, other, jnp.asarray(rng.uniform(size=5), jnp.float32))
    loss = FunctionLoss(optax.softmax_cross_entropy_with_integer_labels)
    for targets in (own, mixed):
        np.testing.assert_allclose(loss(logits, targets), Loss()(logits, targets), rtol=1e-6)
    mean = FunctionLoss(lambda logits, labels: optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean())
    np.testing.assert_allclose(mean(logits, own), Loss()(logits, own), rtol=1e-6)
    with pytest.raises(InputError, match="mixup and CutMix need the loss of each image"):
        mean(logits, mixed)
    with pytest.raises(InputError, match=r"`loss` returned float32 of shape \(5, 3\): return one"):
        FunctionLoss(lambda logits, labels: logits)(logits, own)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"model": lambda: Plain(7, key=jax.random.key(0))},
            r"returns an array of shape \(7,\) for one image, but the data have 10",
        ),
        (
            {"model": lambda: eqx.nn.Linear(3, 10, key=jax.random.key(0))},
            r"fails on an image of shape \(8, 8, 1\), channels last",
        ),
        ({"model": lambda: own_parts.make_model()[0]}, r"`Net` has stateful layers"),
        ({"model": lambda: lambda image: image}, "`model` must be an Equinox module"),
        (
            {"model": lambda: eqx.nn.MultiheadAttention(1, 4, key=jax.random.key(0))},
            "cannot be trained: it must be an Equinox",
        ),
        ({"loss": 3}, "`loss` of type int must be a function"),
        ({"optimizer": lambda schedule: schedule}, "`optimizer` returned a function: return an optax transformation"),
        ({"metrics": {"top 5": metrics.top_k(5)}}, "`metrics` must map names such as `top5` to metrics; `top 5`"),
        ({"metrics": {"top5": 5}}, "`top5` is not such an entry"),
    ],
)
def test_unusable_parts_are_refused_in_one_sentence(parts, message):
    parts = {**parts, "model": parts.get("model", plain)()}
    with pytest.raises(InputError, match=message):
        prepare(DIGITS, Parts(**parts))


def test_settings_of_the_zoo_do_not_go_with_an_own_model():
    with pytest.raises(InputError, match="belong to the models of the zoo"):
        prepare(Recipe(model="mlp", architecture=("widths=(5,)",), data="digits"), Parts(model=plain()))


class Recorder(Callback):
    """Records the events that it receives, and requests a stop after some epochs."""

    def __init__(self, stop_after=99):
        self.events, self.stop_after, self.weights = [], stop_after, []

    def on_start(self, run):
        self.events.append(("start", run.epoch, run.step, len(run.rows)))

    def on_step(self, run):
        self.events.append(("step", run.step, run.loss > 0))

    def on_epoch(self, run):
        self.events.append(("epoch", run.epoch, run.metrics["epoch"]))
        self.weights.append(np.asarray(run.model.layer.weight))
        if run.epoch >= self.stop_after:
            run.request_stop("enough")

    def on_checkpoint(self, run):
        self.events.append(("checkpoint", run.step))

    def on_end(self, run):
        self.events.append(("end", run.test.count, (run.folder / "model" / "config.json").exists()))


def test_callbacks_are_called_in_order_and_may_stop_the_run(tmp_path, capsys):
    recorder, lines = Recorder(stop_after=2), []
    recipe = DIGITS.replace(epochs=4, steps_per_call=4, checkpoint_seconds=1e9)
    result = fit(recipe, model=plain(), callbacks=[recorder, lambda run: lines.append(run.epoch)], runs=tmp_path)
    steps = [[("step", start + 9 * epoch, True) for start in (4, 8, 9)] for epoch in (0, 1)]
    assert recorder.events == [
        ("start", 0, 0, 0), *steps[0], ("epoch", 1, 1), *steps[1], ("epoch", 2, 2), ("end", 359, True)
    ]  # fmt: skip
    assert lines == [1, 2]
    assert [row.get("epoch") for row in result.metrics] == [1, 2, None]
    assert "enough: stopping" in capsys.readouterr().err
    # The view's weights are copies, which later steps do not overwrite.
    assert not np.array_equal(*recorder.weights)


def test_checkpoints_are_reported(tmp_path):
    recorder = Recorder()
    fit(DIGITS.replace(checkpoint_seconds=0.0), model=plain(), callbacks=[recorder], runs=tmp_path)
    assert [event[1] for event in recorder.events if event[0] == "checkpoint"] == list(range(1, 10))


def test_callbacks_without_steps_are_not_called_after_steps(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("eqxcnn.training.runner.EpochRunner.end_call", lambda *arguments: calls.append(arguments))
    fit(DIGITS, model=plain(), callbacks=[lambda run: None], runs=tmp_path)
    assert calls == []


@pytest.mark.slow
def test_own_metric_is_monitored_in_its_own_direction(tmp_path):
    brier = {"brier": metrics.brier_score()}
    recipe = DIGITS.replace(epochs=3, validation=0.2, monitor="validation_brier", keep="best")
    result = fit(recipe, model=plain(), metrics=brier, runs=tmp_path)
    rows = result.metrics[:-1]
    best = min(rows, key=lambda row: row["validation_brier"])
    assert best is not max(rows, key=lambda row: row["validation_brier"])
    assert [path.name for path in (result.folder / "best").iterdir() if path.name.isdigit()] == [str(best["step"])]
    with pytest.raises(InputError, match=r"`monitor` \(='validation_brier'\) is not a metric of this run"):
        fit(recipe, model=plain(), runs=tmp_path)
    per_class = recipe.replace(monitor="validation_per_class_accuracy", metrics=("per_class_accuracy",))
    with pytest.raises(InputError, match=r"is a list of numbers"):
        fit(per_class, model=plain(), runs=tmp_path)


def test_metrics_of_a_recipe_are_logged(tmp_path):
    result = fit(DIGITS.replace(metrics=("top_k(3)", "per_class_accuracy")), model=plain(), runs=tmp_path)
    assert result.test.metrics.keys() == {"top_k_3", "per_class_accuracy"}
    recalls = np.diag(result.test.confusion) / result.test.confusion.sum(1)
    np.testing.assert_allclose(np.array(result.test.metrics["per_class_accuracy"], float), recalls)


@pytest.mark.slow
def test_seeds_and_dry_runs_take_own_parts(tmp_path):
    sweep = fit_seeds(DIGITS, 2, runs=tmp_path, model=plain())
    assert sorted(sweep.accuracies) == [0, 1]
    assert (sweep.folder / "seed-1" / "parts.json").exists()
    assert dry_run(DIGITS, model=plain()).parameters == 650


@pytest.mark.slow
def test_result_is_short_and_draws_its_figures(finished):
    assert repr(finished).startswith("Result(")
    assert len(repr(finished)) < 200 + len(str(finished.folder))
    assert len(finished.plot().axes) == 3
    assert finished.confusion().axes[0].get_xticklabels()[0].get_text() == "a"


def test_recipe_replace_names_an_unknown_setting():
    assert DIGITS.replace(epochs=2).epochs == 2
    with pytest.raises(InputError, match="a recipe has no setting `epoch`; did you mean `epochs`"):
        DIGITS.replace(epoch=2)
    assert replace(DIGITS, epochs=2) == DIGITS.replace(epochs=2)
