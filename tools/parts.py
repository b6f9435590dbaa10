"""Where the time of an engine step goes, beside what the machine could do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from counting import operations

from ltx_jax.engine import adamw
from ltx_jax.engine.finetune import (
    Slots,
    Start,
    Task,
    advance,
    empty_slots,
    finetune,
    refill,
    start_fresh,
)
from ltx_jax.engine.memory import bytes_free, bytes_needed
from ltx_jax.engine.recipe import Recipe
from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves, Moments
from ltx_jax.loading.explainers import completed
from ltx_jax.masks.tokens import activate, upsample
from ltx_jax.metrics.perturbation import perturbation_areas
from ltx_jax.models.explainee import Explainee, in_chunks
from ltx_jax.models.layers import precision
from ltx_jax.models.registry import architecture
from ltx_jax.objectives import losses
from ltx_jax.settings.sections import Settings

_REPEATS = 10


class Models(NamedTuple):
    """The two networks of a run."""

    explainee: Explainee
    explainer: Explainer


class Part(NamedTuple):
    """One part of a step of one device's slots: seconds, operations, and bytes that must move."""

    name: str
    seconds: float
    operations: int
    bytes: int


def measure(models: Models, recipe: Recipe, start: Start | None, slots: int) -> dict[str, Any]:
    """Time the parts of a step on one device, and the whole step; prints a table.

    Args:
      models, recipe, start: of the configuration.
      slots: side by side.

    Returns:
      Figures by name, for JSON.

    Raises:
      InputError: where the slots do not fit once every mask is scored in full.
    """
    matrix, copy = ceilings(models.explainee.architecture)
    # Every step in full, as the parts and the count have it.
    recipe = without_stopping(recipe)
    recipe = recipe._replace(method=replace(recipe.method, lazy=False))
    start = start or start_fresh(models.explainer.trained)
    needed, twice = (
        bytes_needed(*models, recipe, count, slot_mesh(1)) for count in (slots, 2 * slots)
    )
    if needed is None:
        raise InputError(f"{slots} slots in full steps do not fit: set config.finetune.slots lower")
    tasks = one_task_a_slot(models, slots)
    parts = time_parts(models, recipe, start, tasks)
    whole, loop = time_whole(models, recipe, start, tasks)
    # Where twice as many cannot be planned: with its share of what does not grow with the slots.
    each = needed / slots if twice is None else (twice - needed) / slots
    figures = {
        "slots": slots,
        "parts": [part._asdict() for part in parts],
        "step_seconds": whole,
        "loop_seconds": loop,
        "seconds_at_best": sum(part.operations / matrix + part.bytes / copy for part in parts),
        "matrix_operations_per_second": matrix,
        "copy_bytes_per_second": copy,
        "bytes": needed,
        "bytes_a_slot": each,
        "largest_slots": slots + int((bytes_free(slot_mesh(1)) - needed) / each),
    }
    show(figures)
    return figures


def priced(settings: Settings) -> dict[str, Any]:
    """The settings that decide what an image-step costs, in JSON's types."""
    explainer, finetune = settings.explainer, settings.finetune
    if explainer.trained != "mask":
        explainee = architecture(settings.explainee.name, **settings.explainee.sizes)
        explainer = completed(explainer, explainee.size)
    told = {
        "explainee": settings.explainee.name,
        "explainee sizes": settings.explainee.sizes,
        "explainer": explainer.name,
        "explainer sizes": explainer.sizes,
        "trained": [explainer.trained, explainer.frozen_blocks, explainer.lora_rank],
        "moments": [finetune.first_moment, finetune.second_moment],
        "lazy_scoring": finetune.lazy_scoring,
        "compute_dtype": settings.compute_dtype,
        "attention": settings.attention,
    }
    return dict(json.loads(json.dumps(told)))


