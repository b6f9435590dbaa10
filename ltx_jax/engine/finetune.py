"""The finetuning engine: thousands of one-image optimisations, some slots at a time.

Each *slot* holds one image with its own copy of the explainer, its own optimizer state and the
best masks so far. One jitted, donated function (`advance`) takes every slot a step further, each
device its share of them; the host harvests the slots that are finished and puts the next images in
their place, so that stopping early saves time instead of leaving lanes idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltx_jax.engine import adamw
from ltx_jax.engine.sharding import (
    AXIS,
    REPLICATED,
    SPLIT,
    local_index,
    on_each_device,
    replicate,
)
from ltx_jax.explainee import Explainee, in_chunks
from ltx_jax.explainers.explainer import Explainer, Leaves, slot_axes
from ltx_jax.explainers.masks import upsample
from ltx_jax.metrics.perturbation import Areas, contending_areas, perturbation_areas
from ltx_jax.objectives.ltx import LossTerms, Objective, losses

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

# The masks that are kept of each image: before finetuning, best by the perturbation score, of the
# last step, best by the loss.
MASKS = ("pltx", "selected", "last", "by_loss")
_PLTX, _SELECTED, _LAST, _BY_LOSS = range(len(MASKS))


@dataclass(frozen=True)
class FinetuneSettings:
    """How one image is finetuned (the method's second stage).

    Attributes:
      objective: what makes a mask good.
      learning_rates: of each step's update, as long as there are steps (masks).
      optimize: `pos` (lower is better) or `neg` (higher is better): the perturbation score that
        selects the mask and stops early.
      stop_below, stop_above: an image stops once its POS is below, or its NEG above.
      adamw: hyper-parameters of the optimizer.
      chunk: most images in one forward of the explainee; None for no limit.
      lazy: stop scoring a mask once it cannot be selected any more. No mask that is kept changes;
        the trace has no score where scoring was stopped.
    """

    objective: Objective
    learning_rates: tuple[float, ...]
    optimize: str = "pos"
    stop_below: float = 6.0
    stop_above: float = 89.0
    adamw: adamw.AdamW = field(default_factory=adamw.AdamW)
    chunk: int | None = None
    lazy: bool = False

    @property
    def steps(self) -> int:
        """Most masks an image gets."""
        return len(self.learning_rates)


class Start(NamedTuple):
    """Where every image starts: the explainer's leaves and the optimizer's state."""

    trained: Leaves
    moments: adamw.Moments
    step: Int[Array, ""]


class Task(NamedTuple):
    """One explanation to make.

    `key` is the caller's; `image` [H,W,3] float32 in [0,1]; `classes` [k], the first of which is
    explained (the others are scored as well); `logits` [classes] of the unmasked image.
    """

    key: int
    image: np.ndarray
    classes: np.ndarray
    logits: np.ndarray


class Finetuned(NamedTuple):
    """What became of a task of `steps` masks.

    `masks` [4,g,h] and the steps they are from, `mask_steps` [4], are in the order of `MASKS`;
    `loss` [steps] is the total loss; `agreement` and `probability` [steps,k] are the areas of the
    chosen perturbation order for each class, NaN where lazy scoring stopped.
    """

    task: Task
    steps: int
    masks: np.ndarray
    mask_steps: np.ndarray
    loss: np.ndarray
    agreement: np.ndarray
    probability: np.ndarray


@struct.dataclass
class Slots:
    """The state of S slots; the leading axis is S except in `trained` and `moments`."""

    trained: Leaves
    moments: adamw.Moments
    images: Float[Array, "S H W 3"]
    prefix: Float[Array, "S ..."]  # what the explainer's frozen beginning makes of them
    classes: Int[Array, "S k"]
    logits: Float[Array, "S classes"]
    steps: Int[Array, " S"]  # masks so far
    active: Bool[Array, " S"]
    masks: Float[Array, "S 4 g h"]
    mask_steps: Int[Array, "S 4"]
    loss: Float[Array, "S steps"]
    agreement: Float[Array, "S steps k"]
    probability: Float[Array, "S steps k"]


def start_fresh(explainer: Explainer) -> Start:
    """Start from an explainer with new optimizer state."""
    zeros = jax.tree.map(jnp.zeros_like, explainer.trained)
    return Start(explainer.trained, adamw.Moments(zeros, zeros), jnp.int32(0))


def finetune(
    explainee: Explainee,
    explainer: Explainer,
    settings: FinetuneSettings,
    tasks: Iterable[Task],
    slots: int,
    mesh: Mesh,
    start: Start | None = None,
) -> Iterator[Finetuned]:
    """Finetune the explainer on each task by itself; yields them as they finish.

    What comes out for a task depends neither on the number of devices nor on the other tasks; the
    number of slots can change its last digits.

    Args:
      explainee: the frozen classifier.
      explainer: the pretrained explainer each image starts from.
      settings: see `FinetuneSettings`.
      tasks: drawn as slots become free.
      slots: images worked on side by side on each device.
      mesh: the devices.
      start: optimizer state to start from; fresh by default.
    """
    explainer = explainer.for_slots()
    start = start or start_fresh(explainer)
    start = start._replace(moments=adamw.kept(settings.adamw, start.moments))
    network, explainee, start = replicate((explainer.without_trained(), explainee, start), mesh)
    # One slot of each device after another, so that few tasks are spread over all devices.
    order = np.arange(slots * mesh.size).reshape(mesh.size, slots).T.ravel().tolist()
    waiting = iter(tasks)
    running: dict[int, Task] = {}
    finished: list[Finetuned] = []
    state: Slots | None = None
    while True:
        for slot in order:
            if slot not in running and (task := next(waiting, None)) is not None:
                if state is None:
                    k = len(task.classes)
                    state = empty_slots(explainee, explainer, settings, slots, k, mesh)
                given = task.image, task.classes, task.logits
                state = refill(state, network, start, slot, *given, mesh)
                running[slot] = task
        if state is not None and running:
            state = advance(state, explainee, network, start.step, settings, mesh)
        # What the caller does with the results goes on while the devices work.
        yield from finished
        if state is None or not running:
            return
        finished = _harvest(state, running)


@partial(jax.jit, static_argnames=("settings", "slots", "k", "mesh"))
def empty_slots(
    explainee: Explainee,
    explainer: Explainer,
    settings: FinetuneSettings,
    slots: int,
    k: int,
    mesh: Mesh,
) -> Slots:
    """The state of `slots` slots on each device with nothing in them, for k classes each."""
    slots *= mesh.size

    def zeros(leaves: Leaves) -> Leaves:
        axes = slot_axes(leaves)
        return {
            path: jnp.zeros((*x.shape[: axes[path]], slots, *x.shape[axes[path] :]), x.dtype)
            for path, x in leaves.items()
        }

    steps, grid = settings.steps, explainer.grid()
    moments = adamw.kept(settings.adamw, start_fresh(explainer).moments)
    image = jax.ShapeDtypeStruct((1, *explainee.image_size, 3), jnp.float32)
    prefix = jax.eval_shape(explainer.prefix, image)
    state = Slots(
        trained=zeros(explainer.trained),
        moments=adamw.Moments(*map(zeros, moments)),
        images=jnp.zeros((slots, *explainee.image_size, 3)),
        prefix=jnp.zeros((slots, *prefix.shape[1:]), prefix.dtype),
        classes=jnp.zeros((slots, k), jnp.int32),
        logits=jnp.zeros((slots, explainee.num_classes)),
        steps=jnp.zeros(slots, jnp.int32),
        active=jnp.zeros(slots, bool),
        masks=jnp.zeros((slots, len(MASKS), *grid)),
        mask_steps=jnp.zeros((slots, len(MASKS)), jnp.int32),
        loss=jnp.zeros((slots, steps)),
        agreement=jnp.zeros((slots, steps, k)),
        probability=jnp.zeros((slots, steps, k)),
    )
    placed = jax.tree.map(partial(NamedSharding, mesh), slot_specs(state))
    return jax.lax.with_sharding_constraint(state, placed)


def slot_specs(state: Slots) -> Slots:
    """Where each leaf is divided over the devices: a partition spec in the place of each."""

    def specs(leaves: Leaves) -> Any:
        axes = slot_axes(leaves).items()
        return {path: PartitionSpec(*[None] * axis, AXIS) for path, axis in axes}

    others = jax.tree.map(lambda _: SPLIT, state)
    moments = adamw.Moments(*map(specs, state.moments))
    return replace(others, trained=specs(state.trained), moments=moments)


@partial(jax.jit, donate_argnames="state", static_argnames=("settings", "mesh"))
def advance(
    state: Slots,
    explainee: Explainee,
    explainer: Explainer,
    first_count: Int[Array, ""],
    settings: FinetuneSettings,
    mesh: Mesh,
) -> Slots:
    """Draw, score and judge one mask in every slot, then update its explainer.

    Slots without work are carried along; their explainers go on changing, which nobody reads.

    Args:
      state: the slots; donated.
      explainee: the classifier.
      explainer: gives the network and its frozen leaves; its trained leaves are not used.
      first_count: optimizer steps taken before an image's first.
      settings, mesh: static.
    """
    specs = slot_specs(state)
    step = on_each_device(
        partial(_advance, settings=settings),
        mesh,
        in_specs=(specs, REPLICATED, REPLICATED, REPLICATED),
        out_specs=specs,
    )
    return step(state, explainee, explainer, first_count)


def _advance(
    state: Slots,
    explainee: Explainee,
    explainer: Explainer,
    first_count: Int[Array, ""],
    settings: FinetuneSettings,
) -> Slots:
    axes = slot_axes(state.trained)
    draw = jax.vmap(explainer.draw, in_axes=(axes, 0))

    def total_loss(trained: Leaves) -> tuple[Array, tuple[Array, LossTerms]]:
        masks = draw(trained, state.prefix[:, None])[:, 0]
        terms = in_chunks(
            lambda item: losses(settings.objective, explainee, *item),
            (state.images, masks, state.classes[:, 0]),
            settings.chunk,
        )
        return terms.total.sum(), (masks, terms)

    # Slots share no parameter, so the gradient of the summed loss is each slot's own.
    gradients, (masks, terms) = jax.grad(total_loss, has_aux=True)(state.trained)
    state = _judge(state, settings, masks, terms.total, _areas(state, explainee, masks, settings))
    trained, moments = adamw.update(
        settings.adamw,
        state.trained,
        gradients,
        state.moments,
        first_count + jnp.maximum(state.steps, 1),
        jnp.asarray(settings.learning_rates)[state.steps - 1],
        axes,
    )
    return replace(state, trained=trained, moments=moments)


def _areas(
    state: Slots, explainee: Explainee, masks: Float[Array, "S g h"], settings: FinetuneSettings
) -> Areas:
    """The perturbation scores that select; NaN for a mask found not to be selected."""
    most_relevant_first = settings.optimize == "pos"
    pixels = upsample(masks, state.images.shape[1:3])
    setting = (explainee, state.images, pixels, state.classes, state.logits, most_relevant_first)
    if not settings.lazy:
        return perturbation_areas(*setting, chunk=settings.chunk)
    worst, perfect = (jnp.inf, -jnp.inf) if most_relevant_first else (-jnp.inf, jnp.inf)
    to_beat = jnp.where(state.steps == 0, worst, _selected_score(state))
    return contending_areas(*setting, jnp.where(state.active, to_beat, perfect), settings.chunk)


def _selected_score(state: Slots) -> Float[Array, " S"]:
    rows = jnp.arange(len(state.steps))
    return state.agreement[rows, state.mask_steps[:, _SELECTED], 0]


def _judge(
    state: Slots,
    settings: FinetuneSettings,
    masks: Float[Array, "S g h"],
    loss: Float[Array, " S"],
    areas: Areas,
) -> Slots:
    """Record the step, keep the masks that are best so far, and see who is finished.

    A score that is NaN is neither better nor good enough to stop.
    """
    now = state.steps
    rows = jnp.arange(now.shape[0])

    def record(trace: Array, value: Array) -> Array:
        keep = state.active.reshape(-1, *[1] * (value.ndim - 1))
        return trace.at[rows, now].set(jnp.where(keep, value, trace[rows, now]))

    sign = 1.0 if settings.optimize == "pos" else -1.0
    score = sign * areas.agreement[:, 0]
    best_score = sign * _selected_score(state)
    best_loss = state.loss[rows, state.mask_steps[:, _BY_LOSS]]
    first = now == 0
    better = jnp.stack(
        [first, first | (score < best_score), jnp.ones_like(first), first | (loss < best_loss)], 1
    )
    better &= state.active[:, None]
    limit = settings.stop_below if settings.optimize == "pos" else -settings.stop_above
    steps = jnp.where(state.active, now + 1, now)
    return replace(
        state,
        masks=jnp.where(better[..., None, None], masks[:, None], state.masks),
        mask_steps=jnp.where(better, now[:, None], state.mask_steps),
        loss=record(state.loss, loss),
        agreement=record(state.agreement, areas.agreement),
        probability=record(state.probability, areas.probability),
        steps=steps,
        active=state.active & ~(score < limit) & (steps < settings.steps),
    )


@partial(jax.jit, donate_argnames="state", static_argnames="mesh")
def refill(
    state: Slots,
    explainer: Explainer,
    start: Start,
    slot: Int[Array, ""],
    image: Float[Array, "H W 3"],
    classes: Int[Array, " k"],
    logits: Float[Array, " classes"],
    mesh: Mesh,
) -> Slots:
    """Put a task into a slot, in place: the cost is one slot's, whatever their number."""
    specs = slot_specs(state)
    put = on_each_device(_refill, mesh, in_specs=(specs, *[REPLICATED] * 6), out_specs=specs)
    return put(state, explainer, start, slot, image, classes, logits)


def _refill(
    state: Slots,
    explainer: Explainer,
    start: Start,
    slot: Array,
    image: Array,
    classes: Array,
    logits: Array,
) -> Slots:
    mine, slot = local_index(slot, len(state.steps))

    def put(state: Slots) -> Slots:
        return replace(
            state,
            trained=_put(state.trained, start.trained, slot),
            moments=adamw.Moments(
                _put(state.moments.first, start.moments.first, slot),
                _put(state.moments.second, start.moments.second, slot),
            ),
            images=state.images.at[slot].set(image),
            prefix=state.prefix.at[slot].set(explainer.prefix(image[None])[0]),
            classes=state.classes.at[slot].set(classes),
            logits=state.logits.at[slot].set(logits),
            steps=state.steps.at[slot].set(0),
            active=state.active.at[slot].set(True),
            mask_steps=state.mask_steps.at[slot].set(0),
        )

    return jax.lax.cond(mine, put, lambda state: state, state)


def _put(leaves: Leaves, values: Leaves, slot: Array) -> Leaves:
    axes = slot_axes(leaves)
    return {
        path: jax.lax.dynamic_update_index_in_dim(leaf, values[path], slot, axes[path])
        for path, leaf in leaves.items()
    }


def _harvest(state: Slots, running: dict[int, Task]) -> list[Finetuned]:
    """Take what is finished out of `running`; waits for the devices."""
    active = np.asarray(state.active)
    ready = [slot for slot in running if not active[slot]]
    if not ready:
        return []
    steps, masks, mask_steps, *traces = jax.device_get(
        (
            state.steps,
            state.masks,
            state.mask_steps,
            state.loss,
            state.agreement,
            state.probability,
        )
    )
    return [
        Finetuned(
            running.pop(slot),
            int(steps[slot]),
            masks[slot],
            mask_steps[slot],
            *(trace[slot, : steps[slot]].copy() for trace in traces),
        )
        for slot in ready
    ]
