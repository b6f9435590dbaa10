"""The page: whole, self-contained, and safe from hostile names."""

import re

import numpy as np
import pytest
from page import Balanced

from ltx_jax.metrics import SCORES
from ltx_jax.reporting.overlays import class_colour
from ltx_jax.reporting.report import Entry, write_report

VALUE = {"mean": 10.0, "low": 8.0, "high": 12.0}
METHODS = {"selected": {"pos": VALUE, "neg": VALUE}, "<b>rival</b>": {"pos": VALUE | {"mean": 5.0}}}
HOSTILE = "<script>alert(1)</script>\"'\udcff.jpg"
RECORD = {
    "row": 0,
    "image": HOSTILE,
    "class": 3,
    "label": 4,
    "probability": 0.9,
    "steps": 2,
    "trace": {"score": [20.0, 10.0], "loss": [1.0, 0.5]},
}
SHOWN = {"step": 1, "pos": 10.0, "neg": 60.0, "probability": 0.7}


def entry(record: dict, scores: dict, channels: int = 3) -> Entry:
    picture = np.random.default_rng(0).integers(0, 255, (20, 20, channels), np.uint8)
    return Entry(record, scores, picture, np.random.default_rng(1).random((20, 20)))


def written(path, entries, methods=METHODS, facts=None, skipped=()) -> str:
    records = [one.record for one in entries] + list(skipped)
    write_report(path / "r.html", "<title>", methods, facts or {}, entries, records)
    return (path / "r.html").read_text()


@pytest.mark.parametrize(("count", "channels"), [(0, 3), (1, 3), (1, 1), (40, 3)])
def test_page_is_whole_and_needs_nothing_else(tmp_path, count, channels):
    entries = [entry(RECORD, SHOWN, channels) for _ in range(count)]
    skipped = {"row": 1, "image": HOSTILE, "skipped": "<i>bad</i>"}
    page = written(tmp_path, entries, facts={"device": "<u>"}, skipped=[skipped])
    read = Balanced(page)
    assert not {"script", "i", "u"} & set(read.seen)
    assert read.seen.count("article") == count
    assert read.seen.count("img") == 4 * count
    assert all(link.startswith("data:image/") for link in read.links)
    assert not re.search(r"https?://", page)
    assert "1 skipped" in page
    assert page.count("<b>5.00</b>") == (1 if count else 0)  # the best POS is bold


def test_every_score_is_in_the_table(tmp_path):
    methods = {
        "integrated_gradients": dict.fromkeys(SCORES, VALUE),
        "selected": dict.fromkeys(SCORES, VALUE | {"mean": 11.0}),
        "pltx": {},
    }
    page = written(tmp_path, [entry(RECORD, SHOWN)], methods)
    text = Balanced(page).text.replace("\xa0", " ")
    for score in SCORES.values():
        assert score.heading in text
        better = f", {score.better} is better" if score.better else ""
        assert f'{score.low:g} to {score.high:g}{better}"' in page
    for better, mean in (("higher", "11.00"), ("lower", "10.00")):
        expected = sum(score.better == better for score in SCORES.values())
        assert page.count(f"<b>{mean}</b>") == expected
    assert page.count("<td>–</td>") == len(SCORES)
    for title in ("integrated gradients", "LTX, selected step", "pLTX (before finetuning)"):
        assert f"<th scope=row>{title}</th>" in page


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (SHOWN, "p 0.900 → 0.700 · step 1 of 2 · POS 10 · NEG 60"),
        (SHOWN | {"iou": 33.3}, "p 0.900 → 0.700 · step 1 of 2 · POS 10 · NEG 60 · IoU 33"),
        ({"pos": 10.0, "neg": None, "iou": None}, "POS 10"),
        ({}, ""),
    ],
)
def test_a_card_tells_what_is_known(tmp_path, scores, told):
    page = written(tmp_path, [entry(RECORD, scores)]).replace("&nbsp;", " ")
    assert f"<footer><span>{told}</span>" in page


def test_the_step_shown_is_marked(tmp_path):
    trace = {"score": [45.0, None, 0.0], "loss": [1.0, 1.0, 1.0]}
    lazy = RECORD | {"trace": trace, "steps": 3}
    page = written(tmp_path, [entry(lazy, SHOWN | {"step": 2})])
    assert '<polyline points="4.0,17.0 106.0,30.0"/><circle cx="106.0" cy="30.0" r="3"/>' in page
    page = written(tmp_path, [entry(lazy, {"pos": 1.0})])
    assert "<polyline" in page and "<circle" not in page
    for trace in ({"score": [5.0]}, {"score": [None, None]}, {}):
        assert "<svg" not in written(tmp_path, [entry(RECORD | {"trace": trace}, SHOWN)])


def test_a_record_may_say_little(tmp_path):
    page = written(tmp_path, [entry({"row": 0, "image": "a.jpg", "class": 3}, {})])
    assert "class 3" in page and "label" not in Balanced(page).text


def test_an_image_of_several_classes_is_shown_with_each_in_its_colour(tmp_path):
    rows = [
        {"row": 0, "image": HOSTILE, "class": 3, "class_name": "<i>cat"},
        {"row": 1, "image": HOSTILE, "class": 7},
        {"row": 2, "image": "b.jpg", "class": 3},
    ]
    page = written(tmp_path, [entry(row, {}) for row in rows])
    read = Balanced(page)
    # A card of both classes before their own: the image, with both masks, with each of them.
    assert read.seen.count("article") == 4 and read.seen.count("img") == 4 + 3 * 4
    assert page.count("<article class=classes>") == 1 and "<h2>2 classes</h2>" in page
    assert page.index("2 classes") < page.index("<h2>&lt;i&gt;cat</h2>")
    for index, name in ((3, "&lt;i&gt;cat"), (7, "class 7")):
        colour = "#" + bytes(class_colour(index).tolist()).hex()
        assert f'<span class=swatch style="background:{colour}"></span>{name}<' in page
    assert all(link.startswith("data:image/") for link in read.links)
