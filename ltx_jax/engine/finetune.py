"""The finetuning engine: thousands of one-image optimisations, some slots at a time.

Each *slot* holds one image with its own copy of the explainer, its own optimizer state and the
best masks so far. One jitted, donated function (`advance`) takes every slot a step further, each
device its share of them; the host harvests the slots that are finished and puts the next images in
their place, so that stopping early saves time instead of leaving lanes idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int

from ltx_jax.engine import adamw
from ltx_jax.engine.recipe import Method, Numbers, Recipe
from ltx_jax.engine.sharding import (
    AXIS,
    REPLICATED,
    SPLIT,
    local_index,
    on_each_device,
    replicate,
)
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.explainers.leaves import Leaves, Moments
from ltx_jax.masks.tokens import activate, upsample
from ltx_jax.metrics.perturbation import Areas, contending_areas, perturbation_areas
from ltx_jax.models.explainee import Explainee, in_chunks
from ltx_jax.objectives import losses

# The masks that are kept of each image: before finetuning, best by the perturbation score, of the
# last step, best by the loss.
MASKS = ("pltx", "selected", "last", "by_loss")
_SELECTED, _BY_LOSS = MASKS.index("selected"), MASKS.index("by_loss")


class Start(NamedTuple):
    """The optimizer's state that every image starts with."""

    moments: Moments
    step: Int[Array | np.integer, ""]


class Task(NamedTuple):
    """One explanation to make.

    `key` is the caller's; `image` [H,W,C] float32 in [0,1]; `classes` [k], the first of which is
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


class Slots(NamedTuple):
    """The state of S slots; the leading axis is S except in `trained` and `moments`."""

    trained: Leaves
    moments: Moments
    images: Float[Array, "S H W C"]
    prefix: Float[Array, "S ..."]  # what comes of them before anything that is trained
    classes: Int[Array, "S k"]
    logits: Float[Array, "S classes"]
    steps: Int[Array, " S"]  # masks so far
    active: Bool[Array, " S"]
    masks: Float[Array, "S 4 g h"]
    mask_steps: Int[Array, "S 4"]
    loss: Float[Array, "S steps"]
    agreement: Float[Array, "S steps k"]
    probability: Float[Array, "S steps k"]


def start_fresh(trained: Leaves) -> Start:
    """New optimizer state for what is trained."""
    zeros = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in trained.items()}
    return Start(Moments(zeros, zeros), np.int32(0))


def finetune(
    explainee: Explainee,
    explainer: Drawer,
    recipe: Recipe,
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
      recipe: how.
      tasks: drawn as slots become free.
      slots: images worked on side by side on each device.
      mesh: the devices.
      start: optimizer state to start from; fresh by default.
    """
    explainer = explainer.for_slots()
    start = start or start_fresh(explainer.trained)
    start = start._replace(moments=adamw.kept(recipe.method.adamw, start.moments))
    given = explainee, explainer, start, recipe.numbers
    explainee, explainer, start, numbers = replicate(given, mesh)
    network, method = explainer.without_trained(), recipe.method
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
                    state = empty_slots(explainee, explainer, numbers, method, slots, k, mesh)
                asked = np.int32(slot), task.image, task.classes, task.logits
                state = refill(state, explainer, start, *replicate(asked, mesh), mesh)
                running[slot] = task
        if state is not None and running:
            state = advance(state, explainee, network, start.step, numbers, method, mesh)
        # What the caller does with the results goes on while the devices work.
        yield from finished
        if state is None or not running:
            return
        finished = _harvest(state, running)


