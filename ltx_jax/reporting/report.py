"""The page of a run: self-contained HTML with a table of scores and a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import Score
from ltx_jax.reporting.overlays import (
    class_colour,
    class_overlay,
    data_uri,
    enlarged,
    in_colour,
    in_hex,
    views,
)
from ltx_jax.reporting.pages import best_methods, heading, meaning, settings_block, write_page
from ltx_jax.reporting.summary import Interval, scores_in
from ltx_jax.reporting.titles import title_of

_SIDE = 176  # of a shown picture in pixels
_ON_CARDS = ("pos", "neg", "iou")


class Entry(NamedTuple):
    """One card of the gallery: its record, the scores of the mask that is shown, the picture uint8
    [H,W,C] and the pixel mask [H,W]."""

    record: Mapping[str, Any]
    scores: Mapping[str, Any]
    picture: UInt8[np.ndarray, "H W C"]
    pixel_mask: Float[np.ndarray, "H W"]


def write_report(
    path: Path,
    title: str,
    methods: Mapping[str, Mapping[str, Interval]],
    facts: Mapping[str, Any],
    entries: Sequence[Entry],
    records: Sequence[Mapping[str, Any]],
) -> None:
    """Write the page.

    Args:
      path: of the HTML file, replaced as a whole.
      title: of the run.
      methods: row of the table → score → interval.
      facts: settings, versions, device and so on, shown as they are.
      entries: the gallery.
      records: of the whole run, for the counts and the skipped images.

    Raises:
      InputError: where the file cannot be written.
    """
    skipped = [record for record in records if "skipped" in record]
    done = len(records) - len(skipped)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=lead>{_counts(done, len(skipped), len(entries), facts)}</p>",
        _scores(methods) if done else "<p>No image was explained.</p>",
        _skipped(skipped),
        '<section class=gallery aria-label="Explanations">',
        *_cards(entries),
        "</section>",
        settings_block("Settings and versions", facts),
    ]
    write_page(path, title, body, _STYLE)


def _counts(done: int, skipped: int, shown: int, facts: Mapping[str, Any]) -> str:
    parts = [f"{done} explanation{'s' * (done != 1)}"]
    if skipped:
        parts.append(f"{skipped} skipped")
    if shown < done:
        parts.append(f"the first {shown} shown")
    if rate := facts.get("images_per_second"):
        parts.append(f"{rate:.2f} images a second")
    if "device" in facts:
        parts.append(escape(str(facts["device"])))
    return " · ".join(parts)


def _scores(methods: Mapping[str, Mapping[str, Interval]]) -> str:
    scores = scores_in(methods)
    best = {score.name: best_methods(score, methods) for score in scores}
    rows = []
    for name, row in methods.items():
        cells = "".join(_cell(row.get(s.name), name in best[s.name]) for s in scores)
        rows.append(f"<tr><th scope=row>{escape(title_of(name))}</th>{cells}</tr>")
    return (
        "<div class=scroll><table><caption>Over the images explained, with 95&nbsp;% bootstrap "
        "intervals; the arrow points to the better side, the best is bold.</caption>"
        f"<thead><tr><td></td>{''.join(map(_head, scores))}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _head(score: Score) -> str:
    return f'<th scope=col title="{escape(meaning(score))}">{heading(score)}</th>'


def _cell(value: Interval | None, best: bool) -> str:
    if value is None:
        return "<td>–</td>"
    mean = f"{value['mean']:.2f}"
    shown = f"<b>{mean}</b>" if best else mean
    return f"<td>{shown}<small>{value['low']:.1f}–{value['high']:.1f}</small></td>"


def _skipped(skipped: Sequence[Mapping[str, Any]]) -> str:
    if not skipped:
        return ""
    items = "".join(
        f"<li><code>{escape(record['image'])}</code>: {escape(record['skipped'])}</li>"
        for record in skipped
    )
    return f"<details><summary>{len(skipped)} skipped</summary><ul>{items}</ul></details>"


def _cards(entries: Sequence[Entry]) -> list[str]:
    """A card for each; before those of an image with several classes one of all of these."""
    cards = []
    for _, group in groupby(entries, lambda entry: entry.record["image"]):
        of_image = list(group)
        if len({entry.record["class"] for entry in of_image}) > 1:
            cards.append(_classes_card(of_image))
        cards += map(_card, of_image)
    return cards


def _classes_card(entries: Sequence[Entry]) -> str:
    """An image with the masks of all its classes, each in its class's colour, and with each."""
    image, picture = entries[0].record["image"], entries[0].picture
    classes = [entry.record["class"] for entry in entries]
    masks = np.stack([entry.pixel_mask for entry in entries])
    figures = [
        _figure(in_colour(picture), "image", image, "image"),
        _figure(class_overlay(picture, masks, classes), "all classes", image, "all classes"),
    ]
    for entry, index, mask in zip(entries, classes, masks, strict=True):
        name = _class_name(entry.record)
        shown = class_overlay(picture, mask[None], [index])
        swatch = f'<span class=swatch style="background:{in_hex(class_colour(index))}"></span>'
        figures.append(_figure(shown, name, image, f"{swatch}{escape(name)}"))
    return (
        f"<article class=classes><header><h2>{len(set(classes))} classes</h2>"
        f"<code>{escape(image)}</code></header><div class=pictures>{''.join(figures)}</div>"
        "</article>"
    )


