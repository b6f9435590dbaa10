"""A window over pixels that moves, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from ltx_jax.masks.moving import moved

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_each_by_its_own_and_the_border_repeated():
    found = np.asarray(moved(jnp.asarray(VALUES), jnp.int32([[1, -2], [0, 1]]), (1, 2)))
    down, across = [1, 2, 2], [0, 0, 0, 1]
    np.testing.assert_array_equal(found[0], VALUES[0][down][:, across])
    np.testing.assert_array_equal(found[1], VALUES[1][:, [1, 2, 3, 3]])


def test_colours_go_with_their_pixel():
    images = np.stack([VALUES, -VALUES], -1)
    by = jnp.int32([[-1, 0], [1, 2]])
    found = np.asarray(moved(jnp.asarray(images), by, (1, 2)))
    expected = np.asarray(moved(jnp.asarray(VALUES), by, (1, 2)))
    np.testing.assert_array_equal(found, np.stack([expected, -expected], -1))


def test_the_gradient_goes_back_to_where_a_pixel_was():
    def corner(values):
        return moved(values, jnp.int32([[1, 1], [0, 0]]), (1, 1))[0, 0, 0]

    slope = np.zeros_like(VALUES)
    slope[0, 1, 1] = 1
    np.testing.assert_array_equal(jax.grad(corner)(jnp.asarray(VALUES)), slope)
