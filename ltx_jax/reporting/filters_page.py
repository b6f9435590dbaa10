"""The page of a layer's filters: where each fires, its words, and what it truly fires on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ltx_jax.reporting.overlays import data_uri, enlarged
from ltx_jax.reporting.pages import write_page

_SIDE = 112  # of a shown picture in pixels
_WORDS, _CONCEPTS, _FIRST_WORDS = 6, 8, 40


class Card(NamedTuple):
    """One filter: its line of `filters.jsonl`, and images where it fires most."""

    record: Mapping[str, Any]
    pictures: list[UInt8[np.ndarray, "H W 3"] | None]


def write_filters_page(
    path: Path,
    title: str,
    cards: Sequence[Card],
    records: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> None:
    """Write the page.

    Args:
      path: of the HTML file, replaced as a whole.
      title: of the page.
      cards: filters that are shown.
      records: lines of all filters.
      summary: recalls of the layer, by method, concepts and number of words.

    Raises:
      InputError: where the file cannot be written.
    """
    silent = sum(not record["words"] for record in records)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=lead>{len(records)} filters, {len(cards)} shown; {silent} never fire</p>",
        _table(summary),
        _layer(records),
        "<p><label>Filters with the word <input id=word type=search></label></p>",
        '<section class=gallery aria-label="Filters">',
        *map(_card, cards),
        "</section>",
    ]
    write_page(path, title, body, _STYLE, _SCRIPT)


def _table(summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Recalls, a row a method."""
    groups = next(iter(summary.values()))
    head = "".join(f"<th>{group}, {k} words</th>" for group, some in groups.items() for k in some)
    rows = []
    for method, of_method in summary.items():
        cells = "".join(_cell(value) for some in of_method.values() for value in some.values())
        rows.append(f"<tr><th scope=row>{escape(method)}</th>{cells}</tr>")
    return (
        f"<div class=scroll><table><caption>Of the concepts that a filter fires on, percent among "
        f"the first words; means over filters, 95 % bootstrap intervals. Highest overlap is what "
        f"knows the masks.</caption><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}"
        "</tbody></table></div>"
    )


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "<td>–</td>"
    return f"<td>{value['mean']:.1f}<small>{value['low']:.1f}–{value['high']:.1f}</small></td>"


def _layer(records: Sequence[Mapping[str, Any]]) -> str:
    """How many filters have each word first."""
    first = Counter(record["words"][0]["word"] for record in records if record["words"])
    most = max(first.values(), default=1)
    bars = "".join(_bar(word, n / most, str(n)) for word, n in first.most_common(_FIRST_WORDS))
    return f"<details open><summary>Filters by their first word</summary>{bars}</details>"


def _card(card: Card) -> str:
    record = card.record
    words = record["words"][:_WORDS]
    found = " ".join(word["word"] for word in record["words"])
    strongest = record["images"][0]["activation"] if record["images"] else 0
    pictures = "".join(
        f'<figure><img src="{data_uri(enlarged(picture, _SIDE))}" alt="{escape(one["name"])}">'
        f"<figcaption>{one['activation']:.3g}</figcaption></figure>"
        for picture, one in zip(card.pictures, record["images"], strict=False)
        if picture is not None
    )
    bars = "".join(_bar(one["word"], one["weight"], f"{one['weight']:.2f}") for one in words)
    return (
        f'<article data-words="{escape(found)}"><header><h2>filter {record["filter"]}</h2>'
        f"<code>region above {record['threshold']:.3g}, at most {strongest:.3g}</code></header>"
        f"<div class=pictures>{pictures}</div>{bars or '<p>It never fires.</p>'}"
        f"<footer>{_concepts(record['concepts'])}</footer></article>"
    )


def _concepts(concepts: Sequence[Mapping[str, Any]]) -> str:
    """What the filter fires on: the place of each among its words, and whether it was unseen."""
    told = []
    for one in concepts[:_CONCEPTS]:
        place = f"word {one['rank']}" if one["rank"] else "not found"
        unseen = "" if one["supervised"] else ", unseen"
        kind = "right" if one["rank"] else "wrong"
        told.append(
            f'<span class={kind} title="in {one["images"]} images, mean overlap '
            f'{one["overlap"]:.2f}">{escape(one["concept"])} ({place}{unseen})</span>'
        )
    return "fires on " + " ".join(told) if told else "fires on no concept that is known"


def _bar(word: str, share: float, told: str) -> str:
    return (
        f"<div class=bar><span>{escape(word)}</span><i style='width:{100 * share:.1f}%'></i>"
        f"<small>{told}</small></div>"
    )


_STYLE = """
.pictures { grid-template-columns: repeat(5, 1fr); }
.bar { display: grid; grid-template-columns: 9em 1fr 3em; gap: 8px; align-items: center;
  font-size: 13px; }
.bar i { display: block; height: 9px; background: var(--accent); border-radius: 2px; }
.bar small { color: var(--soft); text-align: right; }
details .bar { max-width: 520px; }
footer { justify-content: flex-start; margin-top: 6px; }
"""
_SCRIPT = """
const box = document.getElementById("word");
box.addEventListener("input", () => document.querySelectorAll("article").forEach(card => {
  card.hidden = !card.dataset.words.toLowerCase().includes(box.value.trim().toLowerCase());
}));
"""
