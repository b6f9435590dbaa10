"""The page on filters."""

from __future__ import annotations

import numpy as np

from ltx_jax.reporting.filters_page import Card, write_filters_page


def test_a_picture_that_is_gone_takes_no_other_ones_place(tmp_path):
    images = [
        {"name": f"{name}.png", "activation": value} for name, value in (("a", 3.0), ("b", 2))
    ]
    record = {"filter": 4, "threshold": 1.5, "words": [], "concepts": [], "images": images}
    cards = [Card(record, [None, np.zeros((2, 2, 3), np.uint8)])]
    summary = {"ours": {"supervised": {"5": None}}}
    write_filters_page(tmp_path / "filters.html", "Filters", cards, [record], summary)
    page = (tmp_path / "filters.html").read_text()
    assert page.count("<figure>") == 1 and 'alt="b.png"><figcaption>2<' in page
    assert 'alt="a.png"' not in page
