"""Masks of any origin to their scores, on all devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float

from ltx_jax.data.examples import Example
from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device, place
from ltx_jax.errors import InputError
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.perturbation import Areas
from ltx_jax.metrics.pos_neg_ins_del import curves_of
from ltx_jax.models.explainee import Explainee

# Beside the scores: the probability of the class through the mask, and the perturbation curves.
PROBABILITY, CURVES = "probability", "curves"
# What is known of one mask and class: a number, or those of a score that is pooled over images.
Value = float | list[float]


class Masked(NamedTuple):
    """One mask to be scored, or a batch of them with a leading axis.

    Attributes:
      image: [H,W,C] in [0,1].
      logits: [classes] of the image as it is.
      classes: [k] to score for.
      mask: [g,h] or [H,W] in [0,1].
      order: what ranks its pixels, of the mask's shape; None for the mask itself.
      relevance: what adds up over pixels, [g,h] or [H,W]; None for the mask itself.
      truth: bool [H,W], the object of the first class; None where no source knows any.
      beside: bool [H,W], the objects of other classes.
      counted: bool [H,W], the pixels that count in a comparison with the truth.
      known_truth: whether there is a truth.
      other: [H,W,C] another image, NaN where there is none; None where nobody asks for it.
      without: uint8 [p,H,W,C], the image without each of its parts; None where nobody asks for it.
    """

    image: Any
    logits: Any
    classes: Any
    mask: Any
    order: Any = None
    relevance: Any = None
    truth: Any = None
    beside: Any = None
    counted: Any = None
    known_truth: Any = None
    other: Any = None
    without: Any = None


def with_needs(masked: Masked, example: Example, names: Iterable[str]) -> Masked:
    """The mask with what scores need to know of its image."""
    scores = [SCORES[name] for name in names]
    if any(score.needs_truth for score in scores):
        masked = _with_truth(masked, example)
    if any(score.needs_other for score in scores):
        nothing = np.full_like(masked.image, np.nan)
        masked = masked._replace(other=nothing if example.other is None else example.other)
    if any(score.needs_interventions for score in scores):
        masked = masked._replace(without=example.without)
    return masked


def _with_truth(masked: Masked, example: Example) -> Masked:
    """The mask with the pixels of its object, or with the word that they are not known: an object
    that is void altogether is none."""
    nothing = np.zeros(masked.image.shape[:2], bool)
    label = int(masked.classes[0])
    known, beside, void = example.mask_of(label), example.mask_beside(label), example.void
    truth, beside = (nothing if one is None else one for one in (known, beside))
    counted = ~nothing if void is None else ~void
    known_truth = (truth & counted).any()
    return masked._replace(truth=truth, beside=beside, counted=counted, known_truth=known_truth)


def in_groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many items together, the last of them fewer."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group


def predict(
    explainee: Explainee, images: Sequence[np.ndarray], batch: int, mesh: Mesh
) -> Float[np.ndarray, "n classes"]:
    """Logits of at most a batch of images, filled up so that one program serves every number."""
    whole = padded(np.stack(images), batch)
    return jax.device_get(_logits(explainee, place(whole, mesh), mesh))[: len(images)]


@partial(jax.jit, static_argnames="mesh")
def _logits(
    explainee: Explainee, images: Float[Array, "n H W C"], mesh: Mesh
) -> Float[Array, "n classes"]:
    predict = on_each_device(lambda e, x: e(x), mesh, (REPLICATED, SPLIT), SPLIT)
    return predict(explainee, images)


def refuse_unless_finite_on_black(explainee: Explainee, batch: int, mesh: Mesh) -> None:
    """See that the logits of a black image are finite: every score ends at one.

    Args:
      explainee: the classifier, on every device of the mesh.
      batch, mesh: those of the run, whose program serves here as well.

    Raises:
      InputError: where they are not.
    """
    black = np.zeros(explainee.image_shape, np.float32)
    if not np.isfinite(predict(explainee, [black], batch, mesh)).all():
        raise InputError(
            f"the logits of {explainee.name} for a black image are not finite: see whether its "
            "parameters are, and that it divides by nothing that is 0"
        )


def score(
    explainee: Explainee,
    masks: Sequence[Masked],
    names: tuple[str, ...],
    batch: int,
    mesh: Mesh,
    chunk: int | None = None,
    known: Sequence[Mapping[bool, Areas]] | None = None,
    curves: bool = False,
) -> Iterator[dict[str, Any]]:
    """The scores of masks, in order.

    Args:
      explainee: the classifier, on every device of the mesh.
      masks: all with the same parts given.
      names: of the scores.
      batch: so many at once, divided over the devices of the mesh; the last are filled up.
      mesh: the devices.
      chunk: most images in one forward of the explainee.
      known: areas [k] that are known already for each mask, see `Case`.
      curves: whether to tell the perturbation curves as well.

    Yields:
      For each mask [k] (or [1] of a score that knows no class, each with an axis [c] of one that is
      pooled) by name, and `probability`; where they are asked for, `curves` [k,points] by the name
      of the score that is the area under them.
    """
    for group in in_groups(zip(masks, known or [{}] * len(masks), strict=True), batch):
        columns = jax.tree.map(lambda *parts: padded(np.stack(parts), batch), *group)
        found = jax.device_get(
            _scores(explainee, *place(columns, mesh), names, chunk, mesh, curves)
        )
        for i in range(len(group)):
            yield jax.tree.map(lambda values, i=i: values[i], found)


@partial(jax.jit, static_argnames=("names", "chunk", "mesh", "curves"))
def _scores(
    explainee: Explainee,
    masked: Masked,
    known: Mapping[bool, Areas],
    names: tuple[str, ...],
    chunk: int | None,
    mesh: Mesh,
    curves: bool,
) -> dict[str, Any]:
    def local(explainee: Explainee, masked: Masked, known: Mapping[bool, Areas]) -> dict[str, Any]:
        size = masked.image.shape[1:3]
        pixels = upsample(masked.mask, size)
        order, relevance = (
            pixels if one is None else upsample(one, size)
            for one in (masked.order, masked.relevance)
        )
        case = Case(
            explainee,
            images=masked.image,
            logits=masked.logits,
            classes=masked.classes,
            masks=pixels,
            order=order,
            relevance=relevance,
            truth=masked.truth,
            beside=masked.beside,
            counted=masked.counted,
            known_truth=masked.known_truth,
            other=masked.other,
            without=masked.without,
            chunk=chunk,
            known=known,
        )
        through = case.probability(case.masked_logits)
        found = {PROBABILITY: through} | {name: SCORES[name].values(case) for name in names}
        return found | ({CURVES: curves_of(case)} if curves else {})

    return on_each_device(local, mesh, (REPLICATED, SPLIT, SPLIT), SPLIT)(explainee, masked, known)


def padded(array: np.ndarray, batch: int) -> np.ndarray:
    """Repeat the last row up to a full batch, so that one program serves every batch."""
    return np.concatenate([array, np.repeat(array[-1:], batch - len(array), axis=0)])
