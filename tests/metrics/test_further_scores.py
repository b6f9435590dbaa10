"""Scores on request, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import FIRST_PIXEL, scored

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.scenes import SceneSource
from ltx_jax.engine.scoring import Masked, with_needs
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.grid import cells_of
from ltx_jax.metrics.sensitivity_n import _sets
from ltx_jax.metrics.symmetric_relevance import _whole_cells
from ltx_jax.models.explainee import Explainee


def one(explainee, image, mask, name, classes=((0,),), order=None, **known):
    """The score of one mask."""
    known = {key: np.asarray(value)[None] for key, value in known.items()}
    order = None if order is None else np.asarray(order)[None]
    found = scored(explainee, image, np.asarray(mask)[None], classes, (name,), order, **known)
    return found[name][0]


def _weighted(weights, images):
    """Class 0 has the weighted sum of the pixels, class 1 nothing."""
    first = (images[..., 0] * weights[None]).sum((1, 2))
    return jnp.stack([first, jnp.zeros_like(first)], axis=-1)


def linear(weights):
    """An explainee of one image size, and a white image."""
    weights = np.asarray(weights, np.float32)
    explainee = Explainee(_weighted, jnp.asarray(weights), weights.shape, num_classes=2)
    return explainee, np.ones((1, *weights.shape, 3), np.float32)


SMALL = linear([[3.0, 2.0], [1.0, 0.0]])


def test_area_and_variation():
    mask = [[1.0, 0.0], [0.5, 0.5]]
    assert one(*SMALL, mask, "area", order=[[9.0, 1.0], [2.0, 3.0]]) == pytest.approx([50])
    # Down |1 − 0.5| and |0 − 0.5|, across 1 and 0: means 0.5 and 0.5.
    assert one(*SMALL, mask, "total_variation") == pytest.approx([100])


def test_the_gain_of_a_logit():
    # A pixel of ten, that goes first, or never: at all points but the first the logit is lower.
    falling, white = np.linspace(1, 0, 10).reshape(1, 10), np.ones((1, 1, 10, 3), np.float32)
    found = one(FIRST_PIXEL, white, falling, "srg_logit", classes=((0, 1),))
    assert found == pytest.approx([4 * 8.5 / 9, 0])


def test_the_gain_as_whole_cells_go():
    weights = np.full((16, 16), -1e-3)
    weights[4:6, 8:10] = 1.0
    given = linear(weights)
    order = np.full((16, 16), 0.5)
    # One pixel of it lifts the cell above all others: lost at once, or never.
    order[5, 8] = 0.6
    assert one(*given, order, "srg_cells") == pytest.approx([85])
    order[5, 9] = 0.1  # and another one lowers it below them
    assert one(*given, order, "srg_cells") == pytest.approx([-85])


def test_equal_cells_go_in_a_random_order():
    """Of cells in reading order the class's, the first 32 of 64, would all be gone halfway."""
    weights = np.zeros((16, 16))
    weights[:8] = 1.0
    found = one(*linear(weights), np.full((16, 16), 0.5), "srg_cells_logit")
    assert found == pytest.approx([0])
    cells = cells_of(16, 16, 8)
    halfway = np.asarray(_whole_cells(jnp.zeros((1, 64)), cells).keys)[0, :8] < 32
    assert 0.3 < halfway.mean() < 0.7


@pytest.mark.parametrize("value", [0.1, 0.3, 0.5])
def test_a_constant_mask_says_nothing_of_cells(value):
    """Whatever digits the sums of its cells end in, and where cells are of unequal sizes."""
    rng = np.random.default_rng(0)
    for side in (224, 30):
        explainee, white = linear(rng.normal(size=(side, side)))
        masks = np.full((3, side, side), value, np.float32)
        names = ("single_cell", "sensitivity_n", "srg_cells")
        found = scored(explainee, np.repeat(white, 3, 0), masks, [[0]] * 3, names)
        assert np.isnan(found["single_cell"]).all() and np.isnan(found["sensitivity_n"]).all()
        np.testing.assert_array_equal(found["srg_cells"], 0)


@pytest.mark.parametrize("name", ["single_cell", "sensitivity_n"])
def test_neither_offset_nor_scale_of_relevance_changes_what_cells_say(name):
    rng = np.random.default_rng(2)
    given, map_ = linear(rng.normal(size=(30, 30))), rng.normal(size=(30, 30)).astype(np.float32)
    expected = one(*given, map_, name)
    for changed in (map_ + 5, map_ * 1e-20, map_ * 1e20):
        assert one(*given, changed, name) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["single_cell", "sensitivity_n"])
def test_what_adds_up_is_the_relevance(name):
    """Neither the mask, nor what ranks its pixels."""
    weights = np.random.default_rng(3).normal(size=(8, 8)).astype(np.float32)
    other = np.random.default_rng(4).random((8, 8)).astype(np.float32)
    found = one(*linear(weights), other, name, order=other.T, relevance=weights)
    assert found == pytest.approx([1], abs=1e-5)


