"""A record's numbers, and what is unknown, as JSON."""

import json

import numpy as np

from ltx_jax.engine.explain import Explanation
from ltx_jax.reporting.records import column, record, rounded

NAN = float("nan")


EXPLANATION = Explanation(
    row=7,
    target=2,
    predicted=1,
    label=0,
    probability=0.12345678,
    steps=3,
    score=np.array([20.00004, NAN, 5], np.float32),
    loss=np.array([1.0000049, 0.5, np.inf], np.float32),
    masks=dict.fromkeys(("pltx", "selected"), np.zeros((2, 2), np.float32)),
    raw={},
    mask_steps={"pltx": 0, "selected": 2},
    scores={
        "pltx": {"pos": 20.00000049, "iou": NAN, "probability": 0.5},
        "selected": {"pos": 5.0, "iou": 12.3456789, "probability": 0.25},
    },
    label_scores=None,
)


def test_a_record():
    found = record(EXPLANATION, "a.jpg", 7)
    assert found == {
        "row": 7,
        "image": "a.jpg",
        "class": 2,
        "predicted": 1,
        "label": 0,
        "steps": 3,
        "probability": 0.123457,
        "trace": {"score": [20.0, None, 5.0], "loss": [1.0, 0.5, None]},
        "pltx": {"step": 0, "pos": 20.0, "iou": None, "probability": 0.5},
        "selected": {"step": 2, "pos": 5.0, "iou": 12.345679, "probability": 0.25},
    }
    assert list(found)[-2:] == ["pltx", "selected"]
    json.dumps(found, allow_nan=False)


def test_names_and_the_labels_scores():
    scores = {"pltx": {"pos": 1.23456789}, "selected": {"pos": NAN}}
    found = record(EXPLANATION._replace(label_scores=scores), "a.jpg", 7, ("cat", "dog", "cow"))
    assert found["for_label"] == {"pltx": {"pos": 1.234568}, "selected": {"pos": None}}
    names = [found[key] for key in ("class_name", "predicted_name", "label_name")]
    assert names == ["cow", "dog", "cat"]
    unlabelled = record(EXPLANATION._replace(label=None), "a.jpg", 7, ("cat", "dog", "cow"))
    assert unlabelled["label"] is None and "label_name" not in unlabelled


def test_what_is_unknown_is_null():
    assert rounded({"pos": 1 / 3, "iou": NAN, "srg": -np.inf}) == {
        "pos": 0.333333,
        "iou": None,
        "srg": None,
    }


def test_numbers_of_a_pooled_score():
    assert rounded({"mean_iou": [1 / 3, NAN]}) == {"mean_iou": [0.333333, None]}
    pooled = column([None, [1.0, 2.0], [None, None], np.array([3.0, 4.0])])
    np.testing.assert_array_equal(pooled, [[NAN, NAN], [1, 2], [NAN, NAN], [3, 4]])
    np.testing.assert_array_equal(column([1.0, None, NAN]), [1, NAN, NAN])
    assert column([]).shape == (0,)
