"""A layer's filters in words, to files: a line each, recalls, and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from ltx_jax.files import encode_json, write_bytes, write_json
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics.filter_recall import FIRST, recall
from ltx_jax.reporting.filters_page import Card, write_filters_page
from ltx_jax.reporting.overlays import in_colour, outlined
from ltx_jax.reporting.summary import aligned, interval

# A filter a line; recalls of the layer; and the page.
LINES, SUMMARY, PAGE = "filters.jsonl", "filters.json", "filters.html"
OURS = "its words"
_SHOWN = 5  # images of a filter on the page
_MOST = max(FIRST)  # words and concepts of a filter that are written

# Recall among the first 5, 10 and 20 words in percent, [f] each, by the method, then by which
# concepts are asked for; NaN where a filter fires on none.
Recalls = dict[str, dict[str, dict[int, np.ndarray]]]
Record = dict[str, Any]
Picture = UInt8[np.ndarray, "H W C"]


class Explained(NamedTuple):
    """What is known of f filters in the p images where each fires most.

    Attributes:
      filters: their numbers in the layer.
      thresholds: of their activations.
      images, values: the images' numbers, and the greatest activation in each, in descending order;
        −∞ where there is no image.
      fired: activations over cells.
      overlaps: sums over the images of the overlap of a filter's region with each word's concept.
      truth: whether it fires on the concept.
      words, weights: of each filter, the heaviest first.
      frequent: how many of all images show each word's concept.
      seed: of random words.
    """

    filters: Int[np.ndarray, " f"]
    thresholds: Float32[np.ndarray, " f"]
    images: Int[np.ndarray, "f p"]
    values: Float32[np.ndarray, "f p"]
    fired: Float32[np.ndarray, "f p g h"]
    overlaps: Float32[np.ndarray, "f words"]
    truth: Bool[np.ndarray, "f p words"]
    words: Int[np.ndarray, "f words"]
    weights: Float32[np.ndarray, "f words"]
    frequent: Int[np.ndarray, " words"]
    seed: int


class Told(NamedTuple):
    """What things are called.

    Attributes:
      explainee, layer: whose filters they are.
      images: names of all images.
      words: names of all words.
      supervised: which of these the word network was told of.
    """

    explainee: str
    layer: str
    images: tuple[str, ...]
    words: tuple[str, ...]
    supervised: Bool[np.ndarray, " words"]


def write_filters(
    directory: Path,
    found: Explained,
    told: Told,
    picture: Callable[[int], Picture | None],
    gallery: int,
) -> str:
    """Write `filters.jsonl`, `filters.json` and `filters.html`.

    Args:
      directory: is there.
      found: of the filters.
      told: names.
      picture: an image by its number; None where it cannot be read.
      gallery: most filters shown on the page.

    Returns:
      The table of recalls, for people.

    Raises:
      InputError: where a file cannot be written.
    """
    recalls = recalls_of(found, told)
    records = records_of(found, told, recalls)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_bytes(directory / LINES, encode_json(lines))
    summary = summary_of(recalls)
    about = {"explainee": told.explainee, "layer": told.layer, "filters": len(records)}
    write_json(directory / SUMMARY, {**about, "recall": summary})
    shown = range(len(records))[:gallery]
    cards = [Card(records[row], _pictures(found, row, picture)) for row in shown]
    title = f"Filters of {told.layer} in {told.explainee}"
    write_filters_page(directory / PAGE, title, cards, records, summary)
    return f"{directory / PAGE}: {len(records)} filters\n{table(summary)}"


def recalls_of(found: Explained, told: Told) -> Recalls:
    """Recalls of the filters' own words, and of yardsticks: random words, the most frequent ones,
    and the concepts with the highest overlap, which is network dissection's answer."""
    filters, count = found.words.shape
    rng = np.random.default_rng(found.seed)
    one = np.ones((filters, count), np.float32)
    frequent = np.argsort(-found.frequent, kind="stable")
    methods = {
        OURS: (found.words, found.weights),
        "random words": (rng.permuted(np.tile(np.arange(count), (filters, 1)), axis=1), one),
        "most frequent words": (np.tile(frequent, (filters, 1)), one),
        "highest overlap": (np.argsort(-found.overlaps, axis=1, kind="stable"), one),
    }
    groups = {"supervised": told.supervised, "unseen": ~told.supervised}
    truth = jnp.asarray(found.truth)
    return {
        method: {
            group: {
                first: np.asarray(
                    recall(
                        jnp.asarray(words, jnp.int32),
                        jnp.asarray(weights),
                        truth,
                        first,
                        jnp.asarray(counted),
                    )
                )
                for first in FIRST
            }
            for group, counted in groups.items()
        }
        for method, (words, weights) in methods.items()
    }


