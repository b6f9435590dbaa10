"""Tables image class × mask class, of an explainer with a mask for every class and of rivals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from ltx_jax.data.examples import Example, UnreadableImage, iterate
from ltx_jax.engine.memory import BatchLayout, batch_of_use, batch_within_memory
from ltx_jax.engine.scoring import in_groups, padded
from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device, place, replicate
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.masks.spanning import spanning
from ltx_jax.masks.tokens import activate, upsample
from ltx_jax.metrics.class_table import class_means, seen_through
from ltx_jax.models.explainee import Explainee
from ltx_jax.progress import progress_bar
from ltx_jax.reporting.class_table import ClassTable
from ltx_jax.reporting.records import Record
from ltx_jax.reporting.store import ResultStore
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.classes import chosen_classes
from ltx_jax.tasks.inputs import Work, open_network
from ltx_jax.tasks.rivals import compute
from ltx_jax.tasks.team import Team
from ltx_jax.tasks.waiting import Done, await_rows

EXPLAINER = "explainer"
_DIGITS = 6
# Masks in [0,1] of at most a batch of images for each of some classes, at the images' size.
Draw = Callable[
    [Explainee, Sequence[Example], Sequence[int], BatchLayout], Float[np.ndarray, "n j H W"]
]


def open_class_tables(settings: Settings, work: Work) -> dict[str, ClassTableTask]:
    """The tables of a run by method: its explainer, where that has a mask for every class, and its
    rivals.

    Raises:
      InputError: where there is none of them, or no image has a label; as `open_network`.
    """
    given, draws = settings.explainer, dict[str, Draw]()
    if given.checkpoint is not None or given.classes not in (None, 1):
        network = open_network(settings, work.explainee)
        if network.classes > 1:
            draws[EXPLAINER] = partial(_drawn, network)
    draws |= {name: partial(_computed, name) for name in settings.rivals}
    if not draws:
        raise InputError(
            "config.evaluate.class_table is of an explainer with a mask for every class, and of "
            "rivals: give one with config.explainer.checkpoint, or config.rivals, or leave it out"
        )
    return {name: ClassTableTask(work, name, draw, settings) for name, draw in draws.items()}


def _drawn(
    explainer: Explainer,
    explainee: Explainee,
    examples: Sequence[Example],
    classes: Sequence[int],
    batch: BatchLayout,
) -> Float[np.ndarray, "n j H W"]:
    """An explainer's masks."""
    images = padded(np.stack([example.as_input() for example in examples]), batch.images)
    chosen = np.array(classes, np.int32)
    explainer, chosen = replicate((explainer, chosen), batch.mesh)
    masks = _masks_on_devices(explainer, chosen, place(images, batch.mesh), batch.mesh)
    return np.asarray(masks)[: len(examples)]


@partial(jax.jit, static_argnames="mesh")
def _masks_on_devices(
    explainer: Explainer, classes: Int[Array, " j"], images: Float[Array, "n H W C"], mesh: Mesh
) -> Float[Array, "n j H W"]:
    def draw(explainer: Explainer, classes: Array, images: Array) -> Array:
        prefix = explainer.prefix(images)
        raw = explainer.draw(explainer.trained, prefix)[:, classes]
        return activate(explainer.at_pixels(raw, prefix), explainer.activation)

    specs = REPLICATED, REPLICATED, SPLIT
    return on_each_device(draw, mesh, specs, SPLIT)(explainer, classes, images)


def _computed(
    rival: str,
    explainee: Explainee,
    examples: Sequence[Example],
    classes: Sequence[int],
    batch: BatchLayout,
) -> Float[np.ndarray, "n j H W"]:
    """A rival's maps as masks."""
    targets = np.tile(np.array(classes, np.int32), (len(examples), 1))
    masks = spanning(compute(explainee, rival, examples, targets, batch))
    return np.asarray(upsample(masks, explainee.image_size))