def test_sets_of_cells_are_of_a_sixteenth_a_quarter_and_half():
    gone = np.asarray(_sets())
    assert gone.shape == (3, 32, 64)
    assert [set(part.sum(-1).tolist()) for part in gone] == [{4}, {16}, {32}]


@pytest.mark.parametrize(
    ("order", "counted", "expected"),
    [
        ([[0.9, 0.1], [0.2, 0.3]], [[1, 1], [1, 1]], 100),
        ([[0.1, 0.9], [0.2, 0.3]], [[1, 1], [1, 1]], 0),
        ([[0.9, 0.9], [0.9, 0.3]], [[1, 1], [1, 1]], 100 / 3),
        ([[0.1, 0.9], [0.2, 0.3]], [[1, 0], [0, 0]], 100),  # the greatest is void
    ],
)
def test_the_pointing_game_is_of_the_order_alone(order, counted, expected):
    truth = np.array([[True, False], [False, False]])
    known = {"truth": truth, "counted": np.array(counted, bool), "known_truth": True}
    found = one(*SMALL, np.full((2, 2), 0.5), "pointing_game", order=order, **known)
    assert found == pytest.approx([expected])


def test_a_linear_classifier_has_the_cells_that_it_says():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 8))
    given = linear(weights)
    contribution = (weights - weights.min()) / np.ptp(weights)  # in [0,1], in the same order
    for name in ("single_cell", "sensitivity_n"):
        assert one(*given, contribution, name, order=weights) == pytest.approx([1], abs=1e-5)
        assert one(*given, 1 - contribution, name, order=-weights) == pytest.approx([-1], abs=1e-5)
    # Class 1 depends on nothing.
    assert np.isnan(one(*given, contribution, "single_cell", classes=((1,),))).all()


def test_a_random_map_does_not_add_up():
    rng = np.random.default_rng(1)
    given = linear(rng.normal(size=(16, 16)))
    found = [one(*given, rng.random((16, 16)), "sensitivity_n")[0] for _ in range(12)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(12)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([[0.9, 0.3], [0.3, 0.0]], 100), ([[0.2, 0.3], [0.3, 0.9]], 0), ([[0.4] * 2] * 2, 50)],
)
def test_target_sensitivity(mask, expected):
    """Its object is one pixel, that of another class two."""
    own = np.array([[True, False], [False, False]])
    beside = np.array([[False, True], [True, False]])
    known = {"truth": own, "beside": beside, "known_truth": True}
    assert one(*SMALL, mask, "target_sensitivity", **known) == [expected]
    known["beside"] = np.zeros((2, 2), bool)
    assert np.isnan(one(*SMALL, mask, "target_sensitivity", **known)).all()


def test_background_independence():
    """Without the first pixel p falls from 0.998 to 0.953, without the second to 0.982, without the
    third to 0.993, without the fourth not at all: by less than 0.05 each. Of the larger weights
    only the first is used."""
    without = (255 * (1 - np.eye(4))).astype(np.uint8).reshape(4, 2, 2, 1).repeat(3, -1)
    mask = [[0.6, 0.2], [0.1, 0.1]]
    assert one(*SMALL, mask, "background_independence", without=without) == pytest.approx([0])
    strong = linear([[6.0, 0.1], [0.1, 0.0]])
    found = one(*strong, mask, "background_independence", without=without)
    assert found == pytest.approx([60], rel=1e-5)
    every = linear([[6.0, 6.0], [6.0, 6.0]])  # no pixel is missed alone
    assert one(*every, mask, "background_independence", without=without) == pytest.approx([0])


def test_the_true_mask_of_a_scene_is_perfect():
    """For a classifier that sees nothing but the object: the score knows no other."""
    source = SceneSource(0, range(1), (2, 2))
    how = Preprocessing((96, 96))
    example = source.load(0, how)._replace(without=source.without(0, how))
    own = example.mask_of(example.labels[0])
    whole = example.as_input()

    def loses_the_object(truth, images):
        changed = (jnp.abs(images - whole[None]).max(-1) > 0.5 / 255) & truth[None]
        gone = changed.sum((1, 2)).astype(jnp.float32) / truth.sum().astype(jnp.float32)
        return jnp.stack([4.0 - 8.0 * gone, jnp.zeros_like(gone)], -1)

    explainee = Explainee(loses_the_object, jnp.asarray(own), (96, 96), 2)
    names = ("iou", "target_sensitivity", "background_independence", "pointing_game", "pixel_auc")
    blank = Masked(whole, None, np.array([example.labels[0]]), own.astype(np.float32))
    needs = with_needs(blank, example, (*names, "single_deletion"))
    known = {
        name: np.asarray(getattr(needs, name))[None]
        for name in ("truth", "beside", "counted", "known_truth", "without")
    }
    found = scored(explainee, whole[None], own[None], [[0]], (*names, "single_deletion"), **known)
    for name in names:
        assert found[name][0] == pytest.approx([100]), name
    # Two objects and the clutter: its own first, the others tied.
    assert found["single_deletion"][0] > 0.8
    assert SCORES["single_deletion"].high == 1
