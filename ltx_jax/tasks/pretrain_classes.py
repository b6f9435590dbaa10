"""Pretraining of an explainer with a mask for every class (NN-Explainer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from ltx_jax.data.batches import Targets
from ltx_jax.engine.class_masks import SOME_CLASSES, ClassGoal, class_loss, validate_classes
from ltx_jax.engine.sharding import replicate
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.loading.checkpoints import load_leaves, save_explainer
from ltx_jax.metrics.multi_label import answer_scores
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import Goal
from ltx_jax.settings.sections import ClassMasks
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.held_out import HeldOut, Judged, means, of_readable
from ltx_jax.tasks.training import Trained, keep_test_scores, train
from ltx_jax.tasks.training_files import Snapshot, chosen_select
from ltx_jax.tasks.training_images import classes_of, refuse_unless_single

# The explainer of the best epoch.
BEST = "explainer.safetensors"
_LOSS = "loss"


@dataclass(frozen=True)
class ClassMasksOnData:
    """An explainer with a mask for every class (a `tasks.training.Trainee`).

    Attributes:
      explainee, network: on the devices; the explainer without its trained leaves.
      explainer: to start from.
      goal: the objective.
      select: the epoch that is kept, see `best_of`.
    """

    explainee: Explainee
    network: Explainer
    explainer: Explainer
    goal: ClassGoal
    select: str

    name = "pretraining"
    file = BEST
    draws = True

    def begin(self) -> tuple[Leaves, Leaves]:
        """Its own leaves, and the statistics of its batch norms."""
        return self.explainer.trained, self.explainer.statistics

    def loss(self) -> Partial:
        """The objective."""
        return Partial(class_loss, self.explainee, self.network, self.goal)

    def judge(self, images: HeldOut, trained: Leaves, model_state: Leaves) -> Judged:
        """The loss, its terms, target masks, and how often the classifier is right through these
        (NN-Explainer's test metrics)."""
        network = self.network.with_leaves(trained, model_state)
        numbers, found = of_readable(
            images,
            lambda pixels, targets: validate_classes(
                self.explainee, network, self.goal, pixels, targets, images.mesh
            ),
        )
        right = answer_scores(found.logits, found.labels, self.explainee.single)
        return Judged(means(found.losses) | right, dict(zip(numbers, found.masks, strict=True)))

    def told(self, scores: Mapping[str, float]) -> str:
        """The loss, and the share of an image that the target mask shows."""
        return ", ".join(f"{name.replace('_', ' ')} {scores[name]:.4f}" for name in self._first)

    @property
    def _first(self) -> list[str]:
        return [_LOSS, *(["target_area"] if self.goal.name != "budget" else [])]

    def save(self, path: Path, kept: Snapshot, notes: Mapping[str, str]) -> None:
        """As an explainer checkpoint."""
        moved = self.explainer.with_leaves(kept.trained, kept.model_state)
        save_explainer(path, moved, optimizer=kept.optimizer, notes=notes)

    def load(self, path: Path) -> tuple[Leaves, Leaves]:
        """From one."""
        trained, frozen = load_leaves(path, self.explainer)
        return trained, {name: frozen[name] for name in self.explainer.statistics}


def class_goal(section: ClassMasks, goal: Goal, explainee: Explainee) -> ClassGoal:
    """The objective that settings describe.

    Args:
      section: of the settings.
      goal: the objective of one mask an image.
      explainee: whose mean colour covers what masks hide.

    Raises:
      InputError: for an objective of several classes where one is the answer.
    """
    if section.objective == SOME_CLASSES and explainee.single:
        raise InputError(
            "class_masks.objective is some_classes, which tells an image's classes apart, and one "
            "class is this explainee's answer: set explainee.link=sigmoid, or take nn_explainer"
        )
    weights = asdict(section)
    name, shares = weights.pop("objective"), (weights.pop("least"), weights.pop("most"))
    given = {term: jnp.float32(weight) for term, weight in weights.items()}
    return ClassGoal(given, goal, name, shares, explainee.mean_colour)


def pretrain_classes(
    explainee: Explainee,
    explainer: Explainer,
    course: Course,
    *,
    goal: ClassGoal,
    target: str = "label",
) -> tuple[Explainer, Trained]:
    """Train an explainer and keep the epoch with the lowest loss on images held out.

    Args:
      explainee, explainer: the classifier, and the explainer to start from.
      course: of the training; its directory also gets the loss on the images that were kept from
        the training, where there are some.
      goal: the objective.
      target: the classes of an image: `predicted` or `held`, those that the explainee holds to be
        there; `label` or `labels`, those that it is labelled with.

    Raises:
      InputError: for too few images or labels, or a directory of another training.
      Terminated: where it left.
    """
    select = chosen_select(course.settings, _LOSS)
    images, source = course.split(), course.source
    targets: Targets = np.full(len(source), -1, np.int32)
    if target in ("label", "labels"):
        targets = classes_of(source, images.training, explainee)
        if explainee.single:
            refuse_unless_single(source, targets)
        most = int(targets.sum(1).max())
        goal = replace(goal, together=max(most, 1))
    data = course.data(explainee, images, targets)
    given = replicate((explainee, explainer.without_trained(), goal), course.mesh)
    explainee, network, goal = given
    trainee = ClassMasksOnData(explainee, network, explainer, goal, select)
    made = train(trainee, data, course)
    keep_test_scores(trainee, data, course, made)
    return explainer.with_leaves(made.leaves, made.model_state), made
