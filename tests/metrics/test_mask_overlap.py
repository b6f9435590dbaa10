"""Scores of a mask's values by hand; the original's numbers are in `check_reference`."""

import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import FIRST_PIXEL, scored

from ltx_jax.metrics import SCORES
from ltx_jax.models.explainee import Explainee

NAMES = tuple(
    name
    for name, score in SCORES.items()
    if score.values.__module__ == "ltx_jax.metrics.mask_overlap"
)
BLIND = Explainee(lambda _, x: jnp.zeros((len(x), 2), x.dtype), None, (2, 3), num_classes=2)
TRUTH = np.array([[1, 1, 0], [0, 0, 0]], bool)
MASK = np.array([[0.75, 0.5, 0.5], [0.25, 0.0, 1.0]])


def of(*masks, truth=TRUTH, counted=None, known=True):
    """The scores of each mask, [n]."""
    n = len(masks)
    counted = np.ones_like(truth) if counted is None else counted
    found = scored(
        BLIND,
        np.ones((n, 2, 3, 3)),
        np.stack(masks),
        [[0]] * n,
        NAMES,
        truth=np.stack([truth] * n),
        counted=np.stack([counted] * n),
        known_truth=np.full(n, known),
    )
    return {name: found[name][:, 0] for name in NAMES}


def test_by_hand():
    found = {name: values[0] / 100 for name, values in of(MASK).items()}
    # Seen of the object 1.25 of 2, of the rest 1.75 of 4.
    assert found["soft_f1"] == pytest.approx(2 * 1.25 / (3 + 2))
    assert found["soft_iou"] == pytest.approx(1.25 / (2 + 1.75))
    assert found["overlap"] == pytest.approx(1 - (0.75 + 1.75) / 6)
    assert found["object_coverage"] == pytest.approx(1.25 / 2)
    assert found["background_coverage"] == pytest.approx(1.75 / 4)
    squares = 0.25**2 + 0.5**2 + 0.5**2 + 0.25**2 + 1
    assert found["similarity_ratio"] == pytest.approx(1.25 / (1.25 + squares))
    # Above .25 four pixels, two of them the object's; above .5 two and one; above .75 one and none.
    assert found["f1_25"] == pytest.approx(2 * 2 / (4 + 2))
    assert found["f1_50"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["f1_75"] == 0
    # .1 and .2: 5 and 2; .3 and .4: 4 and 2; .5 to .7: 2 and 1; .8 and .9: 1 and 0.
    f1s = 2 * [4 / 7] + 2 * [4 / 6] + 3 * [2 / 4] + 2 * [0]
    assert found["f1_mean"] == pytest.approx(np.mean(f1s))
    ious = 2 * [2 / 5] + 2 * [2 / 4] + 3 * [1 / 3] + 2 * [0]
    assert found["iou_mean"] == pytest.approx(np.mean(ious))


def test_the_perfect_mask_and_constant_ones():
    perfect, nothing, half, everything = of(
        TRUTH, np.zeros((2, 3)), np.full((2, 3), 0.5), np.ones((2, 3))
    )["soft_iou"]
    assert (perfect, nothing) == (100, 0)
    assert half == pytest.approx(100 * 1 / (2 + 2)) and everything == pytest.approx(100 * 2 / 6)
    best = {name: values[0] for name, values in of(TRUTH).items()}
    assert best.pop("background_coverage") == 0 and set(best.values()) == {100}


def test_void_pixels_do_not_count():
    counted = np.ones_like(TRUTH)
    counted[1, 2] = counted[0, 0] = False
    found, less = of(MASK, counted=counted), MASK.copy()
    less[1, 2] = 0.3
    np.testing.assert_equal(of(less, counted=counted), found)
    assert found["object_coverage"][0] == 50
    assert found["background_coverage"][0] == pytest.approx(100 * 0.75 / 3)


def test_no_object_and_nothing_known():
    nothing = {name: v[0] for name, v in of(MASK, truth=np.zeros_like(TRUTH)).items()}
    assert nothing["object_coverage"] == nothing["soft_f1"] == nothing["f1_50"] == 0
    assert nothing["background_coverage"] == pytest.approx(50)
    assert all(np.isnan(values).all() for values in of(MASK, known=False).values())


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6, 0.8])
def test_a_value_of_16_bits_is_above_the_number_it_rounds_to(threshold):
    # float32 has it a little above, as the original compares it with a number of 64 bits.
    value = np.float32(round(65535 * threshold) / 65535)
    assert value == np.float32(threshold) and float(value) > threshold
    mask = np.where(TRUTH, value, 0)
    share = of(mask)["iou_mean"][0]
    assert share == pytest.approx(100 * round(10 * threshold) / 9)


def test_pairs_of_pixels_are_more_than_32_bits_count():
    truth = np.zeros((1, 320, 320), bool)
    truth[:, :160] = True
    images = np.zeros((1, 320, 320, 3), np.float32)
    for mask, expected in ((truth, 100.0), (~truth, 0.0)):
        given = FIRST_PIXEL, images, mask.astype(np.float32), [[0]], ("pixel_auc",)
        found = scored(*given, truth=truth, known_truth=np.array([True]))
        assert found["pixel_auc"][0, 0] == expected


def test_saliency_and_how_sure_the_answer_is():
    # Logits 4·pixel and 1 of two classes; the mask keeps three quarters of the one pixel, and the
    # rest of it is grey.
    images, masks = np.ones((1, 1, 10, 3)), np.full((1, 1, 10), 0.01)
    masks[0, 0, 0] = 0.75
    names = ("share", "saliency", "sparsity", "entropy")
    found = scored(FIRST_PIXEL, images, masks, [[0, 1]], names)
    p = np.exp([3.5, 1.0]) / np.exp([3.5, 1.0]).sum()
    area = (0.75 + 0.09) / 10
    np.testing.assert_allclose(found["share"][0], p, rtol=1e-5)
    np.testing.assert_allclose(found["saliency"][0], np.log(area) - np.log(p), rtol=1e-5)
    assert found["sparsity"][0, 0] == pytest.approx((p**2).sum())
    assert found["entropy"][0, 0] == pytest.approx(-(p * np.log(p)).sum())
    small = scored(FIRST_PIXEL, images, masks / 10, [[0]], names)["saliency"][0, 0]
    p = np.exp(2.15) / (np.exp(2.15) + np.e)
    assert small == pytest.approx(np.log(0.05) - np.log(p), rel=1e-5)
