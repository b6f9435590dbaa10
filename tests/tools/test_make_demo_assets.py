"""The parts of the program that makes the demo, and the networks that it has made."""

import json
from pathlib import Path

import jax.numpy as jnp
import make_demo_assets as make
import numpy as np
import pytest

import ltx_jax
from ltx_jax.data.scenes import CLASSES, scenes
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer

pytestmark = pytest.mark.usefixtures("fast_programs")

ASSETS = Path(ltx_jax.__file__).parent / "assets"


def test_windows_hold_what_is_covered_and_lie_within() -> None:
    rng = np.random.default_rng(0)
    covered = np.zeros(20, np.bool_)
    covered[3:8] = True
    starts = {make.window(covered, 10, rng).start for _ in range(100)}
    assert starts == {0, 1, 2, 3}
    covered[:] = False
    covered[17:] = True
    assert {make.window(covered, 10, rng).start for _ in range(100)} == {10}


def test_close_ups_show_their_object_whole() -> None:
    batch = make.close_ups(11, 8, 0)
    assert batch.images.shape == (8, 48, 48, 3)
    np.testing.assert_allclose(batch.shares.sum(-1), 1.0, rtol=1e-6)
    # Two windows a scene, one an object. It is seen whole, of the other object a part at most;
    # every third window is veiled.
    labels = scenes(11, 4, (2, 2)).labels.nonzero()[1]
    clear = np.arange(8) % 3 < 2
    assert (batch.shares[np.arange(8), labels] >= 0.5)[clear].all()


def test_scenes_ask_for_every_class_alike() -> None:
    batch = make.whole_scenes(5, 6, 2)
    drawn = scenes(5, 6, first=12)
    clear = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(batch.images[clear], drawn.image[clear])
    uniform = drawn.labels / drawn.labels.sum(-1, keepdims=True)
    np.testing.assert_allclose(batch.shares[clear], uniform[clear], rtol=1e-6)
    assert (batch.images[2] <= drawn.image[2]).all()


def test_answers_follow_what_is_left_of_the_objects() -> None:
    """Two objects of four pixels, of classes 0 and 1, in a row of eight."""
    masks = np.zeros((4, 3, 1, 8), np.bool_)
    masks[:, 0, :, :4] = masks[:, 1, :, 4:] = True
    shown = np.ones((4, 1, 8))
    shown[1, :, :4] = 0.5  # half of the first: still as sure as of two whole ones
    shown[2, :, 1:] = 0.0  # a quarter of the first, nothing else: half sure
    shown[3] = 0.0
    images = np.full((4, 1, 8, 3), 200, np.uint8)
    batch = make.veiled(images, masks, shown, masks.sum((2, 3)))
    wanted = [[1 / 2, 1 / 2, 0], [1 / 3, 2 / 3, 0], [2 / 3, 1 / 6, 1 / 6], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(batch.shares, wanted, rtol=1e-6)
    np.testing.assert_array_equal(batch.images[1, 0, :, 0], [100] * 4 + [200] * 4)
    assert not batch.images[3].any()


def test_enlarged_positions_are_interpolated() -> None:
    grid = jnp.array([[0.0, 1.0], [10.0, 11.0]])
    embedding = jnp.concatenate([jnp.array([7.0]), grid.ravel()])[None, :, None]
    grown = make.enlarge_positions({"params": {"pos_embed": embedding}}, 2, 4)
    found = np.asarray(grown["params"]["pos_embed"])[0, :, 0]
    assert found[0] == 7.0
    # Half-pixel centres: the outer points keep their values, the inner lie a quarter in.
    steps = np.array([0.0, 0.25, 0.75, 1.0])
    np.testing.assert_allclose(found[1:].reshape(4, 4), 10 * steps[:, None] + steps, rtol=1e-6)


def test_batches_come_in_order() -> None:
    def draw(size: int, number: int) -> make.Batch:
        return make.Batch(np.full(size, number, np.uint8), np.zeros(size, np.float32))

    assert [int(batch.images[0]) for batch in make.ahead(draw, 2, 3)] == [0, 1, 2]


def test_the_bundled_explainee_knows_the_classes() -> None:
    facts = json.loads((ASSETS / make.FACTS).read_text())
    assert facts["classes"] == list(CLASSES)
    sizes = facts["explainee"]["sizes"]
    explainee = load_explainee("vit", ASSETS / make.EXPLAINEE, class_names=CLASSES, **sizes)
    assert make.accuracy(explainee, 100)["single_object"] >= 0.95


@pytest.mark.slow
def test_the_bundled_explainer_finds_the_objects() -> None:
    explainee = load_explainee("vit", ASSETS / make.EXPLAINEE, **make.SIZES)
    explainer = load_explainer(explainee, checkpoint=ASSETS / make.EXPLAINER)
    assert make.mask_figures(explainee, explainer, 10)["iou"] > 50


def test_the_bundle_is_small() -> None:
    assert sum(file.stat().st_size for file in ASSETS.iterdir()) <= 8e6
