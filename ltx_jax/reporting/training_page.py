"""The page of a training: losses and scores by epoch, and how masks came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics import SCORES
from ltx_jax.reporting.overlays import data_uri, enlarged, in_colour, overlay
from ltx_jax.reporting.pages import heading, meaning, settings_block, write_page

_WIDE, _HIGH, _MARGIN = 300, 150, 40
_SIDE = 112  # of a shown picture in pixels
_MOST_EPOCHS = 10


class Watched(NamedTuple):
    """An image held out, and its mask after each epoch.

    Attributes:
      name: of the image.
      picture: uint8 [H,W,C].
      masks: token masks in [0,1], by epoch.
    """

    name: str
    picture: UInt8[np.ndarray, "H W C"]
    masks: Float[np.ndarray, "epochs g h"]


def write_training_page(
    path: Path,
    name: str,
    epochs: Sequence[Mapping[str, Any]],
    watched: Sequence[Watched],
    settings: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
      path: of the HTML file, replaced as a whole.
      name: of the training, in small letters.
      epochs: of each its `losses` and `scores` by name.
      watched: images whose masks are shown, after epochs evenly spread.
      settings: shown as they are.

    Raises:
      InputError: where the file cannot be written.
    """
    losses = {
        name: [e["losses"][name] for e in epochs if name in e["losses"]]
        for name in epochs[0]["losses"]
    }
    scores = {name: [e["scores"][name] for e in epochs] for name in epochs[0]["scores"]}
    title = name.capitalize()
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=lead>{len(epochs)} epoch{'s' * (len(epochs) != 1)}</p>",
        "<h2>Loss and its terms, means over an epoch</h2><div class=figures>",
        *(_chart(escape(name.replace("_", " ")), "", values) for name, values in losses.items()),
        "</div><h2>Images held out</h2><div class=figures>",
        *(_chart(*_described(name), values) for name, values in scores.items()),
        "</div>",
        *map(_masks, watched),
        settings_block("Settings", settings),
    ]
    write_page(path, title, body, _STYLE)


def _described(name: str) -> tuple[str, str]:
    """The title of what is told of the images held out, and what it means."""
    if name not in SCORES:
        return escape(name.replace("_", " ")), ""
    score = SCORES[name]
    return heading(score), meaning(score)


def _chart(title: str, told: str, values: Sequence[float]) -> str:
    """A curve over epochs, with its least and greatest value at the axis."""
    low, high = min(values), max(values)
    span, steps = (high - low) or 1.0, max(len(values) - 1, 1)
    points = [
        (_MARGIN + (_WIDE - _MARGIN - 10) * i / steps, 10 + (_HIGH - 30) * (high - value) / span)
        for i, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    last = f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="3"/>'
    bottom = _HIGH - 20
    axis = f"{_MARGIN},10 {_MARGIN},{bottom} {_WIDE - 10},{bottom}"
    return (
        f'<figure title="{escape(told)}"><figcaption>{title}: {values[-1]:.4g}</figcaption>'
        f'<svg viewBox="0 0 {_WIDE} {_HIGH}" width={_WIDE} height={_HIGH} role=img '
        f'aria-label="from {values[0]:.4g} to {values[-1]:.4g}"><polyline class=axis '
        f'points="{axis}"/><text x=0 y=14>{high:.4g}</text><text x=0 y={bottom}>{low:.4g}</text>'
        f"<text x={_MARGIN} y={_HIGH - 4}>0</text><text x={_WIDE - 10} y={_HIGH - 4} "
        f'text-anchor=end>epoch {len(values) - 1}</text><polyline points="{line}"/>{last}</svg>'
        "</figure>"
    )


def _masks(one: Watched) -> str:
    """An image beside its masks after some of the epochs, the last among them."""
    count, picture = len(one.masks), in_colour(one.picture)
    shown = sorted({round(i) for i in np.linspace(0, count - 1, min(count, _MOST_EPOCHS))})
    pixels = upsample(one.masks[shown], picture.shape[:2])
    figures = [_figure(picture, "")]
    for epoch, mask in zip(shown, pixels, strict=True):
        figures.append(_figure(overlay(picture, mask), f"epoch {epoch}"))
    return (
        f"<article><header><code>{escape(one.name)}</code></header>"
        f"<div class=epochs>{''.join(figures)}</div></article>"
    )


def _figure(picture: UInt8[np.ndarray, "H W 3"], told: str) -> str:
    source = data_uri(enlarged(picture, _SIDE))
    return f'<figure><img src="{source}" alt=""><figcaption>{told}</figcaption></figure>'


_STYLE = """
.figures { display: flex; flex-wrap: wrap; gap: 20px; margin: 8px 0 24px; }
svg text { font-size: 11.5px; fill: var(--soft); } svg .axis { stroke: var(--line); }
.epochs { display: grid; grid-template-columns: repeat(11, 1fr); gap: 6px; margin-top: 8px; }
article { margin-bottom: 12px; }
"""
