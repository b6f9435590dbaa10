"""Pretraining: one explainer for a whole data set: the method's first stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ltx_jax.engine.adamw import Moments
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer, Leaves
from ltx_jax.explainers.masks import upsample
from ltx_jax.metrics.perturbation import perturbation_areas
from ltx_jax.objectives.ltx import Objective, losses

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class PretrainSettings:
    """How an explainer is pretrained.

    Attributes:
      objective: what makes a mask good.
      learning_rate: the schedule's peak.
      schedule_steps: length of the schedule: a linear warm-up over `warmup` of it, then a linear
        decay to 0.
      warmup: share of the schedule.
      weight_decay: of AdamW.
    """

    objective: Objective
    learning_rate: float = 2e-3
    schedule_steps: int = 1000
    warmup: float = 0.2
    weight_decay: float = 0.01

    def schedule(self, count: int | Array) -> Array:
        """Learning rate after `count` steps."""
        return warmup_then_decay(
            self.learning_rate, int(self.warmup * self.schedule_steps), self.schedule_steps
        )(count)

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW on that schedule."""
        return optax.adamw(self.schedule, weight_decay=self.weight_decay)


class TrainState(NamedTuple):
    """The explainer's trained leaves and optax's state."""

    trained: Leaves
    optimizer: optax.OptState

    def moments(self) -> tuple[Moments, int]:
        """AdamW's moments and the number of steps taken."""
        adam = self.optimizer[0]
        return Moments(adam.mu, adam.nu), int(adam.count)


class StepLosses(NamedTuple):
    """Batch means of the total loss and its two terms."""

    total: Float[Array, ""]
    prediction: Float[Array, ""]
    mask: Float[Array, ""]


def warmup_then_decay(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear from 0 to `peak`, then to 0: transformers' `get_linear_schedule_with_warmup`."""
    up = optax.linear_schedule(0.0, peak, warmup_steps)
    down = optax.linear_schedule(peak, 0.0, max(total_steps - warmup_steps, 1))
    return optax.join_schedules([up, down], [warmup_steps]) if warmup_steps else down


def create_train_state(explainer: Explainer, settings: PretrainSettings) -> TrainState:
    """The state before the first step."""
    # Copies: a step donates the state, and the explainer's own leaves must survive it.
    trained = jax.tree.map(jnp.copy, explainer.trained)
    return TrainState(trained, settings.optimizer().init(trained))


def restore_train_state(
    trained: Leaves, moments: Moments, count: int, settings: PretrainSettings
) -> TrainState:
    """The state as it was when `TrainState.moments` was asked."""
    adam, decay, schedule = settings.optimizer().init(trained)
    adam = adam._replace(count=jnp.int32(count), mu=moments.first, nu=moments.second)
    # Two counters, not one twice: a step donates both.
    return TrainState(trained, (adam, decay, schedule._replace(count=jnp.int32(count))))


@partial(jax.jit, donate_argnames="state", static_argnames="settings")
def train_step(
    state: TrainState,
    explainee: Explainee,
    explainer: Explainer,
    images: Float[Array | np.ndarray, "n H W 3"],
    targets: Int[Array | np.ndarray, " n"],
    settings: PretrainSettings,
) -> tuple[TrainState, StepLosses]:
    """One optimizer step on a batch.

    Args:
      state: donated.
      explainee: the frozen classifier.
      explainer: gives the network and its frozen leaves.
      images: in [0,1].
      targets: classes to keep; negative for the one that the explainee predicts.
      settings: static.
    """
    predicted = explainee(images).argmax(-1)
    targets = jnp.where(targets < 0, predicted, targets)

    def batch_loss(trained: Leaves) -> tuple[Array, StepLosses]:
        terms = losses(
            settings.objective, explainee, images, explainer.masks(trained, images), targets
        )
        means = StepLosses(*(term.mean() for term in terms))
        return means.total, means

    gradients, means = jax.grad(batch_loss, has_aux=True)(state.trained)
    updates, optimizer = settings.optimizer().update(gradients, state.optimizer, state.trained)
    return TrainState(optax.apply_updates(state.trained, updates), optimizer), means


def validation_score(
    explainee: Explainee,
    explainer: Explainer,
    trained: Leaves,
    batches: Iterable[np.ndarray],
    chunk: int | None = None,
) -> float:
    """Mean POS (predicted class; lower is better) over batches of images in [0,1].

    Raises:
      InputError: where there is no batch.
    """
    scores = [_pos(explainee, explainer, trained, images, chunk) for images in batches]
    if not scores:
        raise InputError("none of the images held out for validation can be read: give more images")
    return float(np.mean(np.concatenate([np.asarray(score) for score in scores])))


@partial(jax.jit, static_argnames="chunk")
def _pos(
    explainee: Explainee,
    explainer: Explainer,
    trained: Leaves,
    images: Float[Array | np.ndarray, "n H W 3"],
    chunk: int | None,
) -> Float[Array, " n"]:
    logits = explainee(images)
    masks = upsample(explainer.masks(trained, images), images.shape[1:3])
    classes = logits.argmax(-1)[:, None]
    areas = perturbation_areas(explainee, images, masks, classes, logits, True, chunk)
    return areas.agreement[:, 0]
