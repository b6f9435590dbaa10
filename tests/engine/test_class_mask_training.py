"""Training of masks of every class: the loss is the objective's, whatever the devices."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_weights
from jax.tree_util import Partial

from ltx_jax.engine.class_masks import (
    OBJECTIVES,
    alternative,
    class_loss,
    labels_of,
    part_of,
    validate_classes,
)
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.engine.training import adamw, create_train_state, train_step
from ltx_jax.errors import InputError
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.masks.covering import covered
from ltx_jax.masks.tokens import upsample
from ltx_jax.objectives import class_masks
from ltx_jax.settings.sections import ClassMasks, Objective
from ltx_jax.tasks.pretrain_classes import class_goal

LABELS = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], bool)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def every(explainee):
    return load_explainer(explainee, classes=5, head_bias=1.0, seed=3)


def goal_of(explainee, name, **more):
    objective = Objective(fills=("black",), terms={"budget": 1.0})
    return class_goal(ClassMasks(objective=name, **more), make_goal(objective), explainee)


def stepped(explainee, explainer, goal, images, mesh, steps=1):
    given = replicate((explainee, explainer.without_trained(), goal), mesh)
    recipe = Partial(adamw, 3e-3)
    state = create_train_state(explainer.trained, explainer.statistics, recipe, mesh)
    batch = {"images": images, "targets": LABELS}
    seen = []
    for _ in range(steps):
        state, metrics = train_step(state, batch, KEY, Partial(class_loss, *given), recipe, mesh)
        seen.append({name: float(value) for name, value in metrics.items()})
    return seen


@pytest.mark.slow
def test_the_loss_is_that_of_masks_through_the_mean_colour(explainee, every, images):
    multi = replace(explainee, link="sigmoid")
    goal = goal_of(multi, "nn_explainer", entropy=3.0, least=0.1)
    (found,) = stepped(multi, every, goal, images[:4], slot_mesh(1))
    raw = upsample(every.draw(every.trained, every.prefix(images[:4])), (16, 16))
    target, _ = class_masks.merged(raw, jnp.asarray(LABELS))
    assert multi.architecture.preprocessing.mean == (0.5, 0.5, 0.5)
    grey = jnp.full_like(images[:4], 0.5)
    logits = [multi(covered(images[:4], m, grey)) for m in (target, 1 - target)]
    weights = class_masks.Weights(entropy=3.0, least=0.1)
    given = jnp.asarray(raw), jnp.asarray(LABELS)
    total, terms = class_masks.class_mask_loss(*given, *logits, weights)
    assert found["total"] == pytest.approx(float(total), rel=1e-5)
    for name, value in terms.items():
        assert found[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_devices_make_no_difference_and_it_is_learnt(explainee, every, images, name):
    multi = replace(explainee, link="sigmoid")
    goal = goal_of(multi, name)
    one = stepped(multi, every, goal, images[:4], slot_mesh(1), steps=6)
    (four,) = stepped(multi, every, goal, images[:4], slot_mesh(4))
    for term, value in four.items():
        assert value == pytest.approx(one[0][term], rel=1e-5, abs=1e-6), term
    if name in ("nn_explainer", "self_explainer"):  # the others draw anew in every step
        assert one[-1]["total"] < one[0]["total"]


def test_some_classes_are_drawn_of_those_that_are_there():
    labels = jnp.asarray(LABELS)
    drawn = np.stack([part_of(labels, jax.random.key(i)) for i in range(300)])
    assert not (drawn & ~LABELS).any()
    np.testing.assert_array_equal(drawn.any(-1), np.broadcast_to(LABELS.any(-1), (300, 4)))
    # Of two classes a part has both or either in a quarter each, none never: the luckier one then.
    np.testing.assert_allclose(drawn[:, 0].mean(0), [0.625, 0, 0, 0.625, 0], atol=0.08)


@pytest.mark.slow
def test_some_classes_through_the_mean_colour(explainee, every, images):
    multi = replace(explainee, link="sigmoid")
    (found,) = stepped(multi, every, goal_of(multi, "some_classes"), images[:4], slot_mesh(1))
    raw = upsample(every.draw(every.trained, every.prefix(images[:4])), (16, 16))
    grey = jnp.full_like(images[:4], 0.5)

    def loss(shown):
        target, _ = class_masks.merged(raw, shown)
        logits = [multi(covered(images[:4], m, grey)) for m in (target, 1 - target)]
        given = raw, jnp.asarray(LABELS), shown, *logits
        return float(class_masks.some_classes_loss(*given, class_masks.Weights())[0])

    # Three parts of the first image's classes, one of the second's, seven of the fourth's: the loss
    # is that of one of them.
    parts = [[1, 0], [0, 1], [1, 1]], [[i >> k & 1 for k in range(3)] for i in range(1, 8)]
    those = []
    for first in parts[0]:
        for last in parts[1]:
            shown = LABELS.copy()
            shown[0, [0, 3]], shown[3, :3] = first, last
            those.append(loss(jnp.asarray(shown)))
    assert min(abs(np.array(those) / found["total"] - 1)) < 1e-5


def test_where_one_class_is_the_answer_there_are_no_parts(explainee):
    with pytest.raises(InputError, match=r"set explainee\.link=sigmoid"):
        goal_of(explainee, "some_classes")


@pytest.mark.slow
def test_held_out_images_are_judged_alone(explainee, every, images):
    multi = replace(explainee, link="sigmoid")
    goal, mesh = goal_of(multi, "nn_explainer"), slot_mesh(2)
    found = validate_classes(multi, every, goal, images[:4], LABELS, mesh)
    seen = stepped(multi, every, goal, images[:4], slot_mesh(1))[0]
    assert {*found.losses} == {"loss", *seen} - {"total"}
    assert np.mean(found.losses["loss"]) == pytest.approx(seen["total"], rel=1e-5)
    assert found.masks.shape == (4, 4, 4) and not found.masks[2].any()
    alone = validate_classes(multi, every, goal, images[3:4], LABELS[3:4], slot_mesh(1))
    assert float(alone.losses["loss"][0]) == pytest.approx(float(found.losses["loss"][3]), rel=1e-5)


@pytest.mark.slow
def test_masks_that_follow_edges_are_judged_as_they_are(explainee, images, tmp_path):
    multi = replace(explainee, link="sigmoid")
    weights = random_weights(tmp_path / "w.safetensors", "cifar_resnet20", depth=8)
    how = {"classes": 5, "image_size": 16, "depth": 8, "seed": 3}
    plain = load_explainer(explainee, "cifar_resnet20", weights=weights, **how)
    following = replace(plain, edge_radius=2)
    goal = goal_of(multi, "nn_explainer")
    prefix = following.prefix(images[:4])
    raw = following.at_pixels(following.draw(following.trained, prefix), prefix)
    target, _ = class_masks.merged(raw, jnp.asarray(LABELS))
    grey = jnp.full_like(images[:4], 0.5)
    logits = [multi(covered(images[:4], m, grey)) for m in (target, 1 - target)]
    wanted, _ = class_masks.class_mask_loss(
        raw, jnp.asarray(LABELS), *logits, class_masks.Weights()
    )
    found = validate_classes(multi, following, goal, images[:4], LABELS, slot_mesh(1))
    assert np.mean(found.losses["loss"]) == pytest.approx(float(wanted), rel=1e-4)
    others = validate_classes(multi, plain, goal, images[:4], LABELS, slot_mesh(1))
    assert abs(np.mean(others.losses["loss"]) - float(wanted)) > 1e-3
    seen = stepped(multi, following, goal, images[:4], slot_mesh(1), steps=6)
    assert seen[-1]["total"] < seen[0]["total"]


def test_classes_that_the_explainee_predicts(explainee, images):
    numbers = jnp.full(7, -1, jnp.int32)
    logits = np.asarray(explainee(images))
    images = jnp.asarray(images)
    single = np.asarray(labels_of(explainee, images, numbers))
    np.testing.assert_array_equal(single.argmax(-1), logits.argmax(-1))
    assert (single.sum(1) == 1).all()
    several = np.asarray(labels_of(replace(explainee, link="sigmoid"), images, numbers))
    np.testing.assert_array_equal(several, (logits > 0) | single)
    np.testing.assert_array_equal(labels_of(explainee, images[:4], jnp.asarray(LABELS)), LABELS)


def test_real_time_saliency_covers_by_blur_or_one_colour():
    quarters = np.random.default_rng(0).random((64, 2, 2, 3), np.float32)
    images = jnp.asarray(quarters.repeat(8, 1).repeat(8, 2))
    other = np.asarray(alternative(images, jax.random.key(1)))
    # A blur follows its image, noise of one colour does not.
    follows = np.array(
        [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, other, strict=True)]
    )
    blurred = follows > 0.5
    assert 16 < blurred.sum() < 48
    means = other[~blurred].mean((1, 2))
    assert 0.1 < means.min() < 0.3 and 0.7 < means.max() < 0.9
    assert other.min() >= 0 and other.max() <= 1
