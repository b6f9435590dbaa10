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
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import Partial, keystr, tree_leaves_with_path
from jaxtyping import Int

from ltx_jax.engine.sharding import REPLICATED, SPLIT, replicate, slot_mesh

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


def data_mesh(batch_size: int) -> Mesh:
    """As many of the local devices as divide a batch into equal shares."""
    fitting = (k for k in range(1, jax.local_device_count() + 1) if batch_size % k == 0)
    return slot_mesh(max(fitting))


def create_train_state(params: Any, model_state: Any, optimizer: Partial, mesh: Mesh) -> TrainState:
    """The state before the first step, a copy on each device.

    Args:
      params: pytree of arrays to train; copied, so that they survive the donated state.
      model_state: pytree of arrays; {} where there is none.
      optimizer: gives an optax transformation when called; its numbers do not matter here.
      mesh: the devices.
    """

    def copied(leaf: Any) -> Array:
        # Of a type of its own: a number's weak type would be gone after the first step.
        return jnp.array(leaf, dtype=jnp.result_type(leaf))

    params, model_state = jax.tree.map(copied, (params, model_state))
    state = TrainState(params, model_state, optimizer().init(params), jnp.int32(0))
    return replicate(state, mesh)


def train_step(
    state: TrainState, batch: Any, key: Array, loss: Loss, optimizer: Partial, mesh: Mesh
) -> tuple[TrainState, Any]:
    """One optimizer step on a batch, divided over the devices.

    Nothing waits for its result: what comes back may be read when it is needed.

    Args:
      state: donated.
      batch: pytree of arrays [n,...], n a multiple of the number of devices.
      key: of the whole training; that of the step is `fold_in(key, state.step)`.
      loss: see the module; its mean over the batch, so that devices make no difference.
      optimizer: gives this step's optax transformation when called.
      mesh: the devices, on which the arrays of `loss` had better be already (`replicate`).

    Returns:
      The state after the step, and the metrics of the loss.

    Raises:
      TypeError: where the loss gives a model state of another form than it was given.
    """
    loss = loss if isinstance(loss, Partial) else Partial(loss)
    shares = jax.device_put(batch, NamedSharding(mesh, SPLIT))
    return _step(state, shares, key, loss, optimizer, mesh)


@partial(jax.jit, donate_argnames="state", static_argnames="mesh")
def _step(
    state: TrainState, batch: Any, key: Array, loss: Partial, optimizer: Partial, mesh: Mesh
) -> tuple[TrainState, Any]:
    rng = jax.random.fold_in(key, state.step)
    gradients, (metrics, model_state) = jax.grad(loss, has_aux=True)(
        state.params, state.model_state, batch, rng
    )
    _refuse_another_form(state.model_state, model_state)
    # optax mixes its counts with floats.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer_state = optimizer().update(
            gradients, state.optimizer_state, state.params
        )
        params = optax.apply_updates(state.params, updates)
    after = TrainState(params, model_state, optimizer_state, state.step + 1)
    return jax.lax.with_sharding_constraint(after, NamedSharding(mesh, REPLICATED)), metrics


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
