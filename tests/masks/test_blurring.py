"""Gaussian blur by hand."""

import jax.numpy as jnp
import numpy as np

from ltx_jax.masks.blurring import blurred


def test_a_point_becomes_the_gaussian():
    images = np.zeros((1, 9, 11, 1), np.float32)
    images[0, 4, 5] = 1
    found = np.asarray(blurred(jnp.asarray(images), 1.5, reach=3))[0, :, :, 0]
    weight = np.exp(-0.5 * (np.arange(-3, 4) / 1.5) ** 2)
    expected = np.zeros((9, 11))
    expected[1:8, 2:9] = np.outer(weight, weight) / weight.sum() ** 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_beyond_the_border_the_image_goes_on():
    column = jnp.array([1.0, 0.0, 0.0])[None, :, None, None]
    weight = np.exp(-0.5 * np.arange(3) ** 2)  # at 0, 1 and 2 pixels
    total = weight[0] + 2 * weight[1:].sum()
    # The first pixel stands for those above as well.
    expected = np.array([weight.sum(), weight[1:].sum(), weight[2]]) / total
    np.testing.assert_allclose(blurred(column, 1.0, 2)[0, :, 0, 0], expected, rtol=1e-5)
    flat = jnp.full((1, 5, 4, 3), 0.7)
    np.testing.assert_allclose(blurred(flat, 2.0), flat, rtol=1e-6)
    np.testing.assert_array_equal(blurred(column, 0.0), column)
