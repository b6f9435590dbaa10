"""What the programs that make the demos train with: scenes drawn ahead, and steps on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Float

from ltx_jax.data.scenes import Scene, scenes
from ltx_jax.engine.training import create_train_state, train_step

Drawn = TypeVar("Drawn")


def trained(
    begin: tuple[Any, Any],
    batches: Iterator[dict[str, np.ndarray]],
    loss: Partial,
    rates: Float[np.ndarray, " steps"],
    optimizer: Callable[[np.float32], Partial],
    mesh: Mesh,
) -> tuple[Any, Any]:
    """Parameters and statistics after a step on each batch.

    Args:
      begin: what they are before.
      batches: as many as there are rates.
      loss: as `train_step` takes it.
      rates: of each step.
      optimizer: for a rate.
      mesh: the devices.
    """
    state = create_train_state(*begin, optimizer(rates[0]), mesh)
    found: list[Any] = []
    for batch, rate in zip(batches, rates, strict=True):
        state, metrics = train_step(state, batch, jax.random.key(0), loss, optimizer(rate), mesh)
        found.append(metrics)
        if len(found) % 50 == 0:
            recent = jax.tree.map(lambda *x: round(float(np.mean(x)), 4), *found[-50:])
            print(f"batch {len(found)}: {recent}", flush=True)
    return state.params, state.model_state


def rates_of(schedule: optax.Schedule, steps: int) -> Float[np.ndarray, " steps"]:
    """The learning rate of each step."""
    return np.asarray(jax.jit(schedule)(np.arange(steps, dtype=np.int32)), np.float32)


def unseen(seed: int, count: int, objects: tuple[int, int]) -> Iterator[Scene]:
    """Test scenes in batches of 50 (the last may be smaller)."""
    for first in range(0, count, 50):
        yield scenes(seed, min(50, count - first), objects, first=first)


def ahead(make: Callable[[int, int], Drawn], size: int, count: int) -> Iterator[Drawn]:
    """Batches `make(size, number)`, each drawn while the one before is trained on."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, size, 0)
        for number in range(1, count + 1):
            batch = waiting.result()
            waiting = pool.submit(make, size, number)
            yield batch
