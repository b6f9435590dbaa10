"""The masks of an image's classes merged into one, NN-Explainer's target mask, and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ltx_jax.data.examples import Example, UnreadableImage
from ltx_jax.engine.memory import BatchLayout
from ltx_jax.engine.scoring import Masked, score, with_needs
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.saliency import log_ratio
from ltx_jax.reporting.records import Record, rounded
from ltx_jax.tasks.inputs import Row, Work, examples
from ltx_jax.tasks.maps import Map, Maps
from ltx_jax.tasks.scoring import Asked, Predicted

# NN-Explainer's, which no single class has a part in; and those that are of a set of classes.
_SHARE, _SALIENCY = "share", "saliency"
_SCORES = (
    *("f1_25", "f1_50", "f1_75", "f1_mean", "soft_f1", "pixel_auc", "iou_mean", "soft_iou"),
    *("overlap", "object_coverage", "background_coverage", "similarity_ratio"),
    *(_SHARE, _SALIENCY, "sparsity", "entropy"),
)
# Masks of one value that others are to be better than.
_CONSTANTS = {"zeros": 0.0, "half": 0.5, "ones": 1.0}
PERFECT = "perfect"
_AHEAD = 64


class Sets(NamedTuple):
    """The rows of each image together.

    Attributes:
      work: with a row an image, and the scores of merged masks.
      rows: of each of these the rows whose masks are merged, with the class of each; none where
        nothing of the image was explained.
    """

    work: Work
    rows: Sequence[Sequence[Asked]]

    @property
    def asked(self) -> list[Asked]:
        """Each image that has any, with the first of its classes."""
        return [Asked(i, rows[0].target) for i, rows in enumerate(self.rows) if rows]

    def merged(self, maps: Maps) -> Maps:
        """The pixelwise maximum of the maps of an image's rows."""
        size = self.work.explainee.image_size

        def of_image(i: int) -> Map:
            masks = np.stack([maps(one.row).or_constant().mask for one in self.rows[i]])
            return Map(upsample(masks, size).max(0))

        return of_image

    def yardsticks(self) -> dict[str, tuple[Maps, list[Asked]]]:
        """Masks of one value, and the objects themselves for the images of which they are known;
        nothing where no objects are."""
        work = self.work
        if not work.source.has_masks:
            return {}
        size = work.explainee.image_size
        found = {name: (_constant(v, size), self.asked) for name, v in _CONSTANTS.items()}
        rows = (one.row for one in self.asked)
        each = zip(self.asked, examples(work, rows, _AHEAD), strict=True)
        known = [
            one
            for one, image in each
            if not isinstance(image, UnreadableImage) and _objects(image) is not None
        ]
        return found | {PERFECT: (self._objects_of, known)}

    def _objects_of(self, i: int) -> Map:
        """The objects of an image, where they are known, as a mask."""
        objects = _objects(self.work.source.load(self.work.rows[i].image, self.work.how))
        assert objects is not None
        return Map(objects.astype(np.float32))

    def scores(
        self, work: Work, known: Sequence[Predicted], maps: Maps, batch: BatchLayout
    ) -> Iterator[tuple[int, Record]]:
        """The scores of a batch of merged masks, against all objects of an image together; its
        share is the sum of its classes', each once, and its saliency is of that sum.

        Args:
          work: of the sets, the explainee on every device.
          known: images with their logits.
          maps: the merged mask of an image.
          batch: how many at once, on which devices.

        Yields:
          Each image with its name and classes, a digest of its mask, and by name the mask's
          scores.
        """
        most = max(map(len, self.rows))
        names = tuple(name for name in work.scores if name != _SALIENCY)
        masks, classes = [], []
        for one in known:
            # Only an image with a single row may be explained for whatever is predicted.
            targets = (one.asked.target if r.target is None else r.target for r in self._of(one))
            classes.append(list(dict.fromkeys(targets)))
            filled = np.resize(np.array(classes[-1], np.int32), most)
            mask = maps(one.asked.row).mask
            masked = Masked(one.example.as_input(), one.logits, filled, mask)
            masks.append(with_needs(masked, one.example.united(), names))
        found = score(work.explainee, masks, names, batch.images, batch.mesh, batch.chunk)
        for one, masked, of_image, values in zip(known, masks, classes, found, strict=True):
            share = values[_SHARE][: len(of_image)].sum()
            area = jnp.asarray(masked.mask, jnp.float32).mean()
            saliency = log_ratio(area[None, None], jnp.asarray(share)[None, None])
            scores = {name: values[name][0].tolist() for name in names}
            scores |= {_SHARE: float(share), _SALIENCY: float(saliency[0, 0])}
            name = work.rows[one.asked.row].name
            line: Record = {"image": name, "row": one.asked.row, "classes": of_image}
            yield one.asked.row, line | {"map": maps(one.asked.row).digest()} | rounded(scores)

    def _of(self, one: Predicted) -> Sequence[Asked]:
        return self.rows[one.asked.row]


def sets_of(work: Work, asked: Sequence[Asked]) -> Sets:
    """The rows of a run by their image.

    Args:
      work: of the run.
      asked: its rows that have masks.
    """
    of_image: dict[int, list[Asked]] = {row.image: [] for row in work.rows}
    for one in asked:
        of_image[work.rows[one.row].image].append(one)
    names = {row.image: row.name for row in work.rows}
    rows = [Row(image, names[image], None, None) for image in of_image]
    scores = [s for s in _SCORES if work.source.has_masks or not SCORES[s].needs_truth]
    return Sets(work._replace(rows=rows, scores=tuple(scores)), list(of_image.values()))


def _constant(value: float, size: tuple[int, int]) -> Maps:
    everywhere = Map(np.full(size, value, np.float32))
    return lambda _: everywhere


def _objects(example: Example) -> np.ndarray | None:
    """The pixels of all objects; None where none is known."""
    return example.united().mask_of(0)
