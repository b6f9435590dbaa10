"""What is given from Python, checked and made what tasks take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltx_jax.data.given import as_array, as_batch
from ltx_jax.data.sources import ArraySource
from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee
from ltx_jax.tasks.classes import class_called


def with_arrays(explainee: Any) -> Explainee:
    """Numbers in a pytree of one's own are arrays as well.

    Raises:
      InputError: for something else than an explainee, or where one of one's own is not what it
        says.
    """
    if not isinstance(explainee, Explainee):
        raise InputError(
            f"the explainee is a {type(explainee).__name__}: give what load_explainee makes, "
            "Explainee(…) of a function in JAX, or explainee_of(…) of any other"
        )
    try:
        arrays = replace(explainee, params=jax.tree.map(jnp.asarray, explainee.params))
    except TypeError as error:
        raise InputError(
            f"the parameters of {explainee.name} hold what is no array ({error}): leave it out, or "
            "let `apply` know it"
        ) from error
    if arrays.architecture is None:  # else it was made of its sizes
        arrays.check()
    return arrays


def source_of(images: Any, explainee: Explainee, labels: Any, truth: Any = None) -> ArraySource:
    """Images in memory, with what is known of them.

    Args:
      images: [n,H,W,C] or [H,W,C], uint8 or floats in [0,1], at the explainee's size; or paths, or
        images of Pillow's.
      explainee: what they are for.
      labels: the class of each, by number or name, or None.
      truth: bool [n,H,W], the pixels of the object of each label, or None.

    Raises:
      InputError: where they do not fit.
    """
    array = as_batch(images, explainee.preprocessing("squash"))
    height, width, channels = explainee.image_shape
    if array.ndim != 4 or array.shape[1:] != (height, width, channels) or not len(array):
        raise InputError(
            f"images of shape {array.shape}: {explainee.name} takes [n,{height},{width},{channels}]"
            ", channels last; resize them first"
        )
    if array.dtype != np.uint8:
        if not jnp.issubdtype(array.dtype, jnp.floating) or not (
            array.min() >= 0 and array.max() <= 1
        ):
            raise InputError(
                f"images are {array.dtype} from {array.min()} to {array.max()}: expected uint8, or "
                "floats from 0 to 1 before any normalisation"
            )
        array = array.astype(np.float32)
    known = None if labels is None else _labels(labels, len(array), explainee)
    names = tuple(f"image {i}" for i in range(len(array)))
    each = tuple((k,) for k in known) if known else ((),) * len(array)
    return ArraySource(names, each, array, _truth(truth, known, array))


def _truth(truth: Any, known: list[int] | None, images: np.ndarray) -> np.ndarray | None:
    if truth is None:
        return None
    array = as_array(truth, "truth")
    if known is None or array.dtype != bool or array.shape != images.shape[:3]:
        raise InputError(
            f"truth is {array.dtype} of shape {array.shape}: expected bool {images.shape[:3]}, the "
            "pixels of each target's object, beside targets"
        )
    return array[:, None]


def targets_of(targets: Any, images: int, explainee: Explainee) -> list[list[int | None]]:
    """The classes to explain of each of so many images; None for the predicted one.

    Raises:
      InputError: where they are none of the explainee's, not as many as the images, or one class
        of an image comes twice.
    """
    if targets is None:
        return [[None]] * images
    targets = _each(targets)
    _refuse_unordered("targets", targets)
    _refuse_one_hot(targets, explainee)
    several = _classes(targets, explainee)
    if len(several) != images:
        raise InputError(f"targets for {len(several)} of {images} images: give some for each")
    _check_classes("target", [target for group in several for target in group], explainee)
    _refuse_twice(several)
    return several


def label_sets(labels: Any, images: int, explainee: Explainee) -> tuple[tuple[int, ...], ...]:
    """The classes that each of so many images has.

    Args:
      labels: bool or 0 and 1, [images,classes]; or for each image a class or several, none among
        them.
      images: how many.
      explainee: whose classes they are.

    Raises:
      InputError: where they are none of the explainee's, or not as many as the images.
    """
    labels = _each(labels)
    _refuse_unordered("labels", labels)
    matrix = np.asarray(labels if hasattr(labels, "shape") else 0)
    if matrix.ndim == 2:
        if matrix.shape[1] != explainee.classes or not np.isin(matrix, (0, 1)).all():
            raise InputError(
                f"labels are {matrix.dtype} {matrix.shape}: expected bool [images,"
                f"{explainee.classes}], or for each image the classes that it has"
            )
        several = [np.flatnonzero(row).tolist() for row in matrix]
    else:
        several = _classes(labels, explainee)
    if len(several) != images:
        raise InputError(f"{len(several)} labels for {images} images: give one an image")
    _check_classes("label", [label for group in several for label in group], explainee)
    return tuple(tuple(group) for group in several)


def _refuse_unordered(what: str, given: Any) -> None:
    """See that classes stand in an order, that of the images."""
    if isinstance(given, Mapping | Set):
        raise InputError(
            f"{what} are a {type(given).__name__}: give a list in the order of the images"
        )


def _refuse_twice(several: list[list[Any]]) -> None:
    """See that no class of an image comes twice: in lists, too, a one-hot row would be read as the
    classes 0 and 1."""
    for i, group in enumerate(several):
        if len(set(group)) < len(group):
            raise InputError(
                f"the targets of image {i} are {group}: give each class once, or, where that is "
                "one-hot, the index of its 1"
            )


def _refuse_one_hot(targets: Any, explainee: Explainee) -> None:
    """A matrix of zeros with a one a row would be read as lists of the classes 0 and 1."""
    matrix: np.ndarray = np.asarray(targets if hasattr(targets, "shape") else 0)
    if (
        matrix.ndim == 2
        and matrix.shape[1] == explainee.classes
        and np.isin(matrix, (0, 1)).all()
        and (matrix.sum(1) == 1).all()
    ):
        raise InputError(
            f"targets are a one-hot matrix {matrix.shape}: give targets.argmax(-1), or lists where "
            "several classes of an image are meant"
        )


def _each(given: Any) -> Any:
    """What is given of each image; of one class alone that."""
    alone = isinstance(given, str) or not hasattr(given, "__iter__")
    return [given] if alone or getattr(given, "ndim", 1) == 0 else given


def _classes(each: Iterable[Any], explainee: Explainee) -> list[list[Any]]:
    """The indices of one class of each image, or of several."""
    lists = (np.atleast_1d(np.asarray(one, object)).tolist() for one in each)
    return [[_class(one, explainee) for one in several] for several in lists]


def _class(named: Any, explainee: Explainee) -> Any:
    """The index of a class by its name; whatever is no name as it is."""
    if not isinstance(named, str):
        return named.item() if isinstance(named, np.generic) else named
    index = class_called(named, explainee)
    if index is None:
        known = ", ".join(explainee.class_names) or "it has no names"
        raise InputError(f"no class is called {named!r} by {explainee.name}: {known}")
    return index


def _labels(labels: Any, images: int, explainee: Explainee) -> list[int]:
    each = np.atleast_1d(np.asarray(labels, object)).tolist()
    known = [_class(label, explainee) for label in each]
    if len(known) != images:
        raise InputError(f"{len(known)} labels for {images} images: give one an image")
    _check_classes("label", known, explainee)
    return known


def _check_classes(what: str, classes: list[Any], explainee: Explainee) -> None:
    for one in classes:
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < explainee.classes:
            kind = "" if type(one) is int else f" is a {type(one).__name__}"
            raise InputError(
                f"{what} {one!r}{kind}: {explainee.name} has classes 0 to {explainee.classes - 1}, "
                "whole numbers"
            )
