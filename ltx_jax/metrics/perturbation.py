"""Perturbation curves: nine tenths of the pixels are blackened step by step, in the order of the
pixel mask; an area is that under what remains of the prediction (the original's
`eval_perturbation_test`)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, UInt

from ltx_jax.masks.covering import Fill, covered, filling
from ltx_jax.models.explainee import Explainee, in_chunks
from ltx_jax.models.links import of_class

# Shares of pixels blackened after the unperturbed image.
FRACTIONS = tuple(k / 10 for k in range(1, 10))


class Areas(NamedTuple):
    """Areas in percent (0 to 90) of each image and class, [n,k] each.

    `agreement`: of "arg max equals the class" (POS most relevant first, NEG least relevant first).
    `probability`: of the class's probability (DEL, INS).
    """

    agreement: Float[Array, "n k"]
    probability: Float[Array, "n k"]


class Curves(NamedTuple):
    """What remains of the prediction of each image and class, [n,k,points] each: of the image as it
    is, and as tenth after tenth of its pixels is gone.

    `agreement`: whether arg max equals the class; `probability` and `logit`: of the class.
    """

    agreement: Bool[Array, "n k points"]
    probability: Float[Array, "n k points"]
    logit: Float[Array, "n k points"]

    def areas(self) -> Areas:
        """The area under each."""
        return _areas(self.agreement, self.probability)


class Removal(NamedTuple):
    """Which pixels of each image are gone at each step.

    Attributes:
      keys: small for the pixels that go first.
      last: key of the last pixel to go at a step.
      place: where it stands in reading order; among equal keys those up to it go.
    """

    keys: UInt[Array, "n H W"]
    last: UInt[Array, "n steps"]
    place: UInt[Array, "n steps"]

    def removed(self) -> Bool[Array, "n steps H W"]:
        """Whether a pixel is gone at a step."""
        height, width = self.keys.shape[1:]
        keys, last, place = (
            self.keys[:, None],
            self.last[..., None, None],
            self.place[..., None, None],
        )
        reading = jnp.arange(height * width, dtype=jnp.uint32).reshape(1, 1, height, width)
        return (keys < last) | ((keys == last) & (reading <= place))


def removal(
    pixel_masks: Float[Array | np.ndarray, "n H W"],
    most_relevant_first: bool,
    counts: tuple[int, ...] | None = None,
) -> Removal:
    """The order of removal; ties keep their reading order.

    Nothing is sorted: the last pixel of each step is found bit by bit, which is several times as
    fast as a sort of all pixels.

    Args:
      pixel_masks: relevance of each pixel.
      most_relevant_first: the order.
      counts: pixels that are gone at each step; those of `FRACTIONS` where not given.
    """
    pixel_masks = jnp.asarray(pixel_masks, jnp.float32)
    n, height, width = pixel_masks.shape
    keys = _ordered_bits(-pixel_masks if most_relevant_first else pixel_masks)
    flat = keys.reshape(n, 1, -1)
    counts = counts or tuple(int(height * width * fraction) for fraction in FRACTIONS)
    gone = jnp.broadcast_to(jnp.array([counts], jnp.int32), (n, len(counts)))
    last = _smallest(flat, gone, bits=32)
    tied = flat == last[..., None]
    reading = jnp.arange(height * width, dtype=jnp.uint32).reshape(1, 1, -1)
    left = gone - _count(flat < last[..., None])
    place = _smallest(reading, left, bits=(height * width).bit_length(), among=tied)
    return Removal(keys, last, place)


def _ordered_bits(values: Float[Array, "n H W"]) -> UInt[Array, "n H W"]:
    """Integers in the order of the floats: the bits of those below zero are turned around."""
    values = jnp.where(values == 0, 0.0, values)  # -0.0 is no less than 0.0
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits < sign, bits | sign, ~bits)


def _count(marked: Bool[Array, "n steps P"]) -> Int[Array, "n steps"]:
    return marked.sum(-1, dtype=jnp.int32)


def _smallest(
    values: UInt[Array, "#n #steps P"],
    counts: Int[Array, "n steps"],
    bits: int,
    among: Bool[Array, "n steps P"] | None = None,
) -> UInt[Array, "n steps"]:
    """The count-th smallest value, among those marked, from its highest bit down."""

    def settle(i: Array | int, found: Array) -> Array:
        higher = found | (jnp.uint32(1) << jnp.asarray(bits - 1 - i, jnp.uint32))
        below = values < higher[..., None]
        if among is not None:
            below &= among
        return jnp.where(_count(below) < counts, higher, found)

    return jax.lax.fori_loop(0, bits, settle, jnp.zeros(counts.shape, jnp.uint32))


def perturbation_areas(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W C"],
    pixel_masks: Float[Array | np.ndarray, "n H W"],
    classes: Int[Array | np.ndarray, "n k"],
    logits: Float[Array | np.ndarray, "n classes"],
    most_relevant_first: bool,
    chunk: int | None = None,
    fill: Fill = "black",
) -> Areas:
    """Areas under the `perturbation_curves` of each image; arguments as there."""
    return perturbation_curves(
        explainee, images, pixel_masks, classes, logits, most_relevant_first, chunk, fill
    ).areas()


def perturbation_curves(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W C"],
    pixel_masks: Float[Array | np.ndarray, "n H W"],
    classes: Int[Array | np.ndarray, "n k"],
    logits: Float[Array | np.ndarray, "n classes"],
    most_relevant_first: bool,
    chunk: int | None = None,
    fill: Fill = "black",
) -> Curves:
    """The perturbation curves of each image.

    Args:
      explainee: the classifier.
      images: in [0,1].
      pixel_masks: relevance of each pixel; only its order matters.
      classes: k classes to score for each image.
      logits: of the unperturbed images.
      most_relevant_first: the order of removal.
      chunk: most images in one forward of the explainee.
      fill: what stands where pixels are gone; see `masks.covering.covered`.
    """
    order = removal(pixel_masks, most_relevant_first)
    return curves_of_removal(explainee, images, order, classes, logits, chunk, fill)


def curves_of_removal(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W C"],
    order: Removal,
    classes: Int[Array | np.ndarray, "n k"],
    logits: Float[Array | np.ndarray, "n classes"],
    chunk: int | None = None,
    fill: Fill = "black",
) -> Curves:
    """The `perturbation_curves` of each image as its pixels go in any order."""
    perturbed = perturbed_logits(explainee, jnp.asarray(images), order, chunk, fill)
    curve = jnp.concatenate([logits[:, None], perturbed], axis=1)
    logit = of_class(curve[:, None], jnp.asarray(classes)[..., None])
    return Curves(*_read(explainee, curve, classes), logit)


def contending_areas(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W C"],
    pixel_masks: Float[Array | np.ndarray, "n H W"],
    classes: Int[Array | np.ndarray, "n k"],
    logits: Float[Array | np.ndarray, "n classes"],
    most_relevant_first: bool,
    to_beat: Float[Array, " n"],
    chunk: int | None = None,
) -> Areas:
    """`perturbation_areas` of the masks that beat a known agreement; NaN for all others.

    A mask whose agreement for its first class can no longer be lower (higher, where the least
    relevant pixels go first) than `to_beat` is left alone, which saves most of the forwards. Each
    round computes as many perturbed images as there are masks, those that settle most first: where
    the most relevant pixels go first, little blackened is the most likely to agree. How far a mask
    that is beaten gets rests on the masks beside it, so nothing is told of any of those.

    Args:
      explainee, images, pixel_masks, classes, logits, most_relevant_first, chunk: as there.
      to_beat: in percent; an infinity for any or none.
    """
    images, classes = jnp.asarray(images), jnp.asarray(classes)
    n, k = classes.shape
    removed = removal(pixel_masks, most_relevant_first)
    unperturbed = _read(explainee, jnp.asarray(logits)[:, None], classes)
    urgency = jnp.arange(len(FRACTIONS), dtype=jnp.int32)[:: 1 if most_relevant_first else -1]

    def contending(curves: _Curves) -> Array:
        lowest, highest = _bounds(curves, unperturbed[0][:, 0, 0])
        return lowest < to_beat if most_relevant_first else highest > to_beat

    def wanted(curves: _Curves) -> Array:
        return contending(curves)[:, None] & ~curves.known

    def one_round(curves: _Curves) -> _Curves:
        missing = wanted(curves)
        order = jnp.argsort(jnp.where(missing, urgency[None], len(FRACTIONS)).ravel())
        mask, step = jnp.divmod(order[: min(n, chunk or n)], len(FRACTIONS))
        chosen = Removal(removed.keys[mask], *(x[mask, step, None] for x in removed[1:]))
        found = perturbed_logits(explainee, images[mask], chosen)
        agreement, probability = _read(explainee, found, classes[mask])
        mask = jnp.where(missing[mask, step], mask, n)  # out of range: dropped
        return _Curves(
            curves.known.at[mask, step].set(True, mode="drop"),
            curves.agreement.at[mask, :, step].set(agreement[..., 0], mode="drop"),
            curves.probability.at[mask, :, step].set(probability[..., 0], mode="drop"),
        )

    shape = (n, k, len(FRACTIONS))
    nothing = _Curves(
        jnp.zeros((n, shape[-1]), bool), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32)
    )
    curves = jax.lax.while_loop(lambda curves: wanted(curves).any(), one_round, nothing)
    beats = contending(curves)[:, None]  # known as a whole, or it would still be wanted
    whole = (jnp.concatenate(parts, -1) for parts in zip(unperturbed, curves[1:], strict=True))
    return Areas(*(jnp.where(beats, area, jnp.nan) for area in _areas(*whole)))


class _Curves(NamedTuple):
    """What is known of the perturbation curves, without their unperturbed first point."""

    known: Bool[Array, "n steps"]
    agreement: Bool[Array, "n k steps"]
    probability: Float[Array, "n k steps"]


def _bounds(
    curves: _Curves, unperturbed: Bool[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Least and greatest agreement with the first class that each curve can still turn out with."""
    weights = 10.0 * jnp.ones((1, len(FRACTIONS)), jnp.float32).at[:, -1].set(0.5)

    def weighed(marked: Array) -> Array:
        return (weights * marked.astype(jnp.float32)).sum(-1)

    lowest = 5.0 * unperturbed.astype(jnp.float32) + weighed(curves.agreement[:, 0] & curves.known)
    return lowest, lowest + weighed(~curves.known)


