"""What every task begins with: images, networks, and what a run's results rest on."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ltx_jax.data.concepts import CONCEPTS, ConceptSceneSource
from ltx_jax.data.examples import (
    Example,
    Redrawn,
    Source,
    UnreadableImage,
    iterate,
    names_of_all,
    with_interventions,
    with_next,
)
from ltx_jax.data.joined import Joined
from ltx_jax.data.labels import read_class_names
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.scenes import CLASSES, SceneSource
from ltx_jax.data.sources import chosen, cut, open_images
from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.one_class import drawer_of
from ltx_jax.files import digest_of
from ltx_jax.loading.checkpoints import digest_of_weights
from ltx_jax.loading.classifiers import FRESH
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import PLTX, load_explainer, load_mask
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import chosen_scores
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.section import by_dotted_name
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.classes import Held, chosen_classes, classes_held
from ltx_jax.tasks.training_images import unseen

# What `config.images` may be beside a path: scenes made on the spot, as many as anyone asks for.
SCENES, CONCEPT_SCENES = "scenes", "concepts"
# What draws the images that are made here, and what is on them.
_MADE: dict[str | None, tuple[type[SceneSource | ConceptSceneSource], tuple[str, ...]]] = {
    SCENES: (SceneSource, CLASSES),
    CONCEPT_SCENES: (ConceptSceneSource, CONCEPTS),
}
_SCENES_THERE_ARE = 10**6
# Settings that change how fast results come, and no more of them than rounding does; and those of
# what is added to results or shown of them; and the chosen classes, which the rows tell.
WITHOUT_EFFECT = (
    *("finetune.slots", "finetune.chunk", "lost_after"),
    *("rivals", "report.", "evaluate.", "task", "classes"),
    *("pretrain.sharded", "pretrain.workers", "pretrain.save_every", "pretrain.keep"),
    *("pretrain.log_every", "pretrain.tensorboard", "pretrain.pictures"),
)

# Settings that only a training goes by.
_OF_TRAINING = ("pretrain.", "class_masks.", "words.", "explainee.trained")


class Row(NamedTuple):
    """One explanation or score of a run: which image, what it is called, which class is asked for
    (None: the predicted one), and the label where there is just one."""

    image: int
    name: str
    target: int | None
    label: int | None


class Work(NamedTuple):
    """What every task on images rests on: the classifier, images and how they become inputs, the
    rows of the run, and the scores that are asked for."""

    explainee: Explainee
    source: Source
    how: Preprocessing
    rows: Sequence[Row]
    scores: tuple[str, ...]


def open_work(settings: Settings) -> Work:
    """The work of a configuration.

    Raises:
      InputError: as its parts.
    """
    source = open_source(settings)
    explainee = named_by(source, open_explainee(settings))
    how = explainee.preprocessing(settings.resize)
    held = classes_held(source, how, explainee) if settings.target == "held" else ()
    asked = settings.target, settings.label_rows, settings.classes
    rows = plan(source, explainee, *asked, held)
    if settings.unseen_by is not None:
        left = set(unseen(source, Path(settings.unseen_by)))
        rows = [row for row in rows if row.image in left]
    redrawn = isinstance(source, Redrawn)
    scores = chosen_scores(SCORES, settings.scores, source.has_masks, redrawn)
    return Work(explainee, source, how, rows, scores)


def examples(work: Work, rows: Iterable[int], ahead: int) -> Iterator[Example | UnreadableImage]:
    """The images of rows with what the scores need to know of them, so many read ahead; for an
    unreadable one comes the exception itself."""
    scores, additions = [SCORES[name] for name in work.scores], []
    if any(score.needs_other for score in scores):
        additions.append(with_next)
    if any(score.needs_interventions for score in scores):
        additions.append(with_interventions)
    images = (work.rows[row].image for row in rows)
    for _, example in iterate(work.source, work.how, images, ahead, additions):
        yield example


def picture_of(work: Work, row: int) -> UInt8[np.ndarray, "H W C"] | None:
    """A row's image as people look at it; None, which is said, where it cannot be read any more."""
    planned = work.rows[row]
    try:
        return work.source.load(planned.image, work.how).as_picture()
    except UnreadableImage as error:
        logging.warning("no picture of %s: %s", planned.name, error)
        return None


