"""Scores of maps of any origin, a batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import tee
from typing import Any, NamedTuple

import numpy as np

from ltx_jax.data.examples import Example, UnreadableImage
from ltx_jax.engine.memory import BatchLayout, batch_of_use, batch_within_memory
from ltx_jax.engine.scoring import (
    CURVES,
    Masked,
    in_groups,
    predict,
    refuse_unless_finite_on_black,
    score,
    with_needs,
)
from ltx_jax.engine.sharding import replicate
from ltx_jax.errors import InputError
from ltx_jax.reporting.lines import Lines
from ltx_jax.reporting.records import FOR_LABEL, NOT_FINITE, Record, rounded
from ltx_jax.tasks.inputs import Work, examples
from ltx_jax.tasks.maps import Maps, ranked_alike
from ltx_jax.tasks.waiting import Done


class Asked(NamedTuple):
    """A row to be scored, and the class that its map is for; None for the predicted one."""

    row: int
    target: int | None


class Predicted(NamedTuple):
    """A row with its image and logits, the class of its map known, and the classes to score for."""

    asked: Asked
    example: Example
    logits: np.ndarray
    classes: np.ndarray
    label: int | None


# In a line that is scored for another class than that of its map: that of its map.
_EXPLAINS = "explains"
Before = Callable[[Sequence[tuple[Asked, Example]], BatchLayout], None]
Scored = Callable[[Work, Sequence[Predicted], Maps, BatchLayout], Iterator[tuple[int, Record]]]


def explained(records: Iterable[Record]) -> list[Asked]:
    """The rows of a run that were explained, with the class of each."""
    return [Asked(r["row"], r["class"]) for r in records if "skipped" not in r]


def is_of_map(line: Record, maps: Maps) -> bool:
    """Whether a line is of the map that its row has now."""
    return bool(line.get("map") == maps(line["row"]).digest())


def keep_lines(
    lines: Lines, work: Work, name: str, group: Sequence[tuple[int, Record]], done: Done
) -> None:
    """Append what was found of a batch of rows that nobody else has done meanwhile, and name the
    masks that were no numbers."""
    there = done()
    new = {row: line for row, line in group if row not in there}
    for row, line in new.items():
        if NOT_FINITE in line:
            logging.warning(
                "the mask of %s by %s is not finite: it is scored as a constant one",
                work.rows[row].name,
                name,
            )
    lines.append(new)


def class_explained(line: Record) -> int:
    """The class of the map that a line is of."""
    return int(line[_EXPLAINS] if _EXPLAINS in line else line["class"])


def score_rows(
    work: Work,
    asked: Iterable[Asked],
    maps: Maps,
    chunk: int | None,
    before: Before = lambda *_: None,
    scored_for: str = "explained",
    scored: Scored | None = None,
) -> Iterator[list[tuple[int, Record]]]:
    """The scores of so many rows, a batch at a time.

    Args:
      work: what they rest on.
      asked: the rows, drawn as they are read ahead.
      maps: the map of a row.
      chunk: most images in one forward of the explainee.
      before: called with each batch before it is scored, all classes known by then.
      scored_for: the class that is scored for: that which is `explained`, the `predicted` one,
        the `label`, or `both` of these.
      scored: what scores a batch; `score_examples` where it is not given.

    Yields:
      For each row what that tells of it, or why its image could not be read.

    Raises:
      InputError: where memory runs out, or logits are not finite.
    """
    # The whole run's, however many of its rows are left: other batches have other last digits.
    batch = batch_of_use(work.explainee, len(work.rows), chunk)
    work = work._replace(explainee=replicate(work.explainee, batch.mesh))
    refuse_unless_finite_on_black(work.explainee, batch.images, batch.mesh)
    asked, ahead = tee(asked)
    rows = (one.row for one in ahead)
    found = zip(asked, examples(work, rows, 2 * batch.images), strict=True)
    for group in in_groups(found, batch.images):
        read = [(one, image) for one, image in group if not isinstance(image, UnreadableImage)]
        unread = [_unread(work, one, image) for one, image in group if isinstance(image, Exception)]
        with batch_within_memory(batch):
            if not read:
                yield unread
                continue
            known = predicted(work, read, scored_for, batch)
            before([(one.asked, one.example) for one in known], batch)
            yield unread + list((scored or score_examples)(work, known, maps, batch))


def _unread(work: Work, asked: Asked, reason: Exception) -> tuple[int, Record]:
    name = work.rows[asked.row].name
    logging.warning("skipped %s: %s", name, reason)
    return asked.row, {"row": asked.row, "image": name, "skipped": str(reason)}


def predicted(
    work: Work, group: Sequence[tuple[Asked, Example]], scored_for: str, batch: BatchLayout
) -> list[Predicted]:
    """A batch of rows, once their logits are known.

    Raises:
      InputError: where logits are not finite.
    """
    images = [example.as_input() for _, example in group]
    logits = predict(work.explainee, images, batch.images, batch.mesh)
    answers = work.explainee.predicted(logits)
    found = []
    for (one, example), row, answer in zip(group, logits, answers, strict=True):
        planned = work.rows[one.row]
        if not np.isfinite(row).all():
            raise InputError(
                f"the logits of {work.explainee.name} for {planned.name} are not finite: correct "
                "the network, or leave the image out"
            )
        target = int(answer) if one.target is None else one.target
        label = int(answer) if planned.label is None else planned.label
        classes = {
            "explained": [target],
            "predicted": [int(answer)],
            "label": [label],
            "both": [int(answer), label],
        }[scored_for]
        asked = Asked(one.row, target)
        found.append(Predicted(asked, example, row, np.array(classes, np.int32), planned.label))
    return found


def score_examples(
    work: Work, known: Sequence[Predicted], maps: Maps, batch: BatchLayout
) -> Iterator[tuple[int, Record]]:
    """The scores of a batch of maps.

    A map that is not finite is scored as a constant one, and marked.

    Yields:
      Each row with its class, a digest of its map, and by name the map's scores, the probability
      through it and its perturbation curves; where two classes are scored for, those of the label
      apart.
    """
    each = [maps(one.asked.row) for one in known]
    masks = [
        with_needs(
            Masked(
                one.example.as_input(),
                one.logits,
                one.classes,
                *drawn,
                relevance=drawn.relevance,
            ),
            one.example,
            work.scores,
        )
        for one, drawn in zip(known, ranked_alike([x.or_constant() for x in each]), strict=True)
    ]
    given = work.explainee, masks, work.scores, batch.images, batch.mesh, batch.chunk
    for one, drawn, found in zip(known, each, score(*given, curves=True), strict=True):
        line: Record = {"row": one.asked.row, "class": int(one.classes[0]), "map": drawn.digest()}
        if one.asked.target != line["class"]:
            line[_EXPLAINS] = one.asked.target
        line |= _of_class(found, 0)
        if len(one.classes) > 1 and one.label is not None:
            line[FOR_LABEL] = {"class": one.label} | _of_class(found, 1)
        if not drawn.finite:
            line[NOT_FINITE] = True
        yield one.asked.row, line


def _of_class(found: Mapping[str, Any], k: int) -> Record:
    """What was found for the k-th class; scores that know no class belong to the first."""
    curves = {
        name: np.asarray(curve[k], np.float64).round(5).tolist()
        for name, curve in found[CURVES].items()
    }
    values = {name: v[k].tolist() for name, v in found.items() if name != CURVES and len(v) > k}
    return rounded(values) | {CURVES: curves}
