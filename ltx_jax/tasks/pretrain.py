"""The `pretrain` task: an explainer for a data set (the method's first stage)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ltx_jax.engine.memory import default_chunk
from ltx_jax.engine.pretraining import ltx_loss, validate
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.loading.checkpoints import load_trained, save_explainer
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import Goal
from ltx_jax.runtime import termination_held
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.held_out import HeldOut, Judged, means, of_readable
from ltx_jax.tasks.inputs import fingerprint as fingerprint_of
from ltx_jax.tasks.inputs import named_by, open_explainee, open_network, open_training_source
from ltx_jax.tasks.pretrain_classes import BEST, class_goal, pretrain_classes
from ltx_jax.tasks.training import train
from ltx_jax.tasks.training_files import Epoch, Snapshot, chosen_select, told_of
from ltx_jax.tasks.training_images import targets_of


@dataclass(frozen=True)
class MasksOnData:
    """An explainer with one mask an image (a `tasks.training.Trainee`).

    Attributes:
      explainee, network: on the devices; the explainer without its trained leaves.
      explainer: to start from.
      goal: the objective.
      chunk: most images in one forward of the explainee, for scores.
      select: the epoch that is kept, see `best_of`.
    """

    explainee: Explainee
    network: Explainer
    explainer: Explainer
    goal: Goal
    chunk: int
    select: str

    name = "pretraining"
    file = BEST
    draws = True

    def begin(self) -> tuple[Leaves, Leaves]:
        """Batch norms of an explainer stay what they are."""
        return self.explainer.trained, {}

    def loss(self) -> Partial:
        """The objective."""
        return Partial(ltx_loss, self.explainee, self.network, self.goal)

    def judge(self, images: HeldOut, trained: Leaves, model_state: Leaves) -> Judged:
        """Scores for the predicted class, and masks."""
        how = images.mesh, self.chunk
        numbers, found = of_readable(
            images, lambda pixels, _: validate(self.explainee, self.network, trained, pixels, *how)
        )
        return Judged(means(found.scores), dict(zip(numbers, found.masks, strict=True)))

    def told(self, scores: Mapping[str, float]) -> str:
        """POS and NEG."""
        return ", ".join(f"{name.upper()} {scores[name]:.2f}" for name in ("pos", "neg"))

    def save(self, path: Path, kept: Snapshot, notes: Mapping[str, str]) -> None:
        """As an explainer checkpoint."""
        save_explainer(path, self.explainer, kept.trained, kept.optimizer, notes)

    def load(self, path: Path) -> tuple[Leaves, Leaves]:
        """From one."""
        return load_trained(path, self.explainer), {}


class Pretrained(NamedTuple):
    """The explainer of the best epoch, what each epoch gave, and the best of these."""

    explainer: Explainer
    curves: list[Epoch]
    best: Epoch


def pretrain(
    explainee: Explainee,
    explainer: Explainer,
    course: Course,
    *,
    goal: Goal,
    target: str = "predicted",
    chunk: int | None = None,
) -> Pretrained:
    """Pretrain an explainer and keep the epoch whose masks are best by `course.settings.select`.

    Args:
      explainee, explainer: the classifier, and the explainer to start from.
      course: of the training.
      goal: the objective.
      target: the class to keep: `predicted`, or `label`, the first one of an image.
      chunk: most images in one forward of the explainee; as many as are of use where not given.

    Raises:
      InputError: for too few images or labels, or a directory of another pretraining.
      Terminated: where it left.
    """
    select = chosen_select(course.settings, "pos", "neg")
    images = course.split()
    targets = targets_of(course.source, images.training, target, explainee)
    data = course.data(explainee, images, targets)
    given = replicate((explainee, explainer.without_trained(), goal), course.mesh)
    explainee, network, goal = given
    trainee = MasksOnData(explainee, network, explainer, goal, chunk or default_chunk(), select)
    made = train(trainee, data, course)
    leaves = jax.tree.map(jnp.asarray, made.leaves)
    return Pretrained(replace(explainer, trained=leaves), made.curves, made.best)


def run(settings: Settings, workdir: Path) -> str:
    """Pretrain the explainer of a configuration; a directory that holds part of it is continued.

    Returns:
      One line that says where the explainer is and how good.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    source, apart = open_training_source(settings)
    explainee = named_by(source, open_explainee(settings))
    explainer = open_network(settings, explainee)
    refuse_several(settings.target, explainer)
    sections = (
        "finetune.",
        "scores",
        "words.",
        *(("class_masks.",) if explainer.classes == 1 else ()),
    )
    goal = make_goal(settings.objective)
    with termination_held() as leave:
        told = fingerprint_of(settings, source.names, source, (), without=sections)
        course = Course.of(settings, source, apart, workdir, told, leave)
        about = explainee, explainer, course
        if explainer.classes > 1:
            every = class_goal(settings.class_masks, goal, explainee)
            best = pretrain_classes(*about, goal=every, target=settings.target)[1].best
            names = ["loss"]
        else:
            chunk = settings.finetune.chunk
            best = pretrain(*about, goal=goal, target=settings.target, chunk=chunk).best
            names = ["pos", "neg"]
    return told_of(workdir / BEST, best, names)


def refuse_several(target: str, explainer: Explainer) -> None:
    """See that one mask is asked for one class of an image, and masks of every class for those that
    it has.

    Raises:
      InputError: where the target is another one.
    """
    if explainer.classes == 1 and target not in ("predicted", "label"):
        raise InputError(
            f"config.target is {target}, and one mask is trained for one class of each image: set "
            "it to predicted or label"
        )
    if target not in ("predicted", "label", "labels", "held"):
        raise InputError(
            f"config.target is {target}, and an image's classes are told apart from all others: "
            "set it to labels, or held for those that the explainee predicts"
        )