def perturbed_logits(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    order: Removal,
    chunk: int | None = None,
    fill: Fill = "black",
) -> Float[Array, "n steps classes"]:
    """Logits of each image at each step of a removal, at most `chunk` images in one forward."""
    steps = order.last.shape[1]
    # What is made of the image alone is made once, not at each step; None for black.
    filled = None if callable(fill) else filling(images, fill)

    def forward(item: tuple[Array, Array | None, Removal]) -> Array:
        image, filled, order = item
        shown = ~order.removed()
        whole = jnp.broadcast_to(image[:, None], (*shown.shape, image.shape[-1]))
        perturbed = covered(whole, shown, fill if filled is None else filled[:, None])
        logits = explainee(perturbed.reshape(-1, *image.shape[1:]))
        return logits.reshape(*shown.shape[:2], -1)

    if chunk is None or chunk >= steps:
        return in_chunks(forward, (images, filled, order), chunk and chunk // steps)

    def in_parts(item: tuple[Array, Array | None, Removal]) -> Array:
        """One image, so many steps of it at once."""
        image, filled, order = item

        def some_steps(part: tuple[Array, Array]) -> Array:
            last, place = part
            return forward((image, filled, Removal(order.keys, last[None], place[None])))[0]

        return in_chunks(some_steps, (order.last[0], order.place[0]), chunk)[None]

    return in_chunks(in_parts, (images, filled, order), 1)


def _read(
    explainee: Explainee,
    logits: Float[Array, "n steps classes"],
    classes: Int[Array | np.ndarray, "n k"],
) -> tuple[Bool[Array, "n k steps"], Float[Array, "n k steps"]]:
    answers, asked = logits[:, None], jnp.asarray(classes)[..., None]
    return explainee.agreement(answers, asked), explainee.probability(answers, asked)


def _areas(agreement: Bool[Array, "n k steps"], probability: Float[Array, "n k steps"]) -> Areas:
    """The areas under both; NaN where a logit is, which agrees with nothing."""
    agreed, area = _area(agreement.astype(jnp.float32)), _area(probability)
    return Areas(jnp.where(jnp.isnan(area), jnp.nan, agreed), area)


def _area(curve: Float[Array, "n k steps"]) -> Float[Array, "n k"]:
    """The trapezoid rule over 0, 0.1 … 0.9, in percent."""
    return 10.0 * (curve.sum(-1) - 0.5 * (curve[..., 0] + curve[..., -1]))
