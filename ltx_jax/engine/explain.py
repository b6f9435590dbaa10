"""From images to scored explanations: predict, finetune, score, in a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from ltx_jax.engine.finetune import (
    MASKS,
    Finetuned,
    FinetuneSettings,
    Start,
    Task,
    finetune,
)
from ltx_jax.engine.sharding import (
    REPLICATED,
    SPLIT,
    on_each_device,
    replicate,
)
from ltx_jax.explainee import Explainee, in_chunks
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.masks import upsample
from ltx_jax.metrics.confidence import Confidence, class_probability, confidence
from ltx_jax.metrics.perturbation import Areas, perturbation_areas

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SCORES = ("pos", "neg", "ins", "del", "adp", "pic")
Scores = dict[str, float]


class Request(NamedTuple):
    """One explanation to make.

    `row` is the caller's key; `image` [H,W,3] uint8, or float32 in [0,1]; `target` is the class
    to explain, None for the predicted one; `label` is scored as well where it is known.
    """

    row: int
    image: np.ndarray
    target: int | None = None
    label: int | None = None


class Explanation(NamedTuple):
    """One image's masks and their scores.

    Attributes:
      row: of the request.
      target, predicted, label: classes; `target` is the one explained.
      probability: of the target on the unmasked image.
      steps: masks drawn.
      score, loss: at each step [steps]; `score` is the POS (or NEG) that selects, NaN where lazy
        scoring stopped.
      masks: token masks [4,g,h] in the order of `MASKS`.
      scores: for each name in `MASKS` its `step`, the six `SCORES` in percent and the
        `probability` of the target through the mask.
      label_scores: the same six for the label; None where it is unknown or the target.
    """

    row: int
    target: int
    predicted: int
    label: int | None
    probability: float
    steps: int
    score: np.ndarray
    loss: np.ndarray
    masks: np.ndarray
    scores: dict[str, dict[str, float]]
    label_scores: dict[str, Scores] | None


def explanations(
    explainee: Explainee,
    explainer: Explainer,
    settings: FinetuneSettings,
    requests: Iterable[Request],
    slots: int,
    mesh: Mesh,
    start: Start | None = None,
) -> Iterator[Explanation]:
    """Explain a stream of images; yields them as they finish, in no particular order, as many at a
    time as there are slots.

    Args:
      explainee, explainer, settings, slots, mesh, start: see `engine.finetune.finetune`; all slots
        together are also the batch of prediction and scoring.
      requests: drawn as slots become free.
    """
    asked: dict[int, Request] = {}
    batch = slots * mesh.size
    explainee = replicate(explainee, mesh)

    def tasks() -> Iterator[Task]:
        for request, task in _predicted(explainee, requests, batch, mesh):
            asked[task.key] = request
            yield task

    finished = finetune(explainee, explainer, settings, tasks(), slots, mesh, start)
    # Scoring waits for a few images, since their number of different masks varies.
    for group in in_groups(finished, batch):
        scores = _score(explainee, settings, group, batch, mesh)
        for done, areas, trust in scores:
            yield _explanation(settings, asked.pop(done.task.key), done, areas, trust)


def in_groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many items together, the last of them fewer."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group


@partial(jax.jit, static_argnames="mesh")
def _logits(
    explainee: Explainee, images: Float[Array | np.ndarray, "n H W 3"], mesh: Mesh
) -> Float[Array, "n classes"]:
    predict = on_each_device(lambda e, x: e(x), mesh, (REPLICATED, SPLIT), SPLIT)
    return predict(explainee, images)


def _predicted(
    explainee: Explainee, requests: Iterable[Request], batch: int, mesh: Mesh
) -> Iterator[tuple[Request, Task]]:
    """Requests with their task: the unmasked logits are computed once an image, in batches."""
    for group in in_groups(requests, batch):
        images = np.stack([_unit(request.image) for request in group])
        logits = np.asarray(_logits(explainee, _padded(images, batch), mesh))
        for request, image, row in zip(group, images, logits, strict=False):
            target = int(row.argmax()) if request.target is None else request.target
            label = target if request.label is None else request.label
            classes = np.array([target, label], np.int32)
            yield request, Task(request.row, image, classes, row)


def _unit(image: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [0,1]."""
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32)


def _padded(array: np.ndarray, batch: int) -> np.ndarray:
    """Repeat the last row up to a full batch, so that one program serves every batch."""
    return np.concatenate([array, np.repeat(array[-1:], batch - len(array), axis=0)])


def _score(
    explainee: Explainee,
    settings: FinetuneSettings,
    group: Sequence[Finetuned],
    batch: int,
    mesh: Mesh,
) -> Iterator[tuple[Finetuned, dict[int, Areas], dict[int, Confidence]]]:
    """For each image, by step: areas of the order that finetuning left out, and confidences.

    A mask that serves under several of the four names is scored once. Where lazy scoring stopped,
    the order of finetuning is made up for as well.
    """
    wanted = [(i, step) for i, done in enumerate(group) for step in set(done.mask_steps.tolist())]
    traced_order = settings.optimize == "pos"
    score = partial(_scores_of, explainee, settings, group, batch, mesh)
    areas: list[dict[int, Areas]] = [{} for _ in group]
    trust: list[dict[int, Confidence]] = [{} for _ in group]
    for i, step, area, seen in score(wanted, most_relevant_first=not traced_order):
        areas[i][step], trust[i][step] = area, seen
    unknown = [(i, step) for i, step in wanted if np.isnan(group[i].agreement[step, 0])]
    for i, step, area, _ in score(unknown, most_relevant_first=traced_order):
        group[i].agreement[step], group[i].probability[step] = area
    yield from zip(group, areas, trust, strict=True)