@partial(jax.jit, static_argnames=("method", "slots", "k", "mesh"))
def empty_slots(
    explainee: Explainee,
    explainer: Drawer,
    numbers: Numbers,
    method: Method,
    slots: int,
    k: int,
    mesh: Mesh,
) -> Slots:
    """The state of `slots` slots on each device with nothing in them, for k classes each."""
    slots *= mesh.size
    image = jax.ShapeDtypeStruct(explainee.image_shape, jnp.float32)
    leaves, prefix = jax.eval_shape(explainer.begin, image)

    def zeros(leaves: Leaves) -> Leaves:
        axes = {path: explainer.slot_axis(path) for path in leaves}
        return {
            path: jnp.zeros((*x.shape[: axes[path]], slots, *x.shape[axes[path] :]), x.dtype)
            for path, x in leaves.items()
        }

    def floats(*shape: int) -> Array:
        return jnp.zeros((slots, *shape), jnp.float32)

    steps, grid = len(numbers.learning_rates), explainer.grid()
    state = Slots(
        trained=zeros(leaves),
        moments=Moments(*map(zeros, adamw.kept(method.adamw, start_fresh(leaves).moments))),
        images=floats(*image.shape),
        prefix=jnp.zeros((slots, *prefix.shape), prefix.dtype),
        classes=jnp.zeros((slots, k), jnp.int32),
        logits=floats(explainee.classes),
        steps=jnp.zeros(slots, jnp.int32),
        active=jnp.zeros(slots, bool),
        masks=floats(len(MASKS), *grid),
        mask_steps=jnp.zeros((slots, len(MASKS)), jnp.int32),
        loss=floats(steps),
        agreement=floats(steps, k),
        probability=floats(steps, k),
    )
    placed = jax.tree.map(partial(NamedSharding, mesh), slot_specs(state, explainer))
    return jax.lax.with_sharding_constraint(state, placed)


def slot_specs(state: Slots, explainer: Drawer) -> Slots:
    """Where each leaf is divided over the devices: a partition spec in the place of each."""

    def specs(leaves: Leaves) -> Any:
        return {path: PartitionSpec(*[None] * explainer.slot_axis(path), AXIS) for path in leaves}

    others = jax.tree.map(lambda _: SPLIT, state)
    moments = Moments(*map(specs, state.moments))
    return others._replace(trained=specs(state.trained), moments=moments)


@partial(jax.jit, donate_argnames="state", static_argnames=("method", "mesh"))
def advance(
    state: Slots,
    explainee: Explainee,
    explainer: Drawer,
    first_count: Int[Array, ""],
    numbers: Numbers,
    method: Method,
    mesh: Mesh,
) -> Slots:
    """Draw, score and judge one mask in every slot, then update its explainer.

    Slots without work are carried along; their explainers go on changing, which nobody reads.

    Args:
      state: the slots; donated.
      explainee: the classifier.
      explainer: what draws; its trained leaves are not used.
      first_count: optimizer steps taken before an image's first.
      numbers: of the recipe.
      method, mesh: static.
    """
    specs = slot_specs(state, explainer)
    step = on_each_device(
        partial(_advance, method=method),
        mesh,
        in_specs=(specs, *[REPLICATED] * 4),
        out_specs=specs,
    )
    return step(state, explainee, explainer, first_count, numbers)


def _advance(
    state: Slots,
    explainee: Explainee,
    explainer: Drawer,
    first_count: Int[Array, ""],
    numbers: Numbers,
    method: Method,
) -> Slots:
    gradients, masks, loss = _gradients(state, explainee, explainer, numbers, method)
    areas = _areas(state, explainee, masks, method)
    state = _judge(state, numbers, method, masks, loss, areas)
    trained, moments = adamw.update(
        method.adamw,
        state.trained,
        gradients,
        state.moments,
        first_count + jnp.maximum(state.steps, 1),
        numbers.learning_rates[state.steps - 1],
        numbers.weight_decay,
        {path: explainer.slot_axis(path) for path in state.trained},
    )
    return state._replace(trained=trained, moments=moments)


def _gradients(
    state: Slots, explainee: Explainee, explainer: Drawer, numbers: Numbers, method: Method
) -> tuple[Leaves, Float[Array, "S g h"], Float[Array, " S"]]:
    """Of each slot's loss with respect to its own leaves; its token mask, and that loss."""
    axes = {path: explainer.slot_axis(path) for path in state.trained}
    draw = jax.vmap(explainer.draw, in_axes=(axes, 0))

    def total_loss(trained: Leaves) -> tuple[Array, tuple[Array, Array]]:
        raw = draw(trained, state.prefix[:, None])[:, 0, 0]
        masks = activate(raw, explainer.activation)
        loss = in_chunks(
            lambda item: losses(numbers.weights, explainee, *item)[0],
            (state.images, masks, state.classes[:, 0]),
            method.chunk,
        )
        return loss.sum(), (masks, loss)

    # Slots share no parameter, so the gradient of the summed loss is each slot's own.
    gradients, (masks, loss) = jax.grad(total_loss, has_aux=True)(state.trained)
    return gradients, masks, loss


