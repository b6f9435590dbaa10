"""Rival methods added to a run: their maps are stored, and then scored as everybody's are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from ltx_jax.attribution import RIVALS
from ltx_jax.attribution.rival import PARTS, Rival
from ltx_jax.data.examples import Example
from ltx_jax.engine.memory import BatchLayout, batch_of_use, batch_within_memory
from ltx_jax.engine.scoring import in_groups, padded
from ltx_jax.engine.sharding import AXIS, REPLICATED, SPLIT, on_each_device, place, replicate
from ltx_jax.errors import InputError
from ltx_jax.masks.spanning import spanning
from ltx_jax.models.explainee import Explainee
from ltx_jax.progress import progress_bar
from ltx_jax.reporting.records import Record
from ltx_jax.reporting.store import ResultStore, lines_of
from ltx_jax.tasks.inputs import Work, examples
from ltx_jax.tasks.maps import Map, Maps
from ltx_jax.tasks.scoring import (
    Asked,
    Predicted,
    class_explained,
    is_of_map,
    keep_lines,
    predicted,
    score_rows,
)
from ltx_jax.tasks.team import Team
from ltx_jax.tasks.waiting import Done

# Most classes of an image side by side, of a rival that has several for little more than one.
_CLASSES = 8


def check_rivals(names: Sequence[str], explainee: Explainee) -> None:
    """Refuse rivals that there are not, or not for this explainee, before anything is computed.

    Raises:
      InputError: naming those that there are, or what the explainee lacks.
    """
    if unknown := set(names) - set(RIVALS):
        raise InputError(f"unknown rival {min(unknown)!r}: there are {', '.join(RIVALS)}")
    for name in names:
        refuse_without_gradients(explainee, name)
        _traced(RIVALS[name], explainee)


def refuse_without_gradients(explainee: Explainee, what: str) -> None:
    """See that a method works with an explainee that gives no gradients, if this is one.

    Args:
      explainee: the classifier.
      what: a rival, or anything that needs gradients.

    Raises:
      InputError: naming the rivals that need none.
    """
    if explainee.on_host and what not in (others := _without_gradients(explainee)):
        raise InputError(
            f"{what} needs gradients, and {explainee.name}, a Python function, gives none: these "
            f"of ltx_jax.attribute need none: {', '.join(others)}"
        )


def _without_gradients(explainee: Explainee) -> list[str]:
    """The rivals that can be computed for a Python function."""

    def works(rival: Rival) -> bool:
        try:
            _traced(rival, explainee)
        except InputError:
            return False
        return True

    return [name for name, rival in RIVALS.items() if works(rival)]


def _traced(rival: Rival, explainee: Explainee) -> None:
    """Trace a rival, which refuses an explainee that lacks something."""
    image = jax.ShapeDtypeStruct((1, *explainee.image_shape), np.float32)
    target = jax.ShapeDtypeStruct((1,), np.int32)
    jax.eval_shape(rival.maps, explainee, image, target)


def attribute(work: Work, name: str, asked: Sequence[Asked]) -> Float[np.ndarray, "n g h"]:
    """A rival's maps as masks, each of which spans [0,1].

    Args:
      work: what they rest on; its images can all be read.
      name: of the rival.
      asked: the rows, with the class of each.

    Raises:
      InputError: where memory runs out, or the logits or the map of an image are not finite.
    """
    batch = batch_of_use(work.explainee, len(asked))
    work = work._replace(explainee=replicate(work.explainee, batch.mesh))
    found = zip(asked, examples(work, [one.row for one in asked], 2 * batch.images), strict=True)
    masks = []
    with progress_bar(len(asked), "images", name) as bar:
        for group in in_groups(found, batch.images):
            with batch_within_memory(batch):
                known = predicted(work, group, "explained", batch)
                targets = np.array([[one.asked.target] for one in known], np.int32)
                images = [one.example for one in known]
                maps = compute(work.explainee, name, images, targets, batch)[:, 0]
                _refuse_unless_finite(work, name, known, maps)
                masks.append(np.asarray(spanning(maps)))
            bar.update(len(group))
    return np.concatenate(masks)


def _refuse_unless_finite(
    work: Work, name: str, known: Sequence[Predicted], maps: Float[np.ndarray, "n g h"]
) -> None:
    for one, values in zip(known, maps, strict=True):
        if not np.isfinite(values).all():
            raise InputError(
                f"the map of {work.rows[one.asked.row].name} by {name} is not finite: see where "
                f"{work.explainee.name} divides by 0 or takes a root of it, or leave the image out"
            )


def add_rival(
    work: Work,
    store: ResultStore,
    name: str,
    asked: Sequence[Asked],
    chunk: int | None,
    team: Team,
    scored_for: str = "explained",
) -> Done:
    """Compute, store and score this process's share of a rival's maps; those of the same classes
    that are there already stay.

    Args:
      work: what the run rests on.
      store: of the run.
      name: of the rival.
      asked: the rows, with the classes to explain.
      chunk: most images in one forward of the explainee.
      team: the processes that share them.
      scored_for: the class that is scored for.

    Returns:
      What tells the rows that have their scores.

    Raises:
      InputError: where memory runs out.
    """
    what = lines_of(name, scored_for)
    lines, of_row = store.scored(what), {one.row: one for one in asked}
    maps, row_maps = stored_rival(store, name), RowMaps(work, name, asked)
    stored = maps if name in store.names() else None
    done = lines.learning(partial(_holds, of_row, stored))
    left = of_row.keys() - done()
    known = {} if stored is None else _classes_of_maps(store.lines_for_any(name), stored, left)

    def keep(group: Sequence[tuple[Asked, Example]], batch: BatchLayout) -> None:
        there = done() | {one.row for one, _ in group if known.get(one.row) == one.target}
        new = [(one, example) for one, example in group if one.row not in there]
        if not new:
            return
        made = row_maps.maps(new, batch)
        store.hold(name, made.shape[1:], made.shape[1:])
        each = zip(new, np.asarray(spanning(made)), made, strict=True)
        store.keep(name, {one.row: (mask, raw) for (one, _), mask, raw in each})

    with progress_bar(-(-len(left) // team.count), "images", name) as bar:
        for share in team.shares(what, list(of_row), done):
            wanted = (of_row[row] for row in share)
            for group in score_rows(work, wanted, maps, chunk, keep, scored_for):
                keep_lines(lines, work, name, group, done)
                bar.update(len(group))
    return done


def _holds(of_row: Mapping[int, Asked], stored: Maps | None, line: Record) -> bool:
    """Whether a line is of the class that is asked for, and, where maps are stored by now, of the
    one that its row has."""
    if "skipped" in line:
        return True
    one = of_row.get(line["row"])
    if one is None or one.target not in (None, class_explained(line)):
        return False
    return stored is None or is_of_map(line, stored)


def _classes_of_maps(lines: Iterable[Record], stored: Maps, rows: Set[int]) -> dict[int, int]:
    """The classes of the maps that are stored for some rows, as lines of these maps tell."""
    return {
        line["row"]: class_explained(line)
        for line in lines
        if line["row"] in rows and is_of_map(line, stored)
    }


def stored_rival(store: ResultStore, name: str) -> Maps:
    """A rival's maps that are stored."""
    return lambda row: Map(store.masks(name).row(row), store.masks(name, raw=True).row(row))


