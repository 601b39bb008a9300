"""Tests of the metrics against hand-worked cases and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from eqxcnn import metrics
from eqxcnn.errors import InputError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(200, 7)).astype(np.float32)
LABELS = RNG.integers(0, 5, 200).astype(np.int32)  # two classes have no images
SOFTMAX = np.exp(LOGITS.astype(np.float64)) / np.exp(LOGITS.astype(np.float64)).sum(1, keepdims=True)


def measure(metric, logits=LOGITS, labels=LABELS, batch=64):
    """Computes a metric from the added sums of padded batches, as the evaluator does."""
    total = None
    for start in range(0, len(labels), batch):
        rows = np.arange(start, start + batch)
        mask = jnp.asarray(rows < len(labels))
        rows = np.minimum(rows, len(labels) - 1)
        sums = jax.jit(metric.sums)(jnp.asarray(logits[rows]), jnp.asarray(labels[rows]), mask)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    return metric.result(jax.device_get(total))


@pytest.mark.parametrize("k", [1, 2, 5, 7, 9])
def test_top_k_is_scikit_learns(k):
    expected = sklearn_metrics.top_k_accuracy_score(LABELS, LOGITS, k=k, labels=np.arange(7)) if k < 7 else 1.0
    assert measure(metrics.top_k(k)) == pytest.approx(expected, abs=1e-12)


def test_equal_scores_and_nan_rank_as_in_argmax():
    nan = np.nan
    logits = np.array([[1, 1, 0], [1, 1, 0], [0, nan, 1], [0, nan, 1], [nan, 2, 1], [nan, nan, nan]], np.float32)
    for labels in ([0, 1, 1, 2, 1, 0], [1, 0, 2, 0, 0, 2]):
        labels = np.array(labels, np.int32)
        assert measure(metrics.accuracy(), logits, labels) == np.mean(logits.argmax(1) == labels)
    assert measure(metrics.top_k(2), logits[:2], np.array([0, 1], np.int32)) == 1
    assert measure(metrics.top_k(2), logits[2:], np.array([1, 2, 1, 2], np.int32)) == 0.75


def test_per_class_and_balanced_accuracy_are_recalls():
    predicted = LOGITS.argmax(1)
    recalls = sklearn_metrics.recall_score(LABELS, predicted, labels=np.arange(5), average=None)
    assert measure(metrics.per_class_accuracy()) == [*(pytest.approx(each) for each in recalls), None, None]
    assert measure(metrics.balanced_accuracy()) == pytest.approx(recalls.mean())


def test_brier_score_is_the_mean_squared_distance():
    assert measure(metrics.brier_score()) == pytest.approx(((SOFTMAX - np.eye(7)[LABELS]) ** 2).sum(1).mean(), rel=1e-5)
    # By hand: probabilities (3/4, 1/4), label 1: (3/4)^2 + (3/4)^2 = 9/8.
    logits = np.log(np.array([[3.0, 1.0]], np.float32))
    assert measure(metrics.brier_score(), logits, np.array([1], np.int32)) == pytest.approx(9 / 8, rel=1e-6)


def test_expected_calibration_error_by_hand():
    # Confidences .6 (right), .6 (wrong), .9 (right), .9 (right): bins (.5, .6] and (.8, .9] of ten.
    # |.6 - .5| * 2/4 + |.9 - 1| * 2/4 = .1
    logits = np.log(np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.9, 0.1]], np.float32))
    labels = np.array([0, 1, 1, 0], np.int32)
    assert measure(metrics.expected_calibration_error(10), logits, labels) == pytest.approx(0.1, abs=1e-6)
    # With one bin: |.75 - .75| = 0.
    assert measure(metrics.expected_calibration_error(1), logits, labels) == pytest.approx(0, abs=1e-6)


def test_expected_calibration_error_is_that_of_a_plain_loop():
    confidence, right = SOFTMAX.max(1), SOFTMAX.argmax(1) == LABELS
    error = 0.0
    for lower in np.arange(15) / 15:
        inside = (confidence > lower) & (confidence <= lower + 1 / 15)
        if inside.any():
            error += abs(confidence[inside].mean() - right[inside].mean()) * inside.mean()
    assert measure(metrics.expected_calibration_error()) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("make", [metrics.top_k, metrics.expected_calibration_error])
def test_counts_below_one_are_refused(make):
    with pytest.raises(InputError, match=r"\(=0\) of `\w+` must be from 1 to"):
        make(0)


def test_equal_arguments_give_the_same_metric_so_that_it_is_compiled_once():
    assert metrics.top_k(5) is metrics.top_k(5)
