"""The slot engine against a plain loop over single images, and its invariants."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import random_weights

from ltx_jax.engine.adamw import AdamW, kept, update
from ltx_jax.engine.finetune import Start, Task, _judge, advance, empty_slots, finetune
from ltx_jax.engine.recipe import SELECTED, Recipe, make_recipe
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.explainers.leaves import Moments
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics.perturbation import Areas, perturbation_areas
from ltx_jax.objectives import losses
from ltx_jax.settings.sections import LTX

RATES = (3e-3, 2e-3, 4e-3, 1e-3, 5e-3)


def recipe(rates=RATES, **options) -> Recipe:
    """Of these learning rates, never stopping early unless told to."""
    options = {"stop_below": -1.0, "stop_above": 101.0, "lazy_scoring": False} | options
    made = make_recipe(replace(LTX.finetune, **options), replace(LTX.objective, mask_weight=2.0))
    rates = jnp.asarray(rates, jnp.float32)
    return made._replace(numbers=made.numbers._replace(learning_rates=rates))


RECIPE = recipe()


def tasks(explainee, images):
    logits = np.asarray(explainee(images))
    classes = logits.argmax(-1).astype(np.int32)[:, None]
    return [Task(i, images[i], classes[i], logits[i]) for i in range(len(images))]


def run(explainee, explainer, images, recipe=RECIPE, slots=3, devices=1, **more):
    given = tasks(explainee, images)
    # Whatever goes to a device or comes from it, the engine says so.
    with jax.transfer_guard("disallow"):
        done = list(
            finetune(explainee, explainer, recipe, given, slots, slot_mesh(devices), **more)
        )
    return sorted(done, key=lambda one: one.task.key)


def plain_loop(explainee, explainer, task, recipe=RECIPE, state=None):
    """One image, one step at a time: (masks, losses, POS) of each step."""

    def total(trained, image, target):
        masks = explainer.masks(trained, image)
        return losses(recipe.numbers.goal.weights, explainee, image, masks, target)[0][0], masks

    def score(mask, image, target, logits):
        pixels, first = upsample(mask, image.shape[1:3]), recipe.method.optimize == "pos"
        given = (explainee, image, pixels, target[None], logits, first)
        return perturbation_areas(*given).agreement[0, 0]

    def update(trained, gradients, state, rate):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its counts with floats
            updates, state = optimizer.update(gradients, state, trained)
        return optax.apply_updates(trained, jax.tree.map(lambda u: rate * u, updates)), state

    # Three programs: as one they would take four times as long to compile.
    differentiate = jax.jit(jax.value_and_grad(total, has_aux=True))
    score, update = jax.jit(score), jax.jit(update)
    image, target, logits = task.image[None], task.classes[:1], task.logits[None]
    trained, seen = explainer.trained, []
    optimizer = optax.adamw(1.0, weight_decay=0.01)
    state = optimizer.init(trained) if state is None else state
    for rate in recipe.numbers.learning_rates:
        (value, mask), gradients = differentiate(trained, image, target)
        seen.append((mask[0], value, score(mask, image, target, logits)))
        trained, state = update(trained, gradients, state, rate)
    return tuple(np.stack(column) for column in zip(*seen, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("optimize", ["pos", "neg"])
def test_slots_do_what_a_plain_loop_does(explainee, explainer, images, optimize):
    chosen = recipe(optimize=optimize, chunk=18)
    for done in run(explainee, explainer, images[:4], chosen):
        masks, values, scores = plain_loop(explainee, explainer, done.task, chosen)
        np.testing.assert_allclose(done.loss, values, atol=2e-5)
        np.testing.assert_allclose(done.agreement[:, 0], scores)
        best = (np.argmin if optimize == "pos" else np.argmax)(scores)
        assert done.mask_steps.tolist() == [0, best, 4, np.argmin(values)]
        np.testing.assert_allclose(done.masks, masks[done.mask_steps], atol=1e-5)


@pytest.mark.slow
def test_convolutions_of_each_images_own(images, tmp_path):
    weights = random_weights(tmp_path / "cnn.safetensors", "cifar_resnet20", depth=8)
    pictures = np.random.default_rng(1).random((2, 32, 32, 3), np.float32)
    explainee = load_explainee("cifar_resnet20", weights, depth=8)
    explainer = load_explainer(explainee)
    for done in run(explainee, explainer, pictures, slots=2):
        masks, values, _ = plain_loop(explainee, explainer, done.task)
        np.testing.assert_allclose(done.loss, values, atol=1e-4)
        np.testing.assert_allclose(done.masks, masks[done.mask_steps], atol=1e-4)


def test_a_step_of_the_optimizer_is_exact_to_rounding():
    rng = np.random.default_rng(0)
    first, gradient = rng.normal(size=(2, 4, 5))
    second, rates = rng.random((4, 5)), np.array([1e-3, 2e-3, 3e-3, 4e-3])
    for count in (1, 2, 12, 1000):
        m, v = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        change = m / (1 - 0.9**count) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
        leaves = [{"a": jnp.asarray(x, jnp.float32)} for x in (gradient, first, second)]
        new, _ = update(
            AdamW("float32", "full"),
            {"a": jnp.zeros((4, 5))},
            leaves[0],
            Moments(*leaves[1:]),
            jnp.full(4, count),
            jnp.asarray(rates, jnp.float32),
            jnp.float32(0),
            {"a": 0},
        )
        np.testing.assert_allclose(new["a"], -rates[:, None] * change, rtol=1e-6)


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_the_number_of_devices_changes_nothing(explainee, explainer, images, devices):
    assert len(jax.local_devices()) == 8
    expected = run(explainee, explainer, images, slots=2)
    found = run(explainee, explainer, images, slots=2, devices=devices)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.mask_steps.tolist() == theirs.mask_steps.tolist()
        np.testing.assert_array_equal(ours.masks, theirs.masks)


@pytest.mark.slow
def test_both_orders_select_together(explainee, explainer, images):
    chosen = recipe(optimize="srg_probability", chunk=18, lazy_scoring=True)
    for one in finetune(
        explainee, explainer, chosen, tasks(explainee, images[:2]), 2, slot_mesh(1)
    ):
        assert one.steps == len(RATES)
        order = images[one.task.key][None], one.task.classes[None], one.task.logits[None]
        for place, step in enumerate(one.mask_steps):
            pixels = upsample(jnp.asarray(one.masks[place])[None], (16, 16))
            most, least = (
                perturbation_areas(explainee, order[0], pixels, *order[1:], first)
                for first in (True, False)
            )
            difference = least.probability - most.probability
            np.testing.assert_allclose(one.probability[step], difference[0], atol=1e-2)
        assert one.mask_steps[1] == np.argmax(one.probability[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("optimize", ["pos", "neg"])
def test_lazy_scoring_keeps_the_same_masks(explainee, explainer, images, optimize):
    limits = {"optimize": optimize, "stop_below": 20.0, "stop_above": 70.0}
    whole = run(explainee, explainer, images, recipe(**limits), slots=4)
    lazy = run(explainee, explainer, images, recipe(**limits, lazy_scoring=True), slots=4)
    left_out = 0
    for ours, theirs in zip(lazy, whole, strict=True):
        assert ours.mask_steps.tolist() == theirs.mask_steps.tolist()
        np.testing.assert_allclose(ours.masks, theirs.masks, atol=1e-5)
        known = ~np.isnan(ours.agreement)
        np.testing.assert_allclose(ours.agreement[known], theirs.agreement[known])
        np.testing.assert_allclose(ours.probability[known], theirs.probability[known], atol=1e-3)
        left_out += (~known).sum()
    assert left_out > 0


@pytest.mark.slow
@pytest.mark.parametrize("optimize", ["pos", "neg"])
def test_what_lazy_scoring_leaves_out_does_not_depend_on_the_slots_beside(
    explainee, explainer, images, optimize
):
    lazy = recipe(optimize=optimize, lazy_scoring=True)
    alone = run(explainee, explainer, images, lazy, slots=1)
    for slots in (3, 7):
        together = run(explainee, explainer, images, lazy, slots=slots)
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_array_equal(np.isnan(ours.agreement), np.isnan(theirs.agreement))


@pytest.mark.parametrize("slots", [1, 2, 7, 9])
def test_the_number_of_slots_changes_nothing(explainee, explainer, images, slots):
    expected = run(explainee, explainer, images, slots=3)
    for ours, theirs in zip(run(explainee, explainer, images, slots=slots), expected, strict=True):
        assert ours.mask_steps.tolist() == theirs.mask_steps.tolist()
        np.testing.assert_allclose(ours.masks, theirs.masks, atol=1e-5)


def test_the_order_of_images_changes_nothing(explainee, explainer, images):
    forwards = run(explainee, explainer, images)
    backwards = run(explainee, explainer, images[::-1].copy())[::-1]
    for ours, theirs in zip(forwards, backwards, strict=True):
        assert ours.mask_steps.tolist() == theirs.mask_steps.tolist()
        np.testing.assert_allclose(ours.masks, theirs.masks, atol=1e-5)


def test_an_image_stops_at_its_first_good_score(explainee, explainer, images):
    full = run(explainee, explainer, images)
    scores = np.stack([done.agreement[:, 0] for done in full])
    limit = float(np.median(scores)) + 0.01
    stopped = run(explainee, explainer, images, recipe(stop_below=limit))
    for short, long in zip(stopped, full, strict=True):
        below = np.flatnonzero(long.agreement[:, 0] < limit)
        assert short.steps == (below[0] + 1 if len(below) else len(RATES))
        np.testing.assert_allclose(short.loss, long.loss[: short.steps], atol=1e-5)
    assert {done.steps for done in stopped} != {len(RATES)}


def test_refilling_does_not_compile_again(explainee, explainer, images):
    run(explainee, explainer, images, slots=2)
    compiled = advance._cache_size()
    run(explainee, explainer, images, slots=2)
    assert advance._cache_size() == compiled


@pytest.mark.slow
def test_frozen_parts_stay(explainee, images):
    explainer = load_explainer(explainee, frozen_blocks=1, seed=3)
    assert all("/frozen_blocks/" not in path for path in explainer.trained)
    assert "params/backbone/frozen_blocks/fc1/kernel" in explainer.frozen
    whole = load_explainer(explainee, seed=3)
    first = run(explainee, explainer, images[:2])
    other = run(explainee, whole, images[:2])
    np.testing.assert_allclose(first[0].masks[0], other[0].masks[0], atol=1e-6)
    _, values, _ = plain_loop(explainee, explainer, first[0].task)
    np.testing.assert_allclose(first[0].loss, values, atol=2e-5)


def test_resumed_moments_are_adams(explainee, explainer, images):
    rng = np.random.default_rng(5)
    draw = {
        p: rng.normal(0, 1e-3, x.shape).astype(np.float32) for p, x in explainer.trained.items()
    }
    squares = {path: value**2 + 1e-6 for path, value in draw.items()}
    start = Start(Moments(draw, squares), jnp.int32(40))
    done = run(explainee, explainer, images[:1], start=start)[0]
    adam, *others = optax.adamw(1.0, weight_decay=0.01).init(explainer.trained)
    state = (adam._replace(count=jnp.int32(40), mu=draw, nu=squares), *others)
    _, values, _ = plain_loop(explainee, explainer, done.task, state=state)
    np.testing.assert_allclose(done.loss, values, atol=2e-5)


def test_a_mask_of_unknown_score_is_beaten_by_any_other(explainee, explainer):
    network, (method, numbers) = explainer.for_slots(), recipe(optimize="srg_probability")
    state = empty_slots(explainee, network, numbers, method, 1, 1, slot_mesh(1))
    state = state._replace(active=jnp.ones(1, bool))
    selected, mask, loss = SELECTED.index("selected"), state.masks[:, 0], state.loss[:, 0]
    kept = []
    for score in (jnp.nan, jnp.nan, 3.0, 2.0, jnp.nan):
        areas = Areas(jnp.full((1, 1), jnp.nan), jnp.full((1, 1), score))
        state = _judge(state, numbers, method, mask, loss, areas)
        kept.append(int(state.mask_steps[0, selected]))
    assert kept == [0, 0, 2, 2, 2]


@pytest.mark.slow
@pytest.mark.usefixtures("equal_programs")
def test_a_short_first_moment_changes_little_and_is_short(explainee, explainer, images):
    short = recipe(first_moment="bfloat16")
    network, (method, numbers) = explainer.for_slots(), short
    state = empty_slots(explainee, network, numbers, method, 2, 1, slot_mesh(1))
    assert {leaf.dtype for leaf in state.moments.first.values()} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in state.moments.second.values()} == {jnp.dtype("float32")}
    whole = run(explainee, explainer, images)
    for ours, theirs in zip(run(explainee, explainer, images, short), whole, strict=True):
        np.testing.assert_array_equal(ours.loss[:2], theirs.loss[:2])  # rounded from step 2 on
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained", "leaves"),
    [
        ("head", {"params/head/pooler", "params/head/mask"}),
        ("lora", {"params/head/pooler", "params/head/mask", "lora"}),
    ],
)
def test_a_part_is_trained_by_itself(explainee, images, trained, leaves):
    explainer = load_explainer(explainee, trained=trained, lora_rank=2, seed=3)
    kinds = {"lora" if "/lora_" in p else p.rpartition("/")[0] for p in explainer.trained}
    assert kinds == leaves
    done = run(explainee, explainer, images[:2])
    # Updates of low rank start from nothing.
    whole = run(explainee, load_explainer(explainee, seed=3), images[:2])
    for ours, theirs in zip(done, whole, strict=True):
        np.testing.assert_allclose(ours.masks[0], theirs.masks[0], atol=1e-6)
    masks, values, _ = plain_loop(explainee, explainer, done[0].task)
    np.testing.assert_allclose(done[0].loss, values, atol=2e-5)
    np.testing.assert_allclose(done[0].masks[2], masks[-1], atol=1e-5)
    assert np.abs(masks[-1] - masks[0]).max() > 1e-3


@pytest.mark.slow
def test_a_factored_second_moment_is_two_means(explainee, explainer, images):
    settings, whole = AdamW("float32", "factored"), AdamW("float32", "full")
    zeros = Moments({"a/kernel": jnp.zeros((1, 2, 3))}, {"a/kernel": jnp.zeros((1, 2, 3))})
    state = kept(settings, zeros)
    assert {p: x.shape for p, x in state.second.items()} == {
        "a/kernel/rows": (1, 2),
        "a/kernel/columns": (1, 3),
    }
    # A gradient whose square is a product of rows and columns loses nothing: as in full.
    gradient = {"a/kernel": jnp.array([[[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]])}
    weights = {"a/kernel": jnp.ones((1, 2, 3))}
    step = (jnp.array([1]), jnp.array([0.1]), jnp.float32(0.01), {"a/kernel": 0})
    ours, after = update(settings, weights, gradient, state, *step)
    full, _ = update(whole, weights, gradient, zeros, *step)
    np.testing.assert_allclose(ours["a/kernel"], full["a/kernel"], rtol=1e-6)
    np.testing.assert_allclose(after.second["a/kernel/rows"], [[0.014 / 3, 0.056 / 3]], rtol=1e-5)
    # Another loses its pattern: means of (1, 0; 0, 1) are the same everywhere.
    gradient = {"a/kernel": jnp.eye(2)[None]}
    state = kept(settings, Moments(gradient, {"a/kernel": jnp.zeros((1, 2, 2))}))
    _, after = update(settings, gradient, gradient, state, *step)
    np.testing.assert_allclose(after.second["a/kernel/rows"], [[5e-4, 5e-4]], rtol=1e-5)
    done = run(explainee, explainer, images[:2], recipe(second_moment="factored"))
    whole = run(explainee, explainer, images[:2])
    for ours, theirs in zip(done, whole, strict=True):
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=0.05)
        assert ours.loss[-1] != theirs.loss[-1]


def test_no_tasks_no_results(explainee, explainer):
    assert list(finetune(explainee, explainer, RECIPE, [], 4, slot_mesh(1))) == []
