"""Maps to be scored, of whatever origin: what a run stored, anybody's arrays, the original's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltx_jax.data.examples import UnreadableImage
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of, read_npz
from ltx_jax.loading.original_results import OriginalResult, numbers_of, read_result, result_files
from ltx_jax.masks.spanning import spanning
from ltx_jax.reporting.records import Record
from ltx_jax.reporting.store import NPY_FILES, RESULTS, ResultStore, read_records
from ltx_jax.tasks.inputs import Row, Work

# The method whose masks are the original's.
ORIGINAL = "original"
_RAW = ".raw.npy"
_UNNAMED = "arr_0"  # what np.savez calls an array that it is given without a name
_ROUNDING = 1e-5  # of a map that was stretched on another machine
_SAME_IMAGE = 0.9  # correlation of an image with itself, resized by another library


class Map(NamedTuple):
    """One map: a mask in [0,1] over cells [g,h] or pixels [H,W], and what ranks its pixels where
    that is not the mask itself."""

    mask: np.ndarray
    order: np.ndarray | None = None

    @property
    def finite(self) -> bool:
        """Whether it is numbers throughout."""
        return all(np.isfinite(x).all() for x in self if x is not None)

    @property
    def relevance(self) -> np.ndarray:
        """What adds up over pixels: the mask; or, where that is a map stretched to span [0,1] which
        went below 0, the map itself, at most 1 in magnitude: what speaks against the class is less
        than nothing. Of a map without such values nobody knows where nothing is."""
        if self.order is None or self.order.shape != self.mask.shape or self.order.min() >= 0:
            return self.mask
        stretched = np.asarray(spanning(self.order[None]))[0]
        if np.abs(stretched - self.mask).max() > _ROUNDING:
            return self.mask
        return np.asarray(self.order / np.abs(self.order).max())

    def or_constant(self) -> Map:
        """The map itself; in place of one that is not finite one that says nothing, 0 everywhere as
        constant maps are scaled, of the same shapes."""
        if self.finite:
            return self
        nothing = np.zeros_like(self.mask)
        return Map(nothing, None if self.order is None else np.zeros_like(self.order))

    def digest(self) -> str:
        """Another one for other values."""
        return digest_of(np.ascontiguousarray(x).data for x in self if x is not None)


Maps = Callable[[int], Map]


def as_map(values: np.ndarray, stretched: bool | None = None) -> Map:
    """Anybody's relevance as a map: as it is where it lies in [0,1], or is not finite; else it
    keeps its order, and is scaled to span [0,1] as a mask.

    Args:
      values: [g,h] or [H,W].
      stretched: whether it is scaled; what others of its method are where it is known. Where it is
        not, as of maps in folders, which are read one by one, this map alone decides.
    """
    if stretched is None:
        stretched = leaves_unit(values)
    if not stretched or not np.isfinite(values).all():
        return Map(np.asarray(values, np.float32))
    # In float32 1 + 1e-9 is 1, and 1e39 is none.
    scaled = np.asarray(values, np.float64)
    scaled = scaled / (np.abs(scaled).max() or 1)
    mask = ((scaled - scaled.min()) / (np.ptp(scaled) or 1)).astype(np.float32)
    if np.can_cast(values.dtype, np.float32):
        return Map(mask, np.asarray(values, np.float32))
    return Map(mask, scaled.astype(np.float32) if scaled.min() < 0 else mask)


def leaves_unit(values: np.ndarray) -> bool:
    """Whether any value is outside [0,1]."""
    return bool(values.min() < 0 or values.max() > 1)


def ranked_alike(maps: Sequence[Map]) -> list[Map]:
    """Maps that all have an order where one has; whose pixels the mask ranks, that is the mask."""
    if all(one.order is None for one in maps):
        return list(maps)
    return [Map(one.mask, one.mask if one.order is None else one.order) for one in maps]


class Found(NamedTuple):
    """Maps by method; where they are those of a run its records; and the rows that have none, of
    a run that did not come to its end, or of NN-Explainer's folders."""

    methods: Mapping[str, Maps]
    records: list[Record] | None = None
    without: frozenset[int] = frozenset()