class ClassTableTask:
    """Images of a run that have any of the table's classes, through the masks of all of these; each
    is done once, whatever rows it has."""

    def __init__(self, work: Work, method: str, draw: Draw, settings: Settings) -> None:
        """Choose them.

        Args:
          work: of the run.
          method: whose masks these are.
          draw: them.
          settings: of the run, for its chosen classes.

        Raises:
          InputError: where no image has a label among the classes.
        """
        self._work, self._draw = work, draw
        self._lines, self._method = f"class_table-of-{method}", method
        self.classes = chosen_classes(settings.classes, work.explainee)
        self._chunk = settings.finetune.chunk
        every = {row.image: work.source.labels[row.image] for row in work.rows}
        wanted = set(self.classes)
        self.images = [image for image, labels in every.items() if wanted.intersection(labels)]
        self._known = frozenset(self.images)
        if not self.images:
            raise InputError(
                "config.evaluate.class_table is of labelled images, and none has a label among its "
                "classes: give config.labels or config.dataset"
            )

    def compute(self, store: ResultStore, team: Team) -> Done:
        """This process's share of the images that are not done yet, a line each; returns what tells
        those that are."""
        lines = store.scored(self._lines)
        done = lines.learning(self._is_ours)
        left = len(set(self.images) - done())
        with progress_bar(
            -(-left // team.count), "images", f"class table of {self._method}"
        ) as bar:
            for share in team.shares(self._lines, self.images, done):
                for group in self._lines_of(share):
                    there = done()
                    lines.append({i: line for i, line in group.items() if i not in there})
                    bar.update(len(group))
        return done

    def table(self, store: ResultStore, done: Done) -> ClassTable:
        """The table, once all images are done."""
        await_rows(self.images, done)
        lines = store.scored(self._lines)
        lines.merge(self._is_ours)
        names = self._work.explainee.class_names
        each = [
            {int(i): shares for i, shares in one["shares"].items()}
            for one in lines
            if self._is_ours(one) and "skipped" not in one
        ]
        titles = tuple(names[i] if names else f"class {i}" for i in self.classes)
        means, images = class_means(each, self.classes, 1 + len(self.classes))
        return ClassTable(titles, means[:, 1:], means[:, 0], images)

    def _is_ours(self, line: Record) -> bool:
        """Whether a line is of this table: not of classes that were chosen before."""
        return line["classes"] == list(self.classes) and line["row"] in self._known

    def _lines_of(self, images: Iterable[int]) -> Iterator[dict[int, Record]]:
        work = self._work
        batch = batch_of_use(work.explainee, len(self.images), self._chunk)
        explainee = replicate(work.explainee, batch.mesh)
        for group in in_groups(iterate(work.source, work.how, images), batch.images):
            found: dict[int, Record] = {}
            read: list[tuple[int, Example]] = []
            for image, example in group:
                known = {"row": image, "image": work.source.names[image]}
                found[image] = known | {"classes": list(self.classes)}
                if isinstance(example, UnreadableImage):
                    found[image]["skipped"] = str(example)
                else:
                    read.append((image, example))
            if read:
                through = self._through(explainee, [example for _, example in read], batch)
                for (image, example), shares in zip(read, through, strict=True):
                    found[image]["shares"] = {
                        i: shares[:, i].round(_DIGITS).tolist()
                        for i in self.classes
                        if i in example.labels
                    }
            yield found

    def _through(
        self, explainee: Explainee, examples: Sequence[Example], batch: BatchLayout
    ) -> Float[np.ndarray, "n masks classes"]:
        """The softmax of each image as it is, and through its mask of each class."""
        images = padded(np.stack([example.as_input() for example in examples]), batch.images)
        with batch_within_memory(batch):
            masks = self._draw(explainee, examples, self.classes, batch)
            # A mask that shows everything leaves the image as it is.
            masks = padded(np.concatenate([np.ones_like(masks[:, :1]), masks], 1), batch.images)
            given = explainee, *place((images, masks), batch.mesh)
            found = jax.device_get(_seen_on_devices(*given, batch.chunk, batch.mesh))
        return np.asarray(found[: len(examples)], np.float64)


@partial(jax.jit, static_argnames=("chunk", "mesh"))
def _seen_on_devices(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    masks: Float[Array, "n masks H W"],
    chunk: int | None,
    mesh: Mesh,
) -> Float[Array, "n masks classes"]:
    seen = partial(seen_through, chunk=chunk)
    specs = (REPLICATED, SPLIT, SPLIT)
    return on_each_device(seen, mesh, specs, SPLIT)(explainee, images, masks)
