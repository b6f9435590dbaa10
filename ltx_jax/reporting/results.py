"""Explanations, scores, and what a work directory holds, as Python gets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from operator import index
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from ltx_jax.engine.explain import Explanation
from ltx_jax.engine.recipe import result_of
from ltx_jax.engine.scoring import PROBABILITY
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics import SCORES
from ltx_jax.reporting.overlays import data_uri, panel
from ltx_jax.reporting.publish import publish
from ltx_jax.reporting.records import column, record
from ltx_jax.reporting.store import ResultStore
from ltx_jax.reporting.summary import Interval, score_intervals
from ltx_jax.settings.sections import Report

_IN_A_NOTEBOOK = 8  # more would make its file large


@dataclass(frozen=True)
class Explanations:
    """Masks and scores of n explanations, in the order they were asked for.

    A part, `result[2]` or `result[:5]`, is the same of fewer. Nothing here holds the classifier, so
    that all of it can be pickled.

    Attributes:
      explainee: the name of what was explained.
      class_names: its own, one a class, or empty.
      images: float32 [m,H,W,C] in [0,1], one for each picture.
      image_of: [n] the picture each explanation is of; a picture with several targets has several.
      each: everything known of each explanation.
    """

    explainee: str
    class_names: tuple[str, ...]
    images: Float[np.ndarray, "m H W C"]
    image_of: tuple[int, ...]
    each: tuple[Explanation, ...]

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, which: int | slice) -> Explanations:
        """One of them, or several, with all the images: a picture keeps its number.

        Raises:
          IndexError: where there is none.
        """
        if not isinstance(which, slice):
            one = range(len(self))[index(which)]
            which = slice(one, one + 1)
        return replace(self, image_of=self.image_of[which], each=self.each[which])

    def __iter__(self) -> Iterator[Explanations]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        masks = f", masks {self.shown} {self.masks.shape[1:]}" if self.each else ""
        return f"Explanations({len(self)} of {self.explainee}{masks})"

    def _repr_html_(self) -> str:
        """The first of them as pictures, for notebooks."""
        figures = "".join(self[i]._figure() for i in range(min(len(self), _IN_A_NOTEBOOK)))
        return f"<div><p>{escape(repr(self))}</p>{figures}</div>"

    def _figure(self) -> str:
        """The only one, with what is known of it."""
        (one,), (image,) = self.each, self.image_of
        name = self.class_names[one.target] if self.class_names else f"class {one.target}"
        through = one.scores[self.shown][PROBABILITY]
        told = f"image {image}: {name}, probability {one.probability:.3f} → {through:.3f}"
        return (
            f'<figure><img src="{data_uri(self.overlay(0))}" alt="{escape(told)}">'
            f"<figcaption>{escape(told)}</figcaption></figure>"
        )

    @property
    def _first(self) -> Explanation:
        if not self.each:
            raise InputError("there are no explanations here: take a part that has some")
        return self.each[0]

    @property
    def shown(self) -> str:
        """The mask that is the result: `final`, where a score selects `selected`, and of a single
        step `pltx`."""
        return result_of(self._first.masks)

    @property
    def masks(self) -> Float[np.ndarray, "n g h"]:
        """The masks, over cells, in [0,1]."""
        return self.token_masks(self.shown)

    @property
    def targets(self) -> Int[np.ndarray, " n"]:
        """The class each explanation is of."""
        return np.array([one.target for one in self.each])

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """The scores of the masks, [n] each."""
        return self.scores_of(self.shown)

    def token_masks(self, which: str) -> Float[np.ndarray, "n g h"]:
        """Masks over cells by name: `final`; or, where a score selects, `pltx`, and of more than
        one step `selected`, `last` or `by_loss`.

        Raises:
          InputError: where none is called that.
        """
        self._refuse_unknown(which)
        return np.stack([one.masks[which] for one in self.each])

    def scores_of(self, which: str) -> dict[str, np.ndarray]:
        """The scores of masks by name, [n] each; [n,c] of one that is pooled over images.

        Raises:
          InputError: where none is called that.
        """
        self._refuse_unknown(which)
        names = [name for name in self._first.scores[which] if name in SCORES]
        return {name: np.array([one.scores[which][name] for one in self.each]) for name in names}

    def _refuse_unknown(self, which: str) -> None:
        if which not in (known := self._first.masks):
            raise InputError(f"no mask is called {which!r}: there are {', '.join(known)}")

    def pixel_masks(self, which: str | None = None) -> Float[np.ndarray, "n H W"]:
        """Masks at the images' size, in [0,1]: the result's, unless others are named."""
        masks = self.token_masks(which or self.shown)
        return upsample(masks, self.images.shape[1:3])

    def overlay(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image, mask, heat-map overlay and masked image of one explanation, side by side."""
        return panel(self._picture(i), self[i].pixel_masks()[0])

    def save(self, directory: str | Path) -> None:
        """Write what the main command leaves: results, masks, summary, overlays and page.

        Raises:
          InputError: where there is nothing to write, the directory cannot be written, or holds
            another run.
        """
        masks = self._first.masks
        if Path(directory).is_file():
            raise InputError(f"{directory} is a file: give a folder, of this result alone")
        arrays = [self.images, *(mask for one in self.each for mask in one.masks.values())]
        told = {
            "explainee": self.explainee,
            "targets": self.targets.tolist(),
            "images and masks (sha256)": digest_of(array.tobytes() for array in arrays),
        }
        store = ResultStore.open(Path(directory), told, len(self))
        for name, mask in masks.items():
            order = self._first.raw.get(name)
            store.hold(name, mask.shape, None if order is None else order.shape)
        rows = {
            row: (record(one, f"image {self.image_of[row]}", row, self.class_names), one.masks)
            for row, one in enumerate(self.each)
        }
        missing = sorted(set(rows) - store.done)
        raw = {row: self.each[row].raw for row in missing}
        store.add({row: rows[row] for row in missing}, raw)
        publish(store, self._picture, self.shown, told, (), Report())

    def _picture(self, i: int) -> UInt8[np.ndarray, "H W C"]:
        return np.round(self.images[self.image_of[i]] * 255).astype(np.uint8)


