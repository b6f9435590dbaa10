"""Training: steps on batches of a data set, whatever is trained and whatever the loss.

A loss is a function

    loss(params, model_state, batch, rng) -> (loss [], (metrics, model_state))

with `model_state` for what changes without a gradient (running statistics of batch norms) and `rng`
for what is drawn (dropout). What else it depends on, a frozen network for instance, is given with
it as `jax.tree_util.Partial(function, network, weights)`, and an optimizer likewise as
`Partial(optax.adamw, learning_rate, weight_decay=0.01)`: of a `Partial` the function is part of the
compiled program, everything given to it an argument. So weights of a network are not compiled in as
constants, and another learning rate, or another `Partial` of the same function, compiles nothing.

Where a step is compiled again all the same, `JAX_EXPLAIN_CACHE_MISSES=1` names the argument that is
unlike the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial, keystr, tree_leaves_with_path
from jaxtyping import Bool, Int

from ltx_jax.engine.sharding import AXIS, REPLICATED, SPLIT
from ltx_jax.errors import InputError

Loss = Callable[[Any, Any, Any, Array], tuple[Array, tuple[Any, Any]]]


class TrainState(NamedTuple):
    """What a step changes: parameters, the model's and the optimizer's state, steps taken."""

    params: Any
    model_state: Any
    optimizer_state: optax.OptState
    step: Int[Array, ""]


def warmup_then_decay(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear from 0 to `peak`, then to 0: transformers' `get_linear_schedule_with_warmup`."""
    up = optax.linear_schedule(0.0, peak, warmup_steps)
    down = optax.linear_schedule(peak, 0.0, max(total_steps - warmup_steps, 1))
    return optax.join_schedules([up, down], [warmup_steps]) if warmup_steps else down


def adamw(
    rate: float | Array, weight_decay: float | Array = 0.0, longest: float | Array | None = None
) -> optax.GradientTransformation:
    """AdamW, of gradients that are shortened where all together are longer than `longest`."""
    plain = optax.adamw(rate, weight_decay=weight_decay)
    return plain if longest is None else optax.chain(optax.clip_by_global_norm(longest), plain)


def data_mesh(images: int) -> Mesh:
    """The devices of all processes, to share so many images in equal parts; where there is one
    process, as many of its devices as divide them.

    Raises:
      InputError: where several processes' devices do not divide them.
    """
    devices = jax.devices()
    if jax.process_count() > 1 and images % len(devices):
        raise InputError(
            f"{images} images at once are shared by {len(devices)} devices: set "
            "pretrain.batch_size to a multiple of pretrain.accumulate times these"
        )
    fitting = max(k for k in range(1, len(devices) + 1) if images % k == 0)
    return Mesh(np.array(devices[:fitting]), (AXIS,))


def create_train_state(
    params: Any, model_state: Any, optimizer: Partial, mesh: Mesh, sharded: bool = False
) -> TrainState:
    """The state before the first step.

    Args:
      params: pytree of arrays to train; copied, so that they survive the donated state.
      model_state: pytree of arrays; {} where there is none.
      optimizer: gives an optax transformation when called; its numbers do not matter here.
      mesh: the devices.
      sharded: divide each leaf over them, along its longest axis that they divide; else, and where
        there is none, each has a copy.
    """

    def copied(leaf: Any) -> Array:
        # Of a type of its own: a number's weak type would be gone after the first step.
        return jnp.array(leaf, dtype=jnp.result_type(leaf))

    params, model_state = jax.tree.map(copied, (params, model_state))
    state = TrainState(params, model_state, optimizer().init(params), jnp.int32(0))
    return jax.tree.map(jax.device_put, state, state_shardings(state, mesh, sharded))


