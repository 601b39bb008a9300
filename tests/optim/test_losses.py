import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqxcnn.optim.losses import Loss, MixedLabels, cross_entropy

LOGITS = jnp.array([[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, -1.0]])
LABELS = jnp.array([1, 0])


def test_cross_entropy_by_hand():
    by_hand = [np.log(4), -2 + np.log(np.exp(2) + 2 + np.exp(-1))]
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS), by_hand, rtol=1e-6)


def test_label_smoothing_spreads_over_all_classes():
    log_sum = np.log(np.exp(2) + 2 + np.exp(-1))
    smoothed = log_sum - (0.9 * 2 + 0.1 / 4 * (2 + 0 + 0 - 1))
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS, 0.1), [np.log(4), smoothed], rtol=1e-6)


def test_bfloat16_logits_give_a_float32_loss():
    assert cross_entropy(LOGITS.astype(jnp.bfloat16), LABELS).dtype == jnp.float32


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_binary_cross_entropy_is_the_mean_over_classes():
    logits = np.asarray(LOGITS, np.float64)
    probability, targets = 1 / (1 + np.exp(-logits)), np.eye(4)[[1, 0]] * 0.9 + 0.025
    by_hand = -(targets * np.log(probability) + (1 - targets) * np.log(1 - probability)).mean(-1)
    np.testing.assert_allclose(Loss("bce", 0.1).per_example(LOGITS, LABELS), by_hand, rtol=1e-6)


def test_focal_loss_by_hand():
    probability = softmax(np.asarray(LOGITS, np.float64))[[0, 1], LABELS]
    by_hand = -((1 - probability) ** 1.5) * np.log(probability)
    np.testing.assert_allclose(Loss("focal", gamma=1.5).per_example(LOGITS, LABELS), by_hand, rtol=1e-6)
    # With gamma 0, focal loss equals cross-entropy, with or without smoothing.
    actual = Loss("focal", 0.1, gamma=0.0).per_example(LOGITS, LABELS)
    np.testing.assert_allclose(actual, cross_entropy(LOGITS, LABELS, 0.1), rtol=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_loss_of_mixed_labels_equals_loss_of_soft_labels(kind):
    mixed = MixedLabels(LABELS, jnp.array([3, 0]), jnp.array([0.7, 0.2]))
    soft = np.array([[0, 0.7, 0, 0.3], [1, 0, 0, 0]])
    if kind == "bce":
        expected = optax.sigmoid_binary_cross_entropy(LOGITS, soft).mean()
    else:
        expected = optax.softmax_cross_entropy(LOGITS, soft).mean()
    np.testing.assert_allclose(Loss(kind)(LOGITS, mixed), expected, rtol=1e-6)


def test_class_weights_give_a_weighted_mean():
    weighted = Loss(class_weights=(3.0, 0.5, 1.0, 1.0))
    one, other = np.asarray(cross_entropy(LOGITS, LABELS))
    # Divides by the sum of the weights, as torch's `CrossEntropyLoss(weight=...)` does.
    np.testing.assert_allclose(weighted(LOGITS, LABELS), (0.5 * one + 3 * other) / 3.5, rtol=1e-6)
    mixed = MixedLabels(LABELS, LABELS[::-1], jnp.array([0.5, 1.0]))
    swapped = float(cross_entropy(LOGITS, LABELS[::-1])[0])
    expected = (0.5 * 0.5 * one + 0.5 * 3 * swapped + 3 * other) / (0.25 + 1.5 + 3)
    np.testing.assert_allclose(weighted(LOGITS, mixed), expected, rtol=1e-6)


def test_default_class_weights_are_ones():
    np.testing.assert_allclose(Loss()(LOGITS, LABELS), Loss(class_weights=(1.0,) * 4)(LOGITS, LABELS), rtol=1e-6)