def _areas(
    state: Slots, explainee: Explainee, masks: Float[Array, "S g h"], method: Method
) -> Areas:
    """The perturbation scores that select; NaN for a mask found not to be selected."""
    first = method.most_relevant_first
    pixels = upsample(masks, state.images.shape[1:3])
    setting = (explainee, state.images, pixels, state.classes, state.logits, first)
    if not method.lazy:
        return perturbation_areas(*setting, chunk=method.chunk)
    worst, perfect = method.sign * jnp.inf, -method.sign * jnp.inf
    to_beat = jnp.where(state.steps == 0, worst, _selected_score(state))
    return contending_areas(*setting, jnp.where(state.active, to_beat, perfect), method.chunk)


def _selected_score(state: Slots) -> Float[Array, " S"]:
    rows = jnp.arange(len(state.steps), dtype=jnp.int32)
    return state.agreement[rows, state.mask_steps[:, _SELECTED], 0]


def _judge(
    state: Slots,
    numbers: Numbers,
    method: Method,
    masks: Float[Array, "S g h"],
    loss: Float[Array, " S"],
    areas: Areas,
) -> Slots:
    """Record the step, keep the masks that are best so far, and see who is finished.

    A score that is NaN is neither better nor good enough to stop.
    """
    now = state.steps
    rows = jnp.arange(now.shape[0], dtype=jnp.int32)

    def record(trace: Array, value: Array) -> Array:
        keep = state.active.reshape(-1, *[1] * (value.ndim - 1))
        return trace.at[rows, now].set(jnp.where(keep, value, trace[rows, now]))

    score = method.sign * areas.agreement[:, 0]
    best_score = method.sign * _selected_score(state)
    best_loss = state.loss[rows, state.mask_steps[:, _BY_LOSS]]
    first = now == 0
    better = jnp.stack(
        [first, first | (score < best_score), jnp.ones_like(first), first | (loss < best_loss)], 1
    )
    better &= state.active[:, None]
    steps = jnp.where(state.active, now + 1, now)
    goes_on = ~(score < method.sign * numbers.stop_at) & (steps < len(numbers.learning_rates))
    return state._replace(
        masks=jnp.where(better[..., None, None], masks[:, None], state.masks),
        mask_steps=jnp.where(better, now[:, None], state.mask_steps),
        loss=record(state.loss, loss),
        agreement=record(state.agreement, areas.agreement),
        probability=record(state.probability, areas.probability),
        steps=steps,
        active=state.active & goes_on,
    )


@partial(jax.jit, donate_argnames="state", static_argnames="mesh")
def refill(
    state: Slots,
    explainer: Drawer,
    start: Start,
    slot: Int[Array, ""],
    image: Float[Array, "H W C"],
    classes: Int[Array, " k"],
    logits: Float[Array, " classes"],
    mesh: Mesh,
) -> Slots:
    """Put a task into a slot, in place: the cost is one slot's, whatever their number."""
    specs = slot_specs(state, explainer)
    put = on_each_device(_refill, mesh, in_specs=(specs, *[REPLICATED] * 6), out_specs=specs)
    return put(state, explainer, start, slot, image, classes, logits)


def _refill(
    state: Slots,
    explainer: Drawer,
    start: Start,
    slot: Array,
    image: Array,
    classes: Array,
    logits: Array,
) -> Slots:
    mine, slot = local_index(slot, len(state.steps))

    def put_leaves(leaves: Leaves, values: Leaves) -> Leaves:
        put = jax.lax.dynamic_update_index_in_dim
        return {
            path: put(leaf, values[path], slot, explainer.slot_axis(path))
            for path, leaf in leaves.items()
        }

    def put(state: Slots) -> Slots:
        leaves, prefix = explainer.begin(image)
        return state._replace(
            trained=put_leaves(state.trained, leaves),
            moments=Moments(*map(put_leaves, state.moments, start.moments)),
            images=state.images.at[slot].set(image),
            prefix=state.prefix.at[slot].set(prefix),
            classes=state.classes.at[slot].set(classes),
            logits=state.logits.at[slot].set(logits),
            steps=state.steps.at[slot].set(0),
            active=state.active.at[slot].set(True),
            mask_steps=state.mask_steps.at[slot].set(0),
        )

    return jax.lax.cond(mine, put, lambda state: state, state)


def _harvest(state: Slots, running: dict[int, Task]) -> list[Finetuned]:
    """Take what is finished out of `running`; waits for the devices."""
    active = jax.device_get(state.active)
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
