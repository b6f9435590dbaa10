"""The guided filter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.masks.guided_filter import guided_filter

EPSILON = 1e-3


def written_out(values, guide, radius):
    """Of one map: a regression in every window, and of each pixel the mean over its windows."""
    height, width, channels = guide.shape
    told = np.zeros((height, width))
    slopes, offsets = np.zeros((height, width, channels)), np.zeros((height, width))
    windows = {}
    for y, x in np.ndindex(height, width):
        rows = slice(max(y - radius, 0), y + radius + 1)
        columns = slice(max(x - radius, 0), x + radius + 1)
        windows[y, x] = rows, columns
        seen, wanted = guide[rows, columns].reshape(-1, channels), values[rows, columns].ravel()
        spread = np.cov(seen.T, bias=True).reshape(channels, channels)
        shared = (seen * wanted[:, None]).mean(0) - seen.mean(0) * wanted.mean()
        slopes[y, x] = np.linalg.solve(spread + EPSILON * np.eye(channels), shared)
        offsets[y, x] = wanted.mean() - slopes[y, x] @ seen.mean(0)
    for y, x in np.ndindex(height, width):
        rows, columns = windows[y, x]  # the windows that a pixel is in have their middles there
        told[y, x] = slopes[rows, columns].reshape(-1, channels).mean(0) @ guide[y, x]
        told[y, x] += offsets[rows, columns].mean()
    return told


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_a_regression_in_every_window(channels):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, (2, 2, 7, 9)).astype(np.float32)
    guide = rng.normal(0, 1, (2, 7, 9, channels)).astype(np.float32)
    found = jax.jit(guided_filter, static_argnums=2)(values, guide, 2)
    for image, mask in np.ndindex(2, 2):
        wanted = written_out(np.float64(values[image, mask]), np.float64(guide[image]), 2)
        np.testing.assert_allclose(found[image, mask], wanted, atol=1e-3)


def test_what_the_guide_says_is_kept_and_the_rest_is_smoothed():
    rng = np.random.default_rng(0)
    guide = rng.normal(0, 1, (1, 8, 8, 3)).astype(np.float32)
    linear = (guide @ np.float32([2, -1, 0.5]) + 3)[:, None]
    np.testing.assert_allclose(
        guided_filter(jnp.asarray(linear), jnp.asarray(guide), 3), linear, atol=0.02
    )
    # Where the guide is one colour, means of the means of windows, which the border cuts off.
    values = np.zeros((1, 1, 1, 5), np.float32)
    values[0, 0, 0, 0] = 6
    plain = guided_filter(jnp.asarray(values), jnp.ones((1, 1, 5, 3)), 1)
    np.testing.assert_allclose(plain[0, 0, 0], [2.5, 5 / 3, 2 / 3, 0, 0], atol=1e-5)


def test_values_change_where_the_guide_does():
    """A blurred edge, two pixels off that of the image."""
    edge = np.where(np.arange(24) < 12, -1, 1).astype(np.float32)
    guide = np.tile(edge[None, None, :, None], (1, 24, 1, 3))
    blurred = np.tile(np.clip((np.arange(24) - 13.5) / 3, -1, 1), (1, 1, 24, 1)).astype(np.float32)
    found = np.asarray(guided_filter(jnp.asarray(blurred), jnp.asarray(guide), 4))[0, 0, 10]
    assert np.argmax(np.diff(found)) == 11 and np.diff(found).max() > 0.8
    assert np.diff(blurred[0, 0, 10]).max() < 0.4
    assert found[11] < 0 < found[12]


def test_a_guide_of_one_colour_has_a_gradient():
    slope = jax.grad(lambda v: guided_filter(v, jnp.zeros((1, 6, 6, 3)), 1)[0, 0, 2, 2])(
        jnp.zeros((1, 1, 6, 6))
    )
    assert float(slope.sum()) == pytest.approx(1, abs=1e-5) and float(slope[0, 0, 2, 2]) > 0.1