@dataclass(frozen=True)
class Evaluation:
    """Scores of n maps.

    Attributes:
      targets: the class each was scored for.
      scores: by name, [n] each; [n,c] of one that is pooled, whose number `summary` gives.
      probability: of the class through the mask.
    """

    targets: Int[np.ndarray, " n"]
    scores: dict[str, np.ndarray]
    probability: Float[np.ndarray, " n"]

    def __repr__(self) -> str:
        return f"Evaluation({len(self.targets)} maps, scores {', '.join(self.scores)})"

    def summary(self) -> dict[str, Interval]:
        """The mean of each score with its 95 % bootstrap interval."""
        rows = zip(*self.scores.values(), strict=True)
        return score_intervals([dict(zip(self.scores, row, strict=True)) for row in rows])


class Stored(NamedTuple):
    """What a work directory holds of the rows that were explained.

    Attributes:
      images: the name of each.
      targets: the class each was explained for.
      masks: by name, [n,g,h] or [n,H,W] each; those of rivals as well.
      raw: the values that rank their pixels, where these are kept.
      scores: of each mask by name, [n] each, or [n,c] of one that is pooled; NaN where one is
        unknown.
    """

    images: tuple[str, ...]
    targets: Int[np.ndarray, " n"]
    masks: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]
    scores: dict[str, dict[str, np.ndarray]]

    def __repr__(self) -> str:
        return f"Stored({len(self.images)} rows, masks {', '.join(self.masks)})"


def load(directory: str | Path) -> Stored:
    """What `Explanations.save`, or the main command, left in a work directory.

    Raises:
      InputError: where there is no run.
    """
    store = ResultStore.find(Path(directory))
    names = store.names()
    done = [one for one in store.joined(store.records(), names) if "skipped" not in one]
    rows = [one["row"] for one in done]

    def scores(name: str) -> dict[str, np.ndarray]:
        known = [one.get(name, {}) for one in done]
        there = [score for score in SCORES if any(score in one for one in known)]
        return {k: column([one.get(k) for one in known]) for k in there}

    return Stored(
        tuple(one["image"] for one in done),
        np.array([one["class"] for one in done]),
        {name: store.masks(name).load()[rows] for name in names},
        {name: store.masks(name, raw=True).load()[rows] for name in names if store.has_raw(name)},
        {name: scores(name) for name in names},
    )
