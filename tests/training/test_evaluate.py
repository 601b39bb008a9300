from time import perf_counter

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn import forward, zoo
from eqxcnn.errors import InputError
from eqxcnn.evaluate import format_report, match_classes
from eqxcnn.optim.losses import cross_entropy
from eqxcnn.training import Evaluator, Recipe, Scores, fit
from eqxcnn.training.evaluate import choose_batch_size
from eqxcnn.views import view_logits

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 12, 12, 1), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 23).astype(np.int32)
MEAN, STD = jnp.array([0.5]), jnp.array([0.25])


@pytest.fixture(scope="module")
def lenet():
    return zoo.create_model("lenet", image_size=12, key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 10, 23, 100])
def test_every_image_counts_once_at_any_batch_size(lenet, batch_size):
    model, state = lenet
    scores = Evaluator(MEAN, STD, 10, batch_size)(model, state, IMAGES, LABELS)
    logits = np.asarray(forward(model, state, jnp.asarray((IMAGES / 255 - 0.5) / 0.25, jnp.float32), key=None)[0])
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(23), LABELS]
    np.testing.assert_allclose(scores.loss, losses.mean(), rtol=1e-4)
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (LABELS, logits.argmax(1)), 1)
    np.testing.assert_array_equal(scores.confusion, expected)
    assert scores.count == 23
    assert scores.accuracy == (logits.argmax(1) == LABELS).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "side", "size"), [(None, 28, 500), (None, 224, 83), (None, 4096, 1), (70, 28, 70), (500, 224, 500)]
)
def test_large_images_are_evaluated_in_smaller_batches_by_default(wanted, side, size):
    assert choose_batch_size(wanted, (side, side)) == size


def test_eval_batch_size_is_used_for_validation_and_test(tmp_path, monkeypatch):
    sizes = []

    class Recorder(Evaluator):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            sizes.append(self._batch_size)

    monkeypatch.setattr("eqxcnn.training.runner.Evaluator", Recorder)
    fit(Recipe(model="mlp", epochs=1, eval_batch_size=70, test_views="mirror"), runs=tmp_path)
    assert sizes == [70, 35]  # each view counts as one image


def test_log_probabilities_agree_with_the_scores(lenet):
    evaluator = Evaluator(MEAN, STD, 10, 10)
    log_probabilities = evaluator.log_probabilities(*lenet, IMAGES)
    assert log_probabilities.shape == (23, 10)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(1), 1, rtol=1e-5)
    loss = -log_probabilities[np.arange(23), LABELS].mean()
    np.testing.assert_allclose(loss, evaluator(*lenet, IMAGES, LABELS).loss, rtol=1e-5)


def test_only_the_given_rows_are_evaluated(lenet):
    evaluator = Evaluator(MEAN, STD, 10, 4)
    rows = np.array([3, 3, 17, 5, 20])
    by_rows = evaluator(*lenet, IMAGES, LABELS, rows)
    selected = evaluator(*lenet, IMAGES[rows], LABELS[rows])
    assert by_rows.loss == selected.loss
    np.testing.assert_array_equal(by_rows.confusion, selected.confusion)


def test_evaluator_runs_in_eval_mode():
    class DropoutModel(eqx.Module):
        drop: eqx.nn.Dropout = eqx.nn.Dropout(0.5)

        def features(self, image, state, *, key):
            return (), state

        def __call__(self, image, state, *, key):
            return self.drop(image.ravel()[:10], key=key), state

    model, state = eqx.nn.make_with_state(DropoutModel)()
    Evaluator(MEAN, STD, 10)(model, state, IMAGES, LABELS)  # training mode would need a key


def test_report_per_class_by_hand():
    text = format_report(Scores(0.5, np.array([[3, 1], [2, 4]])), ("cat", "dog"))
    head, _, _, cat, dog = text.splitlines()
    assert head == "accuracy 70.00%  loss 0.5000  images 10"
    assert cat.split() == ["cat", "60.0", "75.0", "66.7", "4"]
    assert dog.split() == ["dog", "80.0", "66.7", "72.7", "6"]


def test_report_shows_dashes_for_a_class_without_images():
    text = format_report(Scores(0.5, np.array([[3, 0], [0, 0]])), ("cat", "dog"))
    assert text.splitlines()[-1].split() == ["dog", "-", "-", "-", "0"]


def test_class_names_are_printed_on_one_short_line():
    names = ("\x1b[31mcat\n\u202e", "d" * 5000)
    *_, cat, dog = format_report(Scores(0.5, np.array([[3, 1], [2, 4]])), names).splitlines()
    assert cat.split()[0] == "\\x1b[31mcat\\n\\u202e"
    assert cat.isprintable()
    assert len(dog) < 120


def test_many_classes_are_matched_in_linear_time():
    names = [f"class {number}" for number in range(100_000)]
    started = perf_counter()
    np.testing.assert_array_equal(match_classes(names[::-1], names), np.arange(100_000)[::-1])
    assert perf_counter() - started < 5


def test_classes_are_matched_by_name():
    np.testing.assert_array_equal(match_classes(("cat", "ant"), ("ant", "bee", "cat")), [2, 0])
    with pytest.raises(
        InputError, match=r"classes that the classifier was not trained on \(dog\): its classes are ant, bee"
    ):
        match_classes(("dog", "ant"), ("ant", "bee"))


@pytest.mark.slow
def test_views_agree_with_view_logits_at_any_batch_size(lenet):
    model, state = lenet
    logits = view_logits(model, state, jnp.asarray((IMAGES / 255 - 0.5) / 0.25, jnp.float32), "mirror_and_shifts")
    for batch_size in (3, 60):
        scores = Evaluator(MEAN, STD, 10, batch_size, views="mirror_and_shifts")(model, state, IMAGES, LABELS)
        np.testing.assert_allclose(scores.loss, cross_entropy(logits, jnp.asarray(LABELS)).mean(), rtol=1e-4)
        assert scores.accuracy == (np.asarray(logits).argmax(1) == LABELS).mean()
        assert scores.count == 23