class RowMaps:
    """A rival's maps of rows, those of an image's classes computed with the first of them where
    that costs little more."""

    def __init__(self, work: Work, name: str, asked: Iterable[Asked]) -> None:
        """Of all the rows that are to come."""
        of_image: dict[int, list[Asked]] = {}
        for one in asked:
            of_image.setdefault(work.rows[one.row].image, []).append(one)
        lots = [lot for each in of_image.values() for lot in in_groups(each, _at_once(name))]
        self._work, self._name = work, name
        self._lots = {one.row: lot for lot in lots for one in lot}
        self._width = max(map(len, lots), default=1)
        self._ahead: dict[int, Float[np.ndarray, "g h"]] = {}

    def maps(
        self, group: Sequence[tuple[Asked, Example]], batch: BatchLayout
    ) -> Float[np.ndarray, "n g h"]:
        """Those of at most a batch of rows, whose classes are known."""
        new: dict[int, tuple[list[Asked], Example]] = {}
        for one, example in group:
            if one.row not in self._ahead:
                lot = self._lots[one.row]
                # Of a predicted class, which is known by now, there is no other row.
                new[lot[0].row] = [one] if len(lot) == 1 else lot, example
        known = self._ahead
        if new:
            self._ahead = self._computed(list(new.values()), batch)
            known = known | self._ahead
        return np.stack([known[one.row] for one, _ in group])

    def _computed(
        self, new: Sequence[tuple[list[Asked], Example]], batch: BatchLayout
    ) -> dict[int, Float[np.ndarray, "g h"]]:
        """Maps by row, of the classes of so many images."""
        explainee = self._work.explainee
        if self._width > 1:  # there are fewer images than rows: a program for each power of two
            batch = batch_of_use(explainee, min(1 << (len(new) - 1).bit_length(), batch.images))
        classes = [[one.target for one in lot] for lot, _ in new]
        filled = [each + each[-1:] * (self._width - len(each)) for each in classes]
        images = [example for _, example in new]
        maps = compute(explainee, self._name, images, np.array(filled, np.int32), batch)
        return {
            one.row: of_one
            for (lot, _), each in zip(new, maps, strict=True)
            for one, of_one in zip(lot, each[: len(lot)], strict=True)
        }


