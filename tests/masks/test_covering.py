"""Images through masks, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.masks.covering import covered, filling

IMAGE = np.array([[[[0.2], [0.4]], [[0.6], [0.8]]]], np.float32)
MASK = np.array([[[1.0, 0.5], [0.0, 0.25]]], np.float32)


def test_black_is_a_product():
    np.testing.assert_allclose(covered(IMAGE, MASK)[0, ..., 0], [[0.2, 0.2], [0.0, 0.2]], rtol=1e-6)


def test_mean_colour_of_each_image():
    found = covered(IMAGE, MASK, "mean")[0, ..., 0]
    np.testing.assert_allclose(found, [[0.2, 0.45], [0.5, 0.25 * 0.8 + 0.75 * 0.5]], rtol=1e-6)


def test_another_image():
    other = np.ones_like(IMAGE)
    found = covered(IMAGE, MASK, jnp.asarray(other))[0, ..., 0]
    np.testing.assert_allclose(found, [[0.2, 0.7], [1.0, 0.95]], rtol=1e-6)


def test_true_and_false_choose():
    shown = MASK > 0.3
    np.testing.assert_allclose(covered(IMAGE, shown)[0, ..., 0], [[0.2, 0.4], [0, 0]])
    found = covered(IMAGE, shown, "mean")[0, ..., 0]
    np.testing.assert_allclose(found, [[0.2, 0.4], [0.5, 0.5]], rtol=1e-6)


def test_blur_of_a_small_image_is_its_mean_and_of_a_ramp_a_ramp():
    np.testing.assert_allclose(filling(jnp.asarray(IMAGE), "blur"), np.full_like(IMAGE, 0.5))
    ramp = jnp.broadcast_to(jnp.arange(64, dtype=jnp.float32)[None, :, None, None], (1, 64, 64, 1))
    blurred = filling(ramp, "blur")
    # A linear ramp stays one away from the edges.
    np.testing.assert_allclose(blurred[0, 16:48], ramp[0, 16:48], atol=1e-3)
    spot = jnp.zeros((1, 64, 64, 1)).at[0, 32, 32, 0].set(1)
    assert float(filling(spot, "blur").max()) < 0.05


def test_noise_is_around_the_mean_colour_and_the_same_for_every_image():
    images = jnp.stack([jnp.full((64, 64, 3), value, jnp.float32) for value in (0.5, 0.5, 0.0)])
    found = np.asarray(filling(images, "noise"))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], filling(images[None, 0], "noise")[0])
    # Cut at two standard deviations: 0.25² less the tails is 0.2398².
    assert abs(found[0].mean() - 0.5) < 0.01 and abs(found[0].std() - 0.2398) < 0.005
    # Around black half of it is cut, and the rest is what it is around grey, half a unit lower.
    whole = found[0] < 1
    np.testing.assert_allclose(found[2][whole], np.maximum(found[0] - 0.5, 0)[whole], atol=1e-6)


def test_many_masks_of_one_image():
    masks = jnp.stack([jnp.asarray(MASK), 1 - jnp.asarray(MASK)], 1)  # [1,2,2,2]
    both = covered(jnp.asarray(IMAGE)[:, None], masks)
    np.testing.assert_allclose(both[:, 0] + both[:, 1], IMAGE, rtol=1e-6)


def test_an_unknown_fill_says_what_there_is():
    with pytest.raises(ValueError, match="black, mean, blur, noise, or images"):
        covered(IMAGE, MASK, "grey")