def open_source(settings: Settings) -> Source:
    """The images of a run, cut to `indices`, `subset` and `limit`.

    Raises:
      InputError: as `data.sources.open_images`.
    """
    assert settings.images is not None
    subset, seed, limit = settings.subset, settings.seed, settings.limit
    if settings.images in _MADE and settings.dataset is None:
        kind, _ = _MADE[settings.images]
        there = chosen("config.indices", settings.indices, _SCENES_THERE_ARE)
        fewest, most = settings.objects
        if not (rows := cut(there, subset, seed, limit)):
            raise InputError(
                "config.indices and config.limit leave no scene: choose a slice within them"
            )
        return kind(seed, rows, (fewest, most))
    chosen_ones = settings.labels, settings.indices, limit
    drawn = settings.dataset, subset, seed
    return open_images(settings.images, *chosen_ones, *drawn, settings.least_images)


def open_training_source(settings: Settings) -> tuple[Source, int]:
    """The images of a training, and how many of them, the last, are held out by themselves.

    Raises:
      InputError: as `data.sources.open_images`, or where an image is in both sets.
    """
    source, apart = open_source(settings), settings.pretrain.held_out
    if apart is None:
        return source, 0
    held_out = open_images(
        apart, settings.labels, dataset=settings.dataset, least=settings.least_images
    )
    return Joined(source, held_out), len(held_out)


def open_explainee(settings: Settings, named: bool = True) -> Explainee:
    """The explainee.

    Args:
      settings: of the run.
      named: whether the class names of the run are those of its classes.

    Raises:
      InputError: as `load_explainee`.
    """
    return load_explainee(
        settings.explainee.name,
        settings.explainee.weights,
        compute_dtype=settings.compute_dtype,
        attention=settings.attention,
        class_names=class_names_of(settings) if named else (),
        link=settings.explainee.link,
        **settings.explainee.sizes,
    )


def class_names_of(settings: Settings) -> Sequence[str]:
    """What the classes of a run are called; nothing where nobody knows.

    Raises:
      InputError: as `read_class_names`.
    """
    if settings.class_names is not None:
        return read_class_names(settings.class_names)
    if settings.images in _MADE and settings.dataset is None:
        return _MADE[settings.images][1]
    return ()


def named_by(source: Source, explainee: Explainee) -> Explainee:
    """The explainee with its classes called as the labels of a source, where nobody else says how,
    and these are as many."""
    names = names_of_all(source, explainee.classes)
    if explainee.class_names or not names:
        return explainee
    every = tuple(names.get(k, f"class {k}") for k in range(explainee.classes))
    return dataclasses.replace(explainee, class_names=every)


def open_explainer(settings: Settings, explainee: Explainee) -> Drawer:
    """What draws the masks, of an explainer with one for every class that of each row's class.

    Raises:
      InputError: as `load_explainer` and `load_mask`.
    """
    given = settings.explainer
    if given.trained == "mask":
        start: str | Explainer | None = given.start
        if start == PLTX or (start is None and given.checkpoint is not None):
            start = open_network(settings, explainee)
        return load_mask(explainee, start, given.grid)
    return drawer_of(open_network(settings, explainee))


def open_network(settings: Settings, explainee: Explainee) -> Explainer:
    """The network that draws masks.

    Raises:
      InputError: as `load_explainer`.
    """
    options = dataclasses.asdict(settings.explainer)
    del options["start"], options["grid"]
    if options["trained"] == "mask":  # its masks are a start: whatever it is
        del options["trained"]
    return load_explainer(
        explainee,
        compute_dtype=settings.compute_dtype,
        attention=settings.attention,
        seed=settings.seed,
        **options.pop("sizes"),
        **options,
    )


