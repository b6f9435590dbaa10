"""What `import ltx_jax` gives: explain, attribute, pretrain and evaluate from Python."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path
from jaxtyping import Float

from ltx_jax.data.given import as_array
from ltx_jax.data.sources import ArraySource, refuse_address
from ltx_jax.engine.memory import lay_out
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.scoring import PROBABILITY
from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.mask_itself import MaskItself
from ltx_jax.explainers.one_class import OneClass, drawer_of
from ltx_jax.files import claimed, digest_of
from ltx_jax.loading.explainers import load_explainer, load_mask, refuse_unfit
from ltx_jax.loading.word_explainers import load_words
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import chosen_scores
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.python_function import failing_plainly
from ltx_jax.reporting.filters import recalls_of, records_of
from ltx_jax.reporting.records import column
from ltx_jax.reporting.results import Evaluation, Explanations
from ltx_jax.runtime import together
from ltx_jax.settings.section import checked, setting_names
from ltx_jax.settings.sections import (
    LTX,
    ClassMasks,
    Finetune,
    Objective,
    Pretrain,
    Settings,
    Words,
)
from ltx_jax.tasks import explain as explaining
from ltx_jax.tasks import explain_filters as filters
from ltx_jax.tasks import pretrain as pretraining
from ltx_jax.tasks import rivals
from ltx_jax.tasks.arrays import label_sets, source_of, targets_of, with_arrays
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.inputs import WITHOUT_EFFECT, Row, Work
from ltx_jax.tasks.maps import as_map, leaves_unit, refuse_larger
from ltx_jax.tasks.pretrain_classes import class_goal, pretrain_classes
from ltx_jax.tasks.scoring import Asked, score_rows

Function = TypeVar("Function", bound=Callable[..., Any])


def entry(function: Function) -> Function:
    """What everything here that computes goes through. NaN marks what is not known, also where JAX
    is to stop at NaN (`jax_debug_nans`): what an explainee must not give is refused all the same.
    A Python function that fails is told of plainly."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with jax.debug_nans(False), failing_plainly():
            return function(*args, **kwargs)

    return cast(Function, run)


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


def _section(given: Any, usual: Any, name: str) -> Any:
    """A section of settings as it is given; the usual one where none is.

    Raises:
      InputError: for something else than such a section, or one with a value that cannot be used.
    """
    given = usual if given is None else given
    if not isinstance(given, type(usual)):
        raise InputError(
            f"{name} is a {type(given).__name__}: expected {type(usual).__name__}(…), as "
            f"ltx_jax.LTX.{name} is"
        )
    return checked(given, f"{name}.")


def _fitting(explainer: Any, kind: type, explainee: Explainee) -> Any:
    """An explainer as it is given.

    Raises:
      InputError: for something else, or one for other images or classes.
    """
    if not isinstance(explainer, kind):
        raise InputError(
            f"explainer is a {type(explainer).__name__}: expected what load_explainer gives, which "
            "takes a file as checkpoint=…" + ", or load_mask" * (kind is Drawer)
        )
    network = explainer.network if isinstance(explainer, MaskItself) else explainer
    if isinstance(network, Explainer):
        refuse_unfit(network, explainee)
    return explainer


def _options(section: Any, options: dict[str, Any], *but: str) -> Any:
    """A section of settings with some of them changed by keywords.

    Raises:
      InputError: for one that the section has not, or a value that cannot be used.
    """
    if unknown := set(options) - (known := set(setting_names(type(section))) - set(but)):
        raise InputError(f"no option {min(unknown)!r}: there are {', '.join(sorted(known))}")
    return checked(replace(section, **options))