def find_maps(folder: Path, work: Work, cut: bool, but: Collection[str] = ()) -> Found:
    """The maps in a folder by method.

    A run's work directory has `masks/NAME.npy`. Another folder has `NAME.npy` with a map for each
    row [rows,g,h]; a file for each image [g,h] that is named as it is, .npy or, as NN-Explainer
    leaves them, .npz; or the original's results `N.pkl`.

    Args:
      folder: with the maps.
      work: whose rows they are for.
      cut: whether these rows are a part of the images, so that there may be maps of others.
      but: methods of a run that are left out.

    Raises:
      InputError: where there are none, or they do not fit the images.
    """
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}: set config.evaluate.masks to one of .npy or .npz files, or of "
            "the original's N.pkl"
        )
    if (folder / RESULTS).exists():
        records = read_records(folder)
        _refuse_other_images(folder, records, work)
        return Found(_of_run(folder, records, work, but), records, _not_done(folder, records, work))
    if results := result_files(folder):
        return Found({ORIGINAL: _of_original(folder, results, work, cut)})
    arrays = {path.stem: path for path in _arrays_in(folder)}
    archives = {path.stem: path for path in sorted(folder.glob("[!.]*.npz"))}
    named_as_images = any(Path(row.name).stem in arrays for row in work.rows)
    # An .npz has one array, and so is of one image whatever it is named.
    if named_as_images or (archives and not arrays):
        files = arrays if named_as_images else archives
        without = frozenset() if named_as_images else _without_map(folder, archives, work)
        return Found({folder.name: _of_images(folder, files, work, cut, without)}, None, without)
    return Found(_methods(folder, work))


# --- A method a file ------------------------------------------------------------------------------


def _refuse_other_images(folder: Path, records: Sequence[Record], work: Work) -> None:
    """The run's masks are for the rows of the work."""
    for record in records:
        row = record["row"]
        here = work.rows[row].name if row < len(work.rows) else "none"
        if record["image"] != here:
            raise InputError(
                f"row {row} is {record['image']} in {folder}, and {here} here: give the images, "
                "config.indices, config.subset (and seed) and config.limit that the run had"
            )
        if record.get("class", 0) >= work.explainee.classes:
            raise InputError(
                f"row {row} of {folder} explains class {record['class']}, and "
                f"{work.explainee.name} has {work.explainee.classes}: give the network that it "
                "explains, or one with the same classes"
            )


def _of_run(
    folder: Path, records: Sequence[Record], work: Work, but: Collection[str]
) -> dict[str, Maps]:
    """What a run stored, of methods that have a map of each of its rows that are done."""
    store = ResultStore.find(folder)
    # As they stand in the records; those that were added later after them.
    places = list(next((r for r in records if "skipped" not in r), {}))
    names = sorted(
        (name for name in store.names() if name not in but),
        key=lambda name: (name not in places, [*places, name].index(name)),
    )
    for name in names:
        known = {r["row"] for r in records if name in r}
        known |= {line["row"] for line in store.lines_for_any(name)}
        missing = [r for r in records if "skipped" not in r and r["row"] not in known]
        if missing:
            raise InputError(
                f"{store.masks(name).path} has no map of row {missing[0]['row']}, "
                f"{missing[0]['image']}{_and_more(missing)}: let the run that makes it go on to "
                "its end, or take the file away"
            )
    return {name: _of_method(store.masks(name).path, work) for name in names}


def _not_done(folder: Path, records: Sequence[Record], work: Work) -> frozenset[int]:
    """The rows that a run has yet to do, which are said."""
    left = frozenset(range(len(work.rows))) - {record["row"] for record in records}
    if left:
        logging.warning(
            "%s has results of %d of %d rows, and the others are left out: let the run go on to "
            "its end, and evaluate it again",
            *(folder, len(records), len(work.rows)),
        )
    return left


def _methods(folder: Path, work: Work) -> dict[str, Maps]:
    paths = _arrays_in(folder)
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
    refuse_larger(path, values.shape[1:], work)
    raw = _array(raw_path) if raw_path.exists() else None

    def of_row(row: int) -> Map:
        return as_map(values[row]) if raw is None else Map(values[row], raw[row])

    return of_row


# --- A file an image ------------------------------------------------------------------------------


def _without_map(folder: Path, files: Mapping[str, Path], work: Work) -> frozenset[int]:
    """The rows that have no file, which are said: NN-Explainer's folders are of a part of a data
    set. None where no row has one."""
    missing = [i for i, row in enumerate(work.rows) if Path(row.name).stem not in files]
    if not missing or len(missing) == len(work.rows):
        return frozenset()
    logging.warning(
        "%s has no map for %d of %d rows, which are left out: %s%s",
        *(folder, len(missing), len(work.rows), work.rows[missing[0]].name, _and_more(missing)),
    )
    return frozenset(missing)


