"""The task `evaluate`: scores of maps of any origin; no explainer is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ltx_jax.attribution.rival import scaled
from ltx_jax.data.examples import Example, UnreadableImage
from ltx_jax.engine.memory import Batch, batch_of_use, within_memory
from ltx_jax.engine.scoring import (
    Masked,
    in_groups,
    predict,
    refuse_unless_finite_on_black,
    score,
    with_needs,
)
from ltx_jax.engine.sharding import replicate
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of, write_json
from ltx_jax.progress import progress_bar
from ltx_jax.reporting.records import Record, rounded
from ltx_jax.reporting.store import MASKS, RESULTS, ResultStore, read_records
from ltx_jax.reporting.summary import Interval, score_intervals, table
from ltx_jax.runtime import together
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.inputs import Work, examples, fingerprint_of_work, open_work
from ltx_jax.tasks.waiting import await_rows, open_store

_RAW = ".raw.npy"


class Asked(NamedTuple):
    """A row to be scored, for a class; None for the predicted one."""

    row: int
    target: int | None


class Map(NamedTuple):
    """One map: a mask in [0,1] over cells [g,h] or pixels [H,W], and what ranks its pixels where
    that is not the mask itself."""

    mask: np.ndarray
    order: np.ndarray | None = None

    def digest(self) -> str:
        """Another one for other values."""
        return digest_of(np.ascontiguousarray(x).data for x in self if x is not None)


Maps = Callable[[int], Map]


def explained(records: Iterable[Record]) -> list[Asked]:
    """The rows of a run that were explained, with the class of each."""
    return [Asked(r["row"], r["class"]) for r in records if "skipped" not in r]


def as_map(values: np.ndarray, name: str) -> Map:
    """Anybody's relevance as a map: as it is where it lies in [0,1]; else it keeps its order, and
    is scaled to span [0,1] as a mask.

    Args:
      values: [g,h] or [H,W].
      name: of the map, for messages.

    Raises:
      InputError: where a value is not finite.
    """
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds values that are no numbers: give finite ones")
    if values.min() >= 0 and values.max() <= 1:
        return Map(values)
    return Map(np.asarray(scaled(values[None]))[0], values)


def score_examples(
    work: Work, asked: Sequence[tuple[Asked, Example]], maps: Maps, batch: Batch
) -> Iterator[tuple[int, Record]]:
    """The scores of a batch of maps.

    Yields:
      Each row with its class, a digest of its map, and by name the map's scores and the
      probability through it.

    Raises:
      InputError: where the logits of an image are not finite.
    """
    images = [example.as_input() for _, example in asked]
    logits = predict(work.explainee, images, batch.images, batch.mesh)
    for (one, _), row in zip(asked, logits, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                f"the logits of {work.explainee.name} for {work.rows[one.row].name} are not "
                "finite: correct the network, or leave the image out"
            )
    answers = work.explainee.predicted(logits)
    targets = [
        int(answer) if one.target is None else one.target
        for (one, _), answer in zip(asked, answers, strict=True)
    ]
    masks, each = [], [maps(one.row) for one, _ in asked]
    given = zip(asked, images, logits, targets, each, strict=True)
    for (_, example), image, row, target, drawn in given:
        masked = Masked(image, row, np.array([target], np.int32), *drawn)
        masks.append(with_needs(masked, example, work.scores))
    found = score(work.explainee, masks, work.scores, batch.images, batch.mesh, batch.chunk)
    for (one, _), target, scores, drawn in zip(asked, targets, found, each, strict=True):
        values = {name: value[0].tolist() for name, value in scores.items()}
        known = {"row": one.row, "class": target, "map": drawn.digest()}
        yield one.row, known | rounded(values)


def score_rows(
    work: Work,
    asked: Sequence[Asked],
    maps: Maps,
    chunk: int | None,
    before: Callable[[Sequence[tuple[Asked, Example]], Batch], None] = lambda *_: None,
) -> Iterator[list[tuple[int, Record]]]:
    """The scores of so many rows, a batch at a time; an image that cannot be read is left out.

    Args:
      work: what they rest on.
      asked: the rows.
      maps: the map of a row.
      chunk: most images in one forward of the explainee.
      before: called with each batch before it is scored.

    Raises:
      InputError: where memory runs out, or logits are not finite.
    """
    if not asked:
        return
    batch = batch_of_use(len(asked), chunk)
    work = work._replace(explainee=replicate(work.explainee, batch.mesh))
    refuse_unless_finite_on_black(work.explainee, batch.images, batch.mesh)
    for group in in_groups(_examples(work, asked, 2 * batch.images), batch.images):
        with within_memory(batch.images // batch.mesh.size):
            before(group, batch)
            yield list(score_examples(work, group, maps, batch))


def _examples(work: Work, asked: Sequence[Asked], ahead: int) -> Iterator[tuple[Asked, Example]]:
    found = examples(work, [one.row for one in asked], ahead)
    for one, example in zip(asked, found, strict=True):
        if isinstance(example, UnreadableImage):
            logging.warning("skipped %s: %s", work.rows[one.row].name, example)
        else:
            yield one, example


# --- The command ----------------------------------------------------------------------------------


def run(settings: Settings, workdir: Path) -> str:
    """Score what a run stored, or a folder of maps.

    Leaves `scores/NAME.jsonl` with a line a row, and `evaluation.json` with the means; rows that
    have their scores already are not scored again.

    Returns:
      What to print.

    Raises:
      InputError: for anything in the configuration, the folder or its maps that cannot be used.
    """
    with together():
        work = open_work(settings)
        folder = Path(settings.evaluate.masks or workdir)
        methods, asked = find_maps(folder, work)
        told = fingerprint_of_work(settings, work)
    store = open_store(workdir, told, len(work.rows), held={})
    for name, maps in methods.items():
        score_method(work, store, name, maps, asked, settings.finetune.chunk)
    if jax.process_index() > 0:
        return f"process {jax.process_index()} has done its share; process 0 reports"
    found: dict[str, dict[str, Interval]] = {}
    for name in methods:
        lines = store.scored(name)
        await_rows(lines, len(asked))
        lines.merge()
        found[name] = score_intervals(lines.records())
    write_json(workdir / "evaluation.json", found)
    return f"{table(found)}\n{len(asked)} rows scored: {workdir / 'evaluation.json'}"


def score_method(
    work: Work,
    store: ResultStore,
    name: str,
    maps: Maps,
    asked: Sequence[Asked],
    chunk: int | None,
) -> None:
    """Score this process's share of the rows that have not all their scores yet, of the map that
    they have now."""
    lines = store.scored(name)
    known = {
        line["row"]
        for line in lines.records()
        if set(work.scores) <= set(line) and line.get("map") == maps(line["row"]).digest()
    }
    missing = [one for one in own_share(asked) if one.row not in known]
    with progress_bar(len(missing), "images", name) as bar:
        for group in score_rows(work, missing, maps, chunk):
            lines.append(dict(group))
            bar.update(len(group))


def own_share(asked: Iterable[Asked]) -> list[Asked]:
    """The rows that fall to this process, by their number: known without a word to the others."""
    processes = jax.process_count()
    return [one for one in asked if one.row % processes == jax.process_index()]


def find_maps(folder: Path, work: Work) -> tuple[dict[str, Maps], list[Asked]]:
    """The maps in a folder by method, and the rows that have one.

    A run's work directory has `masks/NAME.npy`, for the classes that were explained. Another folder
    has `NAME.npy` with a map for each row [rows,g,h], or a file for each image [g,h] that is named
    as it is.

    Raises:
      InputError: where there are none, or they do not fit the images.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: set config.evaluate.masks to one of .npy files")
    if (folder / RESULTS).exists():
        return _methods(folder / MASKS, work), explained(read_records(folder))
    asked = [Asked(row, work.rows[row].target) for row in range(len(work.rows))]
    files = {path.stem: path for path in sorted(folder.glob("*.npy")) if not _is_raw(path)}
    stems = [Path(row.name).stem for row in work.rows]
    if files and all(stem in files for stem in stems):
        return {folder.name: lambda row: _of_image(files[stems[row]])}, asked
    return _methods(folder, work), asked


