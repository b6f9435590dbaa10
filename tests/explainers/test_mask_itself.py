"""The mask itself: its cells, where it starts, and what it draws."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.attribution.gradient_x_input import gradient_x_input
from ltx_jax.errors import InputError
from ltx_jax.explainers.mask_itself import MaskItself, by_rank, cells_for, centre_bias
from ltx_jax.loading.explainers import load_mask


@pytest.mark.parametrize(
    ("size", "longer", "cells"),
    [
        ((32, 32), None, (8, 8)),
        ((96, 96), None, (12, 12)),
        ((224, 224), None, (14, 14)),
        ((48, 64), None, (6, 8)),
        ((5, 3), None, (5, 3)),
        ((300, 20), None, (14, 1)),
        ((48, 64), 16, (12, 16)),
    ],
)
def test_cells_keep_the_aspect(size, longer, cells):
    assert cells_for(size, longer) == cells


def test_a_grid_larger_than_the_image_is_one_line(explainee):
    with pytest.raises(InputError, match="grid is 17: the longer side of an image has 16 pixels"):
        load_mask(explainee, grid=17)


def test_the_bias_falls_from_the_centre():
    bias = centre_bias((3, 3))
    edge, corner = 0.5 * (1 - 4 / 9), 0.5 * (1 - 8 / 9)
    expected = [[corner, edge, corner], [edge, 0.5, edge], [corner, edge, corner]]
    np.testing.assert_allclose(bias, expected, rtol=1e-6)


def test_ranks_spread_and_ties_share():
    ranks = by_rank(jnp.array([[5.0, 1.0], [100.0, 1.0]]), (2, 2))
    # Two are above and two below the tied ones' mean; in steps of 4/3 from −2 to 2.
    np.testing.assert_allclose(ranks, [[2 / 3, -4 / 3], [2.0, -4 / 3]], rtol=1e-6)


def test_each_start(explainee, explainer, images):
    target, image = jnp.int32(2), images[0]
    centre = load_mask(explainee, "centre").begin(explainee, image, target)
    np.testing.assert_array_equal(centre.leaves["raw"], centre_bias((8, 8)))
    assert centre.prefix.shape == (0,)
    gradient = (
        load_mask(explainee, "gradient_x_input", grid=4)
        .begin(explainee, image, target)
        .leaves["raw"]
    )
    relevance = gradient_x_input(explainee, jnp.asarray(images[:1]), target[None])[0]
    cells = np.asarray(relevance).reshape(4, 4, 4, 4).mean((1, 3))
    # Means of 4×4 pixels are not the antialiased resize, but order the cells much as it does.
    assert np.corrcoef(cells.ravel(), np.asarray(gradient).ravel())[0, 1] > 0.7
    assert (float(gradient.min()), float(gradient.max())) == (-2.0, 2.0)
    network = load_mask(explainee, explainer).begin(explainee, image, target).leaves["raw"]
    raw = explainer.draw(explainer.trained, explainer.prefix(images[:1]))[0, 0]
    np.testing.assert_array_equal(network, raw)


def test_it_draws_its_own_values():
    mask = MaskItself((2, 3))
    raw = jnp.arange(6, dtype=jnp.float32).reshape(2, 3)
    drawn = mask.draw({"raw": raw}, jnp.zeros((4, 0), jnp.float32))
    np.testing.assert_array_equal(drawn, np.broadcast_to(raw, (4, 1, 2, 3)))
    assert mask.grid() == (2, 3) and mask.without_trained().start is None


def test_unknown_starts_are_named(explainee, explainer):
    with pytest.raises(InputError, match="unknown start 'center': there are centre, ") as told:
        load_mask(explainee, "center")
    assert str(told.value).count("centre") == 1
    with pytest.raises(InputError, match=r"grid is 5, the explainer .* has \(4, 4\)"):
        load_mask(explainee, explainer, grid=5)
