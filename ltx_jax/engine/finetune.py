"""The finetuning engine: thousands of one-image optimisations, some slots at a time.

Each *slot* holds one image with its own copy of the explainer, its own optimizer state and the
best masks so far. One jitted, donated function (`advance`) takes every slot a step further, each
device its share of them; the host harvests the slots that are finished and puts the next images in
their place, so that stopping early saves time instead of leaving lanes idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int, Key, UInt

from ltx_jax.engine import adamw
from ltx_jax.engine.recipe import SELECTED, Method, Numbers, Recipe
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
from ltx_jax.objectives import losses, views_of

_SELECTED, _BY_LOSS = SELECTED.index("selected"), SELECTED.index("by_loss")


class Start(NamedTuple):
    """The optimizer's state that every image starts with."""

    moments: Moments
    step: Int[Array | np.integer, ""]


class Task(NamedTuple):
    """One explanation to make.

    `key` is the caller's, and what is drawn depends on it; `image` [H,W,C] float32 in [0,1];
    `classes` [k], the first of which is explained (the others are scored as well); `logits`
    [classes] of the unmasked image.
    """

    key: int
    image: np.ndarray
    classes: np.ndarray
    logits: np.ndarray


class Finetuned(NamedTuple):
    """What became of a task of `steps` masks.

    `masks` [m,g,h] and the steps they are from, `mask_steps` [m], are in the order of `SELECTED`,
    or of `FINAL` where no score selects; `raw` [m,g,h] are their values before the activation, None
    where the masks themselves rank the pixels; `loss` [steps] is the total loss; `agreement` and
    `probability` [steps,k] are the areas of the chosen perturbation order for each class (of both
    orders what the second has more), NaN where nothing was scored.
    """

    task: Task
    steps: int
    masks: np.ndarray
    raw: np.ndarray | None
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
    keys: Int[Array, " S"]
    classes: Int[Array, "S k"]
    logits: Float[Array, "S classes"]
    steps: Int[Array, " S"]  # masks so far
    active: Bool[Array, " S"]
    masks: Float[Array, "S m g h"]  # none where only the last counts, which the leaves draw
    mask_steps: Int[Array, "S m"]
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
    # Where nothing stops early, the host knows without asking when a slot is finished.
    due: dict[int, int] = {}
    stops_early, now = method.optimize is not None, 0
    finished: list[Finetuned] = []
    state: Slots | None = None
    while True:
        for slot in order:
            if slot not in running and (task := next(waiting, None)) is not None:
                if state is None:
                    k = len(task.classes)
                    state = empty_slots(explainee, explainer, numbers, method, slots, k, mesh)
                asked = np.int32(slot), np.int32(task.key), task.image, task.classes, task.logits
                state = refill(state, explainee, explainer, start, *replicate(asked, mesh), mesh)
                running[slot], due[slot] = task, now + recipe.steps
        if state is not None and running:
            state = advance(state, explainee, network, start.step, numbers, method, mesh)
            now += 1
        # What the caller does with the results goes on while the devices work.
        yield from finished
        if state is None or not running:
            return
        if stops_early:
            ready = _inactive(state, running)
        else:
            ready = [slot for slot in running if due[slot] == now]
        finished = _harvest(state, network, method, mesh, running, ready) if ready else []


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
    target = jax.ShapeDtypeStruct((), jnp.int32)
    leaves, prefix = jax.eval_shape(explainer.begin, explainee, image, target)

    def zeros(leaves: Leaves) -> Leaves:
        axes = {path: explainer.slot_axis(path) for path in leaves}
        return {
            path: jnp.zeros((*x.shape[: axes[path]], slots, *x.shape[axes[path] :]), x.dtype)
            for path, x in leaves.items()
        }

    def floats(*shape: int) -> Array:
        return jnp.zeros((slots, *shape), jnp.float32)

    steps, grid = len(numbers.learning_rates), explainer.grid()
    kept = len(SELECTED) if method.optimize else 0
    state = Slots(
        trained=zeros(leaves),
        moments=Moments(*map(zeros, adamw.kept(method.adamw, start_fresh(leaves).moments))),
        images=floats(*image.shape),
        prefix=jnp.zeros((slots, *prefix.shape), prefix.dtype),
        keys=jnp.zeros(slots, jnp.int32),
        classes=jnp.zeros((slots, k), jnp.int32),
        logits=floats(explainee.classes),
        steps=jnp.zeros(slots, jnp.int32),
        active=jnp.zeros(slots, bool),
        masks=floats(kept, *grid),
        mask_steps=jnp.zeros((slots, kept), jnp.int32),
        loss=floats(steps),
        agreement=floats(steps, k) + jnp.nan,
        probability=floats(steps, k) + jnp.nan,
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
    """Draw, score and judge one mask in every slot, then update its explainer. Where no score
    selects, nothing is scored or judged.

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
    if method.optimize is None:
        state = _count(state, numbers, loss)
    else:
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
    goal = numbers.goal
    views = max(len(views_of(goal.weights)), 1)

    def total(item: tuple[Array, ...]) -> Array:
        images, masks, targets, raw, keys, steps = item
        chance = goal.chance(step_keys(numbers.seed, keys, steps))
        return losses(goal.weights, explainee, images, masks, targets, raw, chance)[0]

    def total_loss(trained: Leaves) -> tuple[Array, tuple[Array, Array]]:
        raw = draw(trained, state.prefix[:, None])[:, 0, 0]
        masks = activate(raw, explainer.activation)
        given = state.images, masks, state.classes[:, 0], raw, state.keys, state.steps
        loss = in_chunks(total, given, method.chunk and max(method.chunk // views, 1))
        return loss.sum(), (masks, loss)

    # Slots share no parameter, so the gradient of the summed loss is each slot's own.
    gradients, (masks, loss) = jax.grad(total_loss, has_aux=True)(state.trained)
    return gradients, masks, loss


def step_keys(
    seed: UInt[Array, ""], keys: Int[Array, " n"], steps: Int[Array, " n"]
) -> Key[Array, " n"]:
    """What each image draws from in a step depends on the seed, the image and the step alone."""
    drawn = jax.random.key(seed, impl="threefry2x32")
    fold = jax.random.fold_in
    return jax.vmap(lambda key, step: fold(fold(drawn, key), step))(keys, steps)


def _count(state: Slots, numbers: Numbers, loss: Float[Array, " S"]) -> Slots:
    """Record the step's loss; all steps are taken."""
    steps = jnp.where(state.active, state.steps + 1, state.steps)
    active = state.active & (steps < len(numbers.learning_rates))
    return state._replace(loss=_recorded(state, state.loss, loss), steps=steps, active=active)


def _recorded(state: Slots, trace: Array, value: Array) -> Array:
    """A trace with the value of this step in every slot that is active."""
    rows, now = jnp.arange(len(trace), dtype=jnp.int32), state.steps
    keep = state.active.reshape(-1, *[1] * (value.ndim - 1))
    return trace.at[rows, now].set(jnp.where(keep, value, trace[rows, now]))


def _areas(
    state: Slots, explainee: Explainee, masks: Float[Array, "S g h"], method: Method
) -> Areas:
    """The perturbation scores that select; NaN for a mask found not to be selected."""
    pixels = upsample(masks, state.images.shape[1:3])
    setting = (explainee, state.images, pixels, state.classes, state.logits)
    if method.lazy and len(method.orders) == 1:
        worst, perfect = method.sign * jnp.inf, -method.sign * jnp.inf
        to_beat = jnp.where(state.steps == 0, worst, _selected_score(state, method))
        to_beat = jnp.where(state.active, to_beat, perfect)
        return contending_areas(*setting, *method.orders, to_beat, method.chunk)
    found = [perturbation_areas(*setting, order, chunk=method.chunk) for order in method.orders]
    return found[0] if len(found) == 1 else jax.tree.map(jnp.subtract, *reversed(found))


def _selected_score(state: Slots, method: Method) -> Float[Array, " S"]:
    rows = jnp.arange(len(state.steps), dtype=jnp.int32)
    return method.selecting(state)[rows, state.mask_steps[:, _SELECTED], 0]


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

    score = method.sign * method.selecting(areas)[:, 0]
    best_score = method.sign * _selected_score(state, method)
    best_loss = state.loss[rows, state.mask_steps[:, _BY_LOSS]]
    first = now == 0
    # Of a mask whose score is NaN nothing is known: any other is better.
    beats = (score < best_score) | (jnp.isnan(best_score) & ~jnp.isnan(score))
    better = jnp.stack([first, first | beats, jnp.ones_like(first), first | (loss < best_loss)], 1)
    better &= state.active[:, None]
    steps = jnp.where(state.active, now + 1, now)
    goes_on = ~(score < method.sign * numbers.stop_at) & (steps < len(numbers.learning_rates))
    return state._replace(
        masks=jnp.where(better[..., None, None], masks[:, None], state.masks),
        mask_steps=jnp.where(better, now[:, None], state.mask_steps),
        loss=_recorded(state, state.loss, loss),
        agreement=_recorded(state, state.agreement, areas.agreement),
        probability=_recorded(state, state.probability, areas.probability),
        steps=steps,
        active=state.active & goes_on,
    )


@partial(jax.jit, donate_argnames="state", static_argnames="mesh")
def refill(
    state: Slots,
    explainee: Explainee,
    explainer: Drawer,
    start: Start,
    slot: Int[Array, ""],
    key: Int[Array, ""],
    image: Float[Array, "H W C"],
    classes: Int[Array, " k"],
    logits: Float[Array, " classes"],
    mesh: Mesh,
) -> Slots:
    """Put a task into a slot, in place: the cost is one slot's, whatever their number."""
    specs = slot_specs(state, explainer)
    put = on_each_device(_refill, mesh, in_specs=(specs, *[REPLICATED] * 8), out_specs=specs)
    return put(state, explainee, explainer, start, slot, key, image, classes, logits)


def _refill(
    state: Slots,
    explainee: Explainee,
    explainer: Drawer,
    start: Start,
    slot: Array,
    key: Array,
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
        leaves, prefix = explainer.begin(explainee, image, classes[0])
        return state._replace(
            trained=put_leaves(state.trained, leaves),
            moments=Moments(*map(put_leaves, state.moments, start.moments)),
            images=state.images.at[slot].set(image),
            prefix=state.prefix.at[slot].set(prefix),
            keys=state.keys.at[slot].set(key),
            classes=state.classes.at[slot].set(classes),
            logits=state.logits.at[slot].set(logits),
            steps=state.steps.at[slot].set(0),
            active=state.active.at[slot].set(True),
            mask_steps=state.mask_steps.at[slot].set(0),
        )

    return jax.lax.cond(mine, put, lambda state: state, state)


def _inactive(state: Slots, running: Mapping[int, Task]) -> list[int]:
    """Slots whose task is finished; waits for the devices."""
    active = jax.device_get(state.active)
    return [slot for slot in running if not active[slot]]


def _harvest(
    state: Slots,
    explainer: Drawer,
    method: Method,
    mesh: Mesh,
    running: dict[int, Task],
    ready: Sequence[int],
) -> list[Finetuned]:
    """Take what is finished out of `running`."""
    raw = None
    if method.optimize is None:
        masks, raw = jax.device_get(_drawn(state, explainer, mesh))
        mask_steps = jax.device_get(state.steps)[:, None]
    else:
        masks, mask_steps = jax.device_get((state.masks, state.mask_steps))
    steps, *traces = jax.device_get((state.steps, state.loss, state.agreement, state.probability))
    return [
        Finetuned(
            running.pop(slot),
            int(steps[slot]),
            masks[slot],
            None if raw is None else raw[slot],
            mask_steps[slot],
            *(trace[slot, : steps[slot]].copy() for trace in traces),
        )
        for slot in ready
    ]


@partial(jax.jit, static_argnames="mesh")
def _drawn(
    state: Slots, explainer: Drawer, mesh: Mesh
) -> tuple[Float[Array, "S 1 g h"], Float[Array, "S 1 g h"]]:
    """Masks that the leaves of every slot draw now, and their raw values."""
    specs = slot_specs(state, explainer)

    def draw(trained: Leaves, prefix: Array) -> tuple[Array, Array]:
        axes = {path: explainer.slot_axis(path) for path in trained}
        raw = jax.vmap(explainer.draw, in_axes=(axes, 0))(trained, prefix[:, None])[:, 0]
        return activate(raw[:, 0], explainer.activation)[:, None], raw

    on_all = on_each_device(draw, mesh, (specs.trained, SPLIT), (SPLIT, SPLIT))
    return on_all(state.trained, state.prefix)
