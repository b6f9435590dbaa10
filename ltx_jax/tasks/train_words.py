"""The `train_words` task: a network from a CNN's features to words (LaViSE)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ltx_jax.data.concept_targets import ConceptTargets
from ltx_jax.data.examples import Source
from ltx_jax.engine.sharding import replicate
from ltx_jax.engine.word_training import WordGoal, validate_words, word_loss
from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.explainers.word_explainer import WordExplainer, fresh_word_explainer, layer_shape
from ltx_jax.files import digest_of, is_there
from ltx_jax.loading.word_explainers import Learnt, load_words, save_words
from ltx_jax.models.explainee import Explainee
from ltx_jax.runtime import termination_held
from ltx_jax.settings.sections import Pretrain, Settings, Words
from ltx_jax.tasks.concepts import Concepts, concepts_of, names_of
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.held_out import HeldOut, Judged, means, of_readable
from ltx_jax.tasks.inputs import class_names_of, open_explainee, open_training_source
from ltx_jax.tasks.inputs import fingerprint as fingerprint_of
from ltx_jax.tasks.training import Trained, keep_test_scores, train
from ltx_jax.tasks.training_files import Snapshot, chosen_select, told_of
from ltx_jax.tasks.training_images import Split

# The network of the best epoch.
BEST = "words.safetensors"
# What a layer is called where nobody says which.
LAYER = "features"
_LOSS = "loss"


@dataclass(frozen=True)
class WordsOnData:
    """A word network (a `tasks.training.Trainee`).

    Attributes:
      explainee, network: on the devices; the network without what changes.
      explainer: to start from.
      goal: the supervised words, on the devices.
      learnt: names of the concepts.
      select: the epoch that is kept, see `best_of`.
    """

    explainee: Explainee
    network: WordExplainer
    explainer: WordExplainer
    goal: WordGoal
    learnt: Learnt
    select: str

    name = "training"
    file = BEST
    draws = False

    def begin(self) -> tuple[Leaves, Leaves]:
        """Its own leaves, and the statistics of its batch norms."""
        return self.explainer.trained, self.explainer.statistics

    def loss(self) -> Partial:
        """The ranking loss."""
        return Partial(word_loss, self.explainee, self.network, self.goal)

    def judge(self, images: HeldOut, trained: Leaves, model_state: Leaves) -> Judged:
        """The loss, and how many of an object's words are among the five nearest."""
        network = replace(self.network, trained=trained, statistics=model_state)
        _, found = of_readable(
            images,
            lambda pixels, targets: validate_words(
                self.explainee, network, self.goal, pixels, targets, images.mesh
            ),
        )
        return Judged(means(found), {})

    def told(self, scores: Mapping[str, float]) -> str:
        """Both."""
        return f"loss {scores[_LOSS]:.4f}, recall among five {scores['recall_5']:.1f}"

    def save(self, path: Path, kept: Snapshot, notes: Mapping[str, str]) -> None:
        """As a safetensors file in the original's names."""
        moved = replace(self.explainer, trained=kept.trained, statistics=kept.model_state)
        save_words(path, moved, self.explainee.name, self.learnt, notes)

    def load(self, path: Path) -> tuple[Leaves, Leaves]:
        """From one."""
        again = load_words(path).explainer
        return again.trained, again.statistics


def train_words(
    explainee: Explainee,
    words: Words,
    course: Course,
    *,
    class_names: Sequence[str] = (),
) -> tuple[WordExplainer, Learnt, Trained]:
    """Train a word network and keep the epoch with the lowest loss on images held out.

    An image stands in an epoch's order once for each supervised concept that it has, and shows one
    of them each time, drawn anew.

    Args:
      explainee: the frozen CNN.
      words: the section.
      course: of the training, on images with labels and the pixels of each; its directory also
        gets the scores of the images that were kept from the training, where there are some.
      class_names: what labels are called, by number, where the source does not say.

    Returns:
      The network, its concepts, and what each epoch gave.

    Raises:
      InputError: for a layer that is not there, too few images, labels without masks or words, or a
        directory of another training.
      Terminated: where it left.
    """
    select, source = chosen_select(course.settings, _LOSS), course.source
    layer = words.layer or LAYER
    height, width, channels = layer_shape(explainee, layer)
    parts = course.split()
    known = concepts_of(source, parts.training, names_of(source, class_names), words, course.seed)
    images = _once_a_concept(source, parts, known, course.settings)
    targets = ConceptTargets(known.places, len(known.vectors), (height, width), known.unseen)
    data = course.data(explainee, images, targets)
    start = fresh_word_explainer(layer, channels, known.vectors.shape[1], course.seed)
    goal = WordGoal(jnp.asarray(known.vectors), words.margin)
    explainee, network, goal = replicate(
        (explainee, replace(start, trained={}, statistics={}), goal), course.mesh
    )
    trainee = WordsOnData(explainee, network, start, goal, known.learnt, select)
    made = train(trainee, data, course)
    keep_test_scores(trainee, data, course, made)
    leaves, state = jax.tree.map(jnp.asarray, (made.leaves, made.model_state))
    return replace(start, trained=leaves, statistics=state), known.learnt, made


def run(settings: Settings, workdir: Path) -> str:
    """Train the word network of a configuration; a directory that holds part of it is continued.

    Returns:
      One line that says where the network is and how good.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    source, apart = open_training_source(settings)
    explainee = open_explainee(settings, named=False)
    words = settings.words
    without = (
        *("finetune.", "scores", "explainer.", "objective.", "class_masks.", "target"),
        *("words.checkpoint", "words.filters", "words.stands", "words.strongest", "words.nearest"),
        "words.handicap",
    )
    names = class_names_of(settings)
    called = tuple(names_of(source, names).values())
    told = fingerprint_of(settings, source.names, source, called, without=without)
    if words.vectors is not None and is_there(Path(words.vectors), Path.is_file):
        content = Path(words.vectors).read_bytes()
        told["words.vectors (sha256)"] = digest_of([content])
    with termination_held() as leave:
        course = Course.of(settings, source, apart, workdir, told, leave)
        _, learnt, made = train_words(explainee, words, course, class_names=names)
    known = f"{len(learnt.supervised)} concepts learnt, {len(learnt.unseen)} left unseen"
    return f"{told_of(workdir / BEST, made.best, (_LOSS, 'recall_5'))}; {known}"


def _once_a_concept(source: Source, parts: Split, known: Concepts, settings: Pretrain) -> Split:
    """Numbers of images, each as often as it has a supervised concept.

    Raises:
      InputError: where none is left to choose the best epoch by, or too few to train on.
    """
    found = Split(
        *(
            [i for i in numbers for label in source.labels[i] if label in known.places]
            for numbers in parts
        )
    )
    for numbers, left in zip(parts, found, strict=True):
        if bare := len(numbers) - len(dict.fromkeys(left)):
            logging.info("%d of %d images show no supervised concept", bare, len(numbers))
    if len(found.training) < settings.batch_size or not found.validation:
        raise InputError(
            f"{len(found.training)} concepts of images to train on and {len(found.validation)} of "
            f"those held out, for batches of {settings.batch_size}: give more images, or set "
            "pretrain.batch_size lower"
        )
    return found
