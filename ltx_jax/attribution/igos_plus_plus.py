"""iGOS++ (Khorram, Lawson & Li 2021)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from ltx_jax.attribution.rival import Rival
from ltx_jax.masks.blurring import blurred
from ltx_jax.masks.covering import covered
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.explainee import Explainee

_STEPS, _PATH, _CELLS = 15, 20, 28
_AREA, _VARIATION = 1.0, 20.0
# The authors' images are normalised; these are in [0,1], where ImageNet's deviation is 0.226.
_NOISE, _ALIKE = 0.2 * 0.226, 0.01 * 0.226**2
# Of a side of 224 pixels.
_BLUR, _BLUR_REACH, _OF = 50, 25, 224
# The line search: the longest step, how it shrinks, the shortest, and how much it must gain.
_LONGEST, _SHRINK, _SHORTEST, _GAIN = 1000.0, 0.2, 1e-5, 1e-4


@partial(jax.jit, static_argnames=("steps", "path"))
def igos_plus_plus(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    steps: int = _STEPS,
    path: int = _PATH,
) -> Float[Array, "n g h"]:
    """1 less the product of two masks, one that deletes the class where it is 0 and one whose
    complement inserts it into the blurred image, optimised together (eq. 5).

    The target's probability, of which there are four terms (either mask, and their product deleting
    and inserting), is the mean over a path from the blurred image (or to it) to what the masks
    show, with a little noise. Its gradient, halved, and that of the area and the bilateral total
    variation of the product is followed with a step of its own for each image, found by line
    search; masks stay in [0,1], and start at 1.

    Args:
      explainee, images, targets: as every rival's.
      steps: of the descent.
      path: points on it.
    """
    height, width = images.shape[1:3]
    scale = max(height, width) / _OF
    blur = blurred(images, _BLUR * scale, max(round(_BLUR_REACH * scale), 1))
    penalty = partial(_penalty, alike=_alikeness(images))
    points = (jnp.arange(path, dtype=jnp.float32) + 1) / path

    def score(masks: Array, point: tuple[Array, Array]) -> Array:
        share, key = point
        noise = _NOISE * jax.random.normal(key, (1, *images.shape[1:]), jnp.float32)
        seen = jnp.concatenate(_views(images, blur, masks, share)) + noise
        p = explainee.probability(explainee(seen), jnp.tile(targets, 4)).reshape(4, -1)
        deleted, inserted, both_deleted, both_inserted = p / path
        return deleted - inserted + both_deleted - both_inserted

    def descend(masks: Array, key: Array) -> tuple[Array, None]:
        way = points, jax.random.split(key, path)

        def above(masks: Array, limit: Array, asked: Array) -> Array:
            return _is_above(lambda point: score(masks, point), way, penalty(masks), limit, asked)

        value, slope = _summed(lambda point: _with_slope(partial(score, point=point), masks), way)
        more, pull = _with_slope(penalty, masks)
        slope = slope / 2 + pull
        return _stepped(masks, slope, _line_search(above, masks, slope, value + more)), None

    masks = jnp.ones((len(images), 2, min(_CELLS, height), min(_CELLS, width)))
    masks, _ = jax.lax.scan(descend, masks, jax.random.split(jax.random.key(0), steps))
    return 1 - masks.prod(1)


def _views(
    images: Float[Array, "n H W C"],
    blur: Float[Array, "n H W C"],
    masks: Float[Array, "n 2 g h"],
    share: Float[Array, ""],
) -> list[Float[Array, "n H W C"]]:
    """What a share of the masks shows: deleted by the first, inserted by the second, and both by
    their product."""
    first, second = (upsample(masks[:, k], images.shape[1:3]) for k in (0, 1))
    both = first * second
    return [
        covered(images, share * first, blur),
        covered(blur, share * second, images),
        covered(images, share * both, blur),
        covered(blur, share * both, images),
    ]


def _penalty(
    masks: Float[Array, "n 2 g h"], alike: tuple[Float[Array, "n _ _"], ...]
) -> Float[Array, " n"]:
    """The share that the masks' product hides, and 20 times its bilateral total variation: half
    of the mean squared differences of cells, and of pixels as far as the image there is `alike`."""
    both = masks.prod(1)
    wide = upsample(both, (alike[1].shape[1], alike[0].shape[2]))
    variation = sum(
        (jnp.diff(both, axis=axis) ** 2).mean((1, 2))
        + (like * jnp.diff(wide, axis=axis) ** 2).mean((1, 2))
        for axis, like in zip((1, 2), alike, strict=True)
    )
    return _AREA * jnp.abs(1 - both).mean((1, 2)) + _VARIATION * 0.5 * variation


def _alikeness(images: Float[Array, "n H W C"]) -> tuple[Float[Array, "n _ _"], ...]:
    """How alike neighbours down and across are: exp(−d²/0.01), d the difference of their greys."""
    grey = images.mean(-1)
    return tuple(jnp.exp(-(jnp.diff(grey, axis=axis) ** 2) / _ALIKE) for axis in (1, 2))


def _with_slope(
    function: Callable[[Array], Array], masks: Float[Array, "n 2 g h"]
) -> tuple[Float[Array, " n"], Float[Array, "n 2 g h"]]:
    """The values of a function for each image's masks, and their gradients."""

    def whole(masks: Array) -> tuple[Array, Array]:
        values = function(masks)
        return values.sum(), values

    slope, values = jax.grad(whole, has_aux=True)(masks)
    return values, slope


