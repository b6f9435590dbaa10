"""Means, intervals and the text table."""

import numpy as np

from ltx_jax.reporting.summary import interval, label_summary, summarise, table


def record(row: int, pos: float, **more: object) -> dict:
    return {"row": row, "label": 1, "selected": {"step": 0, "pos": pos, "neg": 50.0}, **more}


def test_interval_of_a_constant_is_that_constant():
    assert interval(np.full(9, 3.5)) == {"mean": 3.5, "low": 3.5, "high": 3.5}


def test_interval_is_the_normal_one_for_many_values():
    values = np.random.default_rng(1).normal(10, 2, 4000)
    found = interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found["mean"] == round(values.mean(), 4)
    assert abs(found["high"] - values.mean() - half) < 0.15 * half
    assert abs(values.mean() - found["low"] - half) < 0.15 * half


def test_skipped_records_do_not_count():
    records = [record(0, 10.0), record(1, 20.0), {"row": 2, "skipped": "truncated"}]
    found = summarise(records, ["selected"])["selected"]
    assert found["pos"]["mean"] == 15
    assert found["neg"] == {"mean": 50, "low": 50, "high": 50}
    assert "step" not in found


def test_the_labels_scores_are_the_classs_where_they_agree():
    other = record(1, 20.0, for_label={"selected": {"pos": 80.0, "neg": 0.0}})
    found = label_summary([record(0, 10.0), other], ["selected"])
    assert found["selected"]["pos"]["mean"] == 45
    assert label_summary([record(0, 1.0) | {"label": None}], ["selected"]) == {}


def test_table():
    value = {"mean": 10.456, "low": 7.81, "high": 13.2}
    text = table({"selected": {"pos": value}, "rival": {"pos": value, "iou": value}})
    assert text.splitlines() == [
        "                     POS ↓             IOU ↑",
        "selected  10.46 (7.8–13.2)                 –",
        "rival     10.46 (7.8–13.2)  10.46 (7.8–13.2)",
    ]
