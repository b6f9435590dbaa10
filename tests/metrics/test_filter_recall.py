"""What a filter fires on, and how much of that its words say, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.metrics.filter_recall import overlaps, recall


def test_regions_overlap_concepts():
    region = jnp.zeros((2, 4, 4), bool).at[0, :2].set(True)  # the upper half; and nothing
    concepts = jnp.zeros((2, 3, 4, 4), bool)
    concepts = concepts.at[0, 0, 1:3].set(True).at[0, 1].set(True).at[1, 0, 0].set(True)
    found = jax.jit(overlaps)(region, concepts)
    np.testing.assert_allclose(found, [[4 / 12, 8 / 16, 0], [0, 0, 0]], rtol=1e-6)


# Of two filters with three images each; there are four concepts and one word more.
WORDS = jnp.array([[4, 1, 0, 2, 3], [2, 3, 0, 1, 4]])
WEIGHTS = jnp.array([[0.9, 0.5, 0.2, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
TRUTH = jnp.array(
    [
        [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
        [[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 0, 1]],
    ],
    bool,
)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (1, (0, 50)),  # the first filter's first word is no concept
        (2, (25, 50)),  # a half and nothing; the third image shows nothing
        (3, (50, 50)),
        (9, (50, 50)),  # words of no weight are none
    ],
)
def test_recall_is_of_images_in_which_there_is_something(first, expected):
    found = recall(WORDS, WEIGHTS, TRUTH, first)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_recall_of_some_concepts():
    unseen = jnp.array([True, False, False, False])
    found = recall(WORDS, WEIGHTS, TRUTH, 3, unseen)
    # The second filter fires on none of them anywhere.
    np.testing.assert_array_equal(found, [100, np.nan])
    assert float(jnp.nanmean(found)) == 100
