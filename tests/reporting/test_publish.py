"""What is published rests on what is stored, and on the pictures."""

import json

import numpy as np
import pytest
from disk import names
from page import Balanced
from PIL import Image

from ltx_jax.reporting.publish import picture_names, publish
from ltx_jax.reporting.store import ResultStore
from ltx_jax.settings.sections import Report

OWN = ("pltx", "selected")
FACTS = {"explainee": "vit", "images_per_second": 2.5, "device": "a card"}


def record(row: int, pos: float, **more: object) -> dict:
    before = {"step": 0, "pos": pos + 1, "neg": 50.0, "probability": 0.5}
    selected = {"step": 1, "pos": pos, "neg": 60.0, "probability": 0.6}
    return {
        "row": row,
        "image": f"{row}.jpg",
        "class": row,
        "label": row,
        "steps": 2,
        "probability": 0.9,
        "trace": {"score": [pos + 1, pos], "loss": [1.0, 0.5]},
        "pltx": before,
        "selected": selected,
        **more,
    }


def picture(row: int, channels: int = 3) -> np.ndarray:
    return np.full((8, 8, channels), 10 * row, np.uint8)


def masks(value: float) -> dict[str, np.ndarray]:
    return {"pltx": np.zeros((2, 2), np.float32), "selected": np.full((2, 2), value, np.float32)}


@pytest.fixture
def store(tmp_path) -> ResultStore:
    """Three rows, the second of another label, and a row that could not be read."""
    store = ResultStore.open(tmp_path, {}, 4)
    for name in OWN:
        store.hold(name, (2, 2))
    other = {"pltx": {"pos": 70.0, "neg": 1.0}, "selected": {"pos": 80.0, "neg": 0.0}}
    store.add({2: (record(2, 30.0), masks(1))})
    store.skip(3, "bad.jpg", "truncated")
    store.add({0: (record(0, 10.0), masks(0)), 1: (record(1, 20.0, for_label=other), masks(0.5))})
    return store


def published(store, shown="selected", facts=FACTS, rivals=(), report=None, **how) -> dict:
    given = lambda row: picture(row, **how)  # noqa: E731
    summary = publish(store, given, shown, facts, rivals, report or Report())
    assert json.loads((store.directory / "summary.json").read_text()) == summary
    return summary


def means(intervals: dict) -> dict[str, float]:
    return {name: value["mean"] for name, value in intervals.items()}


def add_rival(store, name: str, scores: dict[int, dict], value: float = 0.25) -> None:
    store.hold(name, (8, 8), raw=(8, 8))
    mask = np.full((8, 8), value, np.float32)
    store.keep(name, dict.fromkeys(scores, (mask, -mask)))
    store.scored(name).append({row: {"row": row, "class": row, **of} for row, of in scores.items()})


