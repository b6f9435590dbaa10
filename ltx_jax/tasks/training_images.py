"""Which images a training takes, which it is judged by, and which it leaves for later."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from ltx_jax.data.examples import Source, label_names, names_of_all
from ltx_jax.data.joined import HELD_OUT
from ltx_jax.data.sources import chosen
from ltx_jax.errors import InputError
from ltx_jax.files import read_json, write_json
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.sections import Pretrain

SPLIT = "split.json"
# Classes that a warning names.
_NAMED = 100


class Split(NamedTuple):
    """Numbers of a source's images: those to train on, to choose the best epoch by, and those that
    are kept from both, to be explained and judged."""

    training: list[int]
    validation: list[int]
    test: list[int]


def split(source: Source, settings: Pretrain, seed: int, apart: int = 0) -> Split:
    """Divide the images: as the settings say, or by chance.

    Args:
      source: of all images.
      settings: of the section.
      seed: of what is drawn.
      apart: so many, the last, are held out by themselves.

    Raises:
      InputError: where the parts overlap that should not, or too few images are left for a batch.
    """
    if apart:
        first = len(source) - apart
        drawn = Split([*range(first)], [*range(first, len(source))], [])
    elif settings.train:
        drawn = _chosen(source, settings)
    else:
        drawn = _drawn(source, settings, seed)
    if settings.images_per_class:
        training = _of_each_class(source, drawn.training, settings.images_per_class)
        drawn = drawn._replace(training=training)
    if len(drawn.training) < settings.batch_size:
        raise InputError(
            f"{len(drawn.training)} images to train on do not fill a batch of "
            f"{settings.batch_size}: give more images or set pretrain.batch_size lower"
        )
    return drawn


def keep_split(workdir: Path, source: Source, images: Split) -> None:
    """Write the names of each part to a pretraining's work directory."""
    named = {
        part: [source.names[i] for i in dict.fromkeys(numbers)]
        for part, numbers in images._asdict().items()
    }
    write_json(workdir / SPLIT, named)


def unseen(source: Source, workdir: Path) -> list[int]:
    """The images that a pretraining neither learnt from nor was chosen by, as their names tell.

    Args:
      source: of the same images, or others.
      workdir: of the pretraining.

    Raises:
      InputError: where there is none, no image is left, or the images may be the pretraining's
        under other names.
    """
    if not (workdir / SPLIT).exists():
        raise InputError(f"{workdir} holds no {SPLIT}: give the work directory of a pretraining")
    known = read_json(workdir / SPLIT, "pretrain again in another work directory")
    known = {"test": [], **known} if isinstance(known, Mapping) else {}
    if not all(_are_names(known.get(part)) for part in Split._fields):
        raise InputError(f"{workdir / SPLIT} is damaged: pretrain again in another work directory")
    seen = _as_named([*known["training"], *known["validation"]])
    _refuse_other_names(source, seen | _as_named(known["test"]), workdir)
    left = [i for i, name in enumerate(source.names) if name not in seen]
    if not left:
        raise InputError(
            f"the pretraining in {workdir} saw all of the {len(source)} images: give others, or "
            "leave config.unseen_by out"
        )
    return left


def _are_names(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(name, str) for name in found)


def _as_named(names: Iterable[str]) -> set[str]:
    """Names as a source of these images alone has them."""
    return {name.removeprefix(HELD_OUT) for name in names}


def _refuse_other_names(source: Source, known: set[str], workdir: Path) -> None:
    """See that images are named as a pretraining named them: a name is a path from where the
    images were said to be, so that `photos` and `photos/val` give one image two names.

    Raises:
      InputError: where none is, but files are called alike.
    """
    if known.isdisjoint(source.names):
        bases = {_base(name): name for name in known}
        if alike := next((name for name in source.names if _base(name) in bases), None):
            raise InputError(
                f"{alike} may be {bases[_base(alike)]} of the pretraining in {workdir}, all of "
                "whose images have other paths: give config.images as it was given there, or, "
                "for other images, leave config.unseen_by out"
            )


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def targets_of(
    source: Source, training: Sequence[int], target: str, explainee: Explainee
) -> Int32[np.ndarray, " all"]:
    """Of each image of a source the class to keep; −1 for the predicted one.

    Args:
      source: of all images.
      training: numbers of those that need one.
      target: `predicted`, or `label`, the first one of an image.
      explainee: whose classes they are.

    Raises:
      InputError: where a label is missing, or is no class of the explainee.
    """
    targets = np.full(len(source), -1, np.int32)
    if target == "label":
        targets[list(training)] = [_target(source, i, explainee) for i in training]
    return targets


