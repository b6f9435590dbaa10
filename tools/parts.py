"""Where the time of an engine step goes, beside what the machine could do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from counting import operations

from ltx_jax import settings
from ltx_jax.engine import adamw
from ltx_jax.engine.finetune import FinetuneSettings, Start, advance, empty_slots, refill
from ltx_jax.engine.memory import bytes_free, bytes_needed
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.explainers.explainer import Leaves, slot_axes
from ltx_jax.explainers.masks import upsample
from ltx_jax.metrics.perturbation import perturbation_areas
from ltx_jax.objectives.ltx import losses

_REPEATS = 10


class Part(NamedTuple):
    """One part of a step of one device's slots: seconds, operations, and bytes that must move."""

    name: str
    seconds: float
    operations: int
    bytes: int


def measure(
    models: settings.Models, chosen: FinetuneSettings, start: Start, slots: int
) -> dict[str, Any]:
    """Time the parts of a step on one device, and the whole step; prints a table.

    Args:
      models, chosen, start: of the configuration.
      slots: side by side.

    Returns:
      Figures by name, for JSON.
    """
    matrix, copy = ceilings(models.explainee.architecture)
    parts, whole = step_parts(models, chosen, start, slots)
    at_best = sum(part.operations / matrix + part.bytes / copy for part in parts)
    mesh = slot_mesh(1)
    needed = [bytes_needed(*models, chosen, count, mesh) for count in (slots, 2 * slots)]
    each = (needed[1] - needed[0]) / slots
    largest = int((bytes_free(mesh) - needed[0]) / each) + slots
    print(f"{'part':34} {'ms an image-step':>16} {'share':>6} {'GFLOP':>7} {'GFLOP/s':>8}")
    total = sum(part.seconds for part in parts)
    for part in parts:
        rate = part.operations / part.seconds / 1e9
        print(
            f"{part.name:34} {1e3 * part.seconds / slots:16.3f} {part.seconds / total:6.0%} "
            f"{part.operations / slots / 1e9:7.2f} {rate:8.0f}"
        )
    print(
        f"the whole step {1e3 * whole / slots:.3f} ms; ceilings {matrix / 1e9:.0f} GFLOP/s in a "
        f"large matrix product, {copy / 1e9:.0f} GB/s in a large copy: at best "
        f"{1e3 * at_best / slots:.3f} ms, {at_best / whole:.0%} of it reached\n"
        f"memory: {needed[0] / 2**20:.0f} MiB for {slots} slots, {each / 2**20:.1f} MiB for each "
        f"more; about {largest} fit"
    )
    return {
        "slots": slots,
        "parts": [part._asdict() for part in parts],
        "step_seconds": whole,
        "seconds_at_best": at_best,
        "matrix_operations_per_second": matrix,
        "copy_bytes_per_second": copy,
        "bytes": needed[0],
        "bytes_a_slot": each,
        "largest_slots": largest,
    }


def ceilings(architecture: Any) -> tuple[float, float]:
    """Operations a second of a large matrix product in the compute type; bytes, of a large copy."""
    dtype = jnp.float32 if architecture is None else architecture.module.dtype
    n = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((n, n), dtype)
    vector = jnp.ones(64 * 2**20, jnp.float32)
    product = _seconds(lambda x: x @ x, matrix)
    copied = _seconds(lambda x: x + 1, vector)
    return 2 * n**3 / product, 2 * vector.nbytes / copied


def step_parts(
    models: settings.Models, chosen: FinetuneSettings, start: Start, slots: int
) -> tuple[list[Part], float]:
    """Each part by itself, and the seconds of the whole step."""
    explainee, explainer = models.explainee, models.explainer.for_slots()
    network, mesh = replace(explainer, trained={}), slot_mesh(1)
    images = np.random.default_rng(0).random((slots, *explainee.image_size, 3), np.float32)
    logits = np.asarray(jax.jit(explainee)(images))
    classes = logits.argmax(-1).astype(np.int32)[:, None]
    # Every step in full, as the parts and the count have it.
    chosen = replace(chosen, stop_below=-1.0, stop_above=101.0, lazy=False)
    start = start._replace(moments=adamw.kept(chosen.adamw, start.moments))
    state = empty_slots(explainee, explainer, chosen, slots, 1, mesh)
    for slot in range(slots):
        task = images[slot], classes[slot], logits[slot]
        state = refill(state, network, start, jnp.int32(slot), *task, mesh)
    axes = slot_axes(state.trained)
    parameters = sum(leaf.nbytes for leaf in state.trained.values())

    def draw(trained: Leaves, prefix: jax.Array) -> jax.Array:
        return jax.vmap(network.draw, in_axes=(axes, 0))(trained, prefix[:, None])[:, 0]

    def fit(masks: jax.Array) -> jax.Array:
        return losses(chosen.objective, explainee, images, masks, classes[:, 0]).total.sum()

    def score(masks: jax.Array) -> Any:
        pixels = upsample(masks, images.shape[1:3])
        most_relevant_first = chosen.optimize == "pos"
        return perturbation_areas(
            explainee, images, pixels, classes, logits, most_relevant_first, chosen.chunk
        )

    def update(trained: Leaves) -> Any:
        count, rate = jnp.ones(slots, jnp.int32), jnp.full(slots, 1e-3)
        moments = adamw.kept(chosen.adamw, adamw.Moments(trained, trained))
        return adamw.update(chosen.adamw, trained, trained, moments, count, rate, axes)

    trained = jax.tree.map(jnp.copy, state.trained)
    prefix = jnp.copy(state.prefix)
    masks = jax.jit(draw)(trained, prefix)
    explain = jax.grad(lambda trained, prefix: draw(trained, prefix).sum())
    work: list[tuple[str, Callable[..., Any], tuple[Any, ...], int]] = [
        ("explainer, forward and backward", explain, (trained, prefix), 3 * parameters),
        ("masked explainee and its gradient", jax.grad(fit), (masks,), 0),
        ("perturbation scores", score, (masks,), 0),
        ("optimizer", update, (trained,), 7 * parameters),  # reads 4, writes 3
    ]
    parts = [
        Part(name, _seconds(function, *given), operations(function, *given), size)
        for name, function, given, size in work
    ]
    seconds = []
    for _ in range(min(_REPEATS, chosen.steps)):
        began = time.perf_counter()
        state = advance(state, explainee, network, start.step, chosen, mesh)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
    return parts, float(np.median(seconds))


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """The median run of the compiled function."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))
