"""What `import ltx_jax` gives: explain images from Python."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ltx_jax.engine.explain import SCORES, Explanation, Request, explanations
from ltx_jax.engine.finetune import MASKS, FinetuneSettings
from ltx_jax.engine.memory import lay_out, within_memory
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.masks import upsample
from ltx_jax.loading import load_explainer
from ltx_jax.objectives.ltx import Objective
from ltx_jax.records import record

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class Explanations:
    """Masks and scores of n explanations, in the order they were asked for.

    Attributes:
      explainee: that was explained.
      images: float32 [m,H,W,3] in [0,1], one for each picture.
      image_of: [n] the picture each explanation is of; a picture with several targets has several.
      each: everything known of each explanation.
    """

    explainee: Explainee
    images: Float[np.ndarray, "m H W 3"]
    image_of: tuple[int, ...]
    each: tuple[Explanation, ...]

    def __len__(self) -> int:
        return len(self.each)

    @property
    def masks(self) -> Float[np.ndarray, "n g h"]:
        """Token masks of the selected step, in [0,1]."""
        return self.token_masks("selected")

    @property
    def targets(self) -> np.ndarray:
        """The class each explanation is of, int [n]."""
        return np.array([one.target for one in self.each])

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """The six scores of the selected masks in percent, [n] each."""
        return self.scores_of("selected")

    def token_masks(self, which: str) -> Float[np.ndarray, "n g h"]:
        """Token masks by name: `pltx`, `selected`, `last` or `by_loss`."""
        return np.stack([one.masks[MASKS.index(which)] for one in self.each])

    def scores_of(self, which: str) -> dict[str, np.ndarray]:
        """The six scores of one of the four masks in percent, [n] each."""
        return {name: np.array([one.scores[which][name] for one in self.each]) for name in SCORES}

    def pixel_masks(self, which: str = "selected") -> Float[np.ndarray, "n H W"]:
        """Masks at the images' size, in [0,1]."""
        return np.asarray(upsample(self.token_masks(which), self.images.shape[1:3]))

    def overlay(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image, mask, heat-map overlay and masked image of one explanation, side by side."""
        from ltx_jax.reporting.overlays import panel

        return panel(self._picture(i), self.pixel_masks()[i])

    def save(self, directory: str | Path) -> None:
        """Write what the main command leaves: results, masks, summary, overlays and page.

        Raises:
          InputError: where the directory cannot be written, or holds another run.
        """
        from ltx_jax.reporting.publish import publish
        from ltx_jax.reporting.store import ResultStore

        shape = self.each[0].masks.shape
        content = hashlib.sha256(self.images.tobytes())
        content.update(np.stack([one.masks for one in self.each]).tobytes())
        told = {
            "explainee": self.explainee.name,
            "targets": self.targets.tolist(),
            "images and masks (sha256)": content.hexdigest()[:16],
        }
        store = ResultStore.open(Path(directory), told, len(self), shape)
        names = [f"image {image}" for image in self.image_of]
        classes = self.explainee.class_names
        rows = set(range(len(self))) - store.done
        store.add(
            {
                row: (record(self.each[row], names[row], row, classes), self.each[row].masks)
                for row in sorted(rows)
            }
        )
        publish(store, self._picture, MASKS, told, {}, overlays=len(self), gallery=100)

    def _picture(self, i: int) -> UInt8[np.ndarray, "H W 3"]:
        return np.round(self.images[self.image_of[i]] * 255).astype(np.uint8)


def explain(
    explainee: Explainee,
    images: Any,
    targets: Sequence[int | Sequence[int]] | np.ndarray | None = None,
    explainer: Explainer | None = None,
    *,
    labels: Sequence[int] | None = None,
    objective: Objective | None = None,
    learning_rate: float = 2e-3,
    steps: int = 25,
    optimize: str = "pos",
    stop_below: float = 6.0,
    stop_above: float = 89.0,
    slots: int | None = None,
    chunk: int | None = None,
    lazy_scoring: bool = True,
) -> Explanations:
    """What did the explainee look at?

    Args:
      explainee: the classifier, from `load_explainee` or your own.
      images: [m,H,W,3], uint8 or floats in [0,1], at the explainee's size.
      targets: the class to explain of each image, or several of them; the predicted one where
        not given.
      explainer: pretrained for this explainee (`load_explainer`); without one the masks start
        from a head that has learnt nothing, and are poor.
      labels: the true class of each image, to be scored as well.
      objective: of the finetuning; λ = 50 with binary cross-entropy where not given.
      learning_rate, steps, optimize, stop_below, stop_above: see `FinetuneSettings`.
      slots: images side by side on each device; as many as are of use and fit where not given.
      chunk: most images in one forward of the explainee; as many as are of use and fit where not
        given.
      lazy_scoring: stop scoring a mask once it cannot be selected: the same masks and scores
        sooner; False for a trace without gaps.

    Returns:
      One explanation for each target of each image.

    Raises:
      InputError: where images, targets or labels do not fit the explainee, or memory the slots.
    """
    pictures = _checked_images(images, explainee)
    wanted = _targets(targets, len(pictures), explainee)
    known = [None] * len(pictures) if labels is None else _labels(labels, len(pictures), explainee)
    if optimize not in ("pos", "neg") or steps < 1:
        raise InputError(
            f"optimize is {optimize!r}, steps {steps}: expected pos or neg, and at least one step"
        )
    # Numbers in a pytree of one's own are arrays as well.
    explainee = replace(explainee, params=jax.tree.map(jnp.asarray, explainee.params))
    explainer = explainer or load_explainer(explainee)
    settings = FinetuneSettings(
        objective or Objective(),
        (float(learning_rate),) * steps,
        optimize,
        stop_below,
        stop_above,
        chunk=chunk,
        lazy=lazy_scoring,
    )
    pairs = [(i, target) for i, several in enumerate(wanted) for target in several]
    requests = [
        Request(row, pictures[i], target, known[i]) for row, (i, target) in enumerate(pairs)
    ]
    layout = lay_out(explainee, explainer, settings, len(requests), slots)
    with within_memory(layout.slots):
        found = explanations(explainee, explainer, layout.settings, requests, *layout[1:])
        done = sorted(found, key=lambda one: one.row)
    return Explanations(explainee, pictures, tuple(i for i, _ in pairs), tuple(done))


def _checked_images(images: Any, explainee: Explainee) -> Float[np.ndarray, "m H W 3"]:
    array = np.asarray(images)
    height, width = explainee.image_size
    if array.ndim != 4 or array.shape[1:] != (height, width, 3) or not len(array):
        raise InputError(
            f"images of shape {array.shape}: {explainee.name} takes [n,{height},{width},3], "
            "channels last; resize them first"
        )
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255
    if array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"images are {array.dtype} from {array.min()} to {array.max()}: expected uint8, or "
            "floats from 0 to 1 before any normalisation"
        )
    return array.astype(np.float32)


def _targets(targets: Any, images: int, explainee: Explainee) -> list[list[int | None]]:
    if targets is None:
        return [[None]] * images
    several = [np.atleast_1d(target).tolist() for target in targets]
    if len(several) != images:
        raise InputError(f"targets for {len(several)} of {images} images: give some for each")
    _check_classes("target", [target for group in several for target in group], explainee)
    return several


def _labels(labels: Any, images: int, explainee: Explainee) -> list[int]:
    known = np.asarray(labels).tolist()
    if len(known) != images:
        raise InputError(f"{len(known)} labels for {images} images: give one an image")
    _check_classes("label", known, explainee)
    return known


def _check_classes(what: str, classes: list[Any], explainee: Explainee) -> None:
    for one in classes:
        if not isinstance(one, int) or not 0 <= one < explainee.num_classes:
            raise InputError(
                f"{what} {one!r}: {explainee.name} has classes 0 to {explainee.num_classes - 1}"
            )
