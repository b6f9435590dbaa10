"""Overlap with a true object, by hand."""

import numpy as np
import pytest

from ltx_jax.metrics.segmentation import intersection_over_union


def test_overlap():
    mask = np.array([[1.0, 0.9], [0.1, 0.0]])  # mean 0.5: the upper row is foreground
    assert intersection_over_union(mask, np.array([[True, True], [False, False]])) == 100
    assert intersection_over_union(mask, np.array([[True, False], [True, False]])) == pytest.approx(
        100 / 3
    )
    assert intersection_over_union(np.zeros((2, 2)), np.zeros((2, 2), bool)) == 0
