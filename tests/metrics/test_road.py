"""ROAD by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import FIRST_PIXEL, scored

from ltx_jax.masks.imputation import imputed
from ltx_jax.metrics.road import noisily_imputed

FALLING = np.linspace(1, 0, 10)[None, None]


def test_noise_is_small_and_the_same_for_every_image():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((2, 1, 32, 32, 3), np.float32))
    seen = jnp.asarray(rng.random((2, 1, 32, 32)) > 0.5)
    noise = np.asarray(noisily_imputed(images, seen) - imputed(images, seen))
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-6)
    assert noise.std() == pytest.approx(0.01, rel=0.05) and abs(noise.mean()) < 1e-3


def test_what_the_neighbours_tell_is_not_lost():
    white = np.ones((1, 1, 10, 3), np.float32)
    found = scored(FIRST_PIXEL, white, FALLING, [[0, 1]], ("srg", "srg_road"))
    np.testing.assert_allclose(found["srg"], [[85, -85]], rtol=1e-5)
    # Any pixels of white are imputed from the others: nothing is lost in either order.
    np.testing.assert_allclose(found["srg_road"], [[0, 0]], atol=1e-5)


def test_imputed_of_what_is_left_and_not_of_what_is_gone():
    """From 1 to 0.1 along the row: the first pixel is gone at once, and then is as bright as the
    first one that is left, (10 − k)/10 for k pixels gone; four times that loses against 1 from the
    eighth on (0.2)."""
    ramp = np.broadcast_to(np.linspace(1, 0.1, 10, dtype=np.float32)[:, None], (1, 1, 10, 3))
    found = scored(FIRST_PIXEL, ramp, FALLING, [[0, 1]], ("srg_road",))["srg_road"]
    # Agreement at 0 … 0.7 and not at 0.8 and 0.9: 75 of 90 most relevant first, and 90 least first.
    np.testing.assert_allclose(found, [[15, -15]], atol=1e-4)


@pytest.mark.parametrize("chunk", [4, 20])
def test_chunks_change_nothing(explainee, images, chunk):
    masks = np.random.default_rng(0).random((7, 16, 16))
    classes = np.asarray(jax.jit(explainee)(images)).argmax(-1)[:, None]
    given = (explainee, images, masks, classes, ("srg_road",))
    whole, parts = (scored(*given, chunk=c)["srg_road"] for c in (None, chunk))
    np.testing.assert_allclose(parts, whole, atol=1e-4)