def _summed(function: Callable[[Any], Any], points: Any) -> Any:
    """The sum of a function over points along their leading axis, one after the other."""
    first = jax.eval_shape(function, jax.tree.map(lambda x: x[0], points))

    def add(total: Any, point: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(point)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    return jax.lax.scan(add, zeros, points)[0]


def _is_above(
    score: Callable[[Any], Array],
    points: Any,
    more: Float[Array, " n"],
    limit: Float[Array, " n"],
    asked: Bool[Array, " n"],
) -> Bool[Array, " n"]:
    """Whether a loss is above a limit: points are gone through until that is plain for all images
    asked for, since those left take off no more than two of the four probabilities' shares each.

    Args:
      score: of a point to its part of each image's loss, at least −2 divided by their number.
      points: along their leading axis.
      more: the rest of the loss.
      limit: for each image.
      asked: of which images it matters; of others anything may come.
    """
    count = len(jax.tree.leaves(points)[0])

    def least(k: Array, total: Array) -> Array:
        return total + more - 2 * (count - k) / count

    def undecided(state: tuple[Array, Array]) -> Array:
        return (state[0] < count) & (asked & (least(*state) <= limit)).any()

    def add(state: tuple[Array, Array]) -> tuple[Array, Array]:
        k, total = state
        return k + 1, total + score(jax.tree.map(lambda x: x[k], points))

    start = jnp.zeros((), jnp.int32), jnp.zeros_like(more)
    return least(*jax.lax.while_loop(undecided, add, start)) > limit


def _stepped(
    masks: Float[Array, "n 2 g h"], slope: Float[Array, "n 2 g h"], length: Float[Array, " n"]
) -> Float[Array, "n 2 g h"]:
    return jnp.clip(masks - length[:, None, None, None] * slope, 0, 1)


def _line_search(
    above: Callable[[Array, Array, Array], Array],
    masks: Float[Array, "n 2 g h"],
    slope: Float[Array, "n 2 g h"],
    before: Float[Array, " n"],
) -> Float[Array, " n"]:
    """For each image the longest step that lowers the loss by 1e-4 of its length times the squared
    slope, of 1000, a fifth of it, and so on down to about 1e-5.

    Args:
      above: from masks, a limit for each image and which images are asked for, to whether their
        loss is above it.
      masks, slope: where they are, and the direction.
      before: the loss there.
    """
    steepness = (slope**2).sum((1, 2, 3))

    def shorten(state: tuple[Array, Array]) -> tuple[Array, Array]:
        length, searching = state
        limit = before - _GAIN * length * steepness
        searching &= above(_stepped(masks, slope, length), limit, searching)
        searching &= length >= _SHORTEST
        return jnp.where(searching, _SHRINK * length, length), searching

    longest = jnp.full(len(masks), _LONGEST), jnp.ones(len(masks), bool)
    return jax.lax.while_loop(lambda state: state[1].any(), shorten, longest)[0]


IGOS_PLUS_PLUS = Rival(
    "igos_plus_plus",
    "iGOS++",
    "Khorram, Lawson & Li, CHIL 2021",
    f"{_STEPS} steps of {4 * _PATH} gradients and {4 * _PATH} to {13 * 4 * _PATH:,} forwards",
    igos_plus_plus,
)
