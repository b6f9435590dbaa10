"""Training of an explainer with a mask for every class: the loss of a batch for `engine.training`,
and what it is on images held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Key

from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.masks.blurring import blurred
from ltx_jax.masks.covering import covered
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import as_input, per_channel
from ltx_jax.objectives import Goal, class_masks, losses

Terms = dict[str, Array]
# Raw masks [n,classes,H,W] of images.
Draw = Callable[[Array], Array]
NN_EXPLAINER, SOME_CLASSES, BUDGET = "nn_explainer", "some_classes", "budget"
# Real-Time Saliency's coloured noise, about grey: how far it reaches, and how coarse it is.
_COLOURS, _GRAIN = 0.66, 0.11
# The deviation of its blur, of a side.
_BLUR = 10 / 224


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "goal"],
    meta_fields=["name", "shares", "colour", "together"],
)
@dataclass(frozen=True, eq=False)
class ClassGoal:
    """What makes masks of every class good: a pytree, whose numbers may change without compiling
    anew.

    Attributes:
      weights: of the terms, by name, [] each.
      goal: the objective of one mask an image, which `budget` goes by.
      name: a key of `OBJECTIVES`.
      shares: least and greatest share of the pixels that a class should have.
      colour: what masks hide behind, in [0,1], one a channel: the data set's mean, since masking
        after normalisation leaves 0.
      together: most classes that an image of the training has; None where nobody knows.
    """

    weights: Mapping[str, Any]
    goal: Goal
    name: str
    shares: tuple[float, float]
    colour: tuple[float, ...]
    together: int | None = None


class Given(NamedTuple):
    """What an objective is computed from, under JAX's tracing.

    Attributes:
      explainee: the classifier.
      goal: what is to be reached.
      images: [n,H,W,C] in [0,1].
      labels: [n,classes], the classes of each.
      raw: masks at the images' size.
      draw: raw masks of other images of the same shape.
      rng: of what is drawn.
    """

    explainee: Explainee
    goal: ClassGoal
    images: Array
    labels: Array
    raw: Array
    draw: Draw
    rng: Array

    @property
    def plain(self) -> Float[Array, "1 1 1 C"]:
        """The mean colour alone."""
        return per_channel(self.goal.colour, self.images)

    def through(
        self, masks: Float[Array, "n H W"], fill: Float[Array, "#n #H #W C"]
    ) -> list[Float[Array, "n classes"]]:
        """Logits through masks, and through what they leave, in one batch."""
        both = covered(self.images[None], jnp.stack([masks, 1 - masks]), fill[None])
        logits = self.explainee(both.reshape(-1, *self.images.shape[1:]))
        return [logits[: len(masks)], logits[len(masks) :]]

    @property
    def weights(self) -> class_masks.Weights:
        """With the shares that are no arguments of a program."""
        least, most = self.goal.shares
        together = self.goal.together
        return class_masks.Weights(**self.goal.weights, least=least, most=most, together=together)


def _nn_explainer(given: Given) -> tuple[Array, Terms]:
    target, _ = class_masks.merged(given.raw, given.labels)
    seen, hidden = given.through(target, given.plain)
    how = given.weights, given.explainee.single
    return class_masks.class_mask_loss(given.raw, given.labels, seen, hidden, *how)


def _some_classes(given: Given) -> tuple[Array, Terms]:
    """Of a random part of each image's classes, drawn anew in every step."""
    shown = part_of(given.labels, given.rng)
    target, _ = class_masks.merged(given.raw, shown)
    seen, hidden = given.through(target, given.plain)
    return class_masks.some_classes_loss(
        given.raw, given.labels, shown, seen, hidden, given.weights
    )


def _real_time_saliency(given: Given) -> tuple[Array, Terms]:
    target, _ = class_masks.merged(given.raw, given.labels)
    seen, hidden = given.through(target, alternative(given.images, given.rng))
    return class_masks.real_time_saliency_loss(given.raw, given.labels, seen, hidden)


def _self_explainer(given: Given) -> tuple[Array, Terms]:
    target, _ = class_masks.merged(given.raw, given.labels)
    student = given.draw(covered(given.images, target, given.plain))
    how = given.weights, given.explainee.single
    return class_masks.self_explainer_loss(given.raw, student, given.labels, *how)


def _one_class(given: Given) -> tuple[Array, Terms]:
    """The objective of one mask an image, of a class of each that is drawn anew in every step."""
    keys = jax.random.split(given.rng, len(given.images))
    chances = jnp.where(given.labels, 0.0, -jnp.inf)
    classes = jax.vmap(jax.random.categorical)(keys, chances).astype(jnp.int32)
    raw = jnp.take_along_axis(given.raw, classes[:, None, None, None], axis=1)[:, 0]
    goal, masks = given.goal.goal, jax.nn.sigmoid(raw)
    some = given.explainee, given.images, masks, classes, raw, goal.chance(keys)
    total, terms = losses(goal.weights, *some)
    # Of no class there is none to be drawn.
    there = given.labels.any(-1)
    count = jnp.maximum(there.sum(dtype=jnp.float32), 1)

    def mean(values: Array) -> Array:
        return jnp.where(there, values, 0).sum() / count

    return mean(total), {name: mean(values) for name, values in terms.items()}


OBJECTIVES: dict[str, Callable[[Given], tuple[Array, Terms]]] = {
    NN_EXPLAINER: _nn_explainer,
    SOME_CLASSES: _some_classes,
    "real_time_saliency": _real_time_saliency,
    "self_explainer": _self_explainer,
    BUDGET: _one_class,
}