def without_stopping(recipe: Recipe) -> Recipe:
    """The recipe with a limit that no score reaches."""
    limit = jnp.float32(-recipe.method.sign * jnp.inf)
    return recipe._replace(numbers=recipe.numbers._replace(stop_at=limit))


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    slots, keys = figures["slots"], ("step_seconds", "loop_seconds", "seconds_at_best")
    whole, loop, at_best = (1e3 * figures[key] / slots for key in keys)
    total = sum(part["seconds"] for part in figures["parts"])
    print("every mask scored in full:")
    print(f"{'part':34} {'ms an image-step':>16} {'share':>6} {'GFLOP':>7} {'GFLOP/s':>8}")
    for part in figures["parts"]:
        seconds, giga = part["seconds"], part["operations"] / 1e9
        print(
            f"{part['name']:34} {1e3 * seconds / slots:16.3f} {seconds / total:6.0%} "
            f"{giga / slots:7.3g} {giga / seconds:8.0f}"
        )
    print(
        f"the whole step {whole:.3f} ms; the engine's loop (dispatch, refill, harvest) "
        f"{loop:.3f} ms more\n"
        f"ceilings: {figures['matrix_operations_per_second'] / 1e9:.0f} GFLOP/s in a large matrix "
        f"product, {figures['copy_bytes_per_second'] / 1e9:.0f} GB/s in a large copy: at best "
        f"{at_best:.3f} ms, {at_best / whole:.0%} of it reached\n"
        f"memory: {figures['bytes'] / 2**20:.0f} MiB for {slots} slots, "
        f"{figures['bytes_a_slot'] / 2**20:.1f} MiB for each more; about "
        f"{figures['largest_slots']} fit"
    )


def ceilings(architecture: Any) -> tuple[float, float]:
    """Operations a second of a large matrix product in the compute type; bytes, of a large copy."""
    dtype = jnp.float32 if architecture is None else architecture.module.dtype
    # So large that starting a program takes no time beside them.
    n, length = (2048, 2**26) if jax.default_backend() == "cpu" else (8192, 2**30)
    matrix = jax.random.normal(jax.random.key(0), (n, n), dtype)
    vector = jnp.ones(length, jnp.float32)
    with precision(dtype):
        product = seconds_of(lambda x: x @ x, matrix)
    copied = seconds_of(lambda x: x + 1, vector, again=True)
    return 2 * n**3 / product, 2 * 4 * length / copied


def one_task_a_slot(models: Models, slots: int) -> list[Task]:
    """Random images with the predicted class."""
    explainee = models.explainee
    images = np.random.default_rng(0).random((slots, *explainee.image_shape), np.float32)
    logits = np.asarray(jax.jit(lambda explainee, images: explainee(images))(explainee, images))
    classes = np.repeat(logits.argmax(-1).astype(np.int32)[:, None], 2, axis=1)
    return [Task(slot, images[slot], classes[slot], logits[slot]) for slot in range(slots)]