def test_a_summary(store):
    summary = published(store)
    assert list(summary)[:4] == ["pltx", "selected", "done", "skipped"]
    assert means(summary["pltx"]) == {"pos": 21, "neg": 50}
    assert means(summary["selected"]) == {"pos": 20, "neg": 60}
    assert (summary["done"], summary["skipped"]) == (3, 1)
    assert means(summary["for_label"]["selected"]) == {"pos": 40, "neg": 40}
    assert "rivals" not in summary
    assert {name: summary[name] for name in FACTS} == FACTS
    lines = (store.directory / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [0, 1, 2, 3]


def test_pictures_are_of_the_mask_that_is_shown(store):
    published(store)
    assert names(store.directory / "overlays") == ["0.png", "1.png", "2.png"]
    # The second of four: masks 0, 0.5 and 1.
    for row, grey in enumerate((0, 128, 255)):
        with Image.open(store.directory / "overlays" / f"{row}.png") as image:
            assert image.getpixel((170, 5)) == (grey, grey, grey)
    page = (store.directory / "report.html").read_text()
    assert Balanced(page).seen.count("article") == 3
    assert "step 1 of 2" in page and "3 explanations · 1 skipped · 2.50 images a second" in page


def test_only_so_many_pictures(store):
    published(store, report=Report(overlays=1, gallery=2))
    assert names(store.directory / "overlays") == ["0.png"]
    page = (store.directory / "report.html").read_text()
    assert Balanced(page).seen.count("article") == 2 and "the first 2 shown" in page


def test_masks_and_masked_images_on_request(store):
    published(store, report=Report(overlays=0, gallery=0, masked=True))
    assert not (store.directory / "overlays").exists()
    for folder, values in (("pixel_masks", (0, 128, 255)), ("masked", (0, 5, 20))):
        assert names(store.directory / folder) == ["0.png", "1.png", "2.png"]
        for row, value in enumerate(values):
            with Image.open(store.directory / folder / f"{row}.png") as image:
                assert image.size == (8, 8) and image.getpixel((7, 7)) == (value,) * 3


def test_an_image_that_is_gone_is_left_out(store):
    gone_after = lambda row: None if row == 1 else picture(row)  # noqa: E731
    summary = publish(store, gone_after, "selected", FACTS, (), Report(masked=True))
    assert summary["done"] == 3 and (store.directory / "summary.json").exists()
    for folder in ("overlays", "pixel_masks", "masked"):
        assert names(store.directory / folder) == ["0.png", "2.png"]
    page = (store.directory / "report.html").read_text()
    assert Balanced(page).seen.count("article") == 2


def test_grey_pictures(store):
    published(store, channels=1)
    with Image.open(store.directory / "overlays" / "2.png") as image:
        assert image.getpixel((0, 0)) == (20, 20, 20)


def test_rivals_come_from_their_lines(store):
    add_rival(store, "integrated_gradients", {row: {"pos": 10.0 * row} for row in range(3)})
    add_rival(store, "mine", {0: {"pos": 7.0, "iou": None}, 1: {"pos": 8.0, "iou": 30.0}})
    summary = published(store, rivals=("mine", "integrated_gradients"))
    assert list(summary["rivals"]) == ["mine", "integrated_gradients"]
    assert means(summary["rivals"]["integrated_gradients"]) == {"pos": 10}
    assert means(summary["rivals"]["mine"]) == {"pos": 7.5, "iou": 30}
    assert means(summary["selected"]) == {"pos": 20, "neg": 60}
    rows = Balanced((store.directory / "report.html").read_text()).text
    places = [
        rows.index(title)
        for title in ("pLTX (before", "LTX, selected", "mine", "integrated gradients")
    ]
    assert places == sorted(places)


def test_further_scores_join_the_runs_own(store):
    lines = {row: {"row": row, "class": row, "tied": 50.0 + row} for row in range(3)}
    store.scored("selected").append(lines)
    summary = published(store)
    assert means(summary["selected"]) == {"pos": 20, "neg": 60, "tied": 51}
    assert means(summary["for_label"]["selected"]) == {"pos": 40, "neg": 40}


def test_the_first_method_is_shown_where_the_wanted_one_is_not_there(store):
    add_rival(store, "mine", {row: {"pos": 1.0} for row in range(3)})
    for shown, grey in (("nobody", 0), ("mine", 64)):
        published(store, shown=shown, rivals=("mine",))
        with Image.open(store.directory / "overlays" / "0.png") as image:
            assert image.getpixel((170, 5)) == (grey, grey, grey)


def test_a_mask_that_is_not_known_is_shown_as_nothing(store):
    add_rival(store, "mine", {1: {"pos": 1.0}})
    published(store, shown="mine", rivals=("mine",))
    for row, grey in enumerate((0, 64, 0)):
        with Image.open(store.directory / "overlays" / f"{row}.png") as image:
            assert image.getpixel((170, 5)) == (grey, grey, grey)


def test_facts_survive_a_run_that_computed_nothing(store):
    first = published(store)
    again = published(store, facts=FACTS | {"images_per_second": None})
    assert again == first
    assert "2.50 images a second" in (store.directory / "report.html").read_text()
    changed = published(store, facts=FACTS | {"device": "another", "compile_seconds": None})
    assert (changed["device"], changed["compile_seconds"]) == ("another", None)


def test_publishing_again_changes_nothing(store):
    published(store)
    files = {p: p.read_bytes() for p in store.directory.rglob("*") if p.is_file()}
    published(ResultStore.find(store.directory))
    assert {p: p.read_bytes() for p in store.directory.rglob("*") if p.is_file()} == files


def test_nothing_could_be_explained(tmp_path):
    store = ResultStore.open(tmp_path, {}, 1)
    store.hold("selected", (2, 2))
    store.skip(0, "bad.jpg", "truncated")
    summary = published(store)
    assert (summary["done"], summary["skipped"], summary["selected"]) == (0, 1, {})
    page = (tmp_path / "report.html").read_text()
    assert "No image was explained." in Balanced(page).text and not (tmp_path / "overlays").exists()


def test_without_masks_there_are_no_pictures(tmp_path):
    store = ResultStore.open(tmp_path, {}, 1)
    store.lines.append({0: {"row": 0, "image": "a.jpg", "class": 0}})
    assert published(store)["done"] == 1
    Balanced((tmp_path / "report.html").read_text())


def test_names_of_pictures():
    images = [
        ("a.jpg", 1),
        ("b.png", 1),
        ("b.png", 2),
        ("c.png", 1),
        ("c.jpg", 1),
        ("../../<d>&.x", 0),
        ("x" * 400 + ".png", 0),
    ]
    records = [
        {"row": row, "image": image, "class": target} for row, (image, target) in enumerate(images)
    ]
    assert picture_names(records) == [
        "a",
        *("b-1", "b-2"),
        *("c-1-3", "c-1-4"),
        ".._.._d_",
        "x" * 200,
    ]
    named = records[1] | {"class_name": "a dog/cat"}
    assert picture_names([named, records[2]]) == ["b-a_dog_cat", "b-2"]
    alike = [
        {"row": row, "image": image, "class": 1}
        for row, image in enumerate(["a.png", "a.jpg", "a-1-0.png"])
    ]
    assert picture_names(alike) == ["a-1-0-0", "a-1-1", "a-1-0-2"]
    assert picture_names([]) == []
