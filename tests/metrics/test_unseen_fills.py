"""Gains under fills other than black, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import FIRST_PIXEL, scored

from ltx_jax.data.examples import Example
from ltx_jax.engine.scoring import Masked, with_needs
from ltx_jax.masks.covering import filling
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.symmetric_relevance import gain as gain_under

WHITE = np.ones((1, 1, 10, 3), np.float32)
FALLING = np.linspace(1, 0, 10, dtype=np.float32)[None, None]
# White, then nine black pixels: the mean is a tenth, and the blur, one cell, not much else.
SPOT = np.zeros((1, 1, 10, 3), np.float32)
SPOT[:, :, 0] = 1


def gain(fill, image=WHITE):
    image, order = jnp.asarray(image), jnp.asarray(FALLING)
    case = Case(FIRST_PIXEL, image, FIRST_PIXEL(image), jnp.array([[0, 1]]), order, order, order)
    return np.asarray(gain_under(case, fill=fill))[0]


def test_under_black_it_is_the_symmetric_relevance_gain():
    case_gain = scored(FIRST_PIXEL, WHITE, FALLING, [[0, 1]], ("srg",))["srg"][0]
    np.testing.assert_array_equal(gain("black"), case_gain)
    np.testing.assert_allclose(case_gain, [85, -85], rtol=1e-6)


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_a_white_image_without_some_pixels_is_still_white(fill):
    np.testing.assert_allclose(gain(fill), [0, 0], atol=1e-5)
    # About a tenth of white where the spot was: the logit of about 0.4 loses against 1.
    np.testing.assert_allclose(gain(fill, SPOT), [85, -85], rtol=1e-5)


def test_the_fill_is_that_of_the_whole_image_at_every_step():
    """Were it made anew of what is left, the spot's nine tenths would be gone from the mean."""
    half = SPOT.copy()
    half[:, :, 1:4] = 1  # the mean 0.4 makes the first logit 1.6, which still wins
    np.testing.assert_allclose(gain("mean", half), [0, 0], atol=1e-5)


def test_of_the_probability_and_the_logit():
    """Without the spot, the mean of a tenth for each: the logit falls from 4 to 0.4 beside 1."""
    names = [f"srg{fill}{of}" for fill in ("", "_mean") for of in ("", "_probability", "_logit")]
    found = scored(FIRST_PIXEL, SPOT, FALLING, [[0]], names)
    high, black, grey = (1 / (1 + np.exp(1 - logit)) for logit in (4.0, 0.0, 0.4))
    # The spot goes first or not at all: the curves part by the whole from the first tenth on.
    steps = np.r_[0.0, np.ones(9)]
    area = np.trapezoid(steps)
    expected = [
        (10 * area, 10 * area * (high - p), area * drop / 9)
        for p, drop in ((black, 4.0), (grey, 3.6))
    ]
    np.testing.assert_allclose([found[name][0, 0] for name in names], np.ravel(expected), rtol=1e-5)


def test_noise():
    value = float(filling(jnp.asarray(WHITE), "noise")[0, 0, 0, 0])
    lost = 4 * value < 1
    np.testing.assert_allclose(gain("noise"), [85.0 * lost, -85.0 * lost], atol=1e-5)


def test_another_image_and_none():
    names = ("srg_other", "srg_mean")
    others = np.stack([0 * WHITE[0], 0.5 * WHITE[0], np.nan * WHITE[0]])
    three = (WHITE.repeat(3, 0), FALLING.repeat(3, 0), [[0, 1]] * 3)
    found = scored(FIRST_PIXEL, *three, names, other=others)
    np.testing.assert_allclose(found["srg_other"], [[85, -85], [0, 0], [np.nan] * 2], atol=1e-5)
    assert np.isfinite(found["srg_mean"]).all()


@pytest.mark.parametrize("chunk", [4, 20])
def test_chunks_change_nothing(explainee, images, chunk):
    masks = np.random.default_rng(0).random((7, 16, 16))
    classes = np.asarray(jax.jit(explainee)(images)).argmax(-1)[:, None]
    names = ("srg_mean", "srg_other")
    given = (explainee, images, masks, classes, names)
    other = {"other": np.roll(images, -1, 0)}
    whole, parts = (scored(*given, chunk=c, **other) for c in (None, chunk))
    for name in names:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-4)
    # No two of them are the same numbers.
    assert len({whole[name].tobytes() for name in names}) == len(names)


def test_another_image_is_handed_on_where_a_score_needs_it():
    masked = Masked(WHITE[0], np.zeros(2, np.float32), np.array([0], np.int32), FALLING[0])
    assert with_needs(masked, Example(WHITE[0], other=SPOT[0]), ("srg", "srg_mean")) is masked
    found = with_needs(masked, Example(WHITE[0], other=SPOT[0]), ("srg_other",))
    np.testing.assert_array_equal(found.other, SPOT[0])
    assert np.isnan(with_needs(masked, Example(WHITE[0]), ("srg_other",)).other).all()
    assert not any(SCORES[f"srg_{fill}"].usual for fill in ("mean", "blur", "noise", "other"))
