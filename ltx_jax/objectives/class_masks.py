"""A mask for every class in one pass: NN-Explainer's objective, and two kindred ones.

Of raw masks [n,classes,H,W], values before the sigmoid at the images' size, and the classes that
each image is labelled with. Means are over batch and pixels; each function gives one number.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float

Raw = Float[Array, "n classes H W"]
Masks = Float[Array, "n H W"]
Logits = Float[Array, "n classes"]
Labels = Bool[Array, "n classes"]
Number = Float[Array, ""]


class Weights(NamedTuple):
    """Of the terms, and the least and greatest share of the pixels that a class should have."""

    prediction: float = 1.0
    entropy: float = 1.0
    variation: float = 1.0
    class_area: float = 1.0
    target_area: float = 0.1
    other_area: float = 0.3
    least: float = 0.05
    most: float = 0.3


def merged(raw: Raw, labels: Labels) -> tuple[Masks, Masks]:
    """The target mask and the non-target mask, in [0,1]: of the greatest value of the image's
    classes, and of the others. Where there is none of them the mask is 0."""
    labels = labels[:, :, None, None]
    return tuple(  # type: ignore[return-value]
        jax.nn.sigmoid(jnp.where(chosen, raw, -jnp.inf).max(1)) for chosen in (labels, ~labels)
    )


def prediction(logits: Logits, labels: Labels) -> Number:
    """Binary cross-entropy, the mean over images and classes."""
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean()


def single_prediction(logits: Logits, labels: Labels) -> Number:
    """Cross-entropy, for images of one class each (CUB-200): the first of the labels."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels.argmax(-1)).mean()


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


def class_area(raw: Raw, labels: Labels, least: float, most: float) -> Number:
    """What each class of an image lacks of a share of the pixels, and has beyond another.

    Of a class's sorted mask values the first `least` should be 1 and what comes after `most` 0;
    means over all pixels, summed over the image's classes.
    """
    values = jnp.sort(jax.nn.sigmoid(raw).reshape(*raw.shape[:2], -1), descending=True)
    pixels = values.shape[-1]
    lacking = (1 - values[..., : int(pixels * least)]).sum(-1)
    beyond = values[..., int(pixels * most) :].sum(-1)
    return jnp.where(labels, (lacking + beyond) / pixels, 0).sum(-1).mean()


def class_mask_loss(
    raw: Raw, labels: Labels, seen: Logits, hidden: Logits, weights: Weights
) -> tuple[Number, dict[str, Number]]:
    """The loss of NN-Explainer, and its terms before they are weighted.

    Args:
      raw: masks.
      labels: classes of each image.
      seen, hidden: the classifier's logits through the target mask, and through what it leaves.
      weights: of the terms.

    Source: Stalder et al., NeurIPS 2022, section 3.2.
    """
    target, others = merged(raw, labels)
    terms = {
        "prediction": prediction(seen, labels),
        "entropy": negative_entropy(hidden),
        "variation": variation(target) + variation(others),
        "class_area": class_area(raw, labels, weights.least, weights.most),
        "target_area": target.mean(),
        "other_area": others.mean(),
    }
    return _weighted(terms, weights), terms


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


# --- The self-explainer: a network whose masks' means are its logits ------------------------------


def self_explainer_loss(teacher: Raw, student: Raw, labels: Labels, weights: Weights) -> Number:
    """Both classify, and agree in logits and target masks (NN-Explainer's `InterpretableFCNN`).

    Args:
      teacher: raw masks of the images.
      student: those of the images through the teacher's target masks.
      labels: classes of each image.
      weights: of the terms; `entropy` has no part in it.
    """
    both = [(raw, raw.mean((2, 3)), *merged(raw, labels)) for raw in (teacher, student)]
    # What they agree in: logits, and target masks.
    total: Number = sum(jnp.abs(both[0][part] - both[1][part]).mean() for part in (1, 2))  # type: ignore[assignment]
    for raw, logits, target, others in both:
        terms = {
            "prediction": prediction(logits, labels),
            "variation": variation(target),
            "class_area": class_area(raw, labels, weights.least, weights.most),
            "target_area": target.mean(),
            "other_area": others.mean(),
        }
        total += _weighted(terms, weights)
    return total
