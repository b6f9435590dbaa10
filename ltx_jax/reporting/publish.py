"""A finished run made presentable: ordered results, summary, pictures and page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ltx_jax.explainers.masks import upsample
from ltx_jax.reporting.files import write_json
from ltx_jax.reporting.overlays import panel, save_png
from ltx_jax.reporting.report import Entry, write_report
from ltx_jax.reporting.store import ResultStore
from ltx_jax.reporting.summary import Interval, label_summary, summarise


def publish(
    store: ResultStore,
    picture: Callable[[int], np.ndarray],
    masks: Sequence[str],
    facts: Mapping[str, Any],
    rivals: Mapping[str, Mapping[str, Interval]],
    overlays: int,
    gallery: int,
) -> dict[str, Any]:
    """Write `summary.json`, `overlays/` and `report.html` from a store's rows.

    Args:
      store: the run's.
      picture: a row's image as the explainee sees it, uint8 [H,W,3].
      masks: what the store's masks are called, in order; `selected` is the one shown.
      facts: settings, versions, device and so on.
      rivals: other methods' scores.
      overlays, gallery: most pictures written, and shown on the page.

    Returns:
      The summary.
    """
    store.finish()
    records = store.records()
    skipped = sum("skipped" in record for record in records)
    scores = summarise(records, masks)
    summary: dict[str, Any] = {**scores, "done": len(records) - skipped, "skipped": skipped}
    if by_label := label_summary(records, masks):
        summary["for_label"] = by_label
    if rivals:
        summary["rivals"] = dict(rivals)
    summary |= facts
    done = [record for record in records if "skipped" not in record]
    names = picture_names(done)
    entries = []
    for i, record in enumerate(done[: max(overlays, gallery)]):
        image = picture(record["row"])
        mask = store.masks(record["row"])[list(masks).index("selected")]
        pixels = np.asarray(upsample(mask, image.shape[:2]))
        if i < overlays:
            save_png(store.directory / "overlays" / f"{names[i]}.png", panel(image, pixels))
        if i < gallery:
            entries.append(Entry(record, image, pixels))
    methods = scores | dict(rivals)
    title = f"What {facts.get('explainee', 'the network')} looked at"
    write_report(store.directory / "report.html", title, methods, facts, entries, records)
    # Last: its presence says that everything else is there.
    write_json(store.directory / "summary.json", summary)
    return summary


def picture_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A file name for each record: the image's without its ending; the class is added where an
    image has several, the row where that is not enough."""
    stems = [re.sub(r"[^\w.-]+", "_", re.sub(r"\.\w+$", "", r["image"])) for r in records]
    count = Counter(stems)
    named = [
        stem if count[stem] == 1 else f"{stem}-{record.get('class_name', record['class'])}"
        for stem, record in zip(stems, records, strict=True)
    ]
    named = [re.sub(r"[^\w.-]+", "_", name) for name in named]
    count = Counter(named)
    return [
        name if count[name] == 1 else f"{name}-{record['row']}"
        for name, record in zip(named, records, strict=True)
    ]
