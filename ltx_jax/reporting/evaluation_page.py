"""The page of an evaluation: methods in a table, as bars and curves, and on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import Score
from ltx_jax.reporting.class_table import ClassTables, matrices
from ltx_jax.reporting.comparison import Comparison, Difference
from ltx_jax.reporting.overlays import data_uri, enlarged, in_colour, overlay
from ltx_jax.reporting.pages import best_methods, heading, meaning, settings_block, write_page
from ltx_jax.reporting.summary import Interval, scores_in
from ltx_jax.reporting.tables import Comparisons, costs, is_sure, legend
from ltx_jax.reporting.titles import title_of

_SIDE = 112  # of a shown picture in pixels
_UNDER_PICTURES = ("pos", "neg", "iou")
# A figure of bars: widths of names, bars and numbers, and the height of a row.
_NAMES, _BARS, _NUMBERS, _ROW = 190, 220, 50, 22
_LONGEST = 24  # letters of a name that fit
# A figure of curves.
_WIDE, _HIGH, _MARGIN = 300, 190, 30


class SameImage(NamedTuple):
    """An image under all methods: its name, the class's, the picture uint8 [H,W,C], and by method
    the pixel mask [H,W] and its scores."""

    image: str
    about: str
    picture: UInt8[np.ndarray, "H W C"]
    pixel_masks: Mapping[str, Float[np.ndarray, "H W"]]
    scores: Mapping[str, Mapping[str, Any]]


def write_evaluation_page(
    path: Path,
    title: str,
    comparisons: Comparisons,
    remarks: Sequence[str],
    facts: Mapping[str, Any],
    images: Iterable[SameImage],
    class_tables: ClassTables | None = None,
) -> None:
    """Write the page.

    Args:
      path: of the HTML file, replaced as a whole.
      title: of the evaluation.
      comparisons: by the class that is scored for.
      remarks: what else there is to know, a line each.
      facts: settings, shown as they are.
      images: shown under all methods, one after another.
      class_tables: image class × mask class, where there are such.

    Raises:
      InputError: where the file cannot be written.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [f"<p class=lead>{escape(remark)}</p>" for remark in remarks]
    for about, comparison in comparisons.items():
        parts += _section(about, comparison)
    if class_tables:
        parts += matrices(class_tables)
    if cards := [*map(_image, images)]:
        parts.append("<h2>The same image under all methods</h2><section class=images>")
        parts += [*cards, "</section>"]
    if told := costs(comparisons):
        each = "".join(f"<li>{escape(one)}</li>" for one in told)
        parts.append(f"<details><summary>What an image costs</summary><ul>{each}</ul></details>")
    parts.append(settings_block("Settings", facts))
    write_page(path, title, parts, _STYLE, _SORT)


def _section(about: str, comparison: Comparison) -> list[str]:
    scores = scores_in(comparison.methods)
    if not scores:
        return [f"<h2>Scores for {escape(about)}</h2><p>No row was scored.</p>"]
    return [
        f"<h2>Scores for {escape(about)}</h2>",
        _table(comparison, scores),
        "<div class=figures>",
        *(_bars(comparison, score) for score in scores),
        "</div>",
        *_curves(comparison),
    ]


# --- The table ------------------------------------------------------------------------------------


