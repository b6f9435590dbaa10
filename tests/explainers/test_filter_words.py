"""What stands for a filter in an image, and its words, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.explainers import filter_words as of
from ltx_jax.explainers.word_network import cosines

# Two images of 1×2 positions and three channels; the filter is the last.
FEATURES = jnp.array([[[[1.0, 2.0, 3.0], [5.0, 0.0, 4.0]]], [[[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]]])
FIRED = FEATURES[..., 2]


def test_features_are_projected_on_where_the_filter_fires():
    found = of.projected(FEATURES, FIRED)
    # 3/5 and 4/5 of the two positions, and the mean over both.
    np.testing.assert_allclose(found[0], [(0.6 + 4) / 2, 1.2 / 2, (1.8 + 3.2) / 2], rtol=1e-6)
    np.testing.assert_array_equal(found[1], 0)  # it does not fire
    slope = jax.grad(lambda fired: of.projected(FEATURES, fired).sum())(FIRED)
    assert np.isfinite(slope[0]).all()


def test_features_where_the_filter_fires_enough():
    found = of.masked_features(FEATURES, FIRED, jnp.float32(3))
    np.testing.assert_array_equal(found, [[2.5, 0, 2], [0, 0, 0]])  # above, and no less


def test_images_where_the_filter_fires_enough():
    images = jnp.broadcast_to(jnp.array([0.2, 0.4, 0.6]), (2, 2, 4, 3))
    colour = jnp.array([0.5, 0.25, 0.0])
    # Columns are 3, 3.25, 3.75 and 4 times as strong as the first position's third.
    np.testing.assert_array_equal(
        of.regions(FIRED, jnp.float32(3.5), (2, 4)),
        [[[False, False, True, True]] * 2, [[False] * 4] * 2],
    )
    found = of.masked_images(images, FIRED, jnp.float32(3.5), colour)
    np.testing.assert_allclose(found[0, :, 2:], images[0, :, 2:])
    np.testing.assert_allclose(found[0, :, :2], jnp.broadcast_to(colour, (2, 2, 3)))
    np.testing.assert_allclose(found[1], jnp.broadcast_to(colour, (2, 4, 3)))


COSINES = jnp.array([[0.9, 0.1, 0.8, -0.2], [0.1, 0.2, 0.7, 0.3], [0.9, 0.8, 0.0, 0.0]])


def test_words_weigh_what_the_filter_does_where_they_are_near():
    found = of.weighted_words(COSINES, jnp.array([0.6, 0.2, -1.0]), nearest=2)
    # The first image is near to words 0 and 2, the second to 2 and 3; the third does not count.
    np.testing.assert_array_equal(found.words, [2, 0, 3, 1])
    np.testing.assert_allclose(found.weights, [1, 0.75, 0.25, 0], rtol=1e-6)


def test_of_words_of_one_weight_the_nearer_comes_first():
    found = of.weighted_words(COSINES[:2], jnp.array([1.0, 3.0]), nearest=9)
    np.testing.assert_array_equal(found.weights, 1)
    # Sums of strength times cosine: 1.2, 0.7, 2.9 and 0.7, of which the first stays first.
    assert found.words.tolist()[:2] == [2, 0]


def test_a_filter_that_never_fires_has_no_words():
    point = of.projected(FEATURES[1:], FIRED[1:])
    near = cosines(point, jnp.eye(3))
    np.testing.assert_array_equal(near, 0)
    found = of.weighted_words(near, jnp.zeros(1), nearest=2)
    np.testing.assert_array_equal(found.weights, 0)
    np.testing.assert_array_equal(found.words, [0, 1, 2])


def test_many_filters_at_once():
    strengths = jnp.array([[0.6, 0.2, 0.0], [0.0, 0.0, 0.0]])
    both = jnp.stack([COSINES, COSINES])
    found = jax.jit(jax.vmap(lambda x, y: of.weighted_words(x, y, 2)))(both, strengths)
    one = of.weighted_words(COSINES, strengths[0], 2)
    np.testing.assert_array_equal(found.words[0], one.words)
    np.testing.assert_allclose(found.weights, np.stack([one.weights, np.zeros(4)]))
    maps = jnp.stack([FIRED, FEATURES[..., 0]])
    thresholds = jnp.array([3.0, 1.5])
    masked = jax.vmap(of.masked_features, (None, 0, 0))(FEATURES, maps, thresholds)
    np.testing.assert_array_equal(masked[1], [[2.5, 0, 2], [1, 1, 0]])


def test_cosines_are_of_angles():
    found = cosines(jnp.array([[3.0, 4.0], [0.0, -2.0]]), jnp.array([[10.0, 0.0], [0.0, 0.1]]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, -1.0]], rtol=1e-6)
    slope = jax.grad(lambda x: cosines(x, jnp.eye(2)).sum())(jnp.zeros((1, 2)))
    assert np.isfinite(slope).all()
    assert cosines(jnp.full((1, 2), 1e3), jnp.ones((1, 2))) == pytest.approx(1)
