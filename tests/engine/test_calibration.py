"""The values of a mask whose order is known: the smallest area that keeps the class."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.engine.calibration import SHARES, calibrated
from ltx_jax.engine.recipe import make_recipe
from ltx_jax.errors import InputError
from ltx_jax.masks.soft import parts_of, soft_masks
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.sections import Finetune, Objective

# Class 1 is there as far as the pixels of the left half are seen, which are white.
LEFT = Explainee(
    lambda _, x: jnp.stack(
        [jnp.zeros(len(x), jnp.float32), 8 * (x[:, :, :4].mean((1, 2, 3)) - 0.5)], 1
    ),
    None,
    (8, 8),
    2,
)
IMAGE = np.zeros((1, 8, 8, 3), np.float32)
IMAGE[:, :, :4] = 1
TARGET = np.array([1], np.int32)


def masks_of(raw: np.ndarray, keep: float, *fills: str) -> np.ndarray:
    given = jnp.asarray(IMAGE), jnp.asarray(raw), jnp.asarray(TARGET), jnp.float32(keep)
    return np.asarray(calibrated(LEFT, *given, fills or ("black",)))


def by_hand(raw: np.ndarray, keep: float) -> np.ndarray:
    whole = 1 / (1 + np.exp(-4.0))
    for share in SHARES:
        mask = np.asarray(soft_masks(jnp.asarray(raw), jnp.float32([share]), (8, 8)))
        seen = mask[0, :, :4].mean()
        if 1 / (1 + np.exp(-8 * (seen - 0.5))) >= keep * whole:
            return mask
    raise AssertionError("no share keeps it")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.99])
def test_the_smallest_area_that_keeps_the_class(keep):
    raw = np.repeat(np.linspace(2, -2, 4, dtype=np.float32)[None, None], 4, 1)
    found = masks_of(raw, keep)
    np.testing.assert_allclose(found, by_hand(raw, keep), rtol=1e-5)
    assert found.shape == (1, *parts_of((4, 4), (8, 8))) == (1, 8, 8)
    assert (np.diff(found, axis=2) <= 0).all()  # in the order of the raw values


def test_more_is_kept_with_more_pixels():
    raw = np.repeat(np.linspace(2, -2, 4, dtype=np.float32)[None, None], 4, 1)
    areas = [masks_of(raw, keep).mean() for keep in (0.3, 0.6, 0.9, 0.99)]
    assert areas == sorted(areas) and areas[0] < areas[-1]


def test_where_nothing_keeps_it_the_mask_that_keeps_most():
    raw = np.repeat(np.linspace(2, -2, 4, dtype=np.float32)[None, None], 4, 1)
    found = masks_of(raw, 2.0)
    most = np.asarray(soft_masks(jnp.asarray(raw), jnp.float32([SHARES[-1]]), (8, 8)))
    np.testing.assert_allclose(found, most, rtol=1e-6)


def test_every_fill_has_to_keep_it():
    raw = np.repeat(np.linspace(2, -2, 4, dtype=np.float32)[None, None], 4, 1)
    # The mean colour makes the hidden left half brighter than black does.
    mean, black, both = (masks_of(raw, 0.9, *f) for f in (("mean",), ("black",), ("black", "mean")))
    assert mean.mean() < black.mean()
    np.testing.assert_array_equal(both, black)


def test_an_unknown_fill_is_named():
    with pytest.raises(InputError, match="unknown fill 'white': there are black, mean, blur"):
        make_recipe(Finetune(), Objective(fills=("white",)))