def _table(comparison: Comparison, scores: Sequence[Score]) -> str:
    best = {score.name: best_methods(score, comparison.methods) for score in scores}
    rows = []
    for name, values in comparison.methods.items():
        apart = comparison.differences.get(name, {})
        cells = "".join(
            _cell(values.get(s.name), name in best[s.name], apart.get(s.name)) for s in scores
        )
        rows.append(f"<tr><th scope=row>{escape(title_of(name))}</th>{cells}</tr>")
    return (
        f"<div class=scroll><table class=sortable><caption>{escape(legend(comparison))} A click on "
        "a score sorts by it, the best first.</caption>"
        f"<thead><tr><td></td>{''.join(map(_head, scores))}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _head(score: Score) -> str:
    better = "" if score.better is None else f" data-better={score.better}"
    return (
        f"<th scope=col aria-sort=none{better}><button type=button "
        f'title="{escape(meaning(score))}">{heading(score)}</button></th>'
    )


def _cell(value: Interval | None, best: bool, apart: Difference | None) -> str:
    if value is None:
        return "<td>–</td>"
    mean = f"{value['mean']:.2f}"
    parts = [
        f"<b>{mean}</b>" if best else mean,
        f"<small>{value['low']:.1f}–{value['high']:.1f}</small>",
    ]
    if apart is not None:
        star = "*" if is_sure(apart) else ""
        parts.append(f'<small title="{_told(apart)}">{apart["mean"]:+.2f}{star}</small>')
    return f"<td data-value={value['mean']}>{''.join(parts)}</td>"


def _told(apart: Difference) -> str:
    told = f"{apart['low']:+.2f} to {apart['high']:+.2f} over {apart['n']} rows"
    if apart["p"] is None:
        return told
    return f"{told}, p {apart['p']:.2g}, after correction {apart['p_holm']:.2g}"


# --- Bars and curves ------------------------------------------------------------------------------


def _bars(comparison: Comparison, score: Score) -> str:
    """A bar a method from 0 to the mean of a score, with its interval."""
    rows = [(m, row[score.name]) for m, row in comparison.methods.items() if score.name in row]
    least = min(0.0, *(value["low"] for _, value in rows))
    span = max(0.0, *(value["high"] for _, value in rows)) - least or 1.0

    def at(value: float) -> float:
        return _NAMES + _BARS * (value - least) / span

    drawn = []
    for i, (name, value) in enumerate(rows):
        mean, middle = value["mean"], i * _ROW + _ROW / 2
        left, right = sorted((at(0), at(mean)))
        kind = " class=reference" if name == comparison.reference else ""
        drawn.append(
            f"<g{kind}><title>{escape(title_of(name))}: {mean:.2f} ({value['low']:.2f} to "
            f"{value['high']:.2f})</title>"
            f'<text x="{_NAMES - 8}" y="{middle + 4}" text-anchor="end">{_shortened(name)}</text>'
            f'<rect x="{left:.1f}" y="{middle - 6}" width="{right - left:.1f}" height="12"/>'
            f'<polyline points="{at(value["low"]):.1f},{middle} {at(value["high"]):.1f},{middle}"/>'
            f'<text x="{_NAMES + _BARS + 8}" y="{middle + 4}">{mean:.2f}</text></g>'
        )
    width, height = _NAMES + _BARS + _NUMBERS, len(rows) * _ROW
    return (
        f'<figure class=bars><figcaption title="{escape(meaning(score))}">{escape(score.heading)}'
        f'</figcaption><svg viewBox="0 0 {width} {height}" width={width} '
        f'height={height} role=img aria-label="{escape(score.title)} of each method">'
        f"{''.join(drawn)}"
        f'<polyline class=axis points="{at(0):.1f},0 {at(0):.1f},{height}"/></svg></figure>'
    )


def _shortened(name: str) -> str:
    title = title_of(name)
    return escape(title if len(title) <= _LONGEST else title[: _LONGEST - 1] + "…")


def _curves(comparison: Comparison) -> list[str]:
    """A figure for each score that is an area under curves: the mean curve of each method."""
    names = [name for name in SCORES if any(name in c for c in comparison.curves.values())]
    if not names:
        return []
    figures = (_curve_figure(comparison, SCORES[name]) for name in names)
    return [
        "<h3>Perturbation curves</h3><p class=lead>Means over the rows, as tenth after tenth of "
        "the pixels is blackened; with each method the area.</p><div class=figures>",
        *figures,
        "</div>",
    ]


def _curve_figure(comparison: Comparison, score: Score) -> str:
    methods = [name for name, curves in comparison.curves.items() if score.name in curves]
    areas = {name: comparison.methods[name][score.name]["mean"] for name in methods}
    lines, entries = [], {}
    for i, name in enumerate(methods):
        hue, title = 360 * i / len(methods), escape(title_of(name))
        kind = "reference" if name == comparison.reference else "other"
        lines.append(
            f'<polyline class={kind} style="stroke:hsl({hue:.0f} 65% 50%)" '
            f'points="{_points(comparison.curves[name][score.name])}">'
            f"<title>{title}: {areas[name]:.2f}</title></polyline>"
        )
        entries[name] = (
            f'<li class={kind}><span style="background:hsl({hue:.0f} 65% 50%)"></span>'
            f"<i>{title}</i><b>{areas[name]:.2f}</b></li>"
        )
    order = sorted(methods, key=lambda name: areas[name], reverse=score.better == "higher")
    bottom, right = _HIGH - _MARGIN, _WIDE - 10
    return (
        f'<figure class=curves><figcaption title="{escape(meaning(score))}">{escape(score.heading)}'
        f'</figcaption><svg viewBox="0 0 {_WIDE} {_HIGH}" width={_WIDE} '
        f'height={_HIGH} role=img aria-label="mean perturbation curves of {escape(score.title)}">'
        f'<polyline class=axis points="{_MARGIN},10 {_MARGIN},{bottom} {right},{bottom}"/>'
        f'<text x="{_MARGIN - 5}" y="14" text-anchor="end">1</text>'
        f'<text x="{_MARGIN - 5}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_MARGIN}" y="{_HIGH - 14}">0</text>'
        f'<text x="{right}" y="{_HIGH - 14}" text-anchor="end">90 % of the pixels gone</text>'
        f"{''.join(lines)}</svg><ol>{''.join(entries[name] for name in order)}</ol></figure>"
    )


def _points(curve: Sequence[float]) -> str:
    """Of values in [0,1], the first at the left."""
    width, height = _WIDE - _MARGIN - 10, _HIGH - _MARGIN - 10
    each = enumerate(curve)
    return " ".join(
        f"{_MARGIN + width * i / (len(curve) - 1):.1f},{10 + height * (1 - value):.1f}"
        for i, value in each
    )


# --- Images ---------------------------------------------------------------------------------------


def _image(shown: SameImage) -> str:
    figures = [_figure(in_colour(shown.picture), shown.image, "image", "")]
    figures += [
        _figure(
            overlay(shown.picture, mask), shown.image, title_of(name), _numbers(shown.scores[name])
        )
        for name, mask in shown.pixel_masks.items()
    ]
    return (
        f"<article><header><h3>{escape(shown.about)}</h3><code>{escape(shown.image)}</code>"
        f"</header><div class=methods>{''.join(figures)}</div></article>"
    )


def _figure(picture: UInt8[np.ndarray, "H W 3"], image: str, what: str, told: str) -> str:
    return (
        f'<figure><img loading=lazy src="{data_uri(enlarged(picture, _SIDE))}" '
        f'alt="{escape(what)} of {escape(image)}"><figcaption>{escape(what)}'
        f"<small>{told}</small></figcaption></figure>"
    )


def _numbers(scores: Mapping[str, Any]) -> str:
    known = ((SCORES[name].title, scores.get(name)) for name in _UNDER_PICTURES)
    return " · ".join(f"{title}&nbsp;{value:.0f}" for title, value in known if value is not None)


_STYLE = """
h3 { font-size: 15px; margin: 0; font-weight: 600; }
main > h2 { font-size: 19px; margin: 36px 0 12px; } main > h3 { margin: 24px 0 0; }
main > h3 + .lead { margin-bottom: 8px; } .lead + .lead { margin-top: -20px; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button, th[aria-sort=descending] button { text-decoration: underline; }
td { vertical-align: top; } .matrix td { text-align: center; padding: 7px 10px; }
.figures { display: flex; flex-wrap: wrap; gap: 24px 32px; margin: 20px 0; }
.figures figcaption { font-size: 13.5px; text-align: left; color: var(--ink); font-weight: 600; }
.figures svg { max-width: 100%; height: auto; } svg text { font-size: 11.5px; fill: var(--soft); }
.bars rect { fill: var(--soft); opacity: .45; } .bars .reference rect { fill: var(--accent); }
.bars polyline { stroke: var(--ink); } svg .axis { stroke: var(--line); }
.curves { width: 300px; } .curves polyline.reference { stroke-width: 3; }
.curves polyline:hover { stroke-width: 5; }
.curves ol { list-style: none; margin: 0; padding: 0; font-size: 12.5px; }
.curves li { display: flex; gap: 6px; align-items: center; }
.curves li i { flex: 1; font-style: normal; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.curves li span { flex: none; width: 14px; height: 3px; }
.curves li b { font-weight: 500; font-variant-numeric: tabular-nums; }
.curves li.reference { font-weight: 600; }
.images { display: grid; gap: 16px; }
.methods { display: grid; gap: 8px; margin-top: 8px;
  grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); }
.methods figcaption { line-height: 1.3; overflow-wrap: anywhere; }
figcaption small { display: block; }
"""

_SORT = """
for (const button of document.querySelectorAll("table.sortable th button"))
  button.addEventListener("click", () => {
    const head = button.closest("th"), row = head.parentElement, table = head.closest("table");
    const column = [...row.children].indexOf(head), body = table.tBodies[0];
    const first = head.dataset.better === "lower" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.ariaSort === first ? other : first;
    for (const one of row.querySelectorAll("th")) one.ariaSort = "none";
    head.ariaSort = order;
    const value = line => {
      const told = line.children[column].dataset.value;
      return told === undefined ? Infinity : (order === "ascending" ? 1 : -1) * Number(told);
    };
    body.append(...[...body.rows].sort((a, b) => value(a) - value(b) || 0));
  });
"""