def summary_of(recalls: Recalls) -> dict[str, dict[str, dict[str, Any]]]:
    """Means over the filters with 95 % bootstrap intervals; None where no filter fires on any."""
    return {
        method: {
            group: {
                str(first): None if np.isnan(values).all() else interval(values)
                for first, values in of_group.items()
            }
            for group, of_group in groups.items()
        }
        for method, groups in recalls.items()
    }


def records_of(found: Explained, told: Told, recalls: Recalls) -> list[Record]:
    """The line of each filter."""
    return [_record(found, told, recalls, row) for row in range(len(found.filters))]


def _record(found: Explained, told: Told, recalls: Recalls, row: int) -> Record:
    words, weights = found.words[row], found.weights[row]
    ranks = {int(word): k for k, word in enumerate(words, 1) if weights[k - 1] > 0}
    times = found.truth[row].sum(0)
    seen = np.flatnonzero(times)
    seen = seen[np.lexsort((-found.overlaps[row, seen], -times[seen]))]
    slots = np.flatnonzero(found.values[row] > 0)
    return {
        "filter": int(found.filters[row]),
        "threshold": round(float(found.thresholds[row]), 5),
        "words": [
            {"word": told.words[word], "weight": round(float(weight), 4)}
            for word, weight in zip(words[:_MOST], weights[:_MOST], strict=True)
            if weight > 0
        ],
        "images": [
            {
                "name": told.images[found.images[row, slot]],
                "activation": round(float(found.values[row, slot]), 5),
            }
            for slot in slots
        ],
        "concepts": [
            {
                "concept": told.words[word],
                "images": int(times[word]),
                "overlap": round(float(found.overlaps[row, word] / len(slots)), 4),
                "supervised": bool(told.supervised[word]),
                "rank": ranks.get(int(word)),
            }
            for word in seen[:_MOST].tolist()
        ],
        "recall": {
            group: {str(first): _known(float(values[row])) for first, values in of_group.items()}
            for group, of_group in recalls[OURS].items()
        },
    }


def table(summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Plain text: a row a method, recall among the first words of supervised and unseen concepts
    in percent."""
    first = next(iter(summary.values()))
    head = ["recall, %", *(f"{group} R@{k}" for group, of_group in first.items() for k in of_group)]
    body = [
        [method, *(_cell(value) for of_group in groups.values() for value in of_group.values())]
        for method, groups in summary.items()
    ]
    return aligned([head, *body])


def _cell(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{value['mean']:.1f} ({value['low']:.0f}–{value['high']:.0f})"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 2)


def _pictures(
    found: Explained, row: int, picture: Callable[[int], Picture | None]
) -> list[UInt8[np.ndarray, "H W 3"] | None]:
    """Images where the filter fires most, its region outlined; None for one that cannot be read
    any more."""
    shown: list[UInt8[np.ndarray, "H W 3"] | None] = []
    for slot in np.flatnonzero(found.values[row] > 0)[:_SHOWN]:
        image = picture(int(found.images[row, slot]))
        if image is None:
            shown.append(None)
            continue
        fired = upsample(found.fired[row, slot], image.shape[:2])
        shown.append(outlined(in_colour(image), fired > found.thresholds[row]))
    return shown
