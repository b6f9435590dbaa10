"""A demo of classes: what its networks learn from."""

import json
from dataclasses import asdict

import jax.numpy as jnp
import make_class_demo as make
import numpy as np
import pytest

from configs import demo_classes
from ltx_jax import load_explainee, load_explainer
from ltx_jax.data.scenes import scenes
from ltx_jax.models.layers import as_input


def test_what_is_hidden_does_not_count():
    """Two objects of four pixels, of classes 0 and 1, in a row of eight."""
    masks = np.zeros((4, 3, 1, 8), np.bool_)
    masks[:, 0, :, :4] = masks[:, 1, :, 4:] = True
    shown = np.ones((4, 1, 8))
    shown[1, :, :4] = 0.5  # half of the first: it is there
    shown[2, :, 1:] = 0.0  # a quarter of the first: half there
    shown[3] = 0.0
    images = np.full((4, 1, 8, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    batch = make.hidden(images, masks, shown, rng)
    wanted = [[1, 1, 0], [1, 1, 0], [0.5, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(batch.seen, wanted)
    fills = np.where(np.random.default_rng(0).integers(0, 2, 4), 127, 0)
    assert {*fills} == {0, 127} and batch.images[3, 0, :, 0].tolist() == [fills[3]] * 8
    assert batch.images[2, 0, :, 0].tolist() == [200] + [fills[2]] * 7


def test_the_explainer_learns_from_whole_scenes():
    batch = make.whole(3, 2)
    drawn = scenes(make.EXPLAINER_SEED, 3, (2, 4), first=6)
    np.testing.assert_array_equal(batch["images"], drawn.image)
    np.testing.assert_array_equal(batch["targets"], drawn.labels > 0)
    assert batch["targets"].sum(1).min() >= 2


def test_what_is_bundled_is_by_the_recipe():
    facts = json.loads((demo_classes.ASSETS / make.FACTS).read_text())
    assert facts["recipe"] == json.loads(json.dumps(asdict(make.Recipe())))
    explainee = load_explainee(
        make.NETWORK, demo_classes.ASSETS / make.EXPLAINEE, link="sigmoid", **make.SIZES
    )
    explainer = load_explainer(explainee, checkpoint=demo_classes.ASSETS / make.EXPLAINER)
    assert explainer.edge_radius == make.Recipe().edge_radius


def test_continuous_iou_by_hand():
    masks = np.float32([[[0.5, 1.0, 0.0, 0.25]]])
    truth = np.array([[[1, 1, 0, 0]]], bool)
    assert make.continuous_iou(masks, truth).tolist() == pytest.approx([1.5 / 2.25])


def test_the_explainer_begins_as_the_classifier(tmp_path):
    path = demo_classes.ASSETS / make.EXPLAINEE
    explainee = load_explainee(make.NETWORK, path, link="sigmoid", **make.SIZES)
    make.make_explainer(tmp_path / make.EXPLAINER, explainee, make.Recipe(explainer_steps=0))
    start = load_explainer(explainee, checkpoint=tmp_path / make.EXPLAINER)
    images = as_input(jnp.asarray(scenes(3, 2, (2, 4)).image))
    raw = start.draw(start.trained, start.prefix(images))
    np.testing.assert_allclose(raw.mean((2, 3)), explainee(images), atol=1e-3)
