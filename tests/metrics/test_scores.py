"""Every declared score: by hand where it is not elsewhere, and none mistaken for another."""

import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import FIRST_PIXEL, scored

from ltx_jax.errors import InputError
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import chosen_scores
from ltx_jax.models.explainee import Explainee

WHITE = np.ones((1, 1, 10, 3), np.float32)
FALLING = np.linspace(1, 0, 10)[None, None]
SEEN, UNSEEN = 1 / (1 + np.exp(1 - 4)), 1 / (1 + np.exp(1))


def test_names_directions_and_ranges():
    better = {name: score.better for name, score in SCORES.items()}
    assert better == {
        "adp": "lower",
        "pic": "higher",
        "pos": "lower",
        "neg": "higher",
        "ins": "higher",
        "del": "lower",
        "rise_deletion": "lower",
        "rise_insertion": "higher",
        "iou": "higher",
        "pixel_auc": "higher",
        "average_precision": "higher",
        "f1": "higher",
        "f1_by_rows": "higher",
        "pixel_accuracy": "higher",
        "mean_iou": "higher",
        "srg": "higher",
        "srg_probability": "higher",
        "tied": "lower",
        "srg_mean": "higher",
        "srg_mean_probability": "higher",
        "srg_mean_logit": "higher",
        "srg_blur": "higher",
        "srg_noise": "higher",
        "srg_other": "higher",
        "srg_logit": "higher",
        "srg_cells": "higher",
        "srg_cells_probability": "higher",
        "srg_cells_logit": "higher",
        "srg_cells_mean": "higher",
        "srg_cells_mean_probability": "higher",
        "srg_cells_mean_logit": "higher",
        "srg_road": "higher",
        "single_deletion": "higher",
        "single_cell": "higher",
        "sensitivity_n": "higher",
        "pointing_game": "higher",
        "target_sensitivity": "higher",
        "background_independence": "higher",
        "area": None,
        "total_variation": None,
        "f1_25": "higher",
        "f1_50": "higher",
        "f1_75": "higher",
        "f1_mean": "higher",
        "soft_f1": "higher",
        "iou_mean": "higher",
        "soft_iou": "higher",
        "overlap": "higher",
        "object_coverage": "higher",
        "background_coverage": "lower",
        "similarity_ratio": "higher",
        "share": "higher",
        "saliency": "lower",
        "sparsity": "higher",
        "entropy": "lower",
    }
    assert all(
        score.low < score.high and score.meaning and score.source for score in SCORES.values()
    )


def test_each_score_is_itself():
    """The most relevant pixel is all that counts: no two of these are the same number."""
    names = ("pos", "neg", "ins", "del", "srg", "srg_probability")
    found = {n: v[0, 0] for n, v in scored(FIRST_PIXEL, WHITE, FALLING, [[0]], names).items()}
    deletion = 10 * (0.5 * SEEN + 8.5 * UNSEEN)
    assert found["pos"] == pytest.approx(5)
    assert found["neg"] == pytest.approx(90)
    assert found["ins"] == pytest.approx(90 * SEEN, rel=1e-5)
    assert found["del"] == pytest.approx(deletion, rel=1e-5)
    assert found["srg"] == pytest.approx(85)
    assert found["srg_probability"] == pytest.approx(90 * SEEN - deletion, rel=1e-5)


def test_a_reversed_mask_gains_what_it_lost():
    names = ("srg", "srg_probability")
    there = scored(FIRST_PIXEL, WHITE, FALLING, [[0]], names)
    back = scored(FIRST_PIXEL, WHITE, FALLING[..., ::-1], [[0]], names)
    for name in names:
        np.testing.assert_allclose(back[name], -there[name], atol=6)
        assert back[name] < 0 < there[name]


def _mean_brightness(_, images):
    """Two logits: ten times the mean brightness, and 0."""
    mean = 10 * images.mean((1, 2, 3), keepdims=True)[:, 0, 0]
    return np.array([[1.0, 0.0]], np.float32) * mean


