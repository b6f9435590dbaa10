"""What parts are worth to a mask and to a classifier, by hand."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr
from scoring_tools import scored

from ltx_jax.metrics.single_deletion import spearman
from ltx_jax.models.explainee import Explainee
from ltx_jax.tasks.maps import Map, as_map


def _weighted(weights, images):
    """Class 0 has the sum of the pixels, 3, 2, 1 and 0 times; class 1 has nothing."""
    first = (images[:, 0, :, 0] * weights).sum(-1)
    return jnp.stack([first, jnp.zeros_like(first)], axis=-1)


WEIGHTED = Explainee(_weighted, jnp.array([[3.0, 2.0, 1.0, 0.0]]), (1, 4), num_classes=2)
WHITE = np.ones((1, 1, 4, 3), np.float32)
# White without each of its pixels, and with all: the fifth is no part of it.
WITHOUT = np.concatenate([255 * (1 - np.eye(4)), np.full((1, 4), 255)]).astype(np.uint8)
WITHOUT = WITHOUT[None, :, None, :, None].repeat(3, -1)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([0.9, 0.5, 0.2, 0.0], 1),
        ([0.0, 0.2, 0.5, 0.9], -1),
        # Ranks 4, 2, 3, 1 against 4, 3, 2, 1: 1 − 6·(0 + 1 + 1 + 0)/(4·15).
        ([0.9, 0.2, 0.5, 0.0], 0.8),
        # Ranks 4, 2.5, 2.5, 1 less their mean: 4.5 over the root of 4.5·5.
        ([0.9, 0.5, 0.5, 0.0], np.sqrt(0.9)),
        ([0.5, 0.5, 0.5, 0.5], np.nan),
    ],
)
@pytest.mark.parametrize("chunk", [None, 2])
def test_by_hand(mask, expected, chunk):
    given = (WEIGHTED, WHITE, np.array([[mask]]), [[0, 1]], ("single_deletion",))
    found = scored(*given, chunk=chunk, without=WITHOUT)["single_deletion"]
    # Class 1 loses nothing whatever is gone.
    np.testing.assert_allclose(found, [[expected, np.nan]], rtol=1e-5)


def test_one_part_has_no_order():
    one = np.concatenate([WITHOUT[:, :1], WITHOUT[:, 4:]], 1)
    given = (WEIGHTED, WHITE, np.array([[[0.9, 0.5, 0.2, 0.0]]]), [[0]], ("single_deletion",))
    assert np.isnan(scored(*given, without=one)["single_deletion"]).all()


def test_the_mask_is_summed_where_a_part_is_seen():
    """Two parts of two pixels: 0.6 + 0.0 is less than 0.4 + 0.3, and the first counts for more."""
    without = 255 * np.array([[0, 0, 1, 1], [1, 1, 0, 0]], np.uint8)[None, :, None, :, None]
    mask = np.array([[[0.6, 0.0, 0.4, 0.3]]])
    given = (WEIGHTED, WHITE, mask, [[0]], ("single_deletion",))
    assert scored(*given, without=without.repeat(3, -1))["single_deletion"] == [[-1]]


def test_what_speaks_against_a_class_counts_below_zero():
    """Parts of one, two and one pixels, whose weights are 1, 0 and −3: stretched to span [0,1] the
    second, of two grey pixels, would have more than the first."""
    explainee = replace(WEIGHTED, params=jnp.array([[1.0, 0.0, 0.0, -3.0]]))
    signed = np.array([[[1.0, 0.0, 0.0, -3.0]]], np.float32)
    parts = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    without = (255 * (1 - parts)).astype(np.uint8)[None, :, None, :, None].repeat(3, -1)
    names = ("single_deletion", "background_independence")
    stretched = (signed + 3) / 4
    relevance = as_map(signed[0]).relevance[None]
    for summed, expected in ((stretched, [0.5, 40]), (relevance, [1, 100])):
        given = explainee, WHITE, stretched, [[0]], names
        found = scored(*given, without=without, relevance=summed)
        assert [float(found[name][0, 0]) for name in names] == pytest.approx(expected)


def test_what_adds_up_of_a_map():
    signed = as_map(np.array([[-2.0, 0.0, 1.0]]))
    np.testing.assert_allclose(signed.mask, [[0, 2 / 3, 1]], rtol=1e-6)
    np.testing.assert_array_equal(signed.relevance, [[-1, 0, 0.5]])
    plain = as_map(np.array([[0.25, 0.5, 0.75]]))
    np.testing.assert_array_equal(plain.relevance, [[0.25, 0.5, 0.75]])
    above = as_map(np.array([[2.0, 3.0, 4.0]]))
    np.testing.assert_array_equal(above.relevance, [[0, 0.5, 1]])
    # Values before a sigmoid are none that add up.
    raw = np.array([[-2.0, 0.0, 1.0]], np.float32)
    own = Map(1 / (1 + np.exp(-raw)), raw)
    np.testing.assert_array_equal(own.relevance, own.mask)
    np.testing.assert_array_equal(Map(np.zeros((1, 2)), np.zeros((1, 2))).relevance, [[0, 0]])


def test_ranks_are_those_of_scipy_among_what_counts():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 6, (20, 12)).astype(np.float32) for _ in range(2))
    counted = rng.random((20, 12)) > 0.3
    found = spearman(jnp.asarray(a), jnp.asarray(b), jnp.asarray(counted))
    expected = [spearmanr(x[c], y[c])[0] for x, y, c in zip(a, b, counted, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