def _figure(picture: UInt8[np.ndarray, "H W 3"], what: str, image: str, caption: str) -> str:
    """A picture of an image with its caption, which is HTML."""
    return (
        f"<figure><img loading=lazy width={_SIDE} height={_SIDE} "
        f'src="{data_uri(enlarged(picture, _SIDE))}" alt="{escape(what)} of {escape(image)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _class_name(record: Mapping[str, Any]) -> str:
    return str(record.get("class_name", f"class {record['class']}"))


def _card(entry: Entry) -> str:
    record = entry.record
    figures = "".join(
        _figure(picture, what, record["image"], f"{what}{_range(entry, what)}")
        for what, picture in views(entry.picture, entry.pixel_mask).items()
    )
    return (
        f"<article><header><h2>{escape(_class_name(record))}</h2>{_judgement(record)}"
        f"<code>{escape(record['image'])}</code></header>"
        f"<div class=pictures>{figures}</div>"
        f"<footer><span>{_numbers(entry)}</span>{_curve(entry)}</footer></article>"
    )


def _range(entry: Entry, what: str) -> str:
    """Between which values a mask lies, since the heat map is stretched."""
    low, high = entry.pixel_mask.min(), entry.pixel_mask.max()
    return f" {low:.2f}–{high:.2f}" if what == "mask" else ""


def _numbers(entry: Entry) -> str:
    """Of the probability, the step and the scores those that are known."""
    record, scores = entry.record, entry.scores
    parts = []
    before, after = record.get("probability"), scores.get("probability")
    if before is not None and after is not None:
        parts.append(f"p&nbsp;{before:.3f} → {after:.3f}")
    if "step" in scores:
        parts.append(f"step {scores['step']} of {record['steps']}")
    for name in _ON_CARDS:
        if (value := scores.get(name)) is not None:
            parts.append(f"{SCORES[name].title}&nbsp;{value:.0f}")
    return " · ".join(parts)


def _judgement(record: Mapping[str, Any]) -> str:
    if record.get("label") is None:
        return ""
    if record["label"] == record["class"]:
        return "<span class=right>as labelled</span>"
    label = record.get("label_name", f"class {record['label']}")
    return f"<span class=wrong>label: {escape(str(label))}</span>"


def _curve(entry: Entry) -> str:
    """The perturbation score over the steps, the step shown marked; nothing for a single step."""
    trace = entry.record.get("trace", {}).get("score", [])
    known = {i: score for i, score in enumerate(trace) if score is not None}
    if len(trace) < 2 or not known:
        return ""
    width, height = 110, 34
    step = (width - 8) / (len(trace) - 1)
    points = {i: (4 + i * step, 4 + (1 - s / 90) * (height - 8)) for i, s in known.items()}
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points.values())
    shown = [points[i] for i in points if i == entry.scores.get("step")]
    mark = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in shown)
    scores = list(known.values())
    return (
        f'<svg viewBox="0 0 {width} {height}" width={width} height={height} role=img '
        f'aria-label="score at each step, from {scores[0]:.0f} to {scores[-1]:.0f}">'
        f'<polyline points="{line}"/>{mark}</svg>'
    )


_STYLE = """
article.classes { grid-column: 1 / -1; }
.classes .pictures { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px;
  margin-right: 5px; }
"""