def _of_images(
    folder: Path, files: Mapping[str, Path], work: Work, cut: bool, without: Collection[int]
) -> Maps:
    """Maps in files that are named as the images are."""
    stems = [Path(row.name).stem for row in work.rows]
    _refuse_alike(stems, work)
    wanted = {stems[i]: row for i, row in enumerate(work.rows) if i not in without}
    _refuse_unless_there(folder, wanted, set(files), work, cut)
    first_of = next(iter(wanted))
    first = _array(files[first_of])
    for stem in wanted:
        values = _array(files[stem])
        if values.ndim != 2 or values.shape != first.shape:
            raise InputError(
                f"{files[stem]} holds an array of shape {values.shape}: expected a map [g,h], of "
                f"one size with {files[first_of].name} {first.shape}"
            )
    refuse_larger(files[first_of], first.shape, work)
    return lambda row: as_map(_array(files[stems[row]]))


def _refuse_alike(stems: Sequence[str], work: Work) -> None:
    """See that no two images have one file between them."""
    image_of: dict[str, Row] = {}
    for stem, row in zip(stems, work.rows, strict=True):
        other = image_of.setdefault(stem, row)
        if other.image != row.image:
            raise InputError(
                f"{other.name} and {row.name} have one file {stem} for their maps: give an array "
                f"NAME.npy [{len(work.rows)},g,h] with a map for each row, or images whose names "
                "differ"
            )


def _of_original(folder: Path, files: Mapping[int, Path], work: Work, cut: bool) -> Maps:
    """Masks of the original's results, each of the image that it shows."""
    numbers = numbers_of(work.source.names)
    of_row = [numbers[row.image] for row in work.rows]
    _refuse_unless_there(folder, dict(zip(of_row, work.rows, strict=True)), set(files), work, cut)

    def mask(row: int) -> Map:
        path = files[of_row[row]]
        result = read_result(path)
        if result.mask.shape != work.explainee.image_size:
            raise InputError(
                f"{path} holds a mask of {result.mask.shape} pixels, and {work.explainee.name} "
                f"sees {work.explainee.image_size}: give the network that it explains"
            )
        _refuse_other_image(path, result, row, work)
        return as_map(result.mask)

    return mask


def _refuse_other_image(path: Path, result: OriginalResult, row: int, work: Work) -> None:
    """The image in a result, normalised or not, is the row's; one without any contrast, or that
    cannot be read any more, says nothing."""
    planned = work.rows[row]
    try:
        image = work.source.load(planned.image, work.how).as_input()
    except UnreadableImage:
        return
    pairs = [(image[..., c].ravel(), result.image[..., c].ravel()) for c in range(image.shape[-1])]
    alike = [np.corrcoef(ours, theirs)[0, 1] for ours, theirs in pairs if ours.std() * theirs.std()]
    if alike and np.mean(alike) < _SAME_IMAGE:
        raise InputError(
            f"{path} shows another image than {planned.name} (correlation {np.mean(alike):.2f}): "
            "give the images of that run in its order, resized as it did"
        )


def _refuse_unless_there(
    folder: Path, wanted: Mapping[Any, Row], there: set[Any], work: Work, cut: bool
) -> None:
    """See that each image has a map, and each map, where all images are asked for, an image."""
    if missing := [key for key in wanted if key not in there]:
        raise InputError(
            f"{folder} has no map {missing[0]} for {wanted[missing[0]].name}"
            f"{_and_more(missing)}: add it, or leave the image out with config.indices"
        )
    if not cut and (extra := sorted(there - set(wanted))):
        raise InputError(
            f"{folder} has a map {extra[0]}{_and_more(extra)} for no image of "
            f"{len(work.rows)} rows: give its image, or choose images with config.indices"
        )


def _and_more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


# --- Arrays ---------------------------------------------------------------------------------------


def refuse_larger(path: Path | str, shape: tuple[int, ...], work: Work) -> None:
    """See that a map has cells or pixels, at most as many as the image either way.

    Raises:
      InputError: where it has not, naming what holds it.
    """
    size = work.explainee.image_size
    if shape[0] > size[0] or shape[1] > size[1] or 0 in shape:
        raise InputError(
            f"{path} holds maps of {shape}, and {work.explainee.name} sees {size}: expected at "
            "most a value a pixel; resize them, or give the network that they explain"
        )


def _arrays_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob(NPY_FILES)) if not path.name.endswith(_RAW)]


def _array(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npz":
            values = read_npz(path, (_UNNAMED,)).get(_UNNAMED)
        else:
            values = np.load(path, mmap_mode="r")
    except InputError:
        raise
    except Exception as error:  # a damaged header breaks NumPy in more ways than it names
        raise InputError(f"{path} is not a whole .npy file: write it again") from error
    if values is None:
        raise InputError(f"{path} holds no array {_UNNAMED}: write it by np.savez(path, mask)")
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {values.dtype}: expected numbers")
    return values
