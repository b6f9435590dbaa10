"""NN-Explainer's objective by hand; the original's numbers are in `check_reference`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.objectives import class_masks as objective

RNG = np.random.default_rng(0)
RAW = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)), jnp.float32)
LABELS = jnp.array([[True, False, True], [False, False, False]])
LOGITS = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_the_classes_of_an_image_and_the_others():
    target, others = objective.merged(RAW, LABELS)
    np.testing.assert_allclose(target[0], sigmoid(RAW[0, ::2].max(0)), rtol=1e-6)
    np.testing.assert_allclose(others[0], sigmoid(RAW[0, 1]), rtol=1e-6)
    np.testing.assert_array_equal(target[1], 0)  # nothing is labelled
    np.testing.assert_allclose(others[1], sigmoid(RAW[1].max(0)), rtol=1e-6)


def test_without_a_class_there_is_no_gradient():
    gradient = jax.grad(lambda raw: objective.merged(raw, LABELS)[0].sum())(RAW)
    assert (gradient[0, ::2] != 0).any() and np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], 0)


def test_variation_reflects_at_the_border():
    mask = jnp.array([[[0.0, 0.5, 0.25], [1.0, 1.0, 0.0]]])
    # Rightwards 0.5, 0.25, again 0.25; 0, 1, 1. Downwards 1, 0.5, 0.25 and again.
    assert float(objective.variation(mask)) == pytest.approx((3.0 + 3.5) / 6)
    squares = 0.25 + 2 * 0.0625 + 2 + 2 * (1 + 0.25 + 0.0625)
    assert float(objective.squared_variation(mask)) == pytest.approx(squares / 6)


def test_a_class_has_an_area():
    shares = np.array([0.9, 0.8, 0.6, 0.5, 0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    raw = np.log(shares / (1 - shares)).reshape(1, 1, 2, 5).repeat(2, 1)
    raw = jnp.asarray(RNG.permuted(raw.reshape(1, 2, 10), axis=-1).reshape(raw.shape), jnp.float32)
    one, both = jnp.array([[True, False]]), jnp.array([[True, True]])
    # Of ten pixels two should be 1 and the last six 0.
    area = (0.1 + 0.2) / 10 + (0.4 + 0.2 + 4 * 0.1) / 10
    assert float(objective.class_area(raw, one, 0.2, 0.4)) == pytest.approx(area, abs=1e-6)
    assert float(objective.class_area(raw, both, 0.2, 0.4)) == pytest.approx(2 * area, abs=1e-6)
    assert float(objective.class_area(raw, one, 0.0, 1.0)) == 0


def test_an_even_answer_has_the_least():
    assert float(objective.negative_entropy(jnp.zeros((2, 8)))) == pytest.approx(-np.log(8) / 8)
    sure = jnp.array([[1000.0, 0.0]])
    assert float(objective.negative_entropy(sure)) == pytest.approx(0, abs=1e-12)


def test_terms_are_weighted():
    weights = objective.Weights(2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 0.1, 0.5)
    total, terms = objective.class_mask_loss(RAW, LABELS, LOGITS, -LOGITS, weights)
    expected = sum(getattr(weights, name) * float(value) for name, value in terms.items())
    assert float(total) == pytest.approx(expected, rel=1e-6)
    target, others = objective.merged(RAW, LABELS)
    assert float(terms["target_area"]) == pytest.approx(float(target.mean()))
    assert float(terms["other_area"]) == pytest.approx(float(others.mean()))
    assert float(terms["entropy"]) == pytest.approx(float(objective.negative_entropy(-LOGITS)))
    signs = np.where(LABELS, 1, -1)
    misfit = -np.log(sigmoid(signs * np.asarray(LOGITS))).mean()
    assert float(terms["prediction"]) == pytest.approx(misfit, rel=1e-6)


def test_some_classes_leave_the_rest():
    shown = jnp.array([[True, False, False], [False, False, False]])
    weights = objective.Weights(prediction=2.0)
    given = RAW, LABELS, shown, LOGITS, -LOGITS, weights
    terms = objective.some_classes_loss(*given)[1]
    np.testing.assert_allclose(terms["target_area"], sigmoid(RAW[0, 0]).mean() / 2, rtol=1e-6)
    others = sigmoid(RAW[0, 1]).mean() / 2 + sigmoid(RAW[1].max(0)).mean() / 2
    np.testing.assert_allclose(terms["other_area"], others, rtol=1e-6)
    rest = np.array([[False, False, True], [False, False, False]])
    for name, logits, there in [("prediction", LOGITS, shown), ("rest", -LOGITS, rest)]:
        signs = np.where(there, 1, -1)
        misfit = -np.log(sigmoid(signs * np.asarray(logits))).mean()
        assert float(terms[name]) == pytest.approx(misfit, rel=1e-6), name
    assert "entropy" not in terms
    # All classes of the first image: the paper's loss, but that what is left holds none of them.
    every, terms = objective.some_classes_loss(RAW, LABELS, LABELS, LOGITS, -LOGITS, weights)
    paper, told = objective.class_mask_loss(RAW, LABELS, LOGITS, -LOGITS, weights)
    apart = 2 * float(terms["rest"]) - float(told["entropy"])
    assert float(every) == pytest.approx(float(paper) + apart, rel=1e-5)


def test_real_time_saliency_counts_the_classes_that_are_there():
    there = sigmoid(LOGITS)[0, ::2]
    assert float(objective.preserved(LOGITS, LABELS)) == pytest.approx(-np.log(there).mean())
    assert float(objective.destroyed(LOGITS, LABELS)) == pytest.approx(there.mean())
    nothing = jnp.zeros_like(LABELS)
    assert float(objective.preserved(LOGITS, nothing)) == 0


def test_a_student_that_agrees_pays_twice():
    weights = objective.Weights()
    same = float(objective.self_explainer_loss(RAW, RAW, LABELS, weights)[0])
    logits = RAW.mean((2, 3))
    _, terms = objective.class_mask_loss(RAW, LABELS, logits, logits, weights)
    target, _ = objective.merged(RAW, LABELS)
    alone = sum(getattr(weights, name) * float(x) for name, x in terms.items())
    alone -= float(terms["entropy"])
    alone += float(objective.variation(target)) - float(terms["variation"])
    assert same == pytest.approx(2 * alone, rel=1e-5)
    apart = float(objective.self_explainer_loss(RAW, RAW + 0.5, LABELS, weights)[0])
    higher = float(objective.self_explainer_loss(RAW + 0.5, RAW + 0.5, LABELS, weights)[0])
    masks = [np.asarray(objective.merged(raw, LABELS)[0]) for raw in (RAW, RAW + 0.5)]
    agreement = 0.5 + np.abs(masks[0] - masks[1]).mean()
    assert apart == pytest.approx(same / 2 + higher / 2 + agreement, rel=1e-5)


def test_no_more_classes_are_sorted_than_an_image_has():
    every = objective.class_area(RAW, LABELS, 0.05, 0.3)
    most = int(LABELS.sum(1).max())
    some = objective.class_area(RAW, LABELS, 0.05, 0.3, together=most)
    assert most < LABELS.shape[1] and float(some) == pytest.approx(float(every), rel=1e-6)


def test_real_time_saliency_is_the_sum_that_the_original_weighs():
    total, terms = objective.real_time_saliency_loss(RAW, LABELS, LOGITS, LOGITS)
    target, _ = objective.merged(RAW, LABELS)
    parts = [
        float(objective.preserved(LOGITS, LABELS)),
        5 * float(objective.destroyed(LOGITS, LABELS)) ** 0.3,
        10 * float(objective.squared_variation(target)),
        float(target.mean()),
    ]
    assert float(total) == pytest.approx(sum(parts), rel=1e-6)
    assert float(terms["target_area"]) == pytest.approx(parts[3], rel=1e-6)


def test_where_one_class_is_the_answer_it_is_a_cross_entropy():
    one = jax.nn.one_hot(jnp.array([1] * len(RAW)), RAW.shape[1]) > 0
    _, terms = objective.class_mask_loss(RAW, one, LOGITS, LOGITS, objective.Weights(), single=True)
    expected = -np.log(np.exp(LOGITS)[:, 1] / np.exp(LOGITS).sum(-1)).mean()
    assert float(terms["prediction"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [0, 1, 7, 19, 20])
def test_the_greatest_values_are_found_without_sorting(count):
    values = jnp.asarray(RNG.random((2, 3, 20)), jnp.float32).at[0].set(0.25).at[1, 0, :5].set(0.0)
    found = objective._sum_of_greatest(values, count)
    expected = np.sort(values, -1)[..., 20 - count :].sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    # Of equal values each has its share.
    even = jax.grad(lambda x: objective._sum_of_greatest(x, count)[0, 0])(values)[0, 0]
    np.testing.assert_allclose(even, count / 20, rtol=1e-6)
    slope = jax.grad(lambda x: objective._sum_of_greatest(x, count)[1, 1])(values)[1, 1]
    assert float(slope.sum()) == count
    assert set(np.argsort(-values[1, 1])[:count].tolist()) == set(np.flatnonzero(slope).tolist())
