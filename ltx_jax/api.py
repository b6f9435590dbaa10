"""What `import ltx_jax` gives: explain, pretrain and evaluate from Python."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from ltx_jax.data.given import as_batch
from ltx_jax.data.sources import ArraySource
from ltx_jax.engine.explain import Explanation
from ltx_jax.engine.memory import lay_out
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.scoring import PROBABILITY, to_pixels
from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading.explainers import load_explainer, load_mask
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import chosen_scores
from ltx_jax.models.explainee import Explainee
from ltx_jax.reporting.overlays import panel
from ltx_jax.reporting.publish import publish
from ltx_jax.reporting.records import record
from ltx_jax.reporting.store import ResultStore
from ltx_jax.reporting.summary import Interval, score_intervals
from ltx_jax.settings.sections import (
    LTX,
    Finetune,
    Objective,
    Pretrain,
    Report,
    Settings,
    checked,
    setting_names,
)
from ltx_jax.tasks import evaluate as evaluation
from ltx_jax.tasks import explain as explaining
from ltx_jax.tasks import pretrain as pretraining
from ltx_jax.tasks.inputs import Row, Work

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Explanations:
    """Masks and scores of n explanations, in the order they were asked for.

    Attributes:
      explainee: that was explained.
      images: float32 [m,H,W,C] in [0,1], one for each picture.
      image_of: [n] the picture each explanation is of; a picture with several targets has several.
      each: everything known of each explanation.
    """

    explainee: Explainee
    images: Float[np.ndarray, "m H W C"]
    image_of: tuple[int, ...]
    each: tuple[Explanation, ...]

    def __len__(self) -> int:
        return len(self.each)

    @property
    def shown(self) -> str:
        """The mask that is the result: `final`, or where a score selects, `selected`."""
        return next(name for name in ("final", "selected") if name in self.each[0].masks)

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
        """Masks over cells by name: `final`; or, where a score selects, `pltx`, `selected`, `last`
        or `by_loss`."""
        return np.stack([one.masks[which] for one in self.each])

    def scores_of(self, which: str) -> dict[str, np.ndarray]:
        """The scores of masks by name, [n] each."""
        names = [name for name in self.each[0].scores[which] if name in SCORES]
        return {name: np.array([one.scores[which][name] for one in self.each]) for name in names}

    def pixel_masks(self, which: str | None = None) -> Float[np.ndarray, "n H W"]:
        """Masks at the images' size, in [0,1]: the result's, unless others are named."""
        masks = self.token_masks(which or self.shown)
        return np.asarray(to_pixels(masks, self.images.shape[1:3]))

    def overlay(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image, mask, heat-map overlay and masked image of one explanation, side by side."""
        return panel(self._picture(i), self.pixel_masks()[i])

    def save(self, directory: str | Path) -> None:
        """Write what the main command leaves: results, masks, summary, overlays and page.

        Raises:
          InputError: where the directory cannot be written, or holds another run.
        """
        content = hashlib.sha256(self.images.tobytes())
        for one in self.each:
            content.update(b"".join(mask.tobytes() for mask in one.masks.values()))
        told = {
            "explainee": self.explainee.name,
            "targets": self.targets.tolist(),
            "images and masks (sha256)": content.hexdigest()[:16],
        }
        store = ResultStore.open(Path(directory), told, len(self))
        for name, mask in self.each[0].masks.items():
            order = self.each[0].raw.get(name)
            store.hold(name, mask.shape, None if order is None else order.shape)
        classes = self.explainee.class_names
        rows = {
            row: (record(one, f"image {self.image_of[row]}", row, classes), one.masks)
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
      scores: by name, [n] each.
      probability: of the class through the mask.
    """

    targets: Int[np.ndarray, " n"]
    scores: dict[str, np.ndarray]
    probability: Float[np.ndarray, " n"]

    def summary(self) -> dict[str, Interval]:
        """The mean of each score with its 95 % bootstrap interval."""
        rows = zip(*self.scores.values(), strict=True)
        return score_intervals([dict(zip(self.scores, row, strict=True)) for row in rows])


def keywords(section: type, *but: str) -> Callable[[Function], Function]:
    """Give a function that takes **options the keywords of a section of settings, with their
    defaults and help."""

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        told = []
        for f in dataclasses.fields(section):
            if f.name not in but:
                parameters.append(
                    inspect.Parameter(
                        f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
                    )
                )
                told.append(f"{f.name}: {f.metadata['told']}.")
        function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        # Python 3.13 takes the indentation off docstrings.
        doc, given = function.__doc__ or "", re.compile(r"( *)\*\*options: …")
        function.__doc__ = given.sub(lambda found: "\n".join(found[1] + t for t in told), doc)
        return function

    return decorate


def _options(section: Any, options: dict[str, Any], *but: str) -> Any:
    """A section of settings with some of them changed by keywords.

    Raises:
      InputError: for one that the section has not, or a value that cannot be used.
    """
    if unknown := set(options) - (known := set(setting_names(type(section))) - set(but)):
        raise InputError(f"no option {min(unknown)!r}: there are {', '.join(sorted(known))}")
    return checked(replace(section, **options))


@keywords(Finetune, "resume", "schedule_steps")
def explain(
    explainee: Explainee,
    images: Any,
    targets: Any = None,
    explainer: Drawer | None = None,
    *,
    labels: Sequence[int] | np.ndarray | None = None,
    objective: Objective | None = None,
    scores: Sequence[str] = (),
    seed: int = Settings.seed,
    **options: Any,
) -> Explanations:
    """What did the explainee look at?

    Without an explainer, or with one from `load_mask`, each mask's own values are optimised, by our
    recipe. A network (`load_explainer`) is finetuned by the paper's: what is not given of
    `objective` and options is then as in `LTX`.

    Args:
      explainee: the classifier, from `load_explainee` or your own.
      images: [m,H,W,C] or a single [H,W,C], uint8 or floats in [0,1], at the explainee's size; or
        paths, or images of Pillow's, of any size; one of them or several.
      targets: the class to explain of each image, by number or name, or several of them; the
        predicted one where not given.
      explainer: what draws the masks, from `load_mask` or `load_explainer`.
      labels: the true class of each image, to be scored as well.
      objective: what makes a mask good.
      scores: names of further scores; the usual ones are always there.
      seed: of budgets and fills, which are drawn.
      **options: …

    Returns:
      One explanation for each target of each image.

    Raises:
      InputError: where images, targets, labels or options do not fit, or memory the slots.
    """
    explainee = _with_arrays(explainee)
    explainer = explainer or load_mask(explainee)
    usual = LTX if isinstance(explainer, Explainer) else Settings()
    chosen = _options(usual.finetune, options, "resume", "schedule_steps")
    objective = checked(objective or usual.objective)
    source = _source(images, explainee, labels)
    wanted = _targets(targets, len(source), explainee)
    known = [labels[0] if labels else None for labels in source.labels]
    rows = [
        Row(i, source.names[i], target, known[i])
        for i, several in enumerate(wanted)
        for target in several
    ]
    work = _work(explainee, source, rows, scores)
    job = explaining.make_job(work, explainer, chosen, objective, seed)
    layout = lay_out(explainee, explainer, job.recipe, len(rows), chosen.slots)
    found = explaining.explain(job, range(len(rows)), layout, skip=_never)
    done = sorted(found, key=lambda one: one.row)
    pictures = np.stack([source.load(i, work.how).as_input() for i in range(len(source))])
    return Explanations(explainee, pictures, tuple(row.image for row in rows), tuple(done))


def evaluate(
    explainee: Explainee,
    images: Any,
    masks: Any,
    targets: Any = None,
    *,
    truth: Any = None,
    scores: Sequence[str] = (),
    chunk: int | None = None,
) -> Evaluation:
    """Score maps of any origin: no explainer is needed.

    Args:
      explainee: the classifier.
      images: [n,H,W,C], uint8 or floats in [0,1], at its size.
      masks: [n,g,h] over cells, or [n,H,W] over pixels. Where a map lies in [0,1] it is the mask;
        any other keeps its order, and is scaled to span [0,1] as a mask.
      targets: the class of each image; the predicted one where not given.
      truth: bool [n,H,W], the pixels of the object of each target, to be scored against.
      scores: names of further scores; the usual ones are always there.
      chunk: most images in one forward of the explainee.

    Raises:
      InputError: where images, masks or targets do not fit the explainee, or a map holds values
        that are no numbers.
    """
    explainee = _with_arrays(explainee)
    source = _source(images, explainee, targets if truth is not None else None, truth)
    maps = np.asarray(masks)
    if maps.ndim != 3 or len(maps) != len(source) or maps.dtype.kind not in "fiub":
        raise InputError(
            f"masks are {maps.dtype} of shape {maps.shape}: expected numbers [{len(source)},g,h], "
            "one map for each image"
        )
    wanted = _targets(targets, len(source), explainee)
    if any(len(several) != 1 for several in wanted):
        raise InputError("several targets of one image: give one target for each mask")
    rows = [Row(i, source.names[i], target, None) for i, (target,) in enumerate(wanted)]
    asked = [evaluation.Asked(i, row.target) for i, row in enumerate(rows)]
    given = [evaluation.as_map(one, f"mask {i}") for i, one in enumerate(maps)]
    work = _work(explainee, source, rows, scores)
    groups = evaluation.score_rows(work, asked, given.__getitem__, chunk)
    found = [line for group in groups for _, line in group]
    return Evaluation(
        np.array([line["class"] for line in found]),
        {name: np.array([line[name] for line in found]) for name in work.scores},
        np.array([line[PROBABILITY] for line in found]),
    )


class Stored(NamedTuple):
    """What a work directory holds of the rows that were explained.

    Attributes:
      images: the name of each.
      targets: the class each was explained for.
      masks: by name, [n,g,h] or [n,H,W] each; those of rivals as well.
      raw: the values that rank their pixels, where these are kept.
      scores: of each mask by name, [n] each; NaN where one is unknown.
    """

    images: tuple[str, ...]
    targets: Int[np.ndarray, " n"]
    masks: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]
    scores: dict[str, dict[str, np.ndarray]]


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
        return {k: np.array([one.get(k) for one in known], np.float64) for k in there}

    return Stored(
        tuple(one["image"] for one in done),
        np.array([one["class"] for one in done]),
        {name: store.masks(name).load()[rows] for name in names},
        {name: store.masks(name, raw=True).load()[rows] for name in names if store.has_raw(name)},
        {name: scores(name) for name in names},
    )


@keywords(Pretrain)
def pretrain(
    explainee: Explainee,
    images: Any,
    labels: Sequence[int] | np.ndarray | None = None,
    explainer: Explainer | None = None,
    *,
    objective: Objective | None = None,
    target: str = "predicted",
    seed: int = 0,
    workdir: str | Path | None = None,
    **options: Any,
) -> Explainer:
    """Train an explainer for a data set (the method's first stage).

    Args:
      explainee: the classifier.
      images: [n,H,W,C], uint8 or floats in [0,1], at its size.
      labels: the true class of each image.
      explainer: to start from; the explainee's own network with a fresh mask head where not given.
      objective: what makes a mask good; the paper's where not given.
      target: the class to keep: `predicted`, or `label`.
      seed: of the order of images, and of what is held out.
      workdir: gets checkpoints, from which an interrupted training goes on; none where not given.
      **options: …

    Returns:
      The explainer of the epoch with the best validation POS.

    Raises:
      InputError: where images, labels or options do not fit, or another training is in `workdir`.
    """
    chosen = _options(Pretrain(), options)
    explainee = _with_arrays(explainee)
    source = _source(images, explainee, labels)
    explainer = explainer or load_explainer(explainee, seed=seed)
    objective = checked(objective or LTX.objective)
    told: dict[str, Any] = {
        "images (sha256)": hashlib.sha256(source.images.tobytes()).hexdigest()[:16]
    }
    told |= {"target": target, "seed": seed, "objective": dataclasses.asdict(objective)}
    told |= dataclasses.asdict(chosen)
    made = pretraining.pretrain(
        explainee,
        explainer,
        source,
        chosen,
        goal=make_goal(objective),
        target=target,
        seed=seed,
        workdir=None if workdir is None else Path(workdir),
        fingerprint=told,
    )
    return made.explainer


def _work(explainee: Explainee, source: ArraySource, rows: list[Row], scores: Any) -> Work:
    how = explainee.preprocessing("squash")
    return Work(explainee, source, how, rows, chosen_scores(SCORES, scores, source.has_masks))


def _with_arrays(explainee: Explainee) -> Explainee:
    """Numbers in a pytree of one's own are arrays as well.

    Raises:
      InputError: where an explainee of one's own is not what it says.
    """
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


def _never(row: int, reason: str) -> None:
    raise AssertionError(f"row {row}, in memory, could not be read: {reason}")


def _source(images: Any, explainee: Explainee, labels: Any, truth: Any = None) -> ArraySource:
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
    array = np.asarray(truth)
    if known is None or array.dtype != bool or array.shape != images.shape[:3]:
        raise InputError(
            f"truth is {array.dtype} of shape {array.shape}: expected bool {images.shape[:3]}, the "
            "pixels of each target's object, beside targets"
        )
    return array[:, None]


def _targets(targets: Any, images: int, explainee: Explainee) -> list[list[int | None]]:
    if targets is None:
        return [[None]] * images
    if isinstance(targets, int | str):
        targets = [targets]
    _refuse_one_hot(targets, explainee)
    several = [
        [_class(one, explainee) for one in (np.atleast_1d(np.asarray(target, object)).tolist())]
        for target in targets
    ]
    if len(several) != images:
        raise InputError(f"targets for {len(several)} of {images} images: give some for each")
    _check_classes("target", [target for group in several for target in group], explainee)
    return several


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


def _class(named: Any, explainee: Explainee) -> Any:
    """The index of a class by its name; whatever is no name as it is."""
    if not isinstance(named, str):
        return named.item() if isinstance(named, np.generic) else named
    if named not in explainee.class_names:
        known = ", ".join(explainee.class_names) or "it has no names"
        raise InputError(f"no class is called {named!r} by {explainee.name}: {known}")
    return explainee.class_names.index(named)


def _labels(labels: Any, images: int, explainee: Explainee) -> list[int]:
    known = np.asarray(labels).tolist()
    if len(known) != images:
        raise InputError(f"{len(known)} labels for {images} images: give one an image")
    _check_classes("label", known, explainee)
    return known


def _check_classes(what: str, classes: list[Any], explainee: Explainee) -> None:
    for one in classes:
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < explainee.classes:
            raise InputError(
                f"{what} {one!r}: {explainee.name} has classes 0 to {explainee.classes - 1}"
            )