@entry
@keywords(Finetune, "resume", "schedule_steps")
def explain(
    explainee: Explainee,
    images: Any,
    targets: Any = None,
    explainer: Drawer | None = None,
    *,
    labels: Any = None,
    objective: Objective | None = None,
    scores: Iterable[str] | None = (),
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
      explainer: what draws the masks, from `load_mask` or `load_explainer`; of one with a mask for
        every class that of each target.
      labels: the true class of each image, by number or name, to be scored as well.
      objective: what makes a mask good.
      scores: names of further scores; the usual ones are always there.
      seed: of budgets and fills, which are drawn.
      **options: …

    Returns:
      One explanation for each target of each image.

    Raises:
      InputError: where images, targets, labels or options do not fit, memory the slots; or the
        explainee gives no finite numbers for a black image or one of the images.
    """
    explainee = with_arrays(explainee)
    rivals.refuse_without_gradients(explainee, "explain")
    explainer = load_mask(explainee) if explainer is None else explainer
    explainer = _fitting(explainer, Drawer, explainee)
    explainer = drawer_of(explainer) if isinstance(explainer, Explainer) else explainer
    usual = LTX if isinstance(explainer, Explainer | OneClass) else Settings()
    chosen = _options(usual.finetune, options, "resume", "schedule_steps")
    objective = _section(objective, usual.objective, "objective")
    seed = checked(Settings(seed=seed)).seed
    source = source_of(images, explainee, labels)
    wanted = targets_of(targets, len(source), explainee)
    known = [labels[0] if labels else None for labels in source.labels]
    rows = [
        Row(i, source.names[i], target, known[i])
        for i, several in enumerate(wanted)
        for target in several
    ]
    work = _work(explainee, source, rows, scores)
    job = explaining.make_job(work, explainer, chosen, objective, seed)
    layout = lay_out(explainee, explainer, job.recipe, len(rows), chosen.slots)

    def refuse(row: int, reason: str) -> None:
        raise InputError(f"{rows[row].name}: {reason}; correct the network, or leave it out")

    found = explaining.explain(job, range(len(rows)), layout, refuse)
    done = sorted(found, key=lambda one: one.row)
    pictures = np.stack([source.load(i, work.how).as_input() for i in range(len(source))])
    images_of = tuple(row.image for row in rows)
    return Explanations(explainee.name, explainee.class_names, pictures, images_of, tuple(done))


@entry
def evaluate(
    explainee: Explainee,
    images: Any,
    masks: Any,
    targets: Any = None,
    *,
    truth: Any = None,
    scores: Iterable[str] | None = (),
    chunk: int | None = None,
) -> Evaluation:
    """Score maps of any origin: no explainer is needed.

    Args:
      explainee: the classifier.
      images: as `explain` takes them.
      masks: [n,g,h] over cells, or [n,H,W] over pixels. Where all of them lie in [0,1] they are
        masks as they are; else each keeps its order, and is scaled to span [0,1] as a mask.
      targets: the class of each image, by number or name; the predicted one where not given.
      truth: bool [n,H,W], the pixels of the object of each target, to be scored against.
      scores: names of further scores; the usual ones are always there.
      chunk: most images in one forward of the explainee.

    Raises:
      InputError: where images, masks or targets do not fit the explainee, or a map holds values
        that are no numbers.
    """
    explainee = with_arrays(explainee)
    chunk = checked(Finetune(chunk=chunk)).chunk
    source = source_of(images, explainee, targets if truth is not None else None, truth)
    maps = as_array(masks, "masks")
    if maps.ndim != 3 or len(maps) != len(source) or maps.dtype.kind not in "fiub":
        raise InputError(
            f"masks are {maps.dtype} of shape {maps.shape}: expected numbers [{len(source)},g,h], "
            "one map for each image"
        )
    rows, asked = _row_an_image(source, targets, explainee)
    work = _work(explainee, source, rows, scores)
    refuse_larger("the array of masks", maps.shape[1:], work)
    if wrong := [i for i, one in enumerate(maps) if not np.isfinite(one).all()]:
        raise InputError(f"mask {wrong[0]} holds values that are no numbers: give finite ones")
    stretched = leaves_unit(maps)
    groups = score_rows(work, asked, lambda row: as_map(maps[row], stretched), chunk)
    found = [line for group in groups for _, line in group]
    return Evaluation(
        np.array([line["class"] for line in found]),
        {name: column([line[name] for line in found]) for name in work.scores},
        np.array([line[PROBABILITY] for line in found], np.float64),
    )


@entry
def attribute(
    explainee: Explainee, images: Any, method: str, targets: Any = None
) -> Float[np.ndarray, "n g h"]:
    """Another method's masks, to be looked at, and compared by `evaluate`.

    Args:
      explainee: the classifier; one from `explainee_of` for methods that need no gradients.
      images: [n,H,W,C] or a single [H,W,C], as `explain` takes them.
      method: its name, one of `ltx_jax.attribution.RIVALS`, whose `maps` give the same in the
        method's own range.
      targets: the class of each image, by number or name; the predicted one where not given.

    Returns:
      A mask for each image over pixels, or over cells, that spans [0,1].

    Raises:
      InputError: for an unknown method, or one that needs what the explainee does not give; and
        where images or targets do not fit it.
    """
    explainee = with_arrays(explainee)
    if not isinstance(method, str):
        raise InputError(f"method is {method!r}: expected the name of one, e.g. 'occlusion'")
    rivals.check_rivals([method], explainee)
    source = source_of(images, explainee, None)
    rows, asked = _row_an_image(source, targets, explainee)
    return rivals.attribute(_work(explainee, source, rows, ()), method, asked)


@entry
@keywords(Words, "layer", "vectors", "checkpoint", "supervised", "least", "margin")
def explain_filters(
    explainee: Explainee,
    layer: str,
    images: Any,
    words: str | Path,
    vectors: str | Path,
    **options: Any,
) -> list[dict[str, Any]]:
    """What do the filters of a layer see, in words?

    Args:
      explainee: the CNN, from `load_explainee` or your own, with features by name.
      layer: one of these, which the word network was trained for.
      images: in which filters are to fire; as `explain` takes them.
      words: the word network, `words.safetensors` of `config.task=train_words`.
      vectors: the embedding that it was trained with.
      **options: …

    Returns:
      Of each filter what `filters.jsonl` says: its number, the threshold of its activation, its
      words with their weights in [0,1], the heaviest first, and the images where it fires most.

    Raises:
      InputError: where layer, images, words or options do not fit.
    """
    explainee = with_arrays(explainee)
    about: dict[str, Any] = {"layer": layer, "vectors": str(vectors)}
    about["checkpoint"] = str(words)
    trained = "supervised", "least", "margin"
    section = _options(replace(Words(), **about), options, *about, *trained)
    source, how = source_of(images, explainee, None), explainee.preprocessing(Settings.resize)
    asked = filters.asked_of(explainee, load_words(words), source, how, {}, section)
    found, told = filters.explain_filters(asked), filters.told_of(asked)
    return records_of(found, told, recalls_of(found, told))


@entry
@keywords(Pretrain, "held_out")
def pretrain(
    explainee: Explainee,
    images: Any,
    labels: Sequence[Any] | np.ndarray | None = None,
    explainer: Explainer | None = None,
    *,
    objective: Objective | None = None,
    class_masks: ClassMasks | None = None,
    target: str = "predicted",
    seed: int = 0,
    workdir: str | Path | None = None,
    **options: Any,
) -> Explainer:
    """Train an explainer for a data set (the method's first stage).

    Args:
      explainee: the classifier.
      images: as `explain` takes them.
      labels: the true class of each image; for masks of every class its classes, or all of them as
        bool [n,classes].
      explainer: to start from; the explainee's own network with a fresh mask head where not given.
        One with `classes` learns a mask for every class (NN-Explainer).
      objective: what makes a mask good; the paper's where not given.
      class_masks: what makes masks of every class good; NN-Explainer's where not given.
      target: the class to keep, `predicted` or `label`; or the classes that an image has, also
        `held`, those that the explainee holds to be there.
      seed: of the order of images, and of what is held out.
      workdir: gets checkpoints, from which an interrupted training goes on; none where not given.
      **options: …

    Returns:
      The explainer of the epoch with the best validation POS, or, of every class, loss.

    Raises:
      InputError: where images, labels or options do not fit, or another training is in `workdir`,
        or at work there.
    """
    chosen = _options(Pretrain(), options, "held_out")
    seed = checked(Settings(seed=seed)).seed
    explainee = with_arrays(explainee)
    rivals.refuse_without_gradients(explainee, "pretrain")
    explainer = load_explainer(explainee, seed=seed) if explainer is None else explainer
    explainer = _fitting(explainer, Explainer, explainee)
    several = explainer.classes > 1
    source = source_of(images, explainee, None if several else labels)
    if len(source) < 2:
        raise InputError("1 image to train on: give two at least, one of which is held out")
    if several and labels is not None:
        source = replace(source, labels=label_sets(labels, len(source), explainee))
    objective = _section(objective, LTX.objective, "objective")
    of_classes = _section(class_masks, ClassMasks(), "class_masks")
    told = _pretraining_of(explainee, explainer, source, chosen)
    told |= {"target": target, "seed": seed, "objective": dataclasses.asdict(objective)}
    told |= {"class_masks": dataclasses.asdict(of_classes)} if several else {}
    folder = None if workdir is None else Path(workdir)
    if workdir is not None:
        refuse_address("workdir", workdir)
    course = Course(source, chosen, seed=seed, workdir=folder, fingerprint=told)
    about = explainee, explainer, course
    goal = make_goal(objective)
    pretraining.refuse_several(target, explainer)
    with ExitStack() as held:
        with together():
            if folder is not None and jax.process_index() == 0:
                held.enter_context(claimed(folder))
        if several:
            every = class_goal(of_classes, goal, explainee)
            return pretrain_classes(*about, goal=every, target=target)[0]
        return pretraining.pretrain(*about, goal=goal, target=target).explainer


def _pretraining_of(
    explainee: Explainee, explainer: Explainer, source: ArraySource, settings: Pretrain
) -> dict[str, Any]:
    """Networks, images and settings that a pretraining's result depends on."""
    started = explainer.trained, explainer.frozen
    options = {f"pretrain.{name}": value for name, value in dataclasses.asdict(settings).items()}
    return {
        "explainee.name": explainee.name,
        "explainee.link": explainee.link,
        "explainee (sha256 of parameters)": _digest_of_leaves(explainee.params),
        "explainer (sha256 of parameters)": _digest_of_leaves(started),
        "explainer.activation": explainer.activation,
        "explainer.edge_radius": explainer.edge_radius,
        "explainer.compute_dtype": str(jnp.dtype(explainer.module.backbone.dtype)),
        "images and labels (sha256 of contents)": source.digest(),
        **{key: value for key, value in options.items() if not key.startswith(WITHOUT_EFFECT)},
    }


def _digest_of_leaves(values: Any) -> str:
    """Another one for other numbers in a pytree of arrays, or others of their shapes and types."""

    def numbers(leaf: Any) -> np.ndarray:
        key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if key else leaf)

    each = [(keystr(path), numbers(leaf)) for path, leaf in tree_leaves_with_path(values)]
    told = repr([(path, x.shape, str(x.dtype)) for path, x in each])
    return digest_of([told.encode(), *(x.tobytes() for _, x in each)])


def _row_an_image(
    source: ArraySource, targets: Any, explainee: Explainee
) -> tuple[list[Row], list[Asked]]:
    """One row for each image, of one class.

    Raises:
      InputError: where several are given.
    """
    wanted = targets_of(targets, len(source), explainee)
    if any(len(several) != 1 for several in wanted):
        raise InputError("several targets of one image: give one target for each mask")
    rows = [Row(i, source.names[i], target, None) for i, (target,) in enumerate(wanted)]
    return rows, [Asked(i, row.target) for i, row in enumerate(rows)]


def _work(explainee: Explainee, source: ArraySource, rows: list[Row], scores: Any) -> Work:
    how = explainee.preprocessing("squash")
    return Work(explainee, source, how, rows, chosen_scores(SCORES, scores, source.has_masks))