def _methods(folder: Path, work: Work) -> dict[str, Maps]:
    paths = [path for path in sorted(folder.glob("*.npy")) if not _is_raw(path)]
    if not paths:
        raise InputError(f"{folder} holds no .npy files: give a folder of maps, or a finished run")
    return {path.stem: _of_method(path, work) for path in paths}


def _of_method(path: Path, work: Work) -> Maps:
    """The maps of one method, a row each; their order where it is stored beside them."""
    values, raw_path = _array(path), path.with_name(path.stem + _RAW)
    if values.ndim != 3 or len(values) != len(work.rows):
        raise InputError(
            f"{path} holds an array of shape {values.shape}: expected [{len(work.rows)},g,h], a "
            "map for each row, or a file named as each image"
        )
    raw = _array(raw_path) if raw_path.exists() else None

    def of_row(row: int) -> Map:
        name = f"row {row} of {path}"
        return as_map(values[row], name) if raw is None else Map(values[row], raw[row])

    return of_row


def _of_image(path: Path) -> Map:
    values = _array(path)
    if values.ndim != 2:
        raise InputError(f"{path} holds an array of shape {values.shape}: expected a map [g,h]")
    return as_map(values, str(path))


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r")
    except Exception as error:  # a damaged header breaks NumPy in more ways than it names
        raise InputError(f"{path} is not a whole .npy file: write it again") from error
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {values.dtype}: expected numbers")
    return values


def _is_raw(path: Path) -> bool:
    return path.name.endswith(_RAW)