def classes_of(
    source: Source, training: Sequence[int], explainee: Explainee
) -> Bool[np.ndarray, "all classes"]:
    """The classes of each image of a source; none of one that is not labelled with any.

    Args:
      source: of all images.
      training: numbers of those to train on, in which every class had better be.
      explainee: whose classes they are.

    Raises:
      InputError: where no image has any, or one that the explainee does not have.
    """
    found = np.zeros((len(source), explainee.classes), bool)
    for i, labels in enumerate(source.labels):
        for label in labels:
            _refuse_unknown(source, i, label, explainee)
        found[i, list(labels)] = True
    learnt: np.ndarray = np.asarray(found[list(training)].any(0))
    if not learnt.any():
        raise InputError(
            "no image to train on has a class: give config.labels, or set config.target=predicted"
        )
    # Gaps between the numbers of a data set's classes are none.
    there = names_of_all(source, explainee.classes) or range(explainee.classes)
    names = dict(enumerate(explainee.class_names)) or label_names(source)
    missing = [str(names.get(k, k)) for k in there if not learnt[k]]
    if missing:
        some = ", ".join(missing[:_NAMED]) + (" …" if len(missing) > _NAMED else "")
        logging.warning("no image to train on has %d of the classes: %s", len(missing), some)
    return found


def refuse_unless_single(source: Source, labels: Bool[np.ndarray, "all classes"]) -> None:
    """See that every image of a source has one class, where one is the answer.

    Raises:
      InputError: naming one that has not.
    """
    counts = labels.sum(1)
    if (counts != 1).any():
        i = int(np.flatnonzero(counts != 1)[0])
        raise InputError(
            f"{source.names[i]} has {counts[i]} classes, and of a softmax one is the answer: set "
            "config.explainee.link=sigmoid, or give images of one class each"
        )


def _chosen(source: Source, settings: Pretrain) -> Split:
    """By the slices that the settings give."""
    training = chosen("pretrain.train", settings.train, len(source))
    validation = chosen("pretrain.validate", settings.validate, len(source))
    both = set(training) & set(validation)
    if both and not settings.overlap:
        raise InputError(
            f"pretrain.train and pretrain.validate have {len(both)} images in common: give slices "
            "that are apart, or set pretrain.overlap=True"
        )
    if not validation:
        raise InputError(
            f"pretrain.validate is {settings.validate}, which is none of the {len(source)} images: "
            "choose a slice within them"
        )
    rest = sorted(set(range(len(source))) - {*training, *validation})
    return Split([*training], [*validation], rest)


def _drawn(source: Source, settings: Pretrain, seed: int) -> Split:
    """By chance: some to validate with, some to test, the others to train on; with an overlap all
    to train on, as the original, and none to test."""
    shuffled = np.random.default_rng(seed).permutation(len(source)).tolist()
    held_out = max(1, round(settings.validation * len(source)))
    tested = held_out + round(settings.test * len(source))
    validation, test = shuffled[:held_out], shuffled[held_out:tested]
    if settings.overlap:
        return Split(shuffled, validation, [])
    return Split(shuffled[tested:], validation, test)


def _of_each_class(source: Source, candidates: Sequence[int], most: int) -> list[int]:
    """The first so many candidates of each class."""
    taken: dict[int, int] = {}
    kept = []
    for i in candidates:
        label = _label(source, i, "pretrain.images_per_class")
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= most:
            kept.append(i)
    return kept


def _target(source: Source, i: int, explainee: Explainee) -> int:
    label = _label(source, i, "target=label")
    _refuse_unknown(source, i, label, explainee)
    return label


def _refuse_unknown(source: Source, i: int, label: int, explainee: Explainee) -> None:
    if not 0 <= label < explainee.classes:
        raise InputError(
            f"{source.names[i]} has the label {label}: {explainee.name} has classes 0 to "
            f"{explainee.classes - 1}, give one of them"
        )


def _label(source: Source, i: int, needed_by: str) -> int:
    if not source.labels[i]:
        raise InputError(
            f"{source.names[i]} has no label, which {needed_by} needs: give labels, or leave "
            f"{needed_by} out"
        )
    return source.labels[i][0]
