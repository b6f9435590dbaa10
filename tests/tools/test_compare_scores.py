"""Agreement of scores, by hand."""

import json

import compare_scores
import numpy as np
import pytest

from ltx_jax.errors import InputError

FOUND = {  # by POS a, b, c, by NEG a, c, b; ADP knows nothing of c
    "a": {"pos": 10.0, "neg": 60.0, "adp": 1.0},
    "b": {"pos": 20.0, "neg": 40.0, "adp": 2.0},
    "c": {"pos": 30.0, "neg": 50.0},
}


def test_scores_are_compared_by_what_is_better():
    found = compare_scores.agreements(FOUND, ["pos", "neg", "adp"])
    # Ranks 1 2 3 and 1 3 2: 1 − 6·(0 + 1 + 1)/(3·8).
    np.testing.assert_allclose(found[:2, :2], [[1, 0.5], [0.5, 1]])
    assert np.isnan(found[2]).all()


def test_the_table_is_the_mean_over_the_cases():
    other = {**FOUND, "b": {"pos": 20.0, "neg": 55.0, "adp": 2.0}}  # alike
    told = compare_scores.table([FOUND, other]).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in told[1:]}
    assert rows == {
        "pos": ["1.00", "(1)"],
        "neg": ["0.75", "1.00", "(2)"],
        "adp": ["nan", "nan", "nan", "(3)"],
    }


def test_what_cannot_be_compared(tmp_path):
    with pytest.raises(InputError, match=r"no .*evaluation\.json"):
        compare_scores.read_methods(tmp_path)
    methods = {"a": {"pos": {"mean": 1.0}}, "b": {"pos": {"mean": 2.0}}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"methods": methods}))
    with pytest.raises(InputError, match="2 methods: expected at least 3"):
        compare_scores.read_methods(tmp_path)
    with pytest.raises(InputError, match="no two scores in common"):
        compare_scores.table([{"a": {"pos": 1.0}}, {"a": {"neg": 1.0}}])
