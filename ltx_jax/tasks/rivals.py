"""Rival methods added to a run: their maps are stored, and then scored as everybody's are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from ltx_jax.attribution import RIVALS
from ltx_jax.attribution.rival import PARTS, Attribute, Rival
from ltx_jax.data.examples import Example
from ltx_jax.engine.memory import BatchLayout, batch_of_use, within_memory
from ltx_jax.engine.scoring import in_groups, padded
from ltx_jax.engine.sharding import AXIS, REPLICATED, SPLIT, on_each_device, place, replicate
from ltx_jax.errors import InputError
from ltx_jax.masks.spanning import spanning
from ltx_jax.models.explainee import Explainee
from ltx_jax.progress import progress_bar
from ltx_jax.reporting.store import ResultStore
from ltx_jax.tasks.inputs import Work, examples
from ltx_jax.tasks.maps import Map, Maps
from ltx_jax.tasks.scoring import (
    Asked,
    Predicted,
    keep_lines,
    lines_of,
    predicted,
    score_rows,
)
from ltx_jax.tasks.team import Team
from ltx_jax.tasks.waiting import Done


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
            with within_memory(batch.images // batch.mesh.size):
                known = predicted(work, group, "explained", batch)
                each = [(one.asked, one.example) for one in known]
                maps = compute(work.explainee, name, each, batch)
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
    """Compute, store and score this process's share of a rival's maps; what is there already stays.

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
    computed = store.scored(name).done

    def keep(group: Sequence[tuple[Asked, Example]], batch: BatchLayout) -> None:
        there = computed | lines.learn()
        new = [(one, example) for one, example in group if one.row not in there]
        if not new:
            return
        maps = compute(work.explainee, name, new, batch)
        store.hold(name, maps.shape[1:], maps.shape[1:])
        each = zip(new, np.asarray(spanning(maps)), maps, strict=True)
        store.keep(name, {one.row: (mask, raw) for (one, _), mask, raw in each})

    maps = stored_rival(store, name)
    with progress_bar(-(-len(of_row.keys() - lines.done) // team.count), "images", name) as bar:
        for share in team.shares(what, list(of_row), lines.learn):
            wanted = (of_row[row] for row in share)
            for group in score_rows(work, wanted, maps, chunk, keep, scored_for):
                keep_lines(lines, work, name, group, lines.learn)
                bar.update(len(group))
    return lines.learn


def stored_rival(store: ResultStore, name: str) -> Maps:
    """A rival's maps that are stored."""
    return lambda row: Map(store.masks(name).row(row), store.masks(name, raw=True).row(row))


def compute(
    explainee: Explainee, name: str, group: Sequence[tuple[Asked, Example]], batch: BatchLayout
) -> Float[np.ndarray, "n g h"]:
    """A rival's maps of at most a batch of images, of pixels or of cells; devices without an image
    of their own help where the rival lets them."""
    rival, mesh = RIVALS[name], batch.mesh
    if rival.in_parts and not explainee.on_host:
        mesh = _with_parts(mesh)
        explainee = replicate(explainee, mesh)
    images = padded(np.stack([example.as_input() for _, example in group]), batch.images)
    targets = padded(np.array([asked.target for asked, _ in group], np.int32), batch.images)
    given = place((images, targets), mesh)
    maps = _on_devices(explainee, *given, rival.maps, mesh)
    return jax.device_get(maps)[: len(group)]


def _with_parts(mesh: Mesh) -> Mesh:
    """The devices with the others shared out among them, where each gets some."""
    each = len(jax.local_devices()) // mesh.size
    if each == 1:
        return mesh
    devices = np.array(jax.local_devices()[: each * mesh.size])
    return Mesh(devices.reshape(mesh.size, each), (AXIS, PARTS))


@partial(jax.jit, static_argnames=("method", "mesh"))
def _on_devices(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    method: Attribute,
    mesh: Mesh,
) -> Float[Array, "n g h"]:
    return on_each_device(method, mesh, (REPLICATED, SPLIT, SPLIT), SPLIT)(
        explainee, images, targets
    )
