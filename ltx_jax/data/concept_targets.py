"""What a training learns of an image: the pixels of one of its concepts, and what these show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from ltx_jax.data.examples import Example

Target = dict[str, np.ndarray]
MASKS, LABELS = "masks", "labels"


@dataclass(frozen=True)
class ConceptTargets:
    """One of an image's concepts, drawn each time it is taken (a `batches.DrawnTargets`).

    Attributes:
      places: of each label that is learnt its place among the concepts.
      concepts: how many there are.
      grid: cells of the features, (rows, columns).
      unseen: labels that are left to be discovered.
    """

    places: Mapping[int, int]
    concepts: int
    grid: tuple[int, int]
    unseen: frozenset[int] = frozenset()

    @property
    def nothing(self) -> Target:
        """No cell, and no concept."""
        return {MASKS: np.zeros(self.grid, bool), LABELS: np.zeros(self.concepts, bool)}

    def draw(self, example: Example, rng: np.random.Generator) -> Target | None:
        """The cells of one concept, and all concepts that have the very same pixels.

        A concept that no cell shows is never drawn (the original trained on the whole image then),
        nor one that is an unseen concept as well, by more than half of the pixels of both: what
        looks like it would be taught to be none of the words that are near its own.

        Returns:
          `masks` bool [g,h] and `labels` bool [concepts]; None where there is nothing to draw.
        """
        if example.masks is None:
            return None
        learnt = [k for k, label in enumerate(example.labels) if label in self.places]
        cells = {k: on_grid(example.masks[k], self.grid) for k in learnt}
        hidden = [k for k, label in enumerate(example.labels) if label in self.unseen]
        seen = [
            k
            for k in learnt
            if cells[k].any() and not any(_alike(*example.masks[[k, other]]) for other in hidden)
        ]
        if not seen:
            return None
        drawn = seen[rng.integers(len(seen))]
        labels = np.zeros(self.concepts, bool)
        for k in learnt:
            if (example.masks[k] == example.masks[drawn]).all():
                labels[self.places[example.labels[k]]] = True
        return {MASKS: cells[drawn], LABELS: labels}


def _alike(one: Bool[np.ndarray, "H W"], other: Bool[np.ndarray, "H W"]) -> bool:
    return bool(2 * (one & other).sum() > (one | other).sum())


def on_grid(
    mask: Bool[np.ndarray, "H W"], grid: tuple[int, int]
) -> Bool[np.ndarray, "{grid[0]} {grid[1]}"]:
    """A mask at each cell's centre."""
    rows, columns = (
        ((np.arange(cells) + 0.5) * (side / cells)).astype(int)
        for cells, side in zip(grid, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
