"""Objectives and their terms worked out by hand on a linear explainee."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.attribution.rival import target_logits
from ltx_jax.engine.recipe import make_goal
from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import TERMS, losses
from ltx_jax.objectives.term import Drawn
from ltx_jax.settings.sections import LTX


def _sum(_, images):
    """Logits: the sum of the red channel over four pixels, and 0."""
    red = images[..., 0].sum((1, 2))
    return jnp.stack([red, jnp.zeros_like(red)], -1)


SUM = Explainee(_sum, None, image_size=(2, 2), num_classes=2)
WHITE = np.ones((1, 2, 2, 3), np.float32)
QUARTER = np.full((1, 2, 2), 0.25, np.float32)  # visible sum 1, hidden sum 3
FIRST = np.array([0], np.int32)


def cross_entropy(logit: float) -> float:
    return float(np.log1p(np.exp(-logit)))


@pytest.mark.parametrize(
    ("options", "name", "prediction"),
    [
        ({}, "cross_entropy", cross_entropy(1)),
        ({"logits_only": True}, "logit", -1.0),
        (
            {"counterfactual": True},
            "counterfactual",
            0.5 * (cross_entropy(1) - cross_entropy(3)),
        ),
        (
            {"counterfactual": True, "logits_only": True},
            "counterfactual_logit",
            0.5 * (-1 + 3),
        ),
    ],
)
def test_prediction_terms(options, name, prediction):
    weights = replace(LTX.objective, mask_weight=2.0, mask_loss="l1", **options).weights()
    assert weights == {name: 1.0, "mask_l1": 2.0}
    total, terms = losses(weights, SUM, WHITE, QUARTER, FIRST)
    np.testing.assert_allclose(terms[name], [prediction], rtol=1e-5)
    np.testing.assert_allclose(terms["mask_l1"], [0.25], rtol=1e-6)
    np.testing.assert_allclose(total, [prediction + 2 * 0.25], rtol=1e-5)


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("mask_bce", (np.log(2) + np.log1p(np.e)) / 2),
        ("mask_l1", 0.5),
        # Two of four tokens share everything: log 2 / log 4.
        ("mask_entropy", 0.5),
        # Columns alike, rows 0 and 1: none down, 1 across, less half of what counts as none.
        ("total_variation", 1.0 - 0.005),
    ],
)
def test_terms_of_the_mask_alone(term, expected):
    masks = jnp.array([[[0.0, 1.0], [0.0, 1.0]]])
    drawn = Drawn(SUM, jnp.asarray(WHITE), masks, jnp.asarray(FIRST))
    np.testing.assert_allclose(TERMS[term].values(drawn), [expected], rtol=1e-6)


def test_total_variation_along_both_axes():
    masks = jnp.array([[[0.0, 0.5, 0.5], [1.0, 0.0, 0.5]]])
    drawn = Drawn(SUM, jnp.asarray(WHITE), masks, jnp.asarray(FIRST))
    less = 0.005
    down, across = (1 + 0.5 + 0 - 2 * less) / 3, (0.5 + 0 + 1 + 0.5 - 3 * less) / 4
    found = TERMS["total_variation"].values(drawn)
    np.testing.assert_allclose(found, [down + across], rtol=1e-6)


@pytest.mark.parametrize(("shape", "expected"), [((1, 1), 0.0), ((1, 2), 0.995), ((2, 1), 0.995)])
def test_total_variation_of_a_single_row(shape, expected):
    masks = jnp.arange(float(np.prod(shape))).reshape(1, *shape)
    drawn = Drawn(SUM, jnp.asarray(WHITE), masks, jnp.asarray(FIRST))
    np.testing.assert_allclose(TERMS["total_variation"].values(drawn), [expected], rtol=1e-6)


def test_the_entropy_of_a_mask_with_zeros_has_a_slope():
    def total(masks):
        return losses({"mask_entropy": 1.0}, SUM, WHITE, masks, FIRST)[0].sum()

    # d/dm of −Σ s log s / log 4 with s = m/Σm: −(log s + H) / (Σm log 4).
    share = np.array([0.25, 0.75])
    slopes = -(np.log(share) - (share * np.log(share)).sum()) / np.log(4)
    gradient = jax.grad(total)(jnp.array([[[0.25, 0.0], [0.75, 0.0]]]))
    np.testing.assert_allclose(gradient[0, :, 0], slopes, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_total_variation_of_equal_neighbours_is_flat():
    def total(masks):
        return losses({"total_variation": 1.0}, SUM, WHITE, masks, FIRST)[0].sum()

    masks = jnp.array([[[0.5, 0.5 + 1e-7], [0.504, 0.7]]], jnp.float32)
    gradient = jax.grad(total)(masks)
    # Down by 0.004 and 0.2, across by nothing and 0.196: slopes of 0.4 and 1, halved by the mean.
    expected = [[[-0.2, -0.5], [0.2 - 0.5, 0.5 + 0.5]]]
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


@pytest.mark.parametrize(("percent", "marked"), [(5, 1), (10, 2), (20, 4)])
def test_an_area_is_marked_wholly(percent, marked):
    def misfit(*values):
        """Of a mask of 4×5 cells, the others 0."""
        mask = jnp.zeros(20).at[jnp.arange(len(values))].set(jnp.asarray(values))
        drawn = Drawn(SUM, jnp.asarray(WHITE), mask.reshape(1, 4, 5), jnp.asarray(FIRST))
        return float(TERMS[f"area_{percent}"].values(drawn)[0])

    assert misfit(*[1.0] * marked) == 0
    # One cell too many, and one too few.
    assert misfit(*[1.0] * (marked + 1)) == pytest.approx(1 / 20)
    assert misfit(*[1.0] * (marked - 1), 0.0) == pytest.approx(1 / 20)
    # The lowest of the marked ones lacks 0.25, and another has 0.5 too much, in whatever order.
    others = [1.0] * (marked - 1)
    expected = (0.25**2 + 0.5**2) / 20
    assert misfit(0.5, *others, 0.75) == pytest.approx(expected)


def test_an_area_is_rounded_up_and_sorted_values_are_pushed_apart():
    def total(masks):
        drawn = Drawn(SUM, jnp.asarray(WHITE), masks, jnp.asarray(FIRST))
        return TERMS["area_20"].values(drawn).sum()

    # A fifth of six cells is two.
    masks = jnp.array([[[0.1, 0.9, 0.2], [0.6, 0.3, 0.0]]])
    value, slopes = jax.value_and_grad(total)(masks)
    assert float(value) == pytest.approx((0.01 + 0.01 + 0.04 + 0.16 + 0.09) / 6)
    expected = np.array([[[0.1, -0.1, 0.2], [-0.4, 0.3, 0.0]]]) * 2 / 6
    np.testing.assert_allclose(slopes, expected, atol=1e-6)


def test_further_terms_are_added_by_name():
    weights = replace(LTX.objective, mask_weight=2.0, terms={"total_variation": 3.0}).weights()
    masks = np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float32)
    total, terms = losses(weights, SUM, WHITE, masks, FIRST)
    parts = terms["cross_entropy"] + 2 * terms["mask_bce"] + 3 * terms["total_variation"]
    np.testing.assert_allclose(total, parts, rtol=1e-6)
    assert replace(LTX.objective, terms={"total_variation": 0.0}).weights().keys() == {
        "cross_entropy",
        "mask_bce",
    }
    with pytest.raises(InputError, match="unknown term 'variation': there are area_5, "):
        make_goal(replace(LTX.objective, terms={"variation": 1.0}))


def test_a_sigmoid_link_has_a_binary_cross_entropy():
    several = Explainee(_sum, None, image_size=(2, 2), num_classes=2, link="sigmoid")
    _, terms = losses({"cross_entropy": 1.0}, several, WHITE, QUARTER, FIRST)
    np.testing.assert_allclose(terms["cross_entropy"], [cross_entropy(1)], rtol=1e-5)
    _, terms = losses({"cross_entropy": 1.0}, several, WHITE, QUARTER, FIRST + 1)
    np.testing.assert_allclose(terms["cross_entropy"], [np.log(2)], rtol=1e-5)


def test_the_negative_answer_of_one_logit_has_its_complement():
    one = Explainee(lambda _, x: x[..., 0].sum((1, 2))[:, None], None, (2, 2), num_classes=1)
    no, yes = (
        losses({"cross_entropy": 1.0}, one, WHITE, QUARTER, np.array([k], np.int32))[0]
        for k in (0, 1)
    )
    np.testing.assert_allclose(yes, [cross_entropy(1)], rtol=1e-5)
    np.testing.assert_allclose(no, [cross_entropy(-1)], rtol=1e-5)


def test_each_answer_of_one_logit_has_a_gradient():
    one = Explainee(lambda _, x: x[..., 0].sum((1, 2))[:, None], None, (2, 2), num_classes=1)
    np.testing.assert_array_equal(one(WHITE), [[-2, 2]])
    for answer, slope in ((0, -0.5), (1, 0.5)):
        target = jnp.array([answer], jnp.int32)
        found = jax.grad(lambda x, t=target: target_logits(one, x, t))(jnp.asarray(WHITE))
        np.testing.assert_array_equal(found[..., 0], np.full((1, 2, 2), slope))
