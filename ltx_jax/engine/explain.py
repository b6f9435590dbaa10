"""From images to scored explanations: predict, finetune, score, in a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from ltx_jax.data.examples import Example
from ltx_jax.engine.calibration import calibrate
from ltx_jax.engine.finetune import Finetuned, Start, Task, finetune
from ltx_jax.engine.recipe import Method, Recipe
from ltx_jax.engine.scoring import (
    PROBABILITY,
    Masked,
    Value,
    in_groups,
    predict,
    refuse_unless_finite_on_black,
    score,
    with_needs,
)
from ltx_jax.engine.sharding import replicate
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.metrics.perturbation import Areas
from ltx_jax.models.explainee import Explainee

Scores = dict[str, Value]
_NO_MASK = "its mask is not finite: gradients of the explainee are not, or the rate is too high"
# Told of a row that is left out, and why.
Skip = Callable[[int, str], None]


class Request(NamedTuple):
    """One explanation to make.

    `row` is the caller's key; `example` the image and what is known of it; `target` is the class
    to explain, None for the predicted one; `label` is scored as well where it is known.
    """

    row: int
    example: Example
    target: int | None = None
    label: int | None = None


class Explanation(NamedTuple):
    """One image's masks and their scores.

    Attributes:
      row: of the request.
      target, predicted, label: classes; `target` is the one explained.
      probability: of the target on the unmasked image.
      steps: masks drawn.
      score, loss: at each step [steps]; `score` is the one that selects, NaN of a mask that lazy
        scoring found no better than those before.
      masks: [a,b] in [0,1] by the names of `Recipe.masks`, over cells or parts of them.
      raw: [g,h], values of the cells that rank the pixels; empty where the masks do.
      mask_steps: the step each is from.
      scores: of each, and the `probability` of the target through it; NaN where the object's pixels
        are needed and not known.
      label_scores: those of the label; None where it is unknown or the target.
    """

    row: int
    target: int
    predicted: int
    label: int | None
    probability: float
    steps: int
    score: np.ndarray
    loss: np.ndarray
    masks: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]
    mask_steps: dict[str, int]
    scores: dict[str, Scores]
    label_scores: dict[str, Scores] | None

    def __repr__(self) -> str:
        return (
            f"Explanation(row {self.row}, class {self.target}, p {self.probability:.3f}, "
            f"{self.steps} steps, masks {', '.join(self.masks)})"
        )


def explanations(
    explainee: Explainee,
    explainer: Drawer,
    recipe: Recipe,
    requests: Iterable[Request],
    slots: int,
    mesh: Mesh,
    start: Start | None,
    scores: tuple[str, ...],
    skip: Skip,
) -> Iterator[Explanation]:
    """Explain a stream of images; yields them as they finish, in no particular order, as many at a
    time as there are slots.

    Args:
      explainee, explainer, recipe, slots, mesh, start: see `engine.finetune.finetune`; all slots
        together are also the batch of prediction and scoring.
      requests: drawn as slots become free.
      scores: names of those to compute.
      skip: told of each row whose logits or mask are not finite.

    Raises:
      InputError: where the logits of a black image are not.
    """
    asked: dict[int, Request] = {}
    batch = slots * mesh.size
    explainee = replicate(explainee, mesh)
    refuse_unless_finite_on_black(explainee, batch, mesh)

    def tasks() -> Iterator[Task]:
        for request, task in _predicted(explainee, requests, batch, mesh, skip):
            asked[task.key] = request
            yield task

    finished = finetune(explainee, explainer, recipe, tasks(), slots, mesh, start)
    finished = _with_masks(finished, skip)
    # Scoring waits for a few images, since their number of different masks varies.
    for group in in_groups(finished, batch):
        if recipe.method.optimize is None:
            group = _calibrated(explainee, recipe, group, batch, mesh)
        wanted = [asked.pop(done.task.key) for done in group]
        found = _score(explainee, recipe, wanted, group, scores, batch, mesh)
        for request, done, values in zip(wanted, group, found, strict=True):
            yield _explanation(explainee, recipe, request, done, values)


def _with_masks(finished: Iterable[Finetuned], skip: Skip) -> Iterator[Finetuned]:
    """Those whose mask is numbers. A score never selects a mask that is none but for the first."""
    for done in finished:
        if np.isfinite(done.masks[0]).all():
            yield done
        else:
            skip(done.task.key, _NO_MASK)


def _calibrated(
    explainee: Explainee, recipe: Recipe, group: Sequence[Finetuned], batch: int, mesh: Mesh
) -> list[Finetuned]:
    """The last masks with values to be looked at, in the order of their raw values."""
    method = recipe.method
    images = [done.task.image for done in group]
    raw = [done.raw[0] for done in group if done.raw is not None]
    targets = [int(done.task.classes[0]) for done in group]
    how = recipe.numbers.keep, recipe.numbers.goal.fills, batch, mesh, method.chunk
    masks = calibrate(explainee, images, raw, targets, *how)
    return [done._replace(masks=mask[None]) for done, mask in zip(group, masks, strict=True)]


def _predicted(
    explainee: Explainee, requests: Iterable[Request], batch: int, mesh: Mesh, skip: Skip
) -> Iterator[tuple[Request, Task]]:
    """Requests with their task: the unmasked logits are computed once an image, in batches. Those
    with logits that are not finite are left out."""
    for group in in_groups(requests, batch):
        images = [request.example.as_input() for request in group]
        logits = predict(explainee, images, batch, mesh)
        answers = explainee.predicted(logits)
        for request, image, row, answer in zip(group, images, logits, answers, strict=True):
            if not np.isfinite(row).all():
                skip(request.row, f"the logits of {explainee.name} for it are not finite")
                continue
            target = int(answer) if request.target is None else request.target
            label = target if request.label is None else request.label
            yield request, Task(request.row, image, np.array([target, label], np.int32), row)


# What is known of one image's masks, by their step: each score [k].
_ByStep = dict[int, dict[str, np.ndarray]]


def _score(
    explainee: Explainee,
    recipe: Recipe,
    requests: Sequence[Request],
    group: Sequence[Finetuned],
    names: tuple[str, ...],
    batch: int,
    mesh: Mesh,
) -> list[_ByStep]:
    """The scores of each image's masks, by step: one that serves under several names counts once.

    The order of removal that finetuning has scored is not scored again, but where it stopped early.
    """
    method = recipe.method
    found: list[_ByStep] = [{} for _ in group]
    steps = [(i, step) for i, done in enumerate(group) for step in set(done.mask_steps.tolist())]
    traced = [(i, step) for i, step in steps if _is_traced(group[i], step, method)]
    for some in (traced, [place for place in steps if place not in traced]):
        masks = [_masked(requests[i], group[i], step, names) for i, step in some]
        known = [
            {method.orders[0]: _traced(group[i], step)} if some is traced else {}
            for i, step in some
        ]
        values = score(explainee, masks, names, batch, mesh, method.chunk, known)
        for (i, step), value in zip(some, values, strict=True):
            found[i][step] = value
    return found


def _masked(request: Request, done: Finetuned, step: int, names: Sequence[str]) -> Masked:
    """A mask of one step with all that scores may ask for."""
    task = done.task
    place = done.mask_steps.tolist().index(step)
    order = None if done.raw is None else done.raw[place]
    masked = Masked(task.image, task.logits, task.classes, done.masks[place], order)
    return with_needs(masked, request.example, names)


def _is_traced(done: Finetuned, step: int, method: Method) -> bool:
    known = step < done.steps and not np.isnan(done.agreement[step, 0])
    return known and len(method.orders) == 1


def _traced(done: Finetuned, step: int) -> Areas:
    return Areas(done.agreement[step], done.probability[step])


def _explanation(
    explainee: Explainee, recipe: Recipe, request: Request, done: Finetuned, values: _ByStep
) -> Explanation:
    target, label = (int(c) for c in done.task.classes)
    before = explainee.probability(done.task.logits[None], np.array([target], np.int32))
    names = recipe.masks
    kept = slice(len(names))  # of a single step all are the first
    steps = dict(zip(names, map(int, done.mask_steps[kept]), strict=True))

    def of_class(k: int) -> dict[str, Scores]:
        """Scores for the k-th class; those that know no class belong to the first."""
        return {
            mask: {name: v[k].tolist() for name, v in values[step].items() if len(v) > k}
            for mask, step in steps.items()
        }

    other = request.label is not None and label != target
    label_scores = of_class(1) if other else None
    for scores in (label_scores or {}).values():
        del scores[PROBABILITY]
    return Explanation(
        row=request.row,
        target=target,
        predicted=int(explainee.predicted(done.task.logits[None])[0]),
        label=request.label,
        probability=float(before[0]),
        steps=done.steps,
        score=recipe.method.selecting(done)[:, 0],
        loss=done.loss,
        masks=dict(zip(names, done.masks[kept], strict=True)),
        raw={} if done.raw is None else dict(zip(names, done.raw, strict=True)),
        mask_steps=steps,
        scores=of_class(0),
        label_scores=label_scores,
    )
