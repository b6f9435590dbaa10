"""Hidden pixels as a weighted mean of their neighbours (ROAD's linear imputation)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

# Of a 224×224 image nine tenths of which are hidden in one piece, 40 leave less than 1e-3 of the
# exact solution, which is the most that single precision gives, and 30 leave 6e-3.
_ITERATIONS = 40
# Below it nothing is left but rounding.
_LEAST = 1e-12


def imputed(
    images: Float[Array, "*n H W C"], seen: Bool[Array, "*n H W"]
) -> Float[Array, "*n H W C"]:
    """Images whose hidden pixels each are the weighted mean of their neighbours, seen and hidden:
    the direct ones weigh 1/6 and the diagonal ones 1/12, at the border divided by the sum of those
    that there are. All hidden pixels are solved for together (Rong et al., ICML 2022).

    Args:
      images: any values; those of hidden pixels do not count.
      seen: the pixels that stay as they are, at least one in each image.
    """
    hidden = ~seen[..., None]
    known = jnp.where(hidden, 0, images)
    weights = _of_neighbours(jnp.ones_like(known[..., :1]))

    def excess(values: Array) -> Array:
        """What hidden pixels have over their neighbours; symmetric, and positive definite."""
        return jnp.where(hidden, weights * values - _of_neighbours(values), 0)

    wanted = jnp.where(hidden, _of_neighbours(known), 0)
    return known + _conjugate_gradients(excess, lambda rest: _spread(rest, hidden), wanted)


def _of_neighbours(values: Float[Array, "*n H W C"]) -> Float[Array, "*n H W C"]:
    """The weighted sum of each pixel's eight neighbours, those beyond the border being 0."""
    return (_smoothed(values) * 16 - values * 4) / 12


def _smoothed(values: Float[Array, "*n H W C"]) -> Float[Array, "*n H W C"]:
    """A quarter, a half and a quarter of three pixels along either axis; 0 beyond the border."""
    for axis in (-3, -2):
        around = [(0, 0)] * values.ndim
        around[axis] = (1, 1)
        length, wide = values.shape[axis], jnp.pad(values, around)
        before, after = (jax.lax.slice_in_dim(wide, i, i + length, axis=axis) for i in (0, 2))
        values = (before + 2 * values + after) / 4
    return values


def _spread(rest: Float[Array, "*n H W C"], hidden: Bool[Array, "*n H W 1"]) -> Array:
    """About the solution for a small right hand side: what it is on every scale, summed (Bramble,
    Pasciak & Xu 1990). Symmetric, as conjugate gradients demand of a preconditioner."""
    height, width = rest.shape[-3:-1]
    if height == width == 1:
        return rest
    whole = _squares(hidden, True).all((-4, -2))
    coarse = jnp.where(whole, _squares(_smoothed(rest), 0).sum((-4, -2)), 0)
    fine = _spread(coarse, whole).repeat(2, -3).repeat(2, -2)[..., :height, :width, :]
    return jnp.where(hidden, rest + _smoothed(fine), 0)


def _squares(values: Array, beyond: float | bool) -> Array:
    """[*n,H,W,C] as [*n,h,2,w,2,C], squares of two by two pixels."""
    *n, height, width, channels = values.shape
    odd = [(0, 0)] * len(n) + [(0, height % 2), (0, width % 2), (0, 0)]
    filled = jnp.pad(values, odd, constant_values=beyond)
    return filled.reshape(*n, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)


def _conjugate_gradients(
    apply: Callable[[Array], Array], prepare: Callable[[Array], Array], wanted: Array
) -> Array:
    """About the solution of apply(x) = wanted, of each image and channel by itself; `prepare` is
    about the inverse of `apply`."""

    def dot(a: Array, b: Array) -> Array:
        return (a * b).sum((-3, -2), keepdims=True)

    def share(part: Array, whole: Array) -> Array:
        """0 where nothing is left to do."""
        some = whole > _LEAST
        return jnp.where(some, part / jnp.where(some, whole, 1), 0)

    def step(_: Array | int, state: tuple[Array, ...]) -> tuple[Array, ...]:
        found, rest, way, left = state
        ahead = apply(way)
        length = share(left, dot(way, ahead))
        rest = rest - length * ahead
        prepared = prepare(rest)
        now = dot(rest, prepared)
        return found + length * way, rest, prepared + share(now, left) * way, now

    way = prepare(wanted)
    start = (jnp.zeros_like(wanted), wanted, way, dot(wanted, way))
    return jax.lax.fori_loop(0, _ITERATIONS, step, start)[0]
