"""A mask for every class in one pass: NN-Explainer's objective, and two kindred ones.

Of raw masks [n,classes,H,W], values before the sigmoid at the images' size, and the classes that
each image is labelled with. Means are over batch and pixels; each function gives one number.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.models.links import cross_entropy

Raw = Float[Array, "n classes H W"]
Masks = Float[Array, "n H W"]
Logits = Float[Array, "n classes"]
Labels = Bool[Array, "n classes"]
Number = Float[Array, ""]


class Weights(NamedTuple):
    """Of the terms, the least and greatest share of the pixels that a class should have, and most
    classes of an image where it is known (see `class_area`)."""

    prediction: float = 1.0
    entropy: float = 1.0
    variation: float = 1.0
    class_area: float = 1.0
    target_area: float = 0.1
    other_area: float = 0.3
    least: float = 0.05
    most: float = 0.3
    together: int | None = None


def merged(raw: Raw, labels: Labels) -> tuple[Masks, Masks]:
    """The target mask and the non-target mask, in [0,1]: of the greatest value of the image's
    classes, and of the others. Where there is none of them the mask is 0."""
    labels = labels[:, :, None, None]
    return tuple(  # type: ignore[return-value]
        jax.nn.sigmoid(jnp.where(chosen, raw, -jnp.inf).max(1)) for chosen in (labels, ~labels)
    )


def negative_entropy(logits: Logits) -> Number:
    """Mean of p·log p over images and classes: least where the answer says nothing."""
    shares = jax.nn.softmax(logits).clip(1e-16)
    return (shares * jnp.log(shares)).mean()


def variation(masks: Masks) -> Number:
    """Mean absolute difference from the right-hand neighbour, and from the one below. The border is
    reflected: the last differences count twice."""
    return sum(jnp.abs(part).mean() for part in _differences(masks))  # type: ignore[return-value]


def squared_variation(masks: Masks) -> Number:
    """The same with squares (Real-Time Saliency)."""
    return sum((part**2).mean() for part in _differences(masks))  # type: ignore[return-value]


def _differences(masks: Masks) -> list[Masks]:
    padded = jnp.pad(masks, ((0, 0), (0, 1), (0, 1)), mode="reflect")
    return [masks - padded[:, :-1, 1:], masks - padded[:, 1:, :-1]]


def class_area(
    raw: Raw, labels: Labels, least: float, most: float, together: int | None = None
) -> Number:
    """What each class of an image lacks of a share of the pixels, and has beyond another.

    Of a class's sorted mask values the first `least` should be 1 and what comes after `most` 0;
    means over all pixels, summed over the image's classes.

    Args:
      raw: masks.
      labels: classes of each image.
      least, most: the two shares.
      together: most classes that one image has, where it is known: no more are looked at.
    """
    if together is not None:
        there, which = jax.lax.top_k(labels.astype(jnp.int32), min(together, labels.shape[1]))
        raw = jnp.take_along_axis(raw, which[:, :, None, None], axis=1)
        labels = there > 0
    values = jax.nn.sigmoid(raw).reshape(*raw.shape[:2], -1)
    pixels = values.shape[-1]
    first, last = int(pixels * least), int(pixels * most)
    lacking = first - _sum_of_greatest(values, first)
    beyond = values.sum(-1) - _sum_of_greatest(values, last)
    return jnp.where(labels, (lacking + beyond) / pixels, 0).sum(-1).mean()


def _sum_of_greatest(values: Float[Array, "n k p"], count: int) -> Float[Array, "n k"]:
    """The sum of the `count` greatest of values that are not negative; of equal ones at the end
    each has its share, of the sum and of its gradient.

    Without sorting them, which takes several times as long: the bits of such floats are in their
    order, so that the last one is found bit by bit.
    """
    if not count:
        return jnp.zeros(values.shape[:2], values.dtype)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(values), jnp.int32)

    def with_bit(i: Array, found: Array) -> Array:
        tried = found | (jnp.int32(1) << (30 - i))
        return jnp.where((bits >= tried[..., None]).sum(-1) >= count, tried, found)

    last = jax.lax.fori_loop(0, 31, with_bit, jnp.zeros(values.shape[:2], jnp.int32))[..., None]
    above, equal = bits > last, bits == last
    left = count - above.sum(-1, keepdims=True, dtype=values.dtype)
    share = left / equal.sum(-1, keepdims=True, dtype=values.dtype)
    return jnp.where(above, values, jnp.where(equal, share * values, 0)).sum(-1)


def class_mask_loss(
    raw: Raw,
    labels: Labels,
    seen: Logits,
    hidden: Logits,
    weights: Weights,
    single: bool = False,
) -> tuple[Number, dict[str, Number]]:
    """The loss of NN-Explainer, and its terms before they are weighted.

    Args:
      raw: masks.
      labels: classes of each image.
      seen, hidden: the classifier's logits through the target mask, and through what it leaves.
      weights: of the terms.
      single: whether one class is the answer.

    Source: Stalder et al., NeurIPS 2022, section 3.2.
    """
    target, others = merged(raw, labels)
    terms = _of_masks(raw, labels, target, others, seen, weights, single)
    terms["variation"] += variation(others)
    terms["entropy"] = negative_entropy(hidden)
    return _weighted(terms, weights), terms


def some_classes_loss(
    raw: Raw, labels: Labels, shown: Labels, seen: Logits, hidden: Logits, weights: Weights
) -> tuple[Number, dict[str, Number]]:
    """NN-Explainer's loss of some of an image's classes: through their mask the classifier holds
    these alone, and through what it leaves the rest.

    The paper's, of all classes at once, asks that an image's masks be right together, and where no
    image has a class alone each may show all objects.

    Args:
      raw: masks.
      labels: classes of each image.
      shown: some of them.
      seen, hidden: the classifier's logits through the mask of these, and through what it leaves.
      weights: of the terms; the `rest` weighs as much as `prediction`, and `entropy` has no part.
    """
    target, others = merged(raw, shown)[0], merged(raw, labels)[1]
    terms = _of_masks(raw, shown, target, others, seen, weights, False)
    terms["variation"] += variation(others)
    rest = cross_entropy(hidden, labels & ~shown, single=False).mean()
    return _weighted(terms, weights) + weights.prediction * rest, terms | {"rest": rest}


def _of_masks(
    raw: Raw,
    labels: Labels,
    target: Masks,
    others: Masks,
    logits: Logits,
    weights: Weights,
    single: bool,
) -> dict[str, Number]:
    """The terms that every image's masks have, by what `Weights` calls them."""
    return {
        "prediction": cross_entropy(logits, labels, single).mean(),
        "variation": variation(target),
        "class_area": class_area(raw, labels, weights.least, weights.most, weights.together),
        "target_area": target.mean(),
        "other_area": others.mean(),
    }


