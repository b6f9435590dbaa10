"""Extremal perturbations and iGOS++: their parts by hand, and planted pixels that they find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.attribution import extremal_perturbation as extremal
from ltx_jax.attribution import igos_plus_plus as igos
from ltx_jax.models.explainee import Explainee

pytestmark = pytest.mark.usefixtures("fast_programs")

RNG = np.random.default_rng(0)
SIDE = 24
# In the middle: every other step of extremal perturbations sees the image mirrored.
PLANTED = slice(8, 16), slice(8, 16)


def planted(scale, threshold):
    """An explainee of how bright the middle is, and images that are bright there."""
    weights = np.zeros((SIDE, SIDE, 3), np.float32)
    weights[PLANTED] = scale / (3 * 64)

    def apply(weights, images):
        score = jnp.einsum("nhwc,hwc->n", images, weights) - scale * threshold
        return jnp.stack([-score, score], -1)

    images = 0.2 * RNG.random((2, SIDE, SIDE, 3)).astype(np.float32)
    images[:, *PLANTED] += 0.8
    return Explainee(apply, jnp.asarray(weights), (SIDE, SIDE), 2), jnp.asarray(images)


def inside_and_outside(maps):
    maps = np.asarray(maps)
    truth = np.zeros(maps.shape[1:], bool)
    truth[PLANTED] = True
    return maps[:, truth].mean(1), maps[:, ~truth].mean(1)


# --- Extremal perturbations -----------------------------------------------------------------------


def _smooth_maximum(values, step):
    """Pixel by pixel, all values counting."""
    sigma, (g, h) = 3 * step, values.shape
    place = np.stack(np.meshgrid(np.arange(-7, g + 7), np.arange(-7, h + 7), indexing="ij"), -1)
    padded = np.pad(values, 7)
    found = np.zeros((step * (g + 5) + 1, step * (h + 5) + 1))
    for pixel in np.ndindex(found.shape):
        near = np.abs(np.array(pixel) // step - (place + 3)).max(-1) <= 4
        distance = np.linalg.norm(np.array(pixel) - sigma - step * place, axis=-1)
        product = padded * np.exp(-2 * np.maximum(distance / sigma - 0.5, 0) ** 2)
        weight = np.exp(20 * product) * near
        found[pixel] = (weight * product).sum() / weight.sum()
    return found


@pytest.mark.parametrize("step", [1, 3])
def test_the_smooth_maximum(step):
    values = RNG.random((2, 4, 3)).astype(np.float32)
    expected = np.stack([_smooth_maximum(one, step) for one in values])
    found = extremal.smooth_maximum(jnp.asarray(values), step)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_its_gradient():
    values = jnp.asarray(RNG.random((1, 3, 4)), jnp.float32)
    weights = jnp.asarray(RNG.normal(size=(1, 17, 19)), jnp.float32)

    def pooled(values):
        return (extremal.smooth_maximum(values, 2) * weights).sum()

    found = jax.grad(pooled)(values)
    for place in ((0, 0, 0), (0, 1, 2), (0, 2, 3)):
        step = jnp.zeros_like(values).at[place].set(1e-2)
        expected = (pooled(values + step) - pooled(values - step)) / 2e-2
        np.testing.assert_allclose(found[place], expected, rtol=2e-2, atol=2e-3)


def test_pixels_within_the_area():
    masks = jnp.array([[[0.1, 0.9, 0.5, 0.5, 0.5]], [[0.3, 0.3, 0.3, 0.3, 0.3]]])
    # Two of five pixels: the greatest, and a third of each of three equal ones; or two fifths.
    expected = [[[0, 1, 1 / 3, 1 / 3, 1 / 3]], [[0.4] * 5]]
    np.testing.assert_allclose(extremal._within(masks, 0.4), expected, rtol=1e-6)


def test_between_levels_of_blur():
    levels = jnp.array([0.0, 1.0, 5.0]).reshape(3, 1, 1, 1, 1)
    for mask, expected in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (1.0, 5.0)):
        found = extremal._between(levels, jnp.full((1, 1, 1), mask))
        np.testing.assert_allclose(found.ravel(), [expected], atol=1e-6)


@pytest.mark.slow
def test_extremal_perturbation_finds_the_planted_pixels_at_its_area():
    mine, images = planted(200.0, 0.5)
    maps = extremal.extremal_perturbation(mine, images, jnp.ones(2, jnp.int32), steps=500)
    # A tenth of the mask with its margin, 90 pixels, and a little more, since its edge is soft.
    area = np.asarray(maps).sum((1, 2))
    assert area.min() > 90 and area.max() < 110, area
    inside, outside = inside_and_outside(maps)
    assert inside.min() > 0.8 and outside.max() < 0.1, (inside, outside)


@pytest.mark.slow
def test_extremal_perturbation_leaves_the_corners_of_a_small_image():
    """A mask that is even to begin with ranks its corners first, and would keep them."""
    mine, images = planted(20.0, 0.5)
    maps = extremal.extremal_perturbation(mine, images, jnp.ones(2, jnp.int32), steps=300)
    corners = np.asarray(maps)[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max() < 0.1, corners
    alone = extremal.extremal_perturbation(mine, images[1:], jnp.ones(1, jnp.int32), steps=300)
    np.testing.assert_allclose(alone[0], maps[1], atol=2e-3)


def test_parts_of_pixels():
    parts = jnp.arange(16.0).reshape(1, 4, 4)
    np.testing.assert_allclose(extremal._of_pixels(parts, 2), [[[2.5, 4.5], [10.5, 12.5]]])


# --- iGOS++ ---------------------------------------------------------------------------------------


def test_the_penalty():
    masks = np.ones((1, 2, 2, 2), np.float32)
    masks[0, 0, 0, 0], masks[0, 1, 0, 0] = 0.5, 0.4  # their product 0.2
    grey = np.array([[0.0, 0.0], [0.3, 0.3]], np.float32)  # as many pixels as cells
    images = jnp.asarray(grey)[None, :, :, None]
    alike = np.exp(-(0.3**2) / (0.01 * 0.226**2))
    # The product differs by 0.8 from its neighbour below (one pair of two), and across.
    expected = 0.8 / 4 + 20 * 0.5 * (0.64 / 2 + 0.64 / 2 + alike * 0.64 / 2 + 0.64 / 2)
    found = igos._penalty(jnp.asarray(masks), igos._alikeness(images))
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_what_is_above_a_limit_is_known_before_the_last_point():
    parts = np.array([[0.1, -0.4], [-0.4, 0.4], [0.3, -0.1], [-0.2, 0.0], [0.0, 0.1]], np.float32)
    assert np.abs(parts).max() <= 2 / len(parts)
    more, whole = jnp.array([0.5, 1.0]), parts.sum(0) + np.array([0.5, 1.0])
    both = jnp.ones(2, bool)

    def found(parts, limit, asked=both):
        return igos._is_above(lambda part: part, jnp.asarray(parts), more, limit, asked).tolist()

    for apart in (-1.0, -0.01, 0.01, 1.0):
        for other in (-1.0, -0.01, 0.01, 1.0):
            limit = jnp.asarray(whole + np.array([apart, other]), jnp.float32)
            assert found(parts, limit) == [apart < 0, other < 0]
    # Points that could change nothing any more are not looked at, nor images that nobody asks for.
    unknown = parts.copy()
    unknown[2:] = np.nan  # after two points −0.3 and 0 of at least −0.3 − 1.2 and 0 − 1.2
    assert found(unknown, jnp.array([-1.01, -0.21])) == [True, True]
    assert found(unknown, jnp.array([-0.99, -0.21])) == [False, False]
    assert found(unknown, jnp.array([-0.99, -0.21]), jnp.array([False, True]))[1]
    assert found(np.full((5, 2), np.nan), more - 2.01) == [True, True]


def test_the_line_search_is_each_image_s_own():
    curvature = jnp.array([0.001, 1.0, 100.0])
    masks = jnp.full((3, 2, 1, 1), 0.5)

    def loss(masks):
        return 0.5 * curvature * (masks**2).sum((1, 2, 3))

    def above(masks, limit, asked):
        return loss(masks) > limit

    slope = curvature[:, None, None, None] * masks
    found = igos._line_search(above, masks, slope, loss(masks))
    # A step of t is taken where (1 − ct)² < 1 − 2e-4·ct, which for t·c below 2 it is; masks end
    # at 0, where the loss is least, at any longer step that 1e-4·t·|slope|² does not forbid.
    for length, c in zip(np.asarray(found), np.asarray(curvature), strict=True):
        tried = 1000 * 0.2 ** np.arange(13)
        after = np.maximum(0.5 - tried * c * 0.5, 0)
        good = c * after**2 <= c * 0.25 - 1e-4 * tried * 2 * (c * 0.5) ** 2
        np.testing.assert_allclose(length, tried[good][0], rtol=1e-4)
    assert len(set(np.asarray(found).tolist())) > 1


def test_no_step_is_found_uphill():
    masks = jnp.full((1, 2, 1, 1), 0.5)
    uphill = -jnp.ones_like(masks)

    def above(masks, limit, asked):
        return masks.sum((1, 2, 3)) > limit

    found = igos._line_search(above, masks, uphill, jnp.array([1.0]))
    assert found[0] < 1e-5


@pytest.mark.slow
def test_igos_plus_plus_finds_the_planted_pixels():
    mine, images = planted(40.0, 0.75)
    maps = igos.igos_plus_plus(mine, images, jnp.ones(2, jnp.int32), steps=8, path=5)
    inside, outside = inside_and_outside(maps)
    assert inside.min() > 0.8 and outside.max() < 0.3, (inside, outside)
    assert maps.shape == (2, SIDE, SIDE)
    alone = igos.igos_plus_plus(mine, images[1:], jnp.ones(1, jnp.int32), steps=8, path=5)
    np.testing.assert_allclose(alone[0], maps[1], atol=2e-3)
