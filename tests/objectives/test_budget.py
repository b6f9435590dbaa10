"""Budgets and drawn fills, worked out by hand on a linear explainee."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.errors import InputError
from ltx_jax.masks.soft import soft_pixel_masks
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import Chance, losses, views_of
from ltx_jax.settings.sections import Objective

# Class 1 has a tenth of the sum of all values as its logit, class 0 has none.
SUM = Explainee(
    lambda _, x: jnp.stack([jnp.zeros(len(x), jnp.float32), 0.1 * x.sum((1, 2, 3))], 1),
    None,
    (4, 4),
    2,
)
IMAGE = np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 4, 4, 3)
RAW = np.linspace(-2, 2, 16, dtype=np.float32).reshape(1, 4, 4)
TARGET = np.array([1], np.int32)


def keys(*seeds: int):
    return jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))


def chance(budget: float, *fills: str, seed: int = 0) -> Chance:
    return Chance(keys(seed), jnp.full(2, budget, jnp.float32), fills or ("black",))


def by_hand(raw: np.ndarray, kept: float) -> np.ndarray:
    values = np.sort(raw.ravel())
    threshold = values[round((1 - kept) * (len(values) - 1))]
    return 1 / (1 + np.exp(-(raw - threshold) / max(0.5 * raw.std(), 0.3)))


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.8])
def test_a_budget_lets_so_much_through(kept):
    found = np.asarray(soft_pixel_masks(jnp.asarray(RAW), jnp.float32([kept]), (4, 4)))
    np.testing.assert_allclose(found, by_hand(RAW, kept), rtol=1e-5)
    assert (found > 0.499).mean() == pytest.approx(kept, abs=1 / 16)


def test_the_gradient_says_which_pixels_not_how_many():
    def total(raw):
        return soft_pixel_masks(raw, jnp.float32([0.5]), (4, 4)).sum()

    # Threshold and width are constants, and what would move all values together is gone.
    soft = by_hand(RAW, 0.5)
    slope = soft * (1 - soft) / (0.5 * RAW.std())
    found = jax.grad(total)(jnp.asarray(RAW))
    np.testing.assert_allclose(found, slope - slope.mean(), rtol=1e-4, atol=1e-6)
    flat = jax.grad(total)(jnp.zeros((1, 4, 4), jnp.float32))
    np.testing.assert_allclose(flat, np.zeros((1, 4, 4)), atol=1e-6)


def test_kept_pixels_keep_the_class_and_hidden_ones_lose_it():
    masks = 1 / (1 + np.exp(-RAW))
    _, terms = losses({"budget": 1.0}, SUM, IMAGE, masks, TARGET, jnp.asarray(RAW), chance(0.3))
    soft = by_hand(RAW, 0.3)[..., None]
    kept, hidden = (np.log1p(np.exp(-0.1 * (IMAGE * seen).sum())) for seen in (soft, 1 - soft))
    np.testing.assert_allclose(terms["budget"], [kept - min(hidden, 6)], rtol=1e-5)


def test_a_class_that_is_gone_cannot_be_more_so():
    against = replace(SUM, apply=lambda p, x: -10 * SUM.apply(p, x))
    _, terms = losses({"budget": 1.0}, against, IMAGE, RAW, TARGET, jnp.asarray(RAW), chance(0.3))
    soft = by_hand(RAW, 0.3)[..., None]
    kept, hidden = ((IMAGE * seen).sum() for seen in (soft, 1 - soft))
    assert hidden > 6
    np.testing.assert_allclose(terms["budget"], [np.log1p(np.exp(kept)) - 6], rtol=1e-5)


def test_every_fill_is_drawn_and_covers_what_is_hidden():
    weights = {"cross_entropy": 1.0}
    half = np.full((1, 4, 4), 0.5, np.float32)

    def loss(*fills: str, seed: int = 0) -> float:
        drawn = chance(0.5, *fills, seed=seed)
        return float(losses(weights, SUM, IMAGE, half, TARGET, jnp.asarray(RAW), drawn)[0][0])

    whole = IMAGE.sum()
    assert loss("black") == pytest.approx(np.log1p(np.exp(-0.1 * whole / 2)), rel=1e-4)
    assert loss("mean") == pytest.approx(np.log1p(np.exp(-0.1 * whole)), rel=1e-3)
    found = {round(loss("black", "mean", seed=seed) / loss("black"), 3) for seed in range(12)}
    assert found == {1.0, round(loss("mean") / loss("black"), 3)}


def test_an_images_draws_are_its_own():
    weights = Objective().weights()
    images, raw = np.repeat(IMAGE, 3, 0), np.repeat(RAW, 3, 0)
    masks, targets = 1 / (1 + np.exp(-raw)), np.repeat(TARGET, 3)

    def total(*seeds: int):
        n = len(seeds)
        drawn = Chance(keys(*seeds), jnp.float32([0.05, 0.95]), ("black", "mean", "blur"))
        given = images[:n], masks[:n], targets[:n], jnp.asarray(raw[:n])
        return np.asarray(losses(weights, SUM, *given, drawn)[0])

    three = total(4, 5, 6)
    assert len(set(three.tolist())) == 3
    np.testing.assert_allclose(three, [total(seed)[0] for seed in (4, 5, 6)], rtol=1e-6)


def test_so_many_forwards_an_image():
    assert views_of({"mask_bce": 1.0}) == ()
    assert views_of({"cross_entropy": 1.0, "logit": 1.0}) == ("kept",)
    assert views_of(Objective().weights()) == ("kept", "budget_kept", "budget_hidden")


def test_what_a_budget_needs_is_asked_for():
    with pytest.raises(InputError, match="budget needs raw values"):
        losses({"budget": 1.0}, SUM, IMAGE, RAW, TARGET)


def test_an_image_moves_with_its_masks_by_its_own_draw():
    # The class sees the upper left pixel alone, so what moves there is what counts.
    corner = replace(SUM, apply=lambda _, x: jnp.stack([0 * x[:, 0, 0, 0], x[:, 0, 0, 0]], 1))
    masks = 1 / (1 + np.exp(-RAW))

    def loss(shift: float, seed: int) -> float:
        drawn = Chance(keys(seed), jnp.float32([0.5, 0.5]), shift=shift)
        return float(
            losses({"cross_entropy": 1.0}, corner, IMAGE, masks, TARGET, None, drawn)[0][0]
        )

    seen = IMAGE[0, :, :, 0] * masks[0]
    expected = np.log1p(np.exp(-seen))  # of a window that begins at each pixel
    assert loss(0.0, 0) == pytest.approx(expected[0, 0], rel=1e-5)
    assert loss(0.4, 0) == pytest.approx(expected[0, 0], rel=1e-5)  # less than half a pixel
    found = {round(loss(1.0, seed), 5) for seed in range(60)}
    # Up and to the left the border repeats; down and to the right are the next pixels.
    reached = {round(float(x), 5) for x in expected[:2, :2].ravel()}
    assert found == reached
