"""The LTX loss of a training step against the original's numbers, and the scores of an epoch."""

from dataclasses import replace
from pathlib import Path

import check_reference
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from ltx_jax.engine.pretraining import ltx_loss, validate
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.engine.training import create_train_state, data_mesh, train_step
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics.perturbation import perturbation_areas
from ltx_jax.settings.sections import LTX, Objective

REFERENCE = Path(__file__).parents[1] / "reference"
KEY = jax.random.key(0)
PAPER = LTX.objective
GOAL = make_goal(PAPER)


def stepped(explainee, explainer, images, targets, goal, mesh, steps=1):
    """The metrics of each step, and the state after the last."""
    recipe = Partial(optax.adamw, 1e-2, weight_decay=0.01)
    state = create_train_state(explainer.trained, {}, recipe, mesh)
    loss = Partial(ltx_loss, *replicate((explainee, explainer.without_trained(), goal), mesh))
    batch = {"images": images, "targets": np.asarray(targets, np.int32)}
    seen = []
    for _ in range(steps):
        state, metrics = train_step(state, batch, KEY, loss, recipe, mesh)
        seen.append(metrics)
    return seen, state


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("predicted_bce", PAPER),
        ("target_bce", PAPER),
        ("predicted_l1", replace(PAPER, mask_weight=30.0, mask_loss="l1")),
        ("predicted_logits_only", replace(PAPER, logits_only=True)),
    ],
)
def test_the_first_steps_loss_is_the_originals(name, objective, tmp_path):
    _, explainee, explainer, images, outputs = check_reference.load(REFERENCE, "vit", tmp_path)
    targets = outputs["labels"] if name.startswith("target") else np.full(len(images), -1)
    mesh = data_mesh(len(images))
    (metrics,), _ = stepped(explainee, explainer, images, targets, make_goal(objective), mesh)
    prediction, mask = objective.weights()
    ours = [float(metrics[term]) for term in ("total", prediction, mask)]
    np.testing.assert_allclose(ours, outputs[f"loss/{name}"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [PAPER, Objective()])
def test_the_number_of_devices_makes_no_difference(explainee, explainer, images, objective):
    targets, goal = [-1, 2, -1, 0], make_goal(objective)
    (one,), state = stepped(explainee, explainer, images[:4], targets, goal, slot_mesh(1))
    (four,), divided = stepped(explainee, explainer, images[:4], targets, goal, slot_mesh(4))
    for term, value in one.items():
        # A budget is what is left of two cross-entropies, each about 1.6.
        np.testing.assert_allclose(four[term], value, rtol=1e-6, atol=2e-6, err_msg=term)
    # Not the parameters: Adam's first step goes by the signs of gradients that may be rounding.
    moments, same = state.optimizer_state[0].mu, divided.optimizer_state[0].mu
    for path, moment in moments.items():
        np.testing.assert_allclose(moment, same[path], atol=1e-6, err_msg=path)


def test_masks_that_mark_less_are_learnt(explainee, explainer, images):
    seen, _ = stepped(explainee, explainer, images[:4], [-1] * 4, GOAL, slot_mesh(1), steps=10)
    assert seen[-1]["total"] < seen[0]["total"] - 5
    assert seen[-1]["mask_bce"] < seen[0]["mask_bce"] - 0.1


@pytest.mark.slow
def test_an_order_is_learnt_with_budgets(explainee, explainer, images):
    goal = make_goal(Objective(mask_weight=0.0, terms={"budget": 1.0}, fills=("black", "mean")))
    batch = {"images": jnp.asarray(images[:4]), "targets": jnp.full(4, -1, jnp.int32)}

    @jax.jit
    def budget(trained):
        """Over the same eight budgets."""
        keys = jax.random.split(jax.random.key(5), 8)
        given = explainee, explainer, goal, trained, {}, batch
        return jax.vmap(lambda key: ltx_loss(*given, key)[0])(keys).mean()

    before = float(budget(explainer.trained))
    _, state = stepped(explainee, explainer, images[:4], [-1] * 4, goal, slot_mesh(1), steps=20)
    assert float(budget(state.params)) < before - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_masks_are_scored_for_the_predicted_class(explainee, explainer, images, devices):
    @jax.jit
    def areas(explainee, explainer):
        logits = explainee(images)
        masks = upsample(explainer.masks(explainer.trained, images), images.shape[1:3])
        classes = logits.argmax(-1)[:, None].astype(jnp.int32)
        found = (
            perturbation_areas(explainee, images, masks, classes, logits, first)
            for first in (True, False)
        )
        return *((area.agreement[:, 0], area.probability[:, 0]) for area in found), masks

    images = images[:4]
    mesh = slot_mesh(devices)
    given = replicate((explainee, explainer.without_trained(), explainer.trained), mesh)
    scores, masks = validate(*given, images, mesh, 9)
    (pos, deletion), (neg, insertion), pixels = areas(explainee, explainer)
    expected = {"pos": pos, "del": deletion, "neg": neg, "ins": insertion}
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(scores["area"], 100 * pixels.mean((1, 2)), rtol=1e-5)
    assert set(scores) == {*expected, "adp", "pic", "area"}
    np.testing.assert_allclose(upsample(masks, (16, 16)), pixels, atol=1e-6)


def test_bytes_are_as_good_as_numbers(explainee, explainer, images):
    whole = np.round(images[:4] * 255).astype(np.uint8)
    floats = whole.astype(np.float32) / 255
    found = [
        stepped(explainee, explainer, x, [-1] * 4, GOAL, slot_mesh(1)) for x in (whole, floats)
    ]
    (bytes_,), (numbers,) = (metrics for metrics, _ in found)
    np.testing.assert_allclose(bytes_["total"], numbers["total"], rtol=1e-6)