def part_of(labels: Bool[Array, "n classes"], rng: Key[Array, ""]) -> Bool[Array, "n classes"]:
    """Each class of an image as often as not, and at least one where it has any."""
    luck = jax.random.uniform(rng, labels.shape)
    luckiest = jnp.where(labels, luck, -1).max(-1, keepdims=True)
    return labels & ((luck > 0.5) | (luck == luckiest))


def alternative(images: Float[Array, "n H W C"], rng: Key[Array, ""]) -> Float[Array, "n H W C"]:
    """What Real-Time Saliency covers an image with: itself blurred, or noise of one colour, as
    often.

    NN-Explainer draws one of the two for a whole batch, here each image draws; its noise is drawn
    after normalisation, with a mean of 0.11 and a deviation of 1 about the mean colour.
    """
    n, height, width, channels = images.shape
    of_kind, of_colour, of_grain = jax.random.split(rng, 3)
    colour = 0.5 + _COLOURS * (jax.random.uniform(of_colour, (n, 1, 1, channels)) - 0.5)
    noise = jnp.clip(colour + _GRAIN * jax.random.normal(of_grain, images.shape), 0, 1)
    smooth = blurred(images, _BLUR * max(height, width))
    return jnp.where(jax.random.bernoulli(of_kind, 0.5, (n, 1, 1, 1)), smooth, noise)


def class_loss(
    explainee: Explainee,
    explainer: Explainer,
    goal: ClassGoal,
    params: Leaves,
    model_state: Leaves,
    batch: Mapping[str, Array],
    rng: Array,
) -> tuple[Array, tuple[Terms, Leaves]]:
    """The objective of masks of every class, for `train_step`.

    Args:
      explainee: the frozen classifier, in evaluation mode.
      explainer: gives the network and its frozen leaves.
      goal: the objective.
      params: the explainer's trained leaves.
      model_state: the statistics of its batch norms.
      batch: `images` [n,H,W,C], uint8 or in [0,1], and `targets`, see `labels_of`.
      rng: of what is dropped and drawn.

    Returns:
      The loss; and as metrics that and each unweighted term.
    """
    dropped, drawn = jax.random.split(rng)
    images = as_input(batch["images"])

    def draw(images: Array) -> Array:
        nonlocal model_state
        raw, model_state = explainer.draw_in_training(params, model_state, images, dropped)
        return explainer.at_pixels(raw, explainer.prefix(images))

    labels = labels_of(explainee, images, batch["targets"])
    given = Given(explainee, goal, images, labels, draw(images), draw, drawn)
    total, terms = OBJECTIVES[goal.name](given)
    return total, ({"total": total, **terms}, model_state)


class ValidatedClasses(NamedTuple):
    """What masks of every class are worth on n images.

    Attributes:
      losses: the loss of each image alone and its terms, by name, [n] each.
      masks: target masks [n,g,h] in [0,1].
      logits: through these, [n,classes].
      labels: the classes of each image, [n,classes].
    """

    losses: Any
    masks: Any
    logits: Any
    labels: Any


@partial(jax.jit, static_argnames="mesh")
def validate_classes(
    explainee: Explainee,
    explainer: Explainer,
    goal: ClassGoal,
    images: Array | np.ndarray,
    targets: Array | np.ndarray,
    mesh: Mesh,
) -> ValidatedClasses:
    """Judge an explainer, in evaluation mode.

    Args:
      explainee: the classifier.
      explainer: with its leaves.
      goal: the objective; what it draws is the same for every image and epoch.
      images: [n,H,W,C], uint8 or in [0,1], n a multiple of the number of devices.
      targets: see `labels_of`.
      mesh: the devices.
    """

    def of_share(
        explainee: Explainee, explainer: Explainer, goal: ClassGoal, images: Array, targets: Array
    ) -> ValidatedClasses:
        images = as_input(images)
        labels = labels_of(explainee, images, targets)

        def raw_of(images: Array) -> tuple[Array, Array]:
            prefix = explainer.prefix(images)
            return explainer.draw(explainer.trained, prefix), prefix

        def draw(images: Array) -> Array:
            return explainer.at_pixels(*raw_of(images))

        def alone(image: Array, labels: Array, raw: Array) -> Terms:
            one = image[None], labels[None], raw[None], draw, jax.random.key(0)
            total, terms = OBJECTIVES[goal.name](Given(explainee, goal, *one))
            return {"loss": total, **terms}

        raw, prefix = raw_of(images)
        pixels = explainer.at_pixels(raw, prefix)
        found = jax.vmap(alone)(images, labels, pixels)
        target, _ = class_masks.merged(pixels, labels)
        seen = covered(images, target, per_channel(goal.colour, images))
        # Of every image held out, to be looked at: on their grid masks take little.
        masks = class_masks.merged(explainer.at_cells(raw, prefix), labels)[0]
        return ValidatedClasses(found, masks, explainee(seen), labels)

    specs = (REPLICATED, REPLICATED, REPLICATED, SPLIT, SPLIT)
    given = explainee, explainer, goal, images, targets
    return on_each_device(of_share, mesh, specs, SPLIT)(*given)


def labels_of(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Array
) -> Bool[Array, "n classes"]:
    """The classes of images: as they are given, bool [n,classes]; or, where the targets are numbers
    [n], those that the explainee predicts."""
    if targets.ndim == 2:
        return targets
    return explainee.held(explainee(images))