def time_parts(models: Models, recipe: Recipe, start: Start, tasks: Sequence[Task]) -> list[Part]:
    """Each part of a step of these slots by itself."""
    method, numbers = recipe
    state = filled(models, recipe, start, tasks)
    # Weights and images are arguments, as in the engine: compiled in, they would be constants.
    network = models.explainer.for_slots().without_trained()
    given = models.explainee, state, numbers
    axes = {path: network.slot_axis(path) for path in state.trained}
    parameters = sum(leaf.nbytes for leaf in state.trained.values())
    moments = sum(leaf.nbytes for leaf in jax.tree.leaves(state.moments))

    def draw(trained: Leaves, network: Explainer, prefix: jax.Array) -> jax.Array:
        raw = jax.vmap(network.draw, in_axes=(axes, 0))(trained, prefix[:, None])
        return activate(raw[:, 0, 0], network.activation)

    def fit(masks: jax.Array, explainee: Explainee, state: Slots, numbers: Any) -> jax.Array:
        keys = jax.random.split(jax.random.key(0), len(masks))
        goal = numbers.goal

        def loss(item: Any) -> jax.Array:
            images, masks, targets, keys = item
            # The masks stand for the raw values as well: it takes as long.
            given = images, masks, targets, masks, goal.chance(keys)
            return losses(goal.weights, explainee, *given)[0]

        return in_chunks(loss, (state.images, masks, state.classes[:, 0], keys), method.chunk).sum()

    def score(masks: jax.Array, explainee: Explainee, state: Slots, numbers: Any) -> Any:
        pixels = upsample(masks, state.images.shape[1:3])
        given = explainee, state.images, pixels, state.classes, state.logits
        return [perturbation_areas(*given, order, method.chunk) for order in method.orders]

    def update(trained: Leaves, moments: Moments) -> Any:
        count, rate = jnp.ones(len(tasks), jnp.int32), jnp.full(len(tasks), 1e-3)
        decay = jnp.float32(0.01)
        return adamw.update(method.adamw, trained, trained, moments, count, rate, decay, axes)

    drawing = state.trained, network, state.prefix
    masks = jax.jit(draw)(*drawing)
    explain = jax.grad(lambda *drawing: draw(*drawing).sum())
    work: list[tuple[str, Callable[..., Any], tuple[Any, ...], int]] = [
        # Weights read forward and backward, the gradient written.
        ("explainer, forward and backward", explain, drawing, 3 * parameters),
        ("masked explainee and its gradient", jax.grad(fit), (masks, *given), 0),
    ]
    if method.optimize is not None:
        work.append(("perturbation scores", score, (masks, *given), 0))
    parts = [
        Part(name, seconds_of(function, *arguments), operations(function, *arguments), size)
        for name, function, arguments, size in work
    ]
    # In place, as in the engine, so at the end. Reads weights, gradient and moments, and writes all
    # but the gradient.
    seconds = seconds_of(update, state.trained, state.moments, again=True)
    return [*parts, Part("optimizer", seconds, 0, 3 * parameters + 2 * moments)]


def time_whole(
    models: Models, recipe: Recipe, start: Start, tasks: Sequence[Task]
) -> tuple[float, float]:
    """Seconds of a whole step of these slots, and what the engine's loop adds to it."""
    state, mesh = filled(models, recipe, start, tasks), slot_mesh(1)
    network, (method, numbers) = models.explainer.for_slots().without_trained(), recipe
    steps = []
    for _ in range(1 + recipe.steps):
        began = time.perf_counter()
        state = advance(state, models.explainee, network, start.step, numbers, method, mesh)
        jax.block_until_ready(state)
        steps.append(time.perf_counter() - began)
    step = float(np.median(steps[1:]))  # the first may compile
    del state  # the engine makes its own, as large
    list(finetune(*models, recipe, tasks, len(tasks), mesh, start))  # as this may
    began = time.perf_counter()
    list(finetune(*models, recipe, tasks, len(tasks), mesh, start))
    added = time.perf_counter() - began - recipe.steps * step
    return step, added / recipe.steps


def filled(models: Models, recipe: Recipe, start: Start, tasks: Sequence[Task]) -> Slots:
    """Slots on one device, each with its task."""
    network, mesh = models.explainer.for_slots(), slot_mesh(1)
    method, numbers = recipe
    start = start._replace(moments=adamw.kept(method.adamw, start.moments))
    state = empty_slots(models.explainee, network, numbers, method, len(tasks), 2, mesh)
    for slot, task in enumerate(tasks):
        asked = jnp.int32(slot), jnp.int32(task.key), task.image, task.classes, task.logits
        state = refill(
            state, models.explainee, models.explainer, start, *replicate(asked, mesh), mesh
        )
    return state


def seconds_of(function: Callable[..., Any], *arguments: Any, again: bool = False) -> float:
    """The median run of the compiled function; where `again`, on what it made of its arguments, in
    their place."""
    compiled = jax.jit(function, donate_argnums=tuple(range(len(arguments))) if again else ())
    seconds = []
    for _ in range(1 + _REPEATS):
        began = time.perf_counter()
        made = jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - began)
        if again:
            arguments = made if isinstance(made, tuple) else (made,)
    return float(np.median(seconds[1:]))  # the first compiles
