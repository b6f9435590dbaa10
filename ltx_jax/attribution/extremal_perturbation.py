"""Extremal perturbations (Fong, Patrick & Vedaldi 2019)."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, target_logits
from ltx_jax.masks.blurring import blurred
from ltx_jax.models.explainee import Explainee

_STEPS, _RATE, _MOMENTUM, _AREA = 800, 0.01, 0.9, 0.1
_WEIGHT, _GROWTH = 300.0, 1.0035
# Pixels from one value of the mask to the next, and the greatest blur, of a side of 224 pixels.
_STEP, _BLUR, _OF, _LEVELS = 7, 20, 224, 8
# With fewer pixels from value to value a mask of ones is even but at the border, which then ranks
# first and is kept.
_LEAST_STEP = 3
# A value reaches as far as three steps, more or less; so many others play a part in a pixel's.
_REACH, _COLDNESS = 3, 20.0
_AROUND, _PADDING = 2 * (_REACH + 1) + 1, 2 * _REACH + 1


@partial(jax.jit, static_argnames=("steps",))
def extremal_perturbation(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    steps: int = _STEPS,
) -> Float[Array, "n H W"]:
    """The smooth mask of a given area that keeps the target's logit as high as can be, where the
    image is blurred the more the less it shows.

    Gradient ascent with momentum on logit − w_t·mean (m − r)², r being 1 for the pixels of the
    mask m that rank within the area and 0 for the others, w_t = 300·1.0035^t; pixels of equal rank
    share what is left of the area. The mask is a smooth maximum of its values (`smooth_maximum`),
    on an image of few pixels over parts of them, of which a pixel gets the mean. Every other step
    sees the image mirrored. Beyond the border the blur repeats it.

    Args:
      explainee, images, targets: as every rival's.
      steps: of the ascent.
    """
    n, height, width, _ = images.shape
    scale = max(height, width) / _OF
    parts = math.ceil(_LEAST_STEP / (_STEP * scale))
    step, size = round(_STEP * scale * parts), (height * parts, width * parts)
    blurs = np.linspace(_BLUR * scale, 0, _LEVELS).tolist()
    levels = jnp.stack([blurred(images, blur) for blur in blurs])

    def gain(values: Array, weight: Array, mirrored: Array) -> Array:
        wide = smooth_maximum(values, step)
        missed = (wide - jax.lax.stop_gradient(_within(wide, _AREA))) ** 2
        seen = _between(levels, _of_pixels(_cut(wide, step, size), parts))
        seen = jnp.where(mirrored, seen[:, :, ::-1], seen)
        return target_logits(explainee, seen, targets) - weight * missed.mean((1, 2)).sum()

    def ascend(state: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
        values, speed = state
        weight = _WEIGHT * _GROWTH ** t.astype(jnp.float32)
        slope = jax.grad(gain)(values, weight, t % 2 == 0)
        speed = jnp.where(t == 0, slope, _MOMENTUM * speed + (1 - _MOMENTUM) * slope)
        return (jnp.clip(values + _RATE * speed, 0, 1), speed), None

    values = jnp.ones((n, *(math.ceil(side / step) for side in size)))
    steps_taken = jnp.arange(steps, dtype=jnp.int32)
    (values, _), _ = jax.lax.scan(ascend, (values, jnp.zeros_like(values)), steps_taken)
    return _of_pixels(_cut(smooth_maximum(values, step), step, size), parts)


@partial(jax.custom_vjp, nondiff_argnums=(1,))  # else it keeps 81 times as much on its way
def smooth_maximum(values: Float[Array, "n g h"], step: int) -> Float[Array, "n a b"]:
    """A mask as the smooth maximum of its values, each weakened by its distance (section 3.2).

    Value i stands at pixel σ + step·i, σ being three steps, and counts exp(−2·max(d/σ − ½, 0)²)
    times at distance d. Of these products a pixel gets the mean, weighted with the softmax of 20
    times themselves.

    Args:
      values: in [0,1].
      step: pixels from value to value.

    Returns:
      In [0,1], over step·g + 2σ − step + 1 pixels along each side: σ of them lie before the image.
    """
    return _joined(_maximum(values, step)[0])


def _maximum(
    values: Float[Array, "n g h"], step: int
) -> tuple[Float[Array, "n a r b q"], Float[Array, "n a r b q"]]:
    """The smooth maximum at the pixels [r,q] between values [a,b], and what its weights sum to."""

    def add(sums: tuple[Array, Array], one: _Neighbour) -> tuple[tuple[Array, Array], None]:
        weakened = _weakened(values, one)
        weight = jnp.exp(_COLDNESS * weakened)
        return (sums[0] + weight * weakened, sums[1] + weight), None

    neighbours = _neighbours(step)
    shape = jax.eval_shape(_weakened, values, jax.tree.map(lambda x: x[0], neighbours))
    zeros = jnp.zeros(shape.shape, shape.dtype)
    (total, weights), _ = jax.lax.scan(add, (zeros, zeros), neighbours)
    return total / weights, weights


def _with_residuals(values: Array, step: int) -> tuple[Array, tuple[Array, ...]]:
    mask, weights = _maximum(values, step)
    return _joined(mask), (values, mask, weights)


def _to_values(step: int, residuals: tuple[Array, ...], slope: Array) -> tuple[Array]:
    """The gradient: of m with respect to a product v, softmax(20v)·(1 + 20(v − m))."""
    values, mask, weights = residuals
    slope = _parted(slope, step) / weights

    def add(total: Array, one: _Neighbour) -> tuple[Array, None]:
        weakened = _weakened(values, one)
        share = jnp.exp(_COLDNESS * weakened) * (1 + _COLDNESS * (weakened - mask))
        pull = jnp.einsum("narbq,rq->nab", slope * share, one.closeness, precision="highest")
        around = jnp.zeros_like(total)
        return total + jax.lax.dynamic_update_slice(around, pull, (0, *one.offset)), None

    around = jnp.zeros_like(_around(values))
    total, _ = jax.lax.scan(add, around, _neighbours(step))
    return (total[:, _PADDING:-_PADDING, _PADDING:-_PADDING],)


smooth_maximum.defvjp(_with_residuals, _to_values)


class _Neighbour(NamedTuple):
    """One of the values around: where it lies, and how much it counts for each pixel between one
    value and the next."""

    offset: Int[Array, "... 2"]
    closeness: Float[Array, "... r q"]


def _neighbours(step: int) -> _Neighbour:
    """All that play a part in a pixel."""
    offset = np.stack(np.meshgrid(*[np.arange(_AROUND)] * 2, indexing="ij"), -1).reshape(-1, 2)
    along = np.arange(step) + step * (_REACH + 1 - offset[..., None])
    distance = np.hypot(along[:, 0, :, None], along[:, 1, None])
    beyond = np.maximum(distance / (_REACH * step) - 0.5, 0)
    return _Neighbour(
        jnp.asarray(offset, jnp.int32), jnp.asarray(np.exp(-2 * beyond**2), jnp.float32)
    )


def _around(values: Float[Array, "n g h"]) -> Float[Array, "n i j"]:
    return jnp.pad(values, ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING)))


def _weakened(values: Float[Array, "n g h"], one: _Neighbour) -> Float[Array, "n a r b q"]:
    """That neighbour's part in every pixel."""
    n, g, h = values.shape
    shape = n, g + 2 * _REACH, h + 2 * _REACH
    near = jax.lax.dynamic_slice(_around(values), (0, *one.offset), shape)
    return near[:, :, None, :, None] * one.closeness[None, None, :, None]


