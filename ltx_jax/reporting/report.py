"""The page of a run: self-contained HTML with a table of scores and a gallery."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltx_jax.metrics.directions import DIRECTIONS
from ltx_jax.reporting.files import write_bytes
from ltx_jax.reporting.overlays import encode, overlay
from ltx_jax.reporting.summary import Interval

METHOD_NAMES = {
    "pltx": "pLTX (before finetuning)",
    "selected": "LTX, selected step",
    "last": "LTX, last step",
    "by_loss": "LTX, lowest loss",
}
_SIDE = 176  # of a shown picture in pixels


class Entry(NamedTuple):
    """One card of the gallery: its record, picture uint8 [H,W,3] and selected pixel mask [H,W]."""

    record: Mapping[str, Any]
    picture: np.ndarray
    pixel_mask: np.ndarray


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
        *map(_card, entries),
        "</section>",
        "<details><summary>Settings and versions</summary><pre>"
        f"{escape(json.dumps(facts, indent=2, ensure_ascii=False))}</pre></details>",
    ]
    page = _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(body))
    write_bytes(path, page.encode())


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
    scores = [s for s in DIRECTIONS if any(s in row for row in methods.values())]
    head = "".join(
        f'<th scope=col title="{escape(DIRECTIONS[s].meaning)}; {DIRECTIONS[s].better} is better">'
        f"{s.upper()}&nbsp;{DIRECTIONS[s].arrow}</th>"
        for s in scores
    )
    best = {s: _best(s, methods) for s in scores}
    rows = []
    for name, row in methods.items():
        shown = METHOD_NAMES.get(name, name.replace("_", " "))
        cells = "".join(_cell(row.get(s), name in best[s]) for s in scores)
        rows.append(f"<tr><th scope=row>{escape(shown)}</th>{cells}</tr>")
    return (
        "<div class=scroll><table><caption>Means in percent with 95&nbsp;% bootstrap intervals; "
        "the arrow points to the better side, the best mean is bold.</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _best(score: str, methods: Mapping[str, Mapping[str, Interval]]) -> set[str]:
    means = {name: row[score]["mean"] for name, row in methods.items() if score in row}
    pick = min if DIRECTIONS[score].better == "lower" else max
    top = pick(means.values(), default=None)
    return {name for name, mean in means.items() if mean == top}


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


def _card(entry: Entry) -> str:
    record, chosen = entry.record, entry.record["selected"]
    name = record.get("class_name", f"class {record['class']}")
    mask = np.clip(entry.pixel_mask, 0, 1)
    grey = np.repeat(np.round(255 * mask).astype(np.uint8)[..., None], 3, -1)
    masked = np.round(entry.picture * mask[..., None]).astype(np.uint8)
    pictures = (
        ("image", entry.picture),
        ("mask", grey),
        ("overlay", overlay(entry.picture, entry.pixel_mask)),
        ("masked", masked),
    )
    figures = "".join(
        f'<figure><img loading=lazy width={_SIDE} height={_SIDE} src="{_data(picture)}" '
        f'alt="{what} of {escape(record["image"])}"><figcaption>{what}</figcaption></figure>'
        for what, picture in pictures
    )
    facts = [
        f"p&nbsp;{record['probability']:.3f} → {chosen['probability']:.3f}",
        f"step {chosen['step']} of {record['steps']}",
        f"POS&nbsp;{chosen['pos']:.0f}",
        f"NEG&nbsp;{chosen['neg']:.0f}",
    ]
    if "iou" in chosen:
        facts.append(f"IoU&nbsp;{chosen['iou']:.0f}")
    return (
        f"<article><header><h2>{escape(str(name))}</h2>{_judgement(record)}"
        f"<code>{escape(record['image'])}</code></header>"
        f"<div class=pictures>{figures}</div>"
        f"<footer><span>{' · '.join(facts)}</span>{_curve(record)}</footer></article>"
    )


def _judgement(record: Mapping[str, Any]) -> str:
    if record["label"] is None:
        return ""
    if record["label"] == record["class"]:
        return "<span class=right>as labelled</span>"
    label = record.get("label_name", f"class {record['label']}")
    return f"<span class=wrong>label: {escape(str(label))}</span>"


def _data(picture: np.ndarray) -> str:
    if min(picture.shape[:2]) < _SIDE:
        times = -(-_SIDE // min(picture.shape[:2]))
        picture = picture.repeat(times, 0).repeat(times, 1)
    return "data:image/jpeg;base64," + base64.b64encode(encode(picture, "jpeg")).decode()


def _curve(record: Mapping[str, Any]) -> str:
    """The perturbation score over the steps, the selected one marked; nothing for a single step."""
    trace = record["trace"]["score"]
    if len(trace) == 1:
        return ""
    width, height = 110, 34
    step = (width - 8) / max(len(trace) - 1, 1)
    known = {i: score for i, score in enumerate(trace) if score is not None}
    points = {i: (4 + i * step, 4 + (1 - s / 90) * (height - 8)) for i, s in known.items()}
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points.values())
    x, y = points[record["selected"]["step"]]
    scores = list(known.values())
    return (
        f'<svg viewBox="0 0 {width} {height}" width={width} height={height} role=img '
        f'aria-label="score at each step, from {scores[0]:.0f} to {scores[-1]:.0f}">'
        f'<polyline points="{line}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="3"/></svg>'
    )


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1c20; --soft: #63666f; --line: #dcdee4;
  --page: #fbfbfc; --card: #fff; --accent: #9c176e; --right: #1d7a46; --wrong: #a8510c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e9ed; --soft: #9a9eaa; --line: #33363f;
  --page: #131418; --card: #1b1d23; --accent: #f08a3c; --right: #63c78d; --wrong: #f0a35e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1560px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 24px; margin: 0; font-weight: 650; }
.lead { color: var(--soft); margin: 4px 0 24px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; color: var(--soft); font-size: 13px;
  padding-top: 8px; }
th, td { padding: 7px 16px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: 400; }
thead th { font-weight: 600; }
th[scope=row] { text-align: left; padding-left: 0; font-weight: 500; }
td small { display: block; color: var(--soft); font-size: 11.5px; line-height: 1.2; }
details { margin: 20px 0; } summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; font-size: 12.5px; }
.gallery { display: grid; gap: 16px; margin: 28px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; }
article header { display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap; }
h2 { font-size: 15px; margin: 0; font-weight: 600; }
code { color: var(--soft); font-size: 12px; overflow-wrap: anywhere; }
header code { margin-left: auto; }
.right { color: var(--right); font-size: 12.5px; }
.wrong { color: var(--wrong); font-size: 12.5px; }
.pictures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px; margin: 8px 0 6px; }
figure { margin: 0; } img { width: 100%; height: auto; display: block; border-radius: 3px; }
figcaption { font-size: 11.5px; color: var(--soft); text-align: center; }
footer { display: flex; justify-content: space-between; align-items: center; gap: 8px;
  flex-wrap: wrap; font-size: 12.5px; color: var(--soft); font-variant-numeric: tabular-nums; }
polyline { fill: none; stroke: var(--soft); stroke-width: 1.5; } circle { fill: var(--accent); }
"""
