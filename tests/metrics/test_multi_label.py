"""A classifier of several classes an image, by hand; the original's numbers: `check_reference`."""

import numpy as np
import pytest

from ltx_jax.metrics.multi_label import multi_label_scores

LOGITS = np.array([[2.0, -3.0, -1.0], [0.5, 0.0, -2.0], [-2.0, 1.0, -5.0], [1.0, -4.0, -6.0]])
LABELS = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]], bool)


def average_precision(values, truth):
    """Of one class."""
    found = multi_label_scores(values[:, None], truth[:, None], 0.0)
    return found["mean_average_precision"] / 100


def test_by_hand():
    # Held: 1 0 1, 1 1 0, 0 1 0, 1 0 0. Wrong: the third of the first, the first of the third.
    found = multi_label_scores(LOGITS, LABELS, -1.0)
    assert found["accuracy"] == pytest.approx(100 * 10 / 12)
    assert found["precision"] == pytest.approx(100 * 5 / 6)
    assert found["recall"] == pytest.approx(100 * 5 / 6)
    assert found["f1"] == pytest.approx(100 * 5 / 6)
    assert found["exact_match"] == 50
    # Nobody has the third class: it does not count.
    assert found["mean_average_precision"] == 100


def test_nothing_held_and_nothing_there():
    found = multi_label_scores(LOGITS, np.zeros_like(LABELS), 10.0)
    assert found["accuracy"] == found["exact_match"] == 100
    assert {found[k] for k in ("precision", "recall", "f1", "mean_average_precision")} == {0}


def test_average_precision():
    truth = np.array([True, False, True, False])
    assert average_precision(np.array([4, 3, 2, 1]), truth) == pytest.approx((1 + 2 / 3) / 2)
    # The second and the third are ranked together: two of three are true at the third.
    assert average_precision(np.array([4, 3, 3, 1]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(4), truth) == 0.5


def test_average_precision_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, truth = rng.integers(0, 8, 30), rng.random(30) < 0.4
        theirs = sklearn.average_precision_score(truth, values)
        assert average_precision(values, truth) == pytest.approx(theirs)
