"""A run made presentable: ordered results, summary, pictures and page, from what is stored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.files import read_json, write_json
from ltx_jax.masks.tokens import upsample
from ltx_jax.reporting.lines import Record
from ltx_jax.reporting.overlays import panel, save_png, views
from ltx_jax.reporting.report import Entry, write_report
from ltx_jax.reporting.store import ResultStore
from ltx_jax.reporting.summary import label_summary, summarise
from ltx_jax.settings.sections import Report

SUMMARY = "summary.json"
_REMEDY = "take it away, and the same command writes it anew, without the speed of the run"
_LONGEST = 200  # bytes of a file name; most systems take 255


def publish(
    store: ResultStore,
    picture: Callable[[int], np.ndarray | None],
    shown: str,
    facts: Mapping[str, Any],
    rivals: Sequence[str],
    report: Report,
) -> dict[str, Any]:
    """Write `summary.json`, `overlays/` and `report.html`, without any network; where asked for
    `pixel_masks/` and `masked/` as well.

    Args:
      store: the run's, to which no other process writes any more.
      picture: a row's image as the explainee sees it, uint8 [H,W,C]; None, and it is left out,
        where it cannot be read any more.
      shown: the method whose masks are shown; the first where the run has no such masks.
      facts: settings, versions, device and so on; None for what an earlier publication is to keep.
      rivals: methods that were scored after the fact.
      report: how many pictures are written and shown.

    Returns:
      The summary.

    Raises:
      InputError: where the disk does not take it.
    """
    store.finish()
    records = store.records()
    own = _own_methods(records, store, rivals)
    records = store.joined(records, (*own, *rivals))
    done = [record for record in records if "skipped" not in record]
    methods = summarise(done, (*own, *rivals))
    facts = _with_earlier(facts, store.directory / SUMMARY)
    summary: dict[str, Any] = {name: methods[name] for name in own}
    summary |= {"done": len(done), "skipped": len(records) - len(done)}
    if by_label := label_summary(done, own):
        summary["for_label"] = by_label
    if rivals:
        summary["rivals"] = {name: methods[name] for name in rivals}
    summary |= facts
    entries = _illustrate(store, done, picture, _shown(shown, (*own, *rivals), store), report)
    title = f"What {facts.get('explainee', 'the network')} looked at"
    write_report(store.directory / "report.html", title, methods, facts, entries, records)
    # Last: its presence says that everything else is there.
    write_json(store.directory / SUMMARY, summary)
    return summary


def _own_methods(
    records: Sequence[Record], store: ResultStore, rivals: Sequence[str]
) -> tuple[str, ...]:
    """Methods whose scores are in the records, in their order there; all but rivals where no row
    was done."""
    held = [name for name in store.names() if name not in rivals]
    first = next((record for record in records if "skipped" not in record), held)
    return tuple(name for name in first if name in held)


def _with_earlier(facts: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The facts, of which a run that had nothing left to do does not know all."""
    before = read_json(path, _REMEDY) if path.exists() else {}
    if not isinstance(before, dict):
        raise InputError(f"{path} holds no summary: {_REMEDY}")
    return {name: before.get(name) if value is None else value for name, value in facts.items()}


def _shown(wanted: str, methods: Sequence[str], store: ResultStore) -> str | None:
    """The method whose masks are shown; None where there are no masks."""
    held = [name for name in methods if name in store.names()]
    return wanted if wanted in held else next(iter(held), None)


def _illustrate(
    store: ResultStore,
    done: Sequence[Record],
    picture: Callable[[int], np.ndarray | None],
    shown: str | None,
    report: Report,
) -> list[Entry]:
    """Write the overlays of the first rows, and of all of them the pictures that are asked for;
    returns the cards of the gallery."""
    if shown is None:
        return []
    masks, names = store.masks(shown), picture_names(done)
    entries = []
    pictured = len(done) if report.masked else max(report.overlays, report.gallery)
    for i, record in enumerate(done[:pictured]):
        image = picture(record["row"])
        if image is None:
            continue
        pixels = upsample(np.nan_to_num(masks.row(record["row"])), image.shape[:2])
        if i < report.overlays:
            save_png(store.directory / "overlays" / f"{names[i]}.png", panel(image, pixels))
        if report.masked:
            apart = views(image, pixels)
            for folder, view in (("pixel_masks", "mask"), ("masked", "masked")):
                save_png(store.directory / folder / f"{names[i]}.png", apart[view])
        if i < report.gallery:
            entries.append(Entry(record, record.get(shown, {}), image, pixels))
    return entries


def picture_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A file name for each record: the image's without its ending; the class is added where an
    image has several, the row where that is not enough; all differ."""
    stems = [_file_name(re.sub(r"\.\w+$", "", record["image"])) for record in records]
    count = Counter(stems)
    named = [
        stem
        if count[stem] == 1
        else _file_name(f"{stem}-{record.get('class_name', record['class'])}")
        for stem, record in zip(stems, records, strict=True)
    ]
    # With its row added one may be called as another is.
    while max((count := Counter(named)).values(), default=1) > 1:
        named = [
            name if count[name] == 1 else f"{name}-{record['row']}"
            for name, record in zip(named, records, strict=True)
        ]
    return named


def _file_name(text: str) -> str:
    plain = re.sub(r"[^\w.-]+", "_", text)
    return plain.encode()[:_LONGEST].decode(errors="ignore")