def _weighted(terms: dict[str, Number], weights: Weights) -> Number:
    """The sum of terms, each by the weight of its name."""
    return sum(getattr(weights, name) * value for name, value in terms.items())


# --- Real-Time Saliency (Dabkowski & Gal, NeurIPS 2017), as NN-Explainer has it for several classes


def preserved(seen: Logits, labels: Labels) -> Number:
    """Mean of −log of the probability through the mask, over all classes of all images."""
    return _mean_of(labels, -jax.nn.log_sigmoid(seen))


def destroyed(hidden: Logits, labels: Labels) -> Number:
    """Mean of the probability where the mask's pixels are gone, over all classes of all images."""
    return _mean_of(labels, jax.nn.sigmoid(hidden))


def _mean_of(labels: Labels, values: Logits) -> Number:
    there = labels.astype(values.dtype)
    return (there * values).sum() / jnp.maximum(there.sum(), 1)


def real_time_saliency_loss(
    raw: Raw, labels: Labels, seen: Logits, hidden: Logits
) -> tuple[Number, dict[str, Number]]:
    """Its loss with NN-Explainer's weights, of which only that of the area is not its own.

    Args:
      raw: masks.
      labels: classes of each image.
      seen, hidden: the classifier's logits where another image covers what the target mask hides,
        and where it covers what the mask shows.
    """
    target, _ = merged(raw, labels)
    terms = {
        "preserved": preserved(seen, labels),
        # Without any class there is no slope at 0.
        "destroyed": jnp.maximum(destroyed(hidden, labels), 1e-12) ** 0.3,
        "variation": squared_variation(target),
        "target_area": target.mean(),
    }
    weights = {"preserved": 1.0, "destroyed": 5.0, "variation": 10.0, "target_area": 1.0}
    return sum(weights[name] * value for name, value in terms.items()), terms  # type: ignore[return-value]


# --- The self-explainer: a network whose masks' means are its logits ------------------------------


def self_explainer_loss(
    teacher: Raw, student: Raw, labels: Labels, weights: Weights, single: bool = False
) -> tuple[Number, dict[str, Number]]:
    """Both classify, and agree in logits and target masks (NN-Explainer's `InterpretableFCNN`).

    Args:
      teacher: raw masks of the images.
      student: those of the images through the teacher's target masks.
      labels: classes of each image.
      weights: of the terms; `entropy` has no part in it.
      single: whether one class is the answer.

    Returns:
      The loss; and before they are weighted the terms, of both together, and `disagreement`.
    """
    both = [(raw, raw.mean((2, 3)), *merged(raw, labels)) for raw in (teacher, student)]
    # What they agree in: logits, and target masks.
    apart: Number = sum(jnp.abs(both[0][part] - both[1][part]).mean() for part in (1, 2))  # type: ignore[assignment]
    found = [
        _of_masks(raw, labels, target, others, logits, weights, single)
        for raw, logits, target, others in both
    ]
    terms = {name: found[0][name] + found[1][name] for name in found[0]}
    return apart + _weighted(terms, weights), {"disagreement": apart, **terms}
