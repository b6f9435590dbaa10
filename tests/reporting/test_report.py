"""The page: whole, self-contained, and safe from hostile names."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ltx_jax.reporting.report import Entry, write_report

VALUE = {"mean": 10.0, "low": 8.0, "high": 12.0}
METHODS = {"selected": {"pos": VALUE, "neg": VALUE}, "<b>rival</b>": {"pos": VALUE | {"mean": 5.0}}}
SCORES = {"step": 1, "pos": 10.0, "neg": 60.0, "probability": 0.7}


class Balanced(HTMLParser):
    """Collects tags and checks that they close in order."""

    void = frozenset({"meta", "img", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag


def entry(name: str) -> Entry:
    record = {
        "row": 0,
        "image": name,
        "class": 3,
        "label": 4,
        "probability": 0.9,
        "steps": 2,
        "trace": {"score": [20.0, 10.0], "loss": [1.0, 0.5]},
        "selected": SCORES,
    }
    picture = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    return Entry(record, picture, np.random.default_rng(1).random((20, 20)))


@pytest.mark.parametrize("count", [0, 1, 40])
def test_page_is_whole_and_needs_nothing_else(tmp_path, count):
    hostile = "<script>alert(1)</script>\"'.jpg"
    entries = [entry(hostile) for _ in range(count)]
    records = [e.record for e in entries] + [{"row": 1, "image": hostile, "skipped": "<i>bad</i>"}]
    write_report(tmp_path / "r.html", "<title>", METHODS, {"device": "cpu"}, entries, records)
    page = (tmp_path / "r.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in parser.seen and "i" not in parser.seen
    assert parser.seen.count("article") == count
    assert all(link.startswith("data:image/") for link in parser.links)
    assert not re.search(r"https?://", page)
    assert "1 skipped" in page
    assert page.count("<b>5.00</b>") == (1 if count else 0)  # the best POS is bold
