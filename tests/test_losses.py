import jax.numpy as jnp
import numpy as np

from eqxcnn.training.losses import cross_entropy

LOGITS = jnp.array([[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, -1.0]])
LABELS = jnp.array([1, 0])


def test_cross_entropy_by_hand():
    by_hand = [np.log(4), -2 + np.log(np.exp(2) + 2 + np.exp(-1))]
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS), by_hand, rtol=1e-6)


def test_smoothing_spreads_its_share_over_all_classes():
    log_sum = np.log(np.exp(2) + 2 + np.exp(-1))
    smoothed = log_sum - (0.9 * 2 + 0.1 / 4 * (2 + 0 + 0 - 1))
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS, 0.1), [np.log(4), smoothed], rtol=1e-6)


def test_bfloat16_scores_give_a_float32_loss():
    assert cross_entropy(LOGITS.astype(jnp.bfloat16), LABELS).dtype == jnp.float32