@jax.jit
def is_finite(values: Any) -> Bool[Array, ""]:
    """Whether every number of a pytree is one."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(values)]).all()


def train_step(
    state: TrainState,
    batch: Any,
    key: Array,
    loss: Loss,
    optimizer: Partial,
    mesh: Mesh,
    *,
    parts: int = 1,
    sharded: bool = False,
) -> tuple[TrainState, Any]:
    """One optimizer step on a batch, divided over the devices.

    Nothing waits for its result: what comes back may be read when it is needed.

    Args:
      state: donated.
      batch: pytree of arrays [n,...], this process's share of it, n a multiple of the number of its
        devices times `parts`.
      key: of the whole training; that of the step is `fold_in(key, state.step)`.
      loss: see the module; its mean over the batch, so that devices make no difference.
      optimizer: gives this step's optax transformation when called.
      mesh: the devices, on which the arrays of `loss` had better be already (`replicate`).
      parts: so many one after another, their gradients added up (accumulation); each draws its own.
      sharded: as `create_train_state` was told.

    Returns:
      The state after the step, and the metrics of the loss.

    Raises:
      TypeError: where the loss gives a model state of another form than it was given.
    """
    loss = loss if isinstance(loss, Partial) else Partial(loss)
    split = NamedSharding(mesh, SPLIT)
    shares = jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)
    return step_on_devices(state, shares, key, loss, optimizer, mesh, parts, sharded)


@partial(jax.jit, donate_argnames="state", static_argnames=("mesh", "parts", "sharded"))
def step_on_devices(
    state: TrainState,
    batch: Any,
    key: Array,
    loss: Partial,
    optimizer: Partial,
    mesh: Mesh,
    parts: int,
    sharded: bool,
) -> tuple[TrainState, Any]:
    """The program of `train_step`, of a batch that is on the devices already."""
    rng = jax.random.fold_in(key, state.step)
    gradients, metrics, model_state = _gradients(state, batch, rng, loss, parts)
    _refuse_another_form(state.model_state, model_state)
    # optax mixes its counts with floats.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer_state = optimizer().update(
            gradients, state.optimizer_state, state.params
        )
        params = optax.apply_updates(state.params, updates)
    after = TrainState(params, model_state, optimizer_state, state.step + 1)
    return jax.lax.with_sharding_constraint(after, state_shardings(after, mesh, sharded)), metrics


def _gradients(
    state: TrainState, batch: Any, rng: Array, loss: Partial, parts: int
) -> tuple[Any, Any, Any]:
    """Gradients and metrics, means over the parts of a batch, and the model's state after them."""

    def of_part(model_state: Any, part: Any, rng: Array) -> tuple[Any, Any, Any]:
        gradients, (metrics, model_state) = jax.grad(loss, has_aux=True)(
            state.params, model_state, part, rng
        )
        return gradients, metrics, model_state

    if parts == 1:
        return of_part(state.model_state, batch, rng)

    def add(carry: tuple[Any, Any], numbered: tuple[Array, Any]) -> tuple[tuple[Any, Any], Any]:
        total, model_state = carry
        number, part = numbered
        gradients, metrics, model_state = of_part(
            model_state, part, jax.random.fold_in(rng, number)
        )
        return (jax.tree.map(jnp.add, total, gradients), model_state), metrics

    # Every part takes its images of every device.
    several = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    nothing = jax.tree.map(jnp.zeros_like, state.params)
    (total, model_state), metrics = jax.lax.scan(
        add, (nothing, state.model_state), (jnp.arange(parts, dtype=jnp.int32), several)
    )
    mean = jax.tree.map(lambda x: x / jnp.asarray(parts, x.dtype), total)
    return mean, jax.tree.map(lambda x: x.mean(0), metrics), model_state


def state_shardings(values: Any, mesh: Mesh, sharded: bool) -> Any:
    """Where each leaf of a state or its shapes is, see `create_train_state`."""

    def of_leaf(leaf: Any) -> NamedSharding:
        divided = [i for i, n in enumerate(leaf.shape) if n and n % mesh.size == 0]
        if not sharded or not divided:
            return NamedSharding(mesh, REPLICATED)
        axis = max(divided, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))

    return jax.tree.map(of_leaf, values)


def _refuse_another_form(before: Any, after: Any) -> None:
    """Of another form, it would have the next step compiled anew."""
    old, new = ({keystr(p): _form(x) for p, x in tree_leaves_with_path(t)} for t in (before, after))
    changed = [path for path in old | new if old.get(path) != new.get(path)]
    if changed:
        path = changed[0]
        raise TypeError(
            f"the loss was given a model state with {old.get(path, 'nothing')} at {path} and gave "
            f"one with {new.get(path, 'nothing')}: it must keep the form it has"
        )


def _form(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
