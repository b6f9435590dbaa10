"""Masks of their own in the engine: against a plain loop, and what their draws depend on."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltx_jax.engine.finetune import Finetuned, Task, finetune, step_keys
from ltx_jax.engine.recipe import Recipe, make_recipe
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.loading.explainers import load_mask
from ltx_jax.objectives import losses
from ltx_jax.settings.sections import Finetune, Objective

RECIPE = make_recipe(Finetune(steps=4, chunk=9), Objective(), seed=3)


def tasks(explainee, images, keys) -> list[Task]:
    logits = np.asarray(explainee(images))
    classes = logits.argmax(-1).astype(np.int32)[:, None]
    return [Task(k, images[i], classes[i], logits[i]) for i, k in enumerate(keys)]


def run(explainee, mask, images, recipe: Recipe = RECIPE, keys=None, slots=3, devices=1):
    given = tasks(explainee, images, keys or range(len(images)))
    with jax.transfer_guard("disallow"):
        done = list(finetune(explainee, mask, recipe, given, slots, slot_mesh(devices)))
    return sorted(done, key=lambda one: one.task.key)


def plain_loop(explainee, start, task: Task, recipe: Recipe = RECIPE) -> np.ndarray:
    """One image, one step at a time: its raw values after the last."""
    numbers, rate = recipe.numbers, float(recipe.numbers.learning_rates[0])

    @jax.jit
    def gradient(raw, step):
        keys = step_keys(numbers.seed, jnp.int32([task.key]), step[None])

        def total(raw):
            chance = numbers.goal.chance(keys)
            given = task.image[None], jax.nn.sigmoid(raw), task.classes[:1], raw, chance
            return losses(numbers.goal.weights, explainee, *given)[0][0]

        return jax.grad(total)(raw)

    raw, optimizer = jnp.asarray(start)[None], optax.adam(rate)
    state = optimizer.init(raw)
    for step in range(recipe.steps):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient(raw, jnp.int32(step)), state)
        raw = optax.apply_updates(raw, updates)
    return np.asarray(raw[0])


def raws(done: list[Finetuned]) -> np.ndarray:
    return np.stack([one.raw[0] for one in done])


@pytest.mark.slow
def test_slots_do_what_a_plain_loop_does(explainee, images):
    mask = load_mask(explainee)
    done = run(explainee, mask, images[:4])
    for one in done:
        start = mask.begin(explainee, one.task.image, jnp.int32(one.task.classes[0]))
        np.testing.assert_allclose(
            one.raw[0], plain_loop(explainee, start.leaves["raw"], one.task), atol=1e-3
        )
        np.testing.assert_allclose(one.masks[0], 1 / (1 + np.exp(-one.raw[0])), rtol=1e-5)
        assert one.steps == 4 and one.mask_steps.tolist() == [4]
        assert np.isfinite(one.loss).all() and np.isnan(one.agreement).all()


@pytest.fixture(scope="module")
def usual(explainee, images) -> np.ndarray:
    return raws(run(explainee, load_mask(explainee, "centre"), images))


@pytest.mark.slow
@pytest.mark.usefixtures("equal_programs")
def test_devices_change_nothing(explainee, images):
    mask = load_mask(explainee, "centre")
    one, two, four = (raws(run(explainee, mask, images, devices=d)) for d in (1, 2, 4))
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(four, one)


@pytest.mark.parametrize(("slots", "chunk"), [(1, 9), (7, 9), (4, 3), (4, None)])
def test_slots_and_chunk_change_nothing(explainee, images, usual, slots, chunk):
    recipe = RECIPE.with_chunk(chunk)
    found = raws(run(explainee, load_mask(explainee, "centre"), images, recipe, slots=slots))
    np.testing.assert_allclose(found, usual, atol=1e-3)


def test_what_is_drawn_depends_on_row_and_seed_alone(explainee, images, usual):
    mask, backwards = load_mask(explainee, "centre"), list(range(6, -1, -1))
    turned = raws(run(explainee, mask, images[::-1], keys=backwards))
    np.testing.assert_allclose(turned, usual, atol=1e-3)
    elsewhere = raws(run(explainee, mask, images[:2], keys=[7, 8]))
    assert np.abs(elsewhere - usual[:2]).max() > 0.01
    other = make_recipe(Finetune(steps=4, chunk=9), Objective(), seed=4)
    assert np.abs(raws(run(explainee, mask, images[:2], other)) - usual[:2]).max() > 0.01


def test_each_class_of_an_image_has_a_mask_of_its_own(explainee, images):
    given = tasks(explainee, images[[0, 0]], [0, 1])
    given[1] = given[1]._replace(classes=(given[0].classes + 1) % 5)
    done = list(finetune(explainee, load_mask(explainee), RECIPE, given, 2, slot_mesh(1)))
    first, second = (one.raw[0].ravel() for one in done)
    assert np.corrcoef(first, second)[0, 1] < 0.9


@pytest.mark.slow
def test_budgets_finetune_a_network_as_well(explainee, explainer, images):
    recipe = make_recipe(Finetune(steps=3, learning_rate=1e-3, chunk=9), Objective())
    (one,) = run(explainee, explainer, images[:1], recipe)
    assert one.loss.shape == (3,) and np.isfinite(one.raw).all()
    scored = replace(recipe.method, optimize="pos")
    (other,) = run(explainee, explainer, images[:1], recipe._replace(method=scored))
    assert other.raw is None and np.isfinite(other.agreement[0]).all()
    np.testing.assert_allclose(other.loss, one.loss[: other.steps], rtol=1e-4)
