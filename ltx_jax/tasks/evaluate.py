"""The task `evaluate`: scores of maps of any origin, compared; an explainer is loaded for its class
table alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice, takewhile
from pathlib import Path

from ltx_jax.engine.recipe import RESULT
from ltx_jax.errors import InputError
from ltx_jax.masks.tokens import upsample
from ltx_jax.progress import progress_bar
from ltx_jax.reporting.comparison import Comparison
from ltx_jax.reporting.evaluation import PAGE, publish_evaluation, remarks
from ltx_jax.reporting.evaluation_page import SameImage
from ltx_jax.reporting.lines import Lines
from ltx_jax.reporting.records import Record
from ltx_jax.reporting.store import RESULTS, ResultStore, lines_of
from ltx_jax.reporting.summary import table
from ltx_jax.runtime import together
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.class_table import open_class_tables
from ltx_jax.tasks.inputs import Work, fingerprint_of_work, open_work, picture_of
from ltx_jax.tasks.maps import ORIGINAL, Found, Maps, find_maps
from ltx_jax.tasks.merged import Sets, sets_of
from ltx_jax.tasks.rivals import add_rival, check_rivals, stored_rival
from ltx_jax.tasks.scoring import Asked, explained, is_of_map, keep_lines, score_rows
from ltx_jax.tasks.team import ALONE, Team
from ltx_jax.tasks.waiting import Done, await_rows, open_store

# Our masks and the original's: the first that is there is what others are compared with, where no
# reference is named.
_OURS = (*RESULT, ORIGINAL)


def run(settings: Settings, workdir: Path, team: Team = ALONE) -> str:
    """Score what a run stored, a folder of maps, or rivals by name, and compare them.

    Leaves `scores/NAME.jsonl` with a line a row, for those that go on after a kill; and what
    `publish_evaluation` makes of them. Rows that have their scores already are not scored again.

    Returns:
      What to print.

    Raises:
      InputError: for anything in the configuration, the folder or its maps that cannot be used.
    """
    wanted, chunk = settings.evaluate, settings.finetune.chunk
    with together():
        work = open_work(settings)
        check_rivals(settings.rivals, work.explainee)
        _refuse_unlabelled(work, wanted.scored_for)
        found = _found(settings, workdir, work)
        methods = dict(found.methods)
        rivals = [name for name in settings.rivals if name not in methods]
        reference = _reference(wanted.reference, (*methods, *rivals))
        tables = open_class_tables(settings, work) if wanted.class_table else {}
        told = fingerprint_of_work(settings, work)
    asked = [Asked(row, planned.target) for row, planned in enumerate(work.rows)]
    if found.records is not None:
        asked = explained(found.records)
    asked = [one for one in asked if one.row not in found.without]
    store = open_store(workdir, told, len(work.rows), team.number, held={})
    each = {name: _of_rows(work, name, maps, asked, settings) for name, maps in methods.items()}
    done = {name: score_method(store, one, team) for name, one in each.items()}
    for name in rivals:
        done[name] = add_rival(work, store, name, asked, chunk, team, wanted.scored_for)
        methods[name] = stored_rival(store, name)
        each[name] = _of_rows(work, name, methods[name], asked, settings)
    merged, done_merged = {}, {}
    if wanted.merged and asked:
        for name in methods:  # the masks that other processes made are merged here as well
            await_rows([one.row for one in asked], done[name])
        merged = _of_sets(sets_of(work, asked), methods, chunk)
        done_merged = {name: score_method(store, one, team) for name, one in merged.items()}
    done_tables = {name: one.compute(store, team) for name, one in tables.items()}
    if elsewhere := team.farewell():
        return elsewhere
    lines = {name: _all_of_it(store, one, done[name]) for name, one in each.items()}
    of_sets = {name: _all_of_it(store, one, done_merged[name]) for name, one in merged.items()}
    images = same_images(work, methods, lines, settings.report.gallery)
    names = [row.name for row in work.rows]
    class_tables = {name: one.table(store, done_tables[name]) for name, one in tables.items()}
    left_out = len(found.without)
    shown = reference, wanted.scored_for, told, images, of_sets, class_tables, left_out
    comparisons = publish_evaluation(workdir, lines, names, *shown)
    return printed(comparisons, left_out, len(names), workdir / PAGE)


def printed(comparisons: Mapping[str, Comparison], left_out: int, rows: int, page: Path) -> str:
    """The tables of an evaluation, the first of its rows, what else there is to know, and where its
    page is."""
    parts = [
        (f"{about}:\n" if len(comparisons) > 1 else "") + table(comparison.methods)
        for about, comparison in comparisons.items()
    ]
    of_rows = next(iter(comparisons.values()))
    told = remarks(of_rows, left_out, rows)
    return "\n".join([*parts, *told, f"{of_rows.rows} rows scored: {page}"])


def _refuse_unlabelled(work: Work, scored_for: str) -> None:
    """Where labels are scored for, all of the images have one; where both classes are, one has."""
    unlabelled = [row.name for row in work.rows if row.label is None]
    if (scored_for == "label" and unlabelled) or (
        scored_for == "both" and len(unlabelled) == len(work.rows)
    ):
        raise InputError(
            f"{unlabelled[0]} has no label to score for: give config.labels, or set "
            "config.evaluate.scored_for to predicted"
        )


def _found(settings: Settings, workdir: Path, work: Work) -> Found:
    """The maps that the settings name; none but rivals' where they name no others."""
    if settings.evaluate.masks is None and settings.rivals and not (workdir / RESULTS).exists():
        return Found({})
    cut = any(one is not None for one in (settings.limit, settings.indices, settings.subset))
    folder = Path(settings.evaluate.masks or workdir)
    # Of what is stored here a rival may have some left to make.
    here = folder.resolve() == workdir.resolve()
    found = find_maps(folder, work, cut, settings.rivals if here else ())
    if not here and (workdir / RESULTS).exists():
        _refuse_in_place_of_its_own(workdir, folder, found)
    return found


