"""The page of an evaluation: whole, self-contained, and its figures drawn to scale."""

from __future__ import annotations

import re

import numpy as np
import pytest
from page import Balanced

from ltx_jax.metrics import SCORES
from ltx_jax.reporting.comparison import Comparison
from ltx_jax.reporting.evaluation_page import SameImage, write_evaluation_page

HOSTILE = "<script>alert(1)</script>\"'\udcff"


def value(mean: float, low: float, high: float) -> dict:
    return {"mean": mean, "low": low, "high": high}


APART = value(10.0, 5.0, 15.0) | {"n": 7, "p": 0.001, "p_holm": 0.003}
FOUND = Comparison(
    rows=7,
    images=7,
    methods={
        "selected": {"pos": value(20.0, 10.0, 40.0), "srg": value(-30.0, -60.0, -10.0)},
        HOSTILE: {"pos": value(30.0, 25.0, 35.0), "srg": value(15.0, 0.0, 60.0)},
    },
    counts={"selected": {"pos": 7, "srg": 7}, HOSTILE: {"pos": 7, "srg": 7}},
    reference="selected",
    differences={HOSTILE: {"pos": APART}},
    curves={"selected": {"pos": [1.0] + 9 * [0.0]}, HOSTILE: {"pos": 10 * [0.5]}},
    skipped=0,
    not_finite={},
)


def written(path, comparisons, images=(), remarks=("2 methods",)) -> str:
    write_evaluation_page(path / "p.html", "<title>", comparisons, remarks, {"a": "<u>"}, images)
    return (path / "p.html").read_text(errors="replace")


def same_image(channels: int = 3) -> SameImage:
    picture = np.random.default_rng(0).integers(0, 255, (20, 20, channels), np.uint8)
    mask = np.random.default_rng(1).random((20, 20))
    scores = {"selected": {"pos": 12.3, "iou": None}, HOSTILE: {"pos": 45.6, "neg": 7.0}}
    return SameImage(HOSTILE, HOSTILE, picture, dict.fromkeys(scores, mask), scores)


@pytest.mark.parametrize(("count", "channels"), [(0, 3), (2, 1), (3, 3)])
def test_page_is_whole_and_needs_nothing_else(tmp_path, count, channels):
    page = written(tmp_path, {"the label": FOUND}, [same_image(channels)] * count)
    read = Balanced(page)
    assert read.seen.count("script") == 1 and not {"em", "u"} & set(read.seen)
    assert read.seen.count("article") == count
    assert read.seen.count("img") == 3 * count  # the image, and it under two methods
    assert all(link.startswith("data:image/") for link in read.links)
    assert not re.search(r"https?://", page)
    if count:
        assert "POS&nbsp;12<" in page and "POS&nbsp;46 · NEG&nbsp;7<" in page


def test_the_table_can_be_sorted(tmp_path):
    page = written(tmp_path, {"the label": FOUND})
    for name in ("pos", "srg"):
        score = SCORES[name]
        assert f"aria-sort=none data-better={score.better}><button" in page
        assert f"{score.low:g} to {score.high:g}, {score.better} is better" in page
    assert re.findall(r"<td data-value=([-\d.]+)>", page) == ["20.0", "-30.0", "30.0", "15.0"]
    assert "<td data-value=20.0><b>20.00</b>" in page and "<td data-value=30.0>30.00<" in page
    assert "<td data-value=-30.0>-30.00<" in page and "<td data-value=15.0><b>15.00</b>" in page
    told = "+5.00 to +15.00 over 7 rows, p 0.001, after correction 0.003"
    assert f'<small title="{told}">+10.00*</small>' in page


def test_a_score_that_is_neither_good_nor_bad_has_no_arrow_and_no_best_method(tmp_path):
    means = {"selected": {"area": value(40.0, 39.0, 41.0)}, "x": {"area": value(20.0, 19.0, 21.0)}}
    counts = {name: {"area": 2} for name in means}
    page = written(tmp_path, {"the label": Comparison(2, 2, means, counts, None, {}, {}, 0, {})})
    title = 'title="mean of the mask; 0 to 100"'
    assert f"<th scope=col aria-sort=none><button type=button {title}>area</button></th>" in page
    assert "<td data-value=40.0>40.00<" in page and "<td data-value=20.0>20.00<" in page
    assert f"<figcaption {title}>area</figcaption>" in page


def test_bars_begin_at_zero_and_end_at_the_mean(tmp_path):
    page = written(tmp_path, {"the label": FOUND})
    pos, srg = re.findall(r"<figure class=bars>.*?</figure>", page, re.DOTALL)
    # POS spans 0 to 40 on 220 units from 190: 5.5 each.
    assert re.findall(r'<rect x="([\d.]+)" .*? width="([\d.]+)"', pos) == [
        ("190.0", "110.0"),
        ("190.0", "165.0"),
    ]
    assert '<polyline points="245.0,11.0 410.0,11.0"/>' in pos  # its interval, 10 to 40
    # SRG spans -60 to 60: 0 is in the middle.
    assert re.findall(r'<rect x="([\d.]+)" .*? width="([\d.]+)"', srg) == [
        ("245.0", "55.0"),
        ("300.0", "27.5"),
    ]
    assert pos.count("<g class=reference>") == 1


def test_curves_are_drawn_to_scale(tmp_path):
    page = written(tmp_path, {"the label": FOUND})
    (figure,) = re.findall(r"<figure class=curves>.*?</figure>", page, re.DOTALL)
    first, second = re.findall(r'<polyline class=(\w+) style="\S+ \S+ \S+ points="(.*?)"', figure)
    assert first[0] == "reference" and second[0] == "other"
    # Left to right 30 to 290, and 1 to 0 from 10 down to 160.
    assert first[1].split() == ["30.0,10.0"] + [
        f"{30 + 260 * i / 9:.1f},160.0" for i in range(1, 10)
    ]
    assert {point.split(",")[1] for point in second[1].split()} == {"85.0"}
    # Lower is better: the better is first in the legend.
    assert figure.index("<b>20.00</b>") < figure.index("<b>30.00</b>")


def test_a_section_for_each_class_and_one_without_rows(tmp_path):
    nothing = Comparison(
        0, 0, {"selected": {}}, {"selected": {}}, None, {}, {"selected": {}}, 0, {}
    )
    read = Balanced(written(tmp_path, {"the predicted class": FOUND, "the label": nothing}))
    assert read.seen.count("table") == 1
    assert "Scores for the predicted class" in read.text
    assert "Scores for the labelNo row was scored." in read.text


def test_remarks_are_told(tmp_path):
    page = written(tmp_path, {"the label": FOUND}, remarks=("2 methods", "1 mask of <b> is odd"))
    assert "1 mask of &lt;b&gt; is odd" in page
