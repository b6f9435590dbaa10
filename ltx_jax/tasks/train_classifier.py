"""The `train_classifier` task: a classifier for a data set, from weights or from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from ltx_jax.engine.classifier_training import answers, classifier_loss
from ltx_jax.engine.sharding import replicate
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.loading.classifiers import classifier_from, load_classifier, save_classifier
from ltx_jax.metrics.multi_label import answer_scores
from ltx_jax.models.classifier import Classifier
from ltx_jax.models.explainee import Explainee
from ltx_jax.runtime import termination_held
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.held_out import HeldOut, Judged, means, of_readable
from ltx_jax.tasks.inputs import class_names_of, open_training_source
from ltx_jax.tasks.inputs import fingerprint as fingerprint_of
from ltx_jax.tasks.training import Trained, keep_test_scores, train
from ltx_jax.tasks.training_files import Snapshot, chosen_select, told_of
from ltx_jax.tasks.training_images import classes_of, refuse_unless_single

# The classifier of the best epoch.
BEST = "classifier.safetensors"
_LOSS = "loss"


@dataclass(frozen=True)
class ClassifierOnData:
    """A classifier (a `tasks.training.Trainee`).

    Attributes:
      network: on the devices, without what changes.
      classifier: to start from.
      labels: of each image of the source, bool [all,classes].
      select: the epoch that is kept, see `best_of`.
    """

    network: Classifier
    classifier: Classifier
    labels: np.ndarray
    select: str

    name = "training"
    file = BEST
    draws = False

    def begin(self) -> tuple[Leaves, Leaves]:
        """Its own leaves; the statistics of its batch norms move where all of it is trained."""
        moved = self.classifier.statistics if self.classifier.whole else {}
        return self.classifier.trained, moved

    def loss(self) -> Partial:
        """Cross-entropy."""
        return Partial(classifier_loss, self.network)

    def judge(self, images: HeldOut, trained: Leaves, model_state: Leaves) -> Judged:
        """The loss, and how often the answers are right."""
        frozen = self.network.frozen | model_state
        network = replace(self.network, trained=trained, frozen=frozen)
        numbers, found = of_readable(
            images, lambda pixels, labels: answers(network, pixels, labels, images.mesh)
        )
        labels = self.labels[numbers]
        scores = answer_scores(found.logits, labels, self.network.single)
        return Judged(means({_LOSS: found.losses}) | scores, {})

    def told(self, scores: Mapping[str, float]) -> str:
        """The loss, and the score that all classes count alike in."""
        name = next(n for n in ("mean_average_precision", "accuracy") if n in scores)
        return f"loss {scores[_LOSS]:.4f}, {name.replace('_', ' ')} {scores[name]:.2f}"

    def save(self, path: Path, kept: Snapshot, notes: Mapping[str, str]) -> None:
        """As a safetensors file in timm's names."""
        moved = self.classifier.frozen | kept.model_state
        save_classifier(path, replace(self.classifier, trained=kept.trained, frozen=moved), notes)

    def load(self, path: Path) -> tuple[Leaves, Leaves]:
        """From one."""
        again = load_classifier(path, self.classifier)
        _, moved = self.begin()
        return again.trained, {name: again.frozen[name] for name in moved}


def train_classifier(
    classifier: Classifier, explainee: Explainee, course: Course
) -> tuple[Classifier, Trained]:
    """Train a classifier and keep the epoch with the lowest loss on images held out.

    Args:
      classifier: to start from.
      explainee: the same, for its classes, names and images.
      course: of the training, on images with labels; its directory also gets the scores of the
        images that were kept from the training, where there are some.

    Raises:
      InputError: for too few images, labels that do not fit, or a directory of another training.
      Terminated: where it left.
    """
    select = chosen_select(course.settings, _LOSS)
    images = course.split()
    labels = classes_of(course.source, images.training, explainee)
    if classifier.single:
        refuse_unless_single(course.source, labels)
    data = course.data(explainee, images, labels)
    network = replicate(replace(classifier, trained={}), course.mesh)
    trainee = ClassifierOnData(network, classifier, labels, select)
    made = train(trainee, data, course)
    keep_test_scores(trainee, data, course, made)
    leaves, state = jax.tree.map(jnp.asarray, (made.leaves, made.model_state))
    return replace(classifier, trained=leaves, frozen=classifier.frozen | state), made


def run(settings: Settings, workdir: Path) -> str:
    """Train the classifier of a configuration; a directory that holds part of it is continued.

    Returns:
      One line that says where the classifier is and how good.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    source, apart = open_training_source(settings)
    classifier, explainee = classifier_from(
        settings.explainee,
        compute_dtype=settings.compute_dtype,
        attention=settings.attention,
        class_names=class_names_of(settings),
        seed=settings.seed,
    )
    without = (
        *("finetune.", "scores", "explainer.", "objective.", "class_masks.", "target"),
        "words.",
    )
    told = fingerprint_of(settings, source.names, source, (), without=without)
    with termination_held() as leave:
        course = Course.of(settings, source, apart, workdir, told, leave)
        _, made = train_classifier(classifier, explainee, course)
    return told_of(workdir / BEST, made.best, made.best["scores"])
