"""SLOC: soft local completeness (Haddad et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, logits_through, masks_at_once
from ltx_jax.models.explainee import Explainee, in_chunks

# Squares of two sizes, in pixels of a side of 224; for each size so many masks are fitted.
_SQUARES, _OF, _MASKS = (32, 56), 224, 500
# Shares of the squares that are tried before, with so many masks each.
_SHARES, _TRIED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), 50
_STEPS, _VARIATION, _MAGNITUDE = 501, 0.1, 0.01
# Adam's.
_RATE, _FIRST, _SECOND = 0.1, 0.9, 0.999


class Squares(NamedTuple):
    """Masks that show some of the squares of a grid.

    Attributes:
      seen: 1 for those that are, 0 for the others, of each mask and image.
      shift: pixels by which the grid begins above the image and left of it.
    """

    seen: Float[Array, "m n k l"]
    shift: Int[Array, "m 2"]


@partial(jax.jit, static_argnames=("masks", "tried"))
def sloc(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    masks: int = _MASKS,
    tried: int = _TRIED,
) -> Float[Array, "n H W"]:
    """The map whose sum over whatever a mask shows is what the target's probability gains by it
    over black: for many masks at once, softly.

    A mask shows some squares of a grid whose place is drawn. For each size of the squares, and each
    image, the share that is seen is the one at which the probability varies most from mask to mask.
    The map then minimises, by Adam, the mean over all masks m of (Σ e·m − gain)²/(2|m|HW), beside
    0.1 times its squared total variation (at 224 pixels; at others as much for the same shapes) and
    0.01 times its mean absolute value. A gain counts HWC
    times, as in the authors' program. The map starts constant (theirs with noise on it), its sum
    the gain of the whole image.

    Args:
      explainee, images, targets: as every rival's.
      masks: of each size, that are fitted.
      tried: masks of each size and share, to choose the share.
    """
    n, height, width, channels = images.shape
    scale = channels * height * width

    def probability(seen: Array) -> Array:
        return explainee.probability(logits_through(explainee, images, seen), targets[None])

    black, whole = (probability(jnp.full((1, 1, height, width), x)) for x in (0.0, 1.0))
    views = []
    for number, pixels in enumerate(_SQUARES):
        grid = Grid(max(round(pixels * max(height, width) / _OF), 1), (height, width))
        share = _liveliest_share(grid, probability, n, 2 * number, tried)
        squares = grid.draw(2 * number + 1, masks, share)
        gain = scale * (_through(grid, squares, probability) - black)
        views.append((grid, squares, gain))
    start = jnp.broadcast_to(channels * (whole - black)[0, :, None, None], images.shape[:3])
    return _fitted(start, views)


class Grid(NamedTuple):
    """Squares of so many pixels along each side, over images of a size (H, W)."""

    side: int
    size: tuple[int, int]

    def draw(self, number: int, masks: int, share: Float[Array, " n"]) -> Squares:
        """Masks, each square of which is seen with the probability that is each image's share."""
        key = jax.random.fold_in(jax.random.key(0), number)
        squares = tuple(-(-pixels // self.side) + 1 for pixels in self.size)
        drawn = jax.random.uniform(key, (masks, 2 + squares[0] * squares[1]), jnp.float32)
        shift = (drawn[:, :2] * self.side).astype(jnp.int32)
        levels = drawn[:, 2:].reshape(masks, 1, *squares)
        return Squares((levels < share[None, :, None, None]).astype(jnp.float32), shift)

    def pixels(self, squares: Squares) -> Float[Array, "m n H W"]:
        """The masks over the pixels of the images."""

        def of_one(seen: Array, shift: Array) -> Array:
            rows, columns = (
                (jnp.arange(pixels, dtype=jnp.int32) + start) // self.side
                for pixels, start in zip(self.size, shift, strict=True)
            )
            return seen[:, rows][:, :, columns]

        return jax.vmap(of_one)(*squares)

    def sums(self, values: Float[Array, "n H W"], squares: Squares) -> Float[Array, "m n"]:
        """The sum of the values that each mask shows, from a table of sums from the corner on."""
        table = jnp.pad(values, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)

        def of_one(seen: Array, shift: Array) -> Array:
            rows, columns = (
                jnp.clip(jnp.arange(count + 1, dtype=jnp.int32) * self.side - start, 0, pixels)
                for count, start, pixels in zip(seen.shape[1:], shift, self.size, strict=True)
            )
            corners = table[:, rows][:, :, columns]
            return (jnp.diff(jnp.diff(corners, axis=1), axis=2) * seen).sum((1, 2))

        return jax.vmap(of_one)(*squares)


# The probabilities [m,n] of the targets through masks [m,n,H,W].
_Probability = Callable[[Array], Array]


def _through(grid: Grid, squares: Squares, probability: _Probability) -> Float[Array, "m n"]:
    at_once = masks_at_once(squares.seen.shape[1])
    return in_chunks(lambda some: probability(grid.pixels(some)), squares, at_once)


def _liveliest_share(
    grid: Grid, probability: _Probability, images: int, number: int, tried: int
) -> Float[Array, " n"]:
    """For each image the share at which its probability varies most from mask to mask."""

    def spread(share: Array) -> Array:
        squares = grid.draw(number, tried, jnp.broadcast_to(share, (images,)))
        return _through(grid, squares, probability).std(0)

    shares = jnp.array(_SHARES, jnp.float32)
    return shares[jax.lax.map(spread, shares).argmax(0)]


def _fitted(
    maps: Float[Array, "n H W"],
    views: Sequence[tuple[Grid, Squares, Float[Array, "m n"]]],
) -> Float[Array, "n H W"]:
    """The maps after all steps; `views` has masks of each size, and what is gained by them."""
    everything = jnp.ones_like(maps)
    areas = [grid.sums(everything, squares) for grid, squares, _ in views]
    count = sum((area > 0).sum(0).astype(jnp.float32) for area in areas)
    # The same map of fewer pixels has steeper steps from one to the next.
    smooth = _VARIATION * (max(maps.shape[1:]) / _OF) ** 2

    def loss(maps: Array) -> Array:
        gaps = jnp.zeros(len(maps))
        for (grid, squares, gain), area in zip(views, areas, strict=True):
            gap = (grid.sums(maps, squares) - gain) ** 2
            # A mask that shows nothing gains nothing, whatever the map.
            gaps += jnp.where(area > 0, gap / (2 * jnp.maximum(area, 1)), 0).sum(0)
        local = gaps / (jnp.maximum(count, 1) * maps[0].size)
        variation = sum((jnp.diff(maps, axis=axis) ** 2).mean((1, 2)) for axis in (1, 2))
        magnitude = jnp.abs(maps).mean((1, 2))
        return (local + smooth * variation + _MAGNITUDE * magnitude).sum()

    State = tuple[Array, Array, Array]

    def descend(state: State, t: Array) -> tuple[State, None]:
        maps, first, second = state
        slope = jax.grad(loss)(maps)
        first = _FIRST * first + (1 - _FIRST) * slope
        second = _SECOND * second + (1 - _SECOND) * slope**2
        size = jnp.sqrt(second / (1 - _SECOND**t)) + 1e-8
        return (maps - _RATE * first / (1 - _FIRST**t) / size, first, second), None

    nothing = jnp.zeros_like(maps)
    times = jnp.arange(1, _STEPS + 1, dtype=jnp.float32)
    (maps, _, _), _ = jax.lax.scan(descend, (maps, nothing, nothing), times)
    return maps


_FORWARDS = len(_SQUARES) * (_MASKS + len(_SHARES) * _TRIED)
SLOC = Rival(
    "sloc",
    "SLOC",
    "Haddad, Barkan, Elisha & Koenigstein, ICCV 2025",
    f"{_FORWARDS:,} forwards, {len(_SQUARES) * _MASKS:,} of which are fitted in {_STEPS} steps",
    sloc,
)
