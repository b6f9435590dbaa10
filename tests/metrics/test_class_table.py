"""The table image class × mask class, worked out by hand on a linear classifier."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ltx_jax.metrics.class_table import class_means, seen_through
from ltx_jax.models.explainee import Explainee


def columns(params, images):
    """Logits: of the left and of the right half the sum of its pixels."""
    grey = images.mean(-1)
    return params * grey.reshape(len(images), 2, 2, 2).sum((1, 3))


EXPLAINEE = Explainee(columns, np.float32(0.5), (2, 4), 2, link="sigmoid")


@pytest.mark.parametrize("chunk", [None, 1])
def test_probabilities_through_masks_of_two_levels(chunk):
    images = np.ones((2, 2, 4, 3), np.float32)
    images[1] = 0.25
    left = np.float32([[0.65, 0.65, 0, 0]] * 2)  # above the first six of nine thresholds
    right = np.float32([[0, 0, 0.25, 0.25]] * 2)  # above the first two
    masks = np.stack([np.stack([left, right])] * 2)
    found = jax.jit(seen_through, static_argnames="chunk")(EXPLAINEE, images, masks, chunk)
    assert found.shape == (2, 2, 2)
    for grey, of_image in zip((1.0, 0.25), np.asarray(found), strict=True):
        # Four pixels of one half are seen and the rest is grey, or all; the link plays no part.
        seen = 1 / (1 + np.exp(-0.5 * 4 * (grey - 0.5)))
        through_left = (6 * seen + 3 * 0.5) / 9
        through_right = (2 * seen + 7 * 0.5) / 9
        expected = [[through_left, 1 - through_left], [1 - through_right, through_right]]
        np.testing.assert_allclose(of_image, expected, atol=1e-6)


def test_an_image_counts_for_each_of_its_classes():
    rows = [{3: [0.8, 0.1, 0.0], 5: [0.2, 0.3, 0.0]}, {3: [0.4, 0.3, 0.0]}]
    means, images = class_means(rows, (3, 5, 6), 3)
    np.testing.assert_allclose(means, [[0.6, 0.2, 0], [0.2, 0.3, 0], [np.nan] * 3])
    assert images.tolist() == [2, 1, 0]
