"""The LTX loss of a training step against the original's numbers, and the score of an epoch."""

from dataclasses import replace
from pathlib import Path

import check_reference
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from ltx_jax.engine.pretraining import ltx_loss, validation_score
from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.engine.training import create_train_state, data_mesh, train_step
from ltx_jax.errors import InputError
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics.perturbation import perturbation_areas
from ltx_jax.settings.sections import LTX

REFERENCE = Path(__file__).parents[1] / "reference"
KEY = jax.random.key(0)
PAPER = LTX.objective
WEIGHTS = PAPER.weights()


def stepped(explainee, explainer, images, targets, weights, mesh, steps=1):
    """The metrics of each step, and the state after the last."""
    recipe = Partial(optax.adamw, 1e-2, weight_decay=0.01)
    state = create_train_state(explainer.trained, {}, recipe, mesh)
    loss = Partial(
        ltx_loss, replicate(explainee, mesh), replicate(explainer.without_trained(), mesh), weights
    )
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
    weights = objective.weights()
    mesh = data_mesh(len(images))
    (metrics,), _ = stepped(explainee, explainer, images, targets, weights, mesh)
    prediction, mask = weights
    ours = [float(metrics[term]) for term in ("total", prediction, mask)]
    np.testing.assert_allclose(ours, outputs[f"loss/{name}"], rtol=1e-4)


def test_the_number_of_devices_makes_no_difference(explainee, explainer, images):
    targets = [-1, 2, -1, 0]
    (one,), state = stepped(explainee, explainer, images[:4], targets, WEIGHTS, slot_mesh(1))
    (four,), divided = stepped(explainee, explainer, images[:4], targets, WEIGHTS, slot_mesh(4))
    for term, value in one.items():
        np.testing.assert_allclose(four[term], value, rtol=1e-6, err_msg=term)
    # Not the parameters: Adam's first step goes by the signs of gradients that may be rounding.
    moments, same = state.optimizer_state[0].mu, divided.optimizer_state[0].mu
    for path, moment in moments.items():
        np.testing.assert_allclose(moment, same[path], atol=1e-6, err_msg=path)


def test_masks_that_mark_less_are_learnt(explainee, explainer, images):
    seen, _ = stepped(explainee, explainer, images[:4], [-1] * 4, WEIGHTS, slot_mesh(1), steps=10)
    assert seen[-1]["total"] < seen[0]["total"] - 5
    assert seen[-1]["mask_bce"] < seen[0]["mask_bce"] - 0.1


@pytest.mark.parametrize("devices", [1, 4])
def test_the_score_is_the_mean_over_the_images(explainee, explainer, images, devices):
    @jax.jit
    def agreement(explainee, explainer):
        logits = explainee(images)
        masks = upsample(explainer.masks(explainer.trained, images), images.shape[1:3])
        classes = logits.argmax(-1)[:, None].astype(jnp.int32)
        return perturbation_areas(explainee, images, masks, classes, logits, True).agreement

    mesh = slot_mesh(devices)
    given = replicate((explainee, explainer.without_trained(), explainer.trained), mesh)
    pos = validation_score(*given, [images[:4], images[4:]], 4, mesh, 9)
    assert pos == pytest.approx(float(agreement(explainee, explainer).mean()))


def test_without_images_there_is_no_score(explainee, explainer):
    with pytest.raises(InputError, match="held out for validation can be read"):
        validation_score(explainee, explainer, explainer.trained, [], 4, slot_mesh(1))
