"""How one image is finetuned: what a compiled step depends on, and the numbers it is given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ltx_jax.engine.adamw import AdamW
from ltx_jax.engine.training import warmup_then_decay
from ltx_jax.errors import InputError
from ltx_jax.masks.covering import FILLS
from ltx_jax.objectives import TERMS, Goal
from ltx_jax.settings.sections import Finetune, Objective

# The masks that are kept of each image where a score selects: before finetuning, best by the score,
# of the last step, best by the loss; and where none does.
SELECTED = ("pltx", "selected", "last", "by_loss")
FINAL = ("final",)
# Those that can be the result, the first that an image has before the others.
RESULT = ("final", "selected", "pltx")


def result_of(masks: Collection[str]) -> str:
    """The mask that is the result: the last, the one that a score selects, or of a single step the
    only one.

    Args:
      masks: names of those that an image has, one of `RESULT` among them.
    """
    return next(name for name in RESULT if name in masks)


@dataclass(frozen=True)
class Method:
    """What a step is compiled for.

    Attributes:
      optimize: `pos` (lower is better), `neg` or `srg_probability` (higher is better): the
        perturbation score that selects the mask, and but for the last, which takes both orders of
        removal, stops early; None where nothing is scored on the way, no mask selected, and the one
        after the last update is the result.
      adamw: the optimizer's hyper-parameters and how it keeps its moments.
      lazy: stop scoring a mask once it cannot be selected any more. No mask that is kept changes;
        the trace has no score of a mask that is no better than those before.
      chunk: most images in one forward of the explainee; None for no limit.
    """

    optimize: str | None
    adamw: AdamW
    lazy: bool
    chunk: int | None

    @property
    def orders(self) -> tuple[bool, ...]:
        """Whether the score that selects removes the most relevant pixels first, or the least, or
        is what the second is more than the first."""
        return {None: (), "pos": (True,), "neg": (False,)}.get(self.optimize, (True, False))

    def selecting(self, found: Any) -> Any:
        """Of areas, or traces of them, those that select."""
        return found.probability if len(self.orders) > 1 else found.agreement

    @property
    def sign(self) -> float:
        """Times which the score that selects is to be low."""
        return 1.0 if self.optimize == "pos" else -1.0


class Numbers(NamedTuple):
    """What may change without compiling anew; a pytree of arrays.

    Attributes:
      goal: the objective; other fills and shifts compile anew.
      learning_rates: of each step's update [steps]; as long as there are steps (masks).
      stop_at: an image stops once its POS is below, or its NEG above; infinite where neither
        selects.
      weight_decay: of AdamW.
      seed: of all that is drawn, with the row of the image and the step.
      keep: share of the class's probability that the result's mask keeps, where no score selects.
    """

    goal: Goal
    learning_rates: Array
    stop_at: Array
    weight_decay: Array
    seed: Array
    keep: Array


class Recipe(NamedTuple):
    """How one image is finetuned (the method's second stage)."""

    method: Method
    numbers: Numbers

    @property
    def steps(self) -> int:
        """Most masks an image gets."""
        return len(self.numbers.learning_rates)

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks that are kept of each image; of a single step there is one."""
        if self.method.optimize is None:
            return FINAL
        return SELECTED if self.steps > 1 else SELECTED[:1]

    def with_chunk(self, chunk: int | None) -> Recipe:
        """The same with another limit of images in one forward."""
        return self._replace(method=replace(self.method, chunk=chunk))


class Resumed(NamedTuple):
    """Where a checkpoint's optimizer was: steps taken, and its learning rate then."""

    step: int
    learning_rate: float


def make_recipe(
    finetune: Finetune, objective: Objective, seed: int = 0, resumed: Resumed | None = None
) -> Recipe:
    """The recipe that settings describe.

    Args:
      finetune, objective: as they were given.
      seed: of what is drawn.
      resumed: where the checkpoint's optimizer is resumed.

    Raises:
      InputError: for an unknown term or fill of the objective.
    """
    method = Method(
        finetune.optimize,
        AdamW(first_moment=finetune.first_moment, second_moment=finetune.second_moment),
        finetune.lazy_scoring,
        finetune.chunk,
    )
    stops = {"pos": finetune.stop_below, "neg": finetune.stop_above}
    rates = jnp.asarray(_learning_rates(finetune, resumed), jnp.float32)
    numbers = Numbers(
        make_goal(objective),
        rates,
        jnp.float32(stops.get(finetune.optimize or "", np.inf)),
        jnp.float32(finetune.weight_decay),
        jnp.uint32(seed),
        jnp.float32(finetune.keep),
    )
    return Recipe(method, numbers)


def make_goal(objective: Objective) -> Goal:
    """The objective that settings describe.

    Raises:
      InputError: for an unknown term or fill.
    """
    weights = objective.weights()
    if unknown := set(weights) - set(TERMS):
        raise InputError(f"unknown term {min(unknown)!r}: there are {', '.join(TERMS)}")
    if unknown := set(objective.fills) - set(FILLS):
        raise InputError(f"unknown fill {min(unknown)!r}: there are {', '.join(FILLS)}")
    return Goal(
        {name: jnp.float32(weight) for name, weight in weights.items()},
        jnp.array([objective.least_budget, objective.most_budget], jnp.float32),
        objective.fills,
        objective.shift,
    )


def _learning_rates(finetune: Finetune, resumed: Resumed | None) -> np.ndarray:
    """Constant; or, where a checkpoint is resumed, its own for the first step and then the
    original's schedule from the checkpoint's step on. Of no steps one mask is drawn and left."""
    if not finetune.steps:
        return np.zeros(1)
    if resumed is None:
        return np.full(finetune.steps, finetune.learning_rate)
    length = finetune.schedule_steps
    schedule = warmup_then_decay(finetune.learning_rate, length // 5, length)
    later = [float(schedule(resumed.step + step)) for step in range(1, finetune.steps)]
    return np.array([resumed.learning_rate, *later])