def plan(
    source: Source,
    explainee: Explainee,
    target: str = "predicted",
    label_rows: str | None = None,
    classes: Sequence[str | int] = (),
    held: Held = (),
) -> list[Row]:
    """One row an image, of its predicted class or its label; or one of each of its labels, of those
    that are held to be there, or of every class; of the images that `label_rows` chooses, one of
    each of their labels.

    Args:
      source, explainee: what is explained.
      target, label_rows, classes: as the settings have them.
      held: of each image, where these are the target.

    Raises:
      InputError: where labels are to be explained that are missing or beyond the classes, or no
        image has any of the classes that are asked for.
    """
    _refuse_labels_beyond(source, explainee)
    every_label = set(chosen("config.label_rows", label_rows, len(source))) if label_rows else set()
    if target == "labels" and not any(source.labels):
        raise _unlabelled(source.names[0])
    wanted = set(chosen_classes(classes, explainee))
    rows: list[Row] = []
    images = 0
    for i, (name, labels) in enumerate(zip(source.names, source.labels, strict=True)):
        by_label = target == "label" or i in every_label
        if by_label and not labels:
            raise _unlabelled(name)
        asked: Iterable[int | None] = {
            "predicted": (None,),
            "label": labels,
            "labels": dict.fromkeys(labels),
            "held": held[i] or (None,) if held else (),
            "every": range(explainee.classes),
        }["label" if by_label else target]
        only = labels[0] if len(labels) == 1 else None
        before = len(rows)
        rows += [
            Row(i, name, one, one if one in labels else only)
            for one in asked
            if one is None or one in wanted
        ]
        images += len(rows) > before
    if not rows:
        raise InputError(
            f"none of {len(source)} images has a class that is asked for: correct config.classes, "
            "or set config.target to every"
        )
    if images < len(source):
        logging.warning(
            "%d of %d images have none of the classes asked for, and are left out",
            *(len(source) - images, len(source)),
        )
    return rows


def _unlabelled(name: str) -> InputError:
    return InputError(
        f"{name} has no label to explain: give config.labels, or set config.target to predicted"
    )


def _refuse_labels_beyond(source: Source, explainee: Explainee) -> None:
    """See that each label is a class of the explainee."""
    for name, labels in zip(source.names, source.labels, strict=True):
        for label in labels:
            if not 0 <= label < explainee.classes:
                known = [label for several in source.labels for label in several]
                from_one = min(known) >= 1 and max(known) == explainee.classes
                remedy = (
                    "they seem to count from 1, and the explainee's from 0; take 1 off each"
                    if from_one
                    else "give the labels that belong to the explainee"
                )
                raise InputError(
                    f"the label of {name} is {label}, but {explainee.name} has "
                    f"{explainee.classes} classes: {remedy}"
                )


def fingerprint(
    settings: Settings,
    names: Sequence[str],
    source: Source,
    class_names: Sequence[str],
    without: tuple[str, ...],
) -> dict[str, Any]:
    """What determines a run's results: settings, and the contents of weights, images and labels.

    Two runs with the same fingerprint may share a work directory.

    Args:
      settings: of the run.
      names: of its rows or images.
      source: of the images and their labels.
      class_names: that results show.
      without: sections that have no part in the task, e.g. `pretrain.`.
    """
    flat = by_dotted_name(dataclasses.asdict(settings))
    ignored = (*WITHOUT_EFFECT, *without)
    kept = {key: value for key, value in flat.items() if not key.startswith(ignored)}
    for key in ("explainee.weights", "explainer.weights", "explainer.checkpoint"):
        if kept.get(key) not in (None, FRESH):
            kept[f"{key} (sha256)"] = digest_of_weights(kept[key])
    kept["images (number)"] = len(names)
    kept["images (sha256 of names)"] = digest_of(name.encode() for name in names)
    kept["images and labels (sha256 of contents)"] = source.digest()
    kept["class names (sha256)"] = digest_of(name.encode() for name in class_names)
    return dict(json.loads(json.dumps(kept)))


def fingerprint_of_work(settings: Settings, work: Work) -> dict[str, Any]:
    """The same of explaining or scoring the rows of a work."""
    names = [f"{row.name}:{row.target}" for row in work.rows]
    return fingerprint(settings, names, work.source, work.explainee.class_names, _OF_TRAINING)