def test_rise_by_hand():
    mean = Explainee(_mean_brightness, None, (4, 4), num_classes=2)
    image = np.linspace(0.2, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1).repeat(3, -1)
    mask = image[..., 0]  # the brightest are the most relevant
    found = scored(mean, image, mask, [[0]], ("rise_deletion", "rise_insertion"), chunk=3)
    values = np.sort(image[0, ..., 0].ravel())
    # A row's worth, four pixels, a step: the darker ones are left.
    left = [values[: 16 - 4 * row].sum() / 16 for row in range(5)]
    p = 1 / (1 + np.exp(-10 * np.array(left)))
    np.testing.assert_allclose(found["rise_deletion"], 100 * np.trapezoid(p, dx=0.25), rtol=1e-5)
    # The blur of a 4×4 image is its mean (one cell): of the brightest, so many are put into it.
    shown = [values[16 - 4 * row :].sum() / 16 for row in range(5)]
    blurred = np.array([(16 - 4 * row) / 16 * values.mean() for row in range(5)])
    p = 1 / (1 + np.exp(-10 * (np.array(shown) + blurred)))
    np.testing.assert_allclose(found["rise_insertion"], 100 * np.trapezoid(p, dx=0.25), rtol=1e-3)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_what_is_no_number_through_a_mask_has_no_score(link):
    """Its arg max is a class as any other, and NaN is no more than anything."""

    def whole_alone(_, x):
        left = x[..., 0].mean((1, 2))
        seen = jnp.where((left > 0.2) & (left < 0.7), jnp.nan, left)
        return jnp.stack([seen, -seen], -1)

    blind = Explainee(whole_alone, None, (1, 10), num_classes=2, link=link)
    mask = np.linspace(0, 1, 10)[None, None]
    names = ("pos", "neg", "ins", "del", "adp", "pic", "srg", "srg_probability", "tied")
    found = scored(blind, WHITE, mask, [[0]], names)
    assert [name for name in names if not np.isnan(found[name]).all()] == ["tied"]


def test_ties():
    masks = np.array([[[1, 1, 1, 2, 3, 4, 5, 6, 7, 7]], [range(10)]]) / 10
    found = scored(FIRST_PIXEL, WHITE.repeat(2, 0), masks, [[0], [0]], ("tied",))
    np.testing.assert_allclose(found["tied"], [[50], [0]])


def test_the_order_may_be_finer_than_the_mask():
    """A saturated mask ties; raw values beside it do not."""
    flat, raw = np.ones((1, 1, 10)), np.linspace(0, 1, 10)[None, None]
    by_mask = scored(FIRST_PIXEL, WHITE, flat, [[0]], ("pos", "tied"))
    by_raw = scored(FIRST_PIXEL, WHITE, flat, [[0]], ("pos", "tied", "adp"), order=raw)
    assert by_mask["pos"] == pytest.approx(5) and by_mask["tied"] == 100
    assert by_raw["pos"] == pytest.approx(90) and by_raw["tied"] == 0
    assert by_raw["adp"] == 0  # the mask itself shows everything


def test_overlap_with_the_object():
    mask = np.array([[[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]]] * 3)
    truth = np.array([[[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]], [[0] * 10], [[1] + [0] * 9]], bool)
    counted = np.ones_like(truth)
    counted[2, 0, 1:3] = False  # void: leaves two marked pixels, one of them right
    known = np.array([True, False, True])
    found = scored(
        FIRST_PIXEL,
        WHITE.repeat(3, 0),
        mask,
        [[0]] * 3,
        ("iou",),
        truth=truth,
        counted=counted,
        known_truth=known,
    )["iou"][:, 0]
    assert found[0] == 50 and np.isnan(found[1]) and found[2] == 50


def test_scores_that_are_asked_for():
    usual = chosen_scores(SCORES, (), truth=False)
    assert "rise_deletion" not in usual and "iou" not in usual and "srg" in usual
    assert "iou" in chosen_scores(SCORES, (), truth=True)
    assert "rise_insertion" in chosen_scores(SCORES, ("rise_insertion",), truth=False)
    single = ("single_deletion",)
    assert "single_deletion" in chosen_scores(SCORES, single, truth=True, interventions=True)
    assert chosen_scores(SCORES, None, truth=False) == usual
    further = "srg_mean", "rise_deletion"
    expected = {*usual, *further}
    assert set(chosen_scores(SCORES, (name for name in further), truth=False)) == expected
    assert set(chosen_scores(SCORES, "srg_mean", truth=False)) == {*usual, "srg_mean"}


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("rise",), r"^unknown score 'rise': there are pos, neg, "),
        ("rise", r"^unknown score 'rise': there are"),
        (("iou",), r"^iou needs truth=… of evaluate, the pixels of objects, or a data set that"),
        (("single_deletion",), r"^single_deletion needs images that can be made again"),
    ],
)
def test_scores_that_cannot_be_had(further, message):
    with pytest.raises(InputError, match=message):
        chosen_scores(SCORES, further, truth=False)


@pytest.mark.parametrize("chunk", [1, 4, 9, 20, None])
def test_chunks_and_neighbours_change_nothing(chunk):
    rng = np.random.default_rng(0)
    images, masks = rng.random((3, 1, 10, 3), np.float32), rng.random((3, 1, 10))
    names = ("pos", "neg", "ins", "del", "adp")
    together = scored(FIRST_PIXEL, images, masks, [[0]] * 3, names, chunk=chunk)
    for i in range(3):
        alone = scored(FIRST_PIXEL, images[[i]], masks[[i]], [[0]], names)
        for name in names:
            np.testing.assert_allclose(together[name][i], alone[name][0], rtol=1e-6)