def _refuse_in_place_of_its_own(workdir: Path, folder: Path, found: Found) -> None:
    """Another run's masks may be of other classes, and maps of the same name have the same files:
    the scores of a run stay its own."""
    own = ResultStore.find(workdir).names()
    if found.records is not None or any(name in own for name in found.methods):
        raise InputError(
            f"{workdir} holds a run and its own scores: evaluate the masks of {folder} in another "
            "--workdir"
        )


def _reference(wanted: str | None, methods: Sequence[str]) -> str | None:
    """The method that others are compared with; None where there is no other, or none to be it."""
    if wanted is not None and wanted not in methods:
        raise InputError(
            f"config.evaluate.reference is {wanted!r}: the methods are {', '.join(methods)}"
        )
    found = wanted or next((name for name in _OURS if name in methods), None)
    return found if len(methods) > 1 else None


@dataclass(frozen=True)
class Scoring:
    """A method's maps and how they are scored.

    Attributes:
      work: what they rest on.
      name: of the method.
      lines: what its lines are called.
      maps: the map of a row.
      asked: the rows.
      score: the scores of such rows, a batch at a time.
    """

    work: Work
    name: str
    lines: str
    maps: Maps
    asked: Sequence[Asked]
    score: Callable[[Iterable[Asked]], Iterator[list[tuple[int, Record]]]]

    @cached_property
    def rows(self) -> frozenset[int]:
        """The numbers of the rows."""
        return frozenset(one.row for one in self.asked)

    def holds(self, line: Record) -> bool:
        """Whether a line of these rows has all scores, of the map that its row has now."""
        if line["row"] not in self.rows:
            return False
        scored = set(self.work.scores) <= set(line)
        return "skipped" in line or (scored and is_of_map(line, self.maps))


def _of_rows(
    work: Work, name: str, maps: Maps, asked: Sequence[Asked], settings: Settings
) -> Scoring:
    """Each row by itself."""
    scored_for, chunk = settings.evaluate.scored_for, settings.finetune.chunk
    score = partial(score_rows, work, maps=maps, chunk=chunk, scored_for=scored_for)
    return Scoring(work, name, lines_of(name, scored_for), maps, asked, score)


def _of_sets(sets: Sets, methods: Mapping[str, Maps], chunk: int | None) -> dict[str, Scoring]:
    """The rows of each image merged, and the yardsticks beside them."""
    every = {name: (sets.merged(maps), sets.asked) for name, maps in methods.items()}
    found = {}
    for name, (maps, asked) in (every | sets.yardsticks()).items():
        score = partial(score_rows, sets.work, maps=maps, chunk=chunk, scored=sets.scores)
        found[name] = Scoring(sets.work, name, lines_of(name, "merged"), maps, asked, score)
    return found


def score_method(store: ResultStore, method: Scoring, team: Team) -> Done:
    """Score this process's share of the rows that have not all their scores yet, of the map that
    they have now; returns what tells those that have."""
    lines, of_row = store.scored(method.lines), {one.row: one for one in method.asked}
    done = lines.learning(method.holds)
    missing = len(of_row.keys() - done())
    with progress_bar(-(-missing // team.count), "images", method.name) as bar:
        for share in team.shares(method.lines, list(of_row), done):
            for group in method.score(of_row[row] for row in share):
                keep_lines(lines, method.work, method.name, group, done)
                bar.update(len(group))
    return done


@dataclass(frozen=True)
class _OfRows:
    """The lines of some rows, read from the disk as often as they are asked for."""

    lines: Lines
    rows: frozenset[int]

    def __iter__(self) -> Iterator[Record]:
        return (line for line in self.lines if line["row"] in self.rows)


def _all_of_it(store: ResultStore, method: Scoring, done: Done) -> Iterable[Record]:
    """A method's lines in order, once all processes have written theirs; they stay on the disk."""
    await_rows(method.rows, done)
    lines = store.scored(method.lines)
    lines.merge(method.holds)
    return _OfRows(lines, method.rows)


def same_images(
    work: Work, methods: Mapping[str, Maps], lines: Mapping[str, Iterable[Record]], most: int
) -> Iterator[SameImage]:
    """The first rows that were scored, under all methods, made as they are asked for; without those
    whose image cannot be read any more. Lines are in the order of rows."""
    scored = (one for one in next(iter(lines.values())) if "skipped" not in one)
    first = {one["row"]: one for one in islice(scored, most)}
    last = max(first, default=-1)
    by_row = {
        name: {one["row"]: one for one in takewhile(lambda one: one["row"] <= last, found)}
        for name, found in lines.items()
    }
    size, names = work.explainee.image_size, work.explainee.class_names
    for row, line in first.items():
        if (picture := picture_of(work, row)) is None:
            continue
        masks = {name: maps(row).or_constant().mask for name, maps in methods.items()}
        yield SameImage(
            work.rows[row].name,
            names[line["class"]] if names else f"class {line['class']}",
            picture,
            {name: upsample(mask, size) for name, mask in masks.items()},
            {name: of_row[row] for name, of_row in by_row.items()},
        )
