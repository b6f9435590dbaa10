"""Perturbation scores: POS and NEG (agreement), DEL and INS (probability).

Nine tenths of the pixels are blackened step by step, in the order of the pixel mask; each score
is the area under what remains of the prediction (the original's `eval_perturbation_test`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ltx_jax.explainee import Explainee, in_chunks

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt

# Shares of pixels blackened after the unperturbed image.
FRACTIONS = tuple(k / 10 for k in range(1, 10))


class Areas(NamedTuple):
    """Areas in percent (0 to 90) of each image and class, [n,k] each.

    `agreement`: of "arg max equals the class" (POS most relevant first, NEG least relevant first).
    `probability`: of the class's probability (DEL, INS).
    """

    agreement: Float[Array, "n k"]
    probability: Float[Array, "n k"]


class Removal(NamedTuple):
    """Which pixels of each image are blackened at each step.

    Attributes:
      keys: small for the pixels that go first.
      last: key of the last pixel to go at a step.
      place: where it stands in reading order; among equal keys those up to it go.
    """

    keys: UInt[Array, "n H W"]
    last: UInt[Array, "n steps"]
    place: UInt[Array, "n steps"]

    def blackened(self) -> Bool[Array, "n steps H W"]:
        """Whether a pixel is blackened at a step."""
        height, width = self.keys.shape[1:]
        keys, last, place = (
            self.keys[:, None],
            self.last[..., None, None],
            self.place[..., None, None],
        )
        reading = jnp.arange(height * width, dtype=jnp.uint32).reshape(height, width)
        return (keys < last) | ((keys == last) & (reading <= place))


def removal(pixel_masks: Float[Array | np.ndarray, "n H W"], most_relevant_first: bool) -> Removal:
    """The order of removal; ties keep their reading order.

    Nothing is sorted: the last pixel of each step is found bit by bit, which is several times as
    fast as a sort of all pixels.
    """
    pixel_masks = jnp.asarray(pixel_masks)
    n, height, width = pixel_masks.shape
    keys = _ordered_bits(-pixel_masks if most_relevant_first else pixel_masks)
    flat = keys.reshape(n, 1, -1)
    counts = jnp.array([int(height * width * fraction) for fraction in FRACTIONS])
    counts = jnp.broadcast_to(counts, (n, len(FRACTIONS)))
    last = _smallest(flat, counts, bits=32)
    tied = flat == last[..., None]
    reading = jnp.arange(height * width, dtype=jnp.uint32)
    left = counts - (flat < last[..., None]).sum(-1)
    place = _smallest(reading, left, bits=(height * width).bit_length(), among=tied)
    return Removal(keys, last, place)


def _ordered_bits(values: Float[Array, "n H W"]) -> UInt[Array, "n H W"]:
    """Integers in the order of the floats: the bits of those below zero are turned around."""
    values = jnp.where(values == 0, 0.0, values)  # -0.0 is no less than 0.0
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits < sign, bits | sign, ~bits)


def _smallest(
    values: UInt[Array, "#n #steps P"],
    counts: Int[Array, "n steps"],
    bits: int,
    among: Bool[Array, "n steps P"] | None = None,
) -> UInt[Array, "n steps"]:
    """The count-th smallest value, among those marked, from its highest bit down."""

    def settle(i: Array, found: Array) -> Array:
        higher = found | (jnp.uint32(1) << (bits - 1 - i).astype(jnp.uint32))
        below = values < higher[..., None]
        if among is not None:
            below &= among
        return jnp.where(below.sum(-1) < counts, higher, found)

    return jax.lax.fori_loop(0, bits, settle, jnp.zeros(counts.shape, jnp.uint32))


def perturbation_areas(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W 3"],
    pixel_masks: Float[Array | np.ndarray, "n H W"],
    classes: Int[Array | np.ndarray, "n k"],
    logits: Float[Array | np.ndarray, "n classes"],
    most_relevant_first: bool,
    chunk: int | None = None,
) -> Areas:
    """Areas under the perturbation curves of each image.

    Args:
      explainee: the classifier.
      images: in [0,1].
      pixel_masks: relevance of each pixel; only its order matters.
      classes: k classes to score for each image.
      logits: of the unperturbed images.
      most_relevant_first: the order of removal.
      chunk: most images in one forward of the explainee.
    """
    per_forward = chunk and max(1, chunk // len(FRACTIONS))
    order = removal(pixel_masks, most_relevant_first)
    perturbed = in_chunks(
        lambda item: _perturbed_logits(explainee, *item), (images, order), per_forward
    )
    curve = jnp.concatenate([logits[:, None], perturbed], axis=1)
    agreement, probability = _read(curve, classes)
    return Areas(_area(agreement.astype(jnp.float32)), _area(probability))


def contending_areas(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W 3"],
    pixel_masks: Float[Array | np.ndarray, "n H W"],
    classes: Int[Array | np.ndarray, "n k"],
    logits: Float[Array | np.ndarray, "n classes"],
    most_relevant_first: bool,
    to_beat: Float[Array, " n"],
    chunk: int | None = None,
) -> Areas:
    """`perturbation_areas` of the masks that beat a known agreement; NaN for the others.

    A mask whose agreement for its first class can no longer be lower (higher, where the least
    relevant pixels go first) than `to_beat` is left alone, which saves most of the forwards. Each
    round computes as many perturbed images as there are masks, those that settle most first: where
    the most relevant pixels go first, little blackened is the most likely to agree.

    Args:
      explainee, images, pixel_masks, classes, logits, most_relevant_first, chunk: as there.
      to_beat: in percent; an infinity for any or none.
    """
    images, classes = jnp.asarray(images), jnp.asarray(classes)
    n, k = classes.shape
    removed = removal(pixel_masks, most_relevant_first)
    unperturbed = _read(logits[:, None], classes)
    urgency = jnp.arange(len(FRACTIONS))[:: 1 if most_relevant_first else -1]

    def wanted(curves: _Curves) -> Array:
        lowest, highest = _bounds(curves, unperturbed[0][:, 0, 0])
        contending = lowest < to_beat if most_relevant_first else highest > to_beat
        return contending[:, None] & ~curves.known

    def one_round(curves: _Curves) -> _Curves:
        missing = wanted(curves)
        order = jnp.argsort(jnp.where(missing, urgency, len(FRACTIONS)).ravel())
        mask, step = jnp.divmod(order[: min(n, chunk or n)], len(FRACTIONS))
        chosen = Removal(removed.keys[mask], *(x[mask, step, None] for x in removed[1:]))
        found = _perturbed_logits(explainee, images[mask], chosen)
        agreement, probability = _read(found, classes[mask])
        mask = jnp.where(missing[mask, step], mask, n)  # out of range: dropped
        return _Curves(
            curves.known.at[mask, step].set(True, mode="drop"),
            curves.agreement.at[mask, :, step].set(agreement[..., 0], mode="drop"),
            curves.probability.at[mask, :, step].set(probability[..., 0], mode="drop"),
        )

    shape = (n, k, len(FRACTIONS))
    nothing = _Curves(jnp.zeros((n, shape[-1]), bool), jnp.zeros(shape, bool), jnp.zeros(shape))
    curves = jax.lax.while_loop(lambda curves: wanted(curves).any(), one_round, nothing)
    whole = curves.known.all(-1)[:, None]
    areas = [
        _area(jnp.concatenate([first, rest], -1).astype(jnp.float32))
        for first, rest in zip(unperturbed, curves[1:], strict=True)
    ]
    return Areas(*(jnp.where(whole, area, jnp.nan) for area in areas))


class _Curves(NamedTuple):
    """What is known of the perturbation curves, without their unperturbed first point."""

    known: Bool[Array, "n steps"]
    agreement: Bool[Array, "n k steps"]
    probability: Float[Array, "n k steps"]


def _bounds(
    curves: _Curves, unperturbed: Bool[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Least and greatest agreement with the first class that each curve can still turn out with."""
    weights = 10.0 * jnp.ones(len(FRACTIONS)).at[-1].set(0.5)
    lowest = 5.0 * unperturbed + (weights * curves.agreement[:, 0] * curves.known).sum(-1)
    return lowest, lowest + (weights * ~curves.known).sum(-1)


def _perturbed_logits(
    explainee: Explainee, images: Float[Array | np.ndarray, "n H W 3"], order: Removal
) -> Float[Array, "n steps classes"]:
    blackened = order.blackened()
    perturbed = jnp.where(blackened[..., None], 0.0, images[:, None])
    logits = explainee(perturbed.reshape(-1, *images.shape[1:]))
    return logits.reshape(*blackened.shape[:2], -1)


def _read(
    logits: Float[Array | np.ndarray, "n steps classes"], classes: Int[Array | np.ndarray, "n k"]
) -> tuple[Bool[Array, "n k steps"], Float[Array, "n k steps"]]:
    agreement = logits.argmax(-1)[:, None] == classes[..., None]
    probability = jnp.take_along_axis(jax.nn.softmax(logits), classes[:, None], axis=-1)
    return agreement, probability.swapaxes(1, 2)


def _area(curve: Float[Array, "n k steps"]) -> Float[Array, "n k"]:
    """The trapezoid rule over 0, 0.1 … 0.9, in percent."""
    return 10.0 * (curve.sum(-1) - 0.5 * (curve[..., 0] + curve[..., -1]))
