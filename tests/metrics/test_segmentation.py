"""The segmentation test: by hand, pooled, and what void pixels and ties change."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import scored

from ltx_jax.data.examples import Example
from ltx_jax.data.scenes import scene
from ltx_jax.engine.scoring import Masked, with_needs
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.average_precision import average_precision
from ltx_jax.models.explainee import Explainee

NAMES = ("iou", "f1", "f1_by_rows", "pixel_accuracy", "mean_iou", "average_precision")
# Four rows of five: the object has six pixels, of which the mask marks four and two others; a
# seventh and an eighth are void.
TRUTH = np.array(
    [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    bool,
)
MASK = np.array(
    [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1, 0, 0]],
    np.float32,
)
VOID = np.zeros((4, 5), bool)
VOID[3, :2] = True


def _blind(_, images):
    return jnp.zeros((len(images), 2), images.dtype)


def of(masks, truth, void=None, known=None):
    """Values by name, [n] or [n,c]."""
    masks, truth = np.asarray(masks, np.float32), np.asarray(truth, bool)
    n, height, width = masks.shape
    found = scored(
        Explainee(_blind, None, (height, width), num_classes=2),
        np.ones((n, height, width, 3)),
        masks,
        [[0]] * n,
        NAMES,
        truth=truth,
        counted=np.ones_like(truth) if void is None else ~np.asarray(void, bool),
        known_truth=np.ones(n, bool) if known is None else np.asarray(known),
    )
    return {name: values[:, 0] for name, values in found.items() if name in NAMES}


def test_by_hand():
    found = of([MASK], [TRUTH], [VOID])
    # 4 pixels right, 2 over, 2 missed, 10 of the 18 that count are neither.
    np.testing.assert_array_equal(found["pixel_accuracy"], [[14, 18]])
    np.testing.assert_array_equal(found["mean_iou"], [[4, 2, 2, 10]])
    assert found["iou"][0] == pytest.approx(100 * 4 / 8)
    assert found["f1"][0] == pytest.approx(100 * 8 / 12)
    # Both channels in one order: 14 of 18 with value 1 are right, then all 18 of 36.
    ap = 14 / 18 * 14 / 18 + 4 / 18 * 18 / 36
    assert found["average_precision"][0] == pytest.approx(100 * ap)
    # 18 pixels in four runs: 5, 4, 5 and 4 of them in reading order.
    runs = np.array([2 * 2 / 5, 2 * 2 / 5, 0, 0])
    assert found["f1_by_rows"][0] == pytest.approx(100 * runs.mean())


def test_without_void_the_runs_are_rows():
    found = of([MASK], [TRUTH])
    assert found["f1_by_rows"][0] == pytest.approx(100 * np.mean([4 / 5, 4 / 5, 0, 0]))
    np.testing.assert_array_equal(found["mean_iou"], [[4, 4, 2, 10]])


def test_the_true_mask_of_a_scene_has_all_but_the_rows():
    drawn = scene(3, 5, objects=(1, 1), size=48)
    truth = drawn.masks[drawn.labels > 0]
    found = of(truth, truth)
    for name in set(NAMES) - {"f1_by_rows"}:
        assert SCORES[name].aggregate(found[name]) == pytest.approx(100, abs=1e-4), name
    # 1 in each row that the object has a pixel in, 0 in the others.
    rows = truth[0].any(-1).mean()
    assert 0 < rows < 1 and found["f1_by_rows"][0] == pytest.approx(100 * rows)


def test_pooled_is_of_all_pixels_together():
    accuracy, mean_iou = SCORES["pixel_accuracy"], SCORES["mean_iou"]
    assert accuracy.aggregate(np.array([[1.0, 2.0], [9.0, 9.0]])) == pytest.approx(1000 / 11)
    counts = np.array([[1.0, 2.0, 0.0, 7.0], [3.0, 0.0, 1.0, 6.0]])
    # 4 of 7 and 13 of 16.
    assert mean_iou.aggregate(counts) == pytest.approx(100 * (4 / 7 + 13 / 16) / 2)
    np.testing.assert_allclose(
        mean_iou.of_each(np.insert(counts, 1, np.nan, 0)),
        [100 * (1 / 3 + 7 / 9) / 2, np.nan, 100 * (3 / 4 + 6 / 7) / 2],
    )
    # An object that is everything: there is no background to overlap with.
    assert mean_iou.aggregate(np.array([[3.0, 0.0, 1.0, 0.0]])) == pytest.approx(100 * 3 / 8)
    assert mean_iou.aggregate(np.array([[4.0, 0.0, 0.0, 0.0]])) == 100


def test_scale_and_constant_masks():
    stretched = of([0.2 + 0.5 * MASK], [TRUTH])
    for name, values in of([MASK], [TRUTH]).items():
        np.testing.assert_allclose(stretched[name], values, rtol=1e-5)
    # 0.1 cannot be told exactly, and its mean differs from it: nothing is marked all the same.
    constant = of([np.full((4, 5), 0.1)], [TRUTH])
    np.testing.assert_array_equal(constant["mean_iou"], [[0, 0, 6, 14]])
    assert constant["f1"][0] == constant["f1_by_rows"][0] == constant["iou"][0] == 0


def test_without_truth_nothing_is_known_and_neighbours_change_nothing():
    rng = np.random.default_rng(0)
    masks, truth, void = rng.random((3, 6, 6)), rng.random((3, 6, 6)) < 0.4, rng.random((3, 6, 6))
    found = of(masks, truth, void < 0.2, [True, False, True])
    for name, values in found.items():
        assert np.isnan(values[1]).all(), name
        for i in (0, 2):
            alone = of(masks[[i]], truth[[i]], void[[i]] < 0.2)[name]
            np.testing.assert_allclose(values[i], alone[0], rtol=1e-6)


def test_an_object_that_is_void_altogether_is_none():
    image = np.zeros((*TRUTH.shape, 3), np.float32)
    masked = Masked(image, np.zeros(2, np.float32), np.zeros(1, np.int32), MASK)
    for void, known in ((TRUTH, False), (~TRUTH, True), (None, True)):
        example = Example(image, (0,), TRUTH[None], void)
        given = with_needs(masked, example, ("mean_iou",))
        assert given.known_truth == known
        np.testing.assert_array_equal(given.counted, np.ones_like(TRUTH) if void is None else ~void)


def _by_definition(values, positive):
    """Over the different values from the highest: what is gained in recall, times precision."""
    area, before = 0.0, 0
    for threshold in np.unique(values)[::-1]:
        chosen = values >= threshold
        right = (positive & chosen).sum()
        area += (right - before) / positive.sum() * right / chosen.sum()
        before = right
    return area


@pytest.mark.parametrize("digits", [1, 2, 7])
def test_average_precision_by_its_definition(digits):
    rng = np.random.default_rng(digits)
    values = np.round(rng.random((3, 400), np.float32), digits).astype(np.float32)
    positive, counted = rng.random((3, 400)) < 0.3, rng.random((3, 400)) < 0.8
    found = average_precision(jnp.array(values), jnp.array(positive), jnp.array(counted))
    expected = [
        _by_definition(v[c], p[c]) for v, p, c in zip(values, positive, counted, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The order of what is equal does not matter.
    again = average_precision(*(jnp.array(x[:, ::-1]) for x in (values, positive, counted)))
    np.testing.assert_array_equal(found, again)


def test_average_precision_where_there_is_nothing():
    values, nothing = jnp.ones((1, 4)), jnp.zeros((1, 4), bool)
    assert average_precision(values, nothing, ~nothing)[0] == 0
    assert average_precision(values, ~nothing, nothing)[0] == 0
