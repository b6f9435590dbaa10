"""Means, intervals and the text table."""

import numpy as np
import pytest

from ltx_jax.metrics import SCORES
from ltx_jax.reporting.summary import (
    interval,
    label_summary,
    score_intervals,
    summarise,
    table,
)


def record(row: int, pos: float, **more: object) -> dict:
    scores = {"step": 0, "pos": pos, "neg": 50.0}
    return {"row": row, "image": f"image {row}", "label": 1, "selected": scores, **more}


def test_interval_of_a_constant_is_that_constant():
    assert interval(np.full(9, 3.5)) == {"mean": 3.5, "low": 3.5, "high": 3.5}


def test_interval_is_the_normal_one_for_many_values():
    values = np.random.default_rng(1).normal(10, 2, 4000)
    found = interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found["mean"] == round(values.mean(), 4)
    assert abs(found["high"] - values.mean() - half) < 0.15 * half
    assert abs(values.mean() - found["low"] - half) < 0.15 * half


def test_interval_is_of_what_is_known():
    values = np.random.default_rng(1).random(50)
    gaps = np.insert(values, [0, 7, 50], np.nan)
    assert interval(gaps) == interval(values)
    assert interval([1.0, None, 3.0, float("nan")])["mean"] == 2.0


def test_interval_of_another_aggregate():
    values = np.array([0.0, 1.0, 2.0, 3.0, 100.0])
    found = interval(values, np.median)
    assert found["mean"] == 2.0 and {found["low"], found["high"]} <= set(values.tolist())


def test_an_image_is_drawn_with_all_of_its_rows():
    values = np.array([0.0, 4.0, 10.0])
    found = interval(values, images=["a", "a", "b"])
    # Twice the one, twice the other, or both.
    assert found == {"mean": round(14 / 3, 4), "low": 2.0, "high": 10.0}
    assert interval([0.0, None, 4.0, 10.0], images=["a", "a", "a", "b"]) == found
    apart = interval(values, lambda x: float(np.median(x)), ["a", "a", "b"])
    assert apart == {"mean": 4.0, "low": 2.0, "high": 10.0}
    assert interval(values, images=[1, 2, 3]) == interval(values)


def test_records_of_a_method():
    records = [record(0, 10.0), record(1, 20.0), {"row": 2, "skipped": "truncated"}]
    found = summarise(records, ["selected", "rival"])
    assert found["selected"]["pos"]["mean"] == 15
    assert found["selected"]["neg"] == {"mean": 50, "low": 50, "high": 50}
    assert "step" not in found["selected"]
    assert found["rival"] == {}


def test_a_score_that_some_have_is_averaged_over_those():
    scores = [{"pos": 1.0, "iou": None}, {"pos": 2.0, "iou": 30.0}, {"pos": 3.0}, {"iou": 50.0}]
    found = score_intervals(scores)
    assert {name: value["mean"] for name, value in found.items()} == {"pos": 2.0, "iou": 40.0}
    assert score_intervals([{"iou": None}, {"iou": float("nan")}]) == {}


def test_scores_stand_in_the_order_of_the_metrics():
    numbers = {"pixel_accuracy": [1.0, 2.0], "mean_iou": [1.0, 2.0, 3.0, 4.0]}  # of the pooled ones
    backwards = dict.fromkeys(reversed(SCORES), 1.0) | numbers
    assert list(score_intervals([backwards])) == list(SCORES)


def test_the_labels_scores_are_the_classs_where_they_agree():
    same = record(0, 10.0)
    same["selected"]["iou"] = 70.0  # the other label's is not known
    other = record(1, 20.0, for_label={"selected": {"pos": 80.0, "neg": 0.0}})
    found = label_summary([same, other, record(2, 5.0) | {"label": None}], ["selected"])
    means = {name: value["mean"] for name, value in found["selected"].items()}
    assert means == {"pos": 45, "neg": 25}


@pytest.mark.parametrize("records", [[], [record(0, 1.0) | {"label": None}], [{"row": 0}]])
def test_without_labels_there_is_nothing_of_them(records):
    assert label_summary(records, ["selected"]) == {}


def test_table():
    value = {"mean": 10.456, "low": 7.81, "high": 13.2}
    text = table({"selected": {"pos": value}, "rival": {"pos": value, "iou": value}})
    assert text.splitlines() == [
        "                     POS ↓             IoU ↑",
        "selected  10.46 (7.8–13.2)                 –",
        "rival     10.46 (7.8–13.2)  10.46 (7.8–13.2)",
    ]


def test_a_pooled_score_is_of_all_numbers_together():
    scores = [{"pixel_accuracy": [1, 2]}, {}, {"pixel_accuracy": [None, None]}]
    scores += [{"pixel_accuracy": [9.0, 9.0]}]
    found = score_intervals(scores)["pixel_accuracy"]
    # Images are drawn again, with their numbers: twice the one, twice the other, or both.
    assert found == {"mean": round(1000 / 11, 4), "low": 50.0, "high": 100.0}
    assert score_intervals(scores[1:3]) == {}
