"""The table image class × mask class of an explainer with a mask for every class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from ltx_jax.data.examples import Example, UnreadableImage, iterate
from ltx_jax.engine.memory import Batch, batch_of_use, within_memory
from ltx_jax.engine.scoring import in_groups, padded
from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device, place, replicate
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
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
from ltx_jax.tasks.team import Team
from ltx_jax.tasks.waiting import Done, await_rows

_LINES = "class_table"
_DIGITS = 6


def open_class_table(settings: Settings, work: Work) -> ClassTableTask:
    """The table of a run's explainer.

    Raises:
      InputError: where that has not a mask for every class, or no image a label; as `open_network`.
    """
    given = settings.explainer
    if given.checkpoint is not None or given.classes not in (None, 1):
        network = open_network(settings, work.explainee)
        if network.classes > 1:
            return ClassTableTask(work, network, settings)
    raise InputError(
        "config.evaluate.class_table is of an explainer with a mask for every class: give one with "
        "config.explainer.checkpoint, or leave it out"
    )


class ClassTableTask:
    """Images of a run that have any of the table's classes, through the masks of all of these; each
    is done once, whatever rows it has."""

    def __init__(self, work: Work, explainer: Explainer, settings: Settings) -> None:
        """Choose them.

        Args:
          work: of the run.
          explainer: with a mask for every class.
          settings: of the run, for its chosen classes.

        Raises:
          InputError: where no image has a label among the classes.
        """
        self._work, self._explainer = work, explainer
        self.classes = chosen_classes(settings.classes, work.explainee)
        self._chunk = settings.finetune.chunk
        every = {row.image: work.source.labels[row.image] for row in work.rows}
        wanted = set(self.classes)
        self.images = [image for image, labels in every.items() if wanted.intersection(labels)]
        if not self.images:
            raise InputError(
                "config.evaluate.class_table is of labelled images, and none has a label among its "
                "classes: give config.labels or config.dataset"
            )

    def compute(self, store: ResultStore, team: Team) -> Done:
        """This process's share of the images that are not done yet, a line each; returns what tells
        those that are."""
        lines = store.scored(_LINES)
        ours = (one for one in lines.records(self._is_ours) if self._is_ours(one))
        known = {one["row"] for one in ours}

        def done() -> set[int]:
            known.update(one["row"] for one in lines.read() if self._is_ours(one))
            return known

        left = len(set(self.images) - done())
        with progress_bar(-(-left // team.count), "images", "class table") as bar:
            for share in team.shares(_LINES, self.images, done):
                for group in self._lines_of(share):
                    there = done()
                    lines.append({i: line for i, line in group.items() if i not in there})
                    bar.update(len(group))
        return done

    def table(self, store: ResultStore, done: Done) -> ClassTable:
        """The table, once all images are done."""
        await_rows(self.images, done)
        lines = store.scored(_LINES)
        lines.merge(self._is_ours)
        names = self._work.explainee.class_names
        each = [
            {int(i): shares for i, shares in one["shares"].items()}
            for one in lines.records()
            if self._is_ours(one) and "skipped" not in one
        ]
        titles = tuple(names[i] if names else f"class {i}" for i in self.classes)
        return ClassTable(titles, *class_means(each, self.classes))

    def _is_ours(self, line: Record) -> bool:
        """Whether a line is of this table: not of classes that were chosen before."""
        return line["classes"] == list(self.classes) and line["row"] in self.images

    def _lines_of(self, images: Iterable[int]) -> Iterator[dict[int, Record]]:
        work = self._work
        batch = batch_of_use(work.explainee, len(self.images), self._chunk)
        networks = replicate((work.explainee, self._explainer), batch.mesh)
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
                through = self._through(networks, [example for _, example in read], batch)
                for (image, example), shares in zip(read, through, strict=True):
                    found[image]["shares"] = {
                        i: shares[:, i].round(_DIGITS).tolist()
                        for i in self.classes
                        if i in example.labels
                    }
            yield found

    def _through(
        self, networks: tuple[Explainee, Explainer], examples: Sequence[Example], batch: Batch
    ) -> Float[np.ndarray, "n j classes"]:
        images = padded(np.stack([example.as_input() for example in examples]), batch.images)
        classes = np.array(self.classes, np.int32)
        with within_memory(batch.images // batch.mesh.size):
            given = *networks, place(images, batch.mesh), replicate(classes, batch.mesh)
            found = jax.device_get(_on_devices(*given, batch.chunk, batch.mesh))
        return np.asarray(found[: len(examples)], np.float64)


@partial(jax.jit, static_argnames=("chunk", "mesh"))
def _on_devices(
    explainee: Explainee,
    explainer: Explainer,
    images: Float[Array, "n H W C"],
    classes: Int[Array, " j"],
    chunk: int | None,
    mesh: Mesh,
) -> Float[Array, "n j classes"]:
    def local(
        explainee: Explainee,
        explainer: Explainer,
        images: Float[Array, "n H W C"],
        classes: Int[Array, " j"],
    ) -> Float[Array, "n j classes"]:
        raw = explainer.draw(explainer.trained, explainer.prefix(images))[:, classes]
        masks = activate(upsample(raw, images.shape[1:3]), explainer.activation)
        return seen_through(explainee, images, masks, chunk)

    specs = (REPLICATED, REPLICATED, SPLIT, REPLICATED)
    return on_each_device(local, mesh, specs, SPLIT)(explainee, explainer, images, classes)
