"""SLOC: its masks and sums by hand, and the maps of an explainee whose parts are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.attribution.sloc import Grid, Squares, sloc
from ltx_jax.models.explainee import Explainee

SIZE = (9, 7)
GRID = Grid(3, SIZE)
RNG = np.random.default_rng(0)


def test_a_mask_shows_the_squares_of_a_shifted_grid():
    seen = np.zeros((1, 1, 4, 4), np.float32)
    seen[0, 0, 0, 1] = seen[0, 0, 2, 2] = 1
    masks = GRID.pixels(Squares(jnp.asarray(seen), jnp.array([[1, 2]])))
    expected = np.zeros(SIZE)
    expected[:2, 1:4] = 1  # a row of the first square lies above the image
    expected[5:8, 4:7] = 1
    np.testing.assert_array_equal(masks[0, 0], expected)


def test_sums_are_those_over_the_masks():
    squares = GRID.draw(0, 20, jnp.array([0.3, 0.8]))
    values = RNG.normal(size=(2, *SIZE)).astype(np.float32)
    masks = np.asarray(GRID.pixels(squares))
    expected = np.einsum("mnhw,nhw->mn", masks, values)
    np.testing.assert_allclose(GRID.sums(jnp.asarray(values), squares), expected, atol=1e-4)
    np.testing.assert_allclose(masks.mean((0, 2, 3)), [0.3, 0.8], atol=0.1)
    assert (masks[:, 0] <= masks[:, 1]).all()  # drawn alike, seen by the share


@pytest.fixture(scope="module")
def planted():
    """An explainee whose probability is the sum of what it sees of three squares."""
    weights = np.zeros((28, 28, 3), np.float32)
    weights[4:12, 8:16], weights[16:24, 16:24], weights[16:20, 4:8] = 1, 0.5, -0.5
    weights *= 0.9 / np.abs(weights).sum()

    def apply(weights, images):
        p = 0.08 + jnp.einsum("nhwc,hwc->n", images, weights)
        return jnp.log(jnp.stack([1 - p, p], -1))

    images = jnp.asarray(RNG.uniform(0.5, 1, (2, 28, 28, 3)), jnp.float32)
    mine = Explainee(apply, jnp.asarray(weights), (28, 28), 2)
    maps = sloc(mine, images, jnp.ones(2, jnp.int32), masks=200, tried=20)
    return mine, images, np.asarray(maps), weights


def test_the_map_is_made_of_the_parts(planted):
    _, images, maps, weights = planted
    parts = (weights * np.asarray(images)).sum(-1)
    for part, found in zip(parts, maps / (3 * 28 * 28), strict=True):
        assert np.corrcoef(part.ravel(), found.ravel())[0, 1] > 0.85
        np.testing.assert_allclose(found.sum(), part.sum(), atol=0.02)


def test_sums_over_regions_are_what_they_gain(planted):
    """Over masks that were not fitted, of another size as well; softly, so that a tenth is left."""
    _, images, maps, weights = planted
    for side in (4, 6):
        grid = Grid(side, (28, 28))
        squares = grid.draw(99, 50, jnp.array([0.5, 0.5]))
        gains = grid.sums(jnp.asarray((weights * np.asarray(images)).sum(-1)), squares)
        found = grid.sums(jnp.asarray(maps) / (3 * 28 * 28), squares)
        assert np.abs(found - gains).mean() < 0.15 * np.std(gains)


def test_neighbours_change_nothing(planted):
    mine, images, maps, _ = planted
    alone = sloc(mine, images[1:], jnp.ones(1, jnp.int32), masks=200, tried=20)
    np.testing.assert_allclose(alone[0], maps[1], atol=1e-2 * np.ptp(maps[1]))