def _joined(parts: Float[Array, "n a r b q"]) -> Float[Array, "n x y"]:
    """Pixels between values as one mask, which ends at the last value."""
    n, a, r, b, q = parts.shape
    return parts.reshape(n, a * r, b * q)[:, : (a - 1) * r + 1, : (b - 1) * q + 1]


def _parted(mask: Float[Array, "n x y"], step: int) -> Float[Array, "n a r b q"]:
    """The other way round, with zeros for what was cut off."""
    n, x, y = mask.shape
    whole = jnp.pad(mask, ((0, 0), (0, step - 1), (0, step - 1)))
    return whole.reshape(n, (x - 1) // step + 1, step, (y - 1) // step + 1, step)


def _cut(wide: Float[Array, "n a b"], step: int, size: tuple[int, int]) -> Float[Array, "n H W"]:
    """The part of a mask that lies over the image."""
    before = _REACH * step
    return wide[:, before : before + size[0], before : before + size[1]]


def _of_pixels(masks: Float[Array, "n a b"], parts: int) -> Float[Array, "n H W"]:
    """The mean over the parts of each pixel, so many each way."""
    n, a, b = masks.shape
    return masks.reshape(n, a // parts, parts, b // parts, parts).mean((2, 4))


def _within(masks: Float[Array, "n a b"], area: float) -> Float[Array, "n a b"]:
    """1 for the pixels that rank within the area, 0 for those beyond; equal ones share the rest."""
    flat = masks.reshape(len(masks), -1)
    beyond = int(flat.shape[1] * (1 - area))
    last = jnp.sort(flat)[:, beyond, None]
    above, equal = (x.astype(jnp.float32) for x in (flat > last, flat == last))
    left = flat.shape[1] - beyond - above.sum(1, keepdims=True)
    return (above + equal * left / equal.sum(1, keepdims=True)).reshape(masks.shape)


def _between(
    levels: Float[Array, "l n H W C"], masks: Float[Array, "n H W"]
) -> Float[Array, "n H W C"]:
    """Images between levels of blur, where 0 is the first and 1 the last."""
    place = masks[..., None] * (len(levels) - 1)
    lower = jnp.minimum(jnp.floor(place), len(levels) - 2)
    upper = place - lower
    seen = jnp.zeros_like(levels[0])
    for number, level in enumerate(levels):
        share = jnp.where(lower == number, 1 - upper, jnp.where(lower == number - 1, upper, 0))
        seen += share * level
    return seen


EXTREMAL_PERTURBATION = Rival(
    "extremal_perturbation",
    "extremal perturbation",
    "Fong, Patrick & Vedaldi, ICCV 2019",
    f"{_STEPS} gradients, {_AREA:.0%} of the area",
    extremal_perturbation,
)
