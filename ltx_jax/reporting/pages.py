"""What all pages are made of: one file, with its style, that needs no other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ltx_jax.files import write_bytes
from ltx_jax.metrics.score import Score
from ltx_jax.reporting.summary import Interval


def write_page(
    path: Path, title: str, body: Sequence[str], style: str = "", script: str = ""
) -> None:
    """Write a page, as a whole or not at all.

    Args:
      path: of the HTML file.
      title: of the page.
      body: its parts, as HTML.
      style: beyond that of all pages.
      script: run once the page is there.

    Raises:
      InputError: where the file cannot be written.
    """
    page = _PAGE.format(
        title=escape(title),
        style=_STYLE + style,
        body="\n".join(body),
        script=f"<script>{script}</script>" if script else "",
    )
    write_bytes(path, page.encode(errors="replace"))


def settings_block(title: str, facts: Mapping[str, Any]) -> str:
    """Settings as they are, folded away under a title."""
    told = escape(json.dumps(facts, indent=2, ensure_ascii=False))
    return f"<details><summary>{title}</summary><pre>{told}</pre></details>"


def meaning(score: Score) -> str:
    """A score in one line."""
    told = f"{score.meaning}; {score.low:g} to {score.high:g}"
    return told if score.better is None else f"{told}, {score.better} is better"


def heading(score: Score) -> str:
    """A score's title and its better way, on one line of a page."""
    title = escape(score.title)
    return f"{title}&nbsp;{score.arrow}" if score.arrow else title


def best_methods(score: Score, methods: Mapping[str, Mapping[str, Interval]]) -> set[str]:
    """The methods with the best mean of a score; none where neither way is better."""
    if score.better is None:
        return set()
    means = {name: row[score.name]["mean"] for name, row in methods.items() if score.name in row}
    top = (min if score.better == "lower" else max)(means.values())
    return {name for name, mean in means.items() if mean == top}


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main>{script}</body></html>
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