def _at_once(name: str) -> int:
    """How many classes of an image a rival computes together."""
    return _CLASSES if RIVALS[name].of_classes else 1


def compute(
    explainee: Explainee,
    name: str,
    examples: Sequence[Example],
    targets: Int[np.ndarray, "n k"],
    batch: BatchLayout,
) -> Float[np.ndarray, "n k g h"]:
    """A rival's maps of each of some classes of at most a batch of images, of pixels or of cells;
    devices without an image of their own help where the rival lets them."""
    rival, mesh = RIVALS[name], batch.mesh
    if rival.in_parts and not explainee.on_host:
        mesh = _with_parts(mesh)
        explainee = replicate(explainee, mesh)
    images = padded(np.stack([example.as_input() for example in examples]), batch.images)
    each = np.array_split(targets, -(-targets.shape[1] // _at_once(name)), axis=1)
    images, *each = place((images, *(padded(some, batch.images) for some in each)), mesh)
    maps = [jax.device_get(_on_devices(explainee, images, some, rival, mesh)) for some in each]
    return np.concatenate(maps, axis=1)[: len(examples)]


def _with_parts(mesh: Mesh) -> Mesh:
    """The devices with the others shared out among them, where each gets some."""
    each = len(jax.local_devices()) // mesh.size
    if each == 1:
        return mesh
    devices = np.array(jax.local_devices()[: each * mesh.size])
    return Mesh(devices.reshape(mesh.size, each), (AXIS, PARTS))


@partial(jax.jit, static_argnames=("rival", "mesh"))
def _on_devices(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, "n k"],
    rival: Rival,
    mesh: Mesh,
) -> Float[Array, "n k g h"]:
    def maps(explainee: Explainee, images: Array, targets: Array) -> Array:
        if rival.of_classes:
            return rival.maps(explainee, images, targets)
        return rival.maps(explainee, images, targets[:, 0])[:, None]

    return on_each_device(maps, mesh, (REPLICATED, SPLIT, SPLIT), SPLIT)(explainee, images, targets)