def _scores_of(
    explainee: Explainee,
    settings: FinetuneSettings,
    group: Sequence[Finetuned],
    batch: int,
    mesh: Mesh,
    wanted: Sequence[tuple[int, int]],
    most_relevant_first: bool,
) -> Iterator[tuple[int, int, Areas, Confidence]]:
    """Areas and confidences of masks given as (place in the group, step)."""
    for part in in_groups(wanted, batch):
        chosen = [group[i] for i, _ in part]
        masks = [group[i].masks[group[i].mask_steps.tolist().index(step)] for i, step in part]
        columns = (
            np.stack([done.task.image for done in chosen]),
            np.stack(masks),
            np.stack([done.task.classes for done in chosen]),
            np.stack([done.task.logits for done in chosen]),
        )
        padded = [_padded(column, batch) for column in columns]
        scored = _mask_scores(explainee, *padded, most_relevant_first, settings.chunk, mesh)
        areas, trust = jax.tree.map(np.asarray, scored)
        for n, (i, step) in enumerate(part):
            yield i, step, Areas(*(x[n] for x in areas)), Confidence(*(x[n] for x in trust))


@partial(jax.jit, static_argnames=("most_relevant_first", "chunk", "mesh"))
def _mask_scores(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W 3"],
    token_masks: Float[Array | np.ndarray, "n g h"],
    classes: Int[Array | np.ndarray, "n k"],
    logits: Float[Array | np.ndarray, "n classes"],
    most_relevant_first: bool,
    chunk: int | None,
    mesh: Mesh,
) -> tuple[Areas, Confidence]:
    def local(explainee: Explainee, *columns: Array) -> tuple[Areas, Confidence]:
        images, token_masks, classes, logits = columns
        pixels = upsample(token_masks, images.shape[1:3])
        areas = perturbation_areas(
            explainee, images, pixels, classes, logits, most_relevant_first, chunk
        )
        masked = in_chunks(explainee, images * pixels[..., None], chunk)
        return areas, confidence(logits, masked, classes)

    score = on_each_device(local, mesh, (REPLICATED, *[SPLIT] * 4), SPLIT)
    return score(explainee, images, token_masks, classes, logits)


@partial(jax.jit, static_argnames="chunk")
def score_pixel_masks(
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W 3"],
    pixel_masks: Float[Array | np.ndarray, "n H W"],
    targets: Int[Array | np.ndarray, " n"],
    chunk: int | None = None,
) -> dict[str, Float[Array, " n"]]:
    """The six `SCORES` in percent of anybody's masks (in [0,1]) for the given classes."""
    logits = explainee(images)
    classes = targets[:, None]
    most, least = (
        perturbation_areas(explainee, images, pixel_masks, classes, logits, first, chunk)
        for first in (True, False)
    )
    masked = in_chunks(explainee, images * pixel_masks[..., None], chunk)
    trust = confidence(logits, masked, classes)
    values = (
        most.agreement,
        least.agreement,
        least.probability,
        most.probability,
        trust.adp,
        trust.pic,
    )
    return {name: value[:, 0] for name, value in zip(SCORES, values, strict=True)}


def _explanation(
    settings: FinetuneSettings,
    request: Request,
    done: Finetuned,
    areas: dict[int, Areas],
    trust: dict[int, Confidence],
) -> Explanation:
    target, label = (int(c) for c in done.task.classes)
    before = class_probability(done.task.logits[None], done.task.classes[None])
    names = ("pos", "del"), ("neg", "ins")
    traced, remaining = names if settings.optimize == "pos" else names[::-1]

    def scores(step: int, k: int) -> Scores:
        other, seen = areas[step], trust[step]
        values = {
            traced[0]: done.agreement[step, k],
            traced[1]: done.probability[step, k],
            remaining[0]: other.agreement[k],
            remaining[1]: other.probability[k],
            "adp": seen.adp[k],
            "pic": seen.pic[k],
        }
        return {name: float(values[name]) for name in SCORES}

    steps = dict(zip(MASKS, map(int, done.mask_steps), strict=True))
    return Explanation(
        row=request.row,
        target=target,
        predicted=int(done.task.logits.argmax()),
        label=request.label,
        probability=float(before[0, 0]),
        steps=done.steps,
        score=done.agreement[:, 0],
        loss=done.loss,
        masks=done.masks,
        scores={
            mask: {
                "step": step,
                **scores(step, 0),
                "probability": float(trust[step].probability[0]),
            }
            for mask, step in steps.items()
        },
        label_scores=None
        if request.label is None or label == target
        else {mask: scores(step, 1) for mask, step in steps.items()},
    )
