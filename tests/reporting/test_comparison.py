"""Methods compared: intervals, tests and corrections against scipy, and worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ltx_jax.metrics import SCORES
from ltx_jax.reporting import comparison
from ltx_jax.reporting.comparison import compare, holm, paired_difference, wilcoxon
from ltx_jax.reporting.summary import score_intervals


def lines(values, score="pos", **more):
    return [{"row": row, score: value, **more} for row, value in enumerate(values)]


def test_wilcoxon_by_hand():
    # All five of 2^5 signs the same way: one in 16 on either side.
    assert wilcoxon(np.array([1.0, 2, 3, 4, 5])) == 2 / 2**5
    assert wilcoxon(np.array([-1.0, -2, -3, -4, -5])) == 2 / 2**5
    # Ranks 1 and 2 below zero: sums of at most 3 are {}, 1, 2, 3 and 1+2, five of 32 a side.
    assert wilcoxon(np.array([-1.0, -2, 3, 4, 5])) == pytest.approx(2 * 5 / 32)


def test_nothing_but_zeros_is_no_difference():
    assert wilcoxon(np.zeros(4)) == 1.0
    assert wilcoxon(np.array([0.0, 1, 2, 0, 3, 4, 5, 0])) == 2 / 2**5


def test_wilcoxon_of_ties_is_the_normal_approximation():
    differences = np.array([1.0, 1, -1, 0, 2, 2, 3, -2])
    # Of 7 that are not 0: ranks 2, 2, 2, 5, 5, 7, 5, of which 7 are below zero. The variance
    # n(n+1)(2n+1)/24 is less (t³-t)/48 for each group of t ties.
    variance = 7 * 8 * 15 / 24 - 2 * (3**3 - 3) / 48
    z = (7 - 7 * 8 / 4) / variance**0.5
    assert wilcoxon(differences) == pytest.approx(2 * stats.norm.cdf(z), rel=1e-12)


def test_wilcoxon_of_many_is_scipys():
    differences = np.random.default_rng(0).normal(0.2, 1, 80)
    expected = stats.wilcoxon(differences, method="asymptotic").pvalue
    assert wilcoxon(differences) == pytest.approx(expected, rel=1e-12)


def test_sizes_are_the_same_to_the_digits_that_are_stored():
    # 0.3 − 0.2 and 0.4 − 0.3 are not the same float64.
    theirs = np.array([0.2, 0.3, 0.5, 0.7, 0.8, 0.6])
    ours = np.array([0.3, 0.4, 0.6, 0.6, 1.0, 0.9])
    expected = wilcoxon(np.array([1.0, 1, 1, -1, 2, 3]))
    assert paired_difference(ours, theirs)["p"] == pytest.approx(expected, rel=1e-12)
    # Three rows of each image, whose mean is 0 but for rounding.
    each = np.tile([0.1, 0.2, -0.3], 8)
    images = np.repeat(np.arange(8), 3).tolist()
    assert paired_difference(each, np.zeros(24), images=images)["p"] == 1.0


def test_holm_by_hand():
    # In order 0.005·4, 0.01·3, 0.03·2, 0.04·1: the last is raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.5]) == [0.5]
    assert holm([]) == []


def test_the_interval_of_a_difference_is_of_pairs():
    rng = np.random.default_rng(1)
    images = rng.normal(50, 20, 300)  # vary far more than methods do
    ours, theirs = images + rng.normal(2, 1, 300), images
    found = paired_difference(ours, theirs)
    low, high = stats.t.interval(0.95, 299, (ours - theirs).mean(), stats.sem(ours - theirs))
    assert found["mean"] == pytest.approx((ours - theirs).mean(), abs=1e-4)
    assert found["low"] == pytest.approx(low, abs=0.02)
    assert found["high"] == pytest.approx(high, abs=0.02)
    assert found["n"] == 300 and found["p"] < 1e-20


def test_the_bootstrap_is_that_of_scipy():
    values = np.random.default_rng(2).exponential(10, 40)
    found = paired_difference(values, np.zeros(40))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    half = (expected.high - expected.low) / 2
    assert found["low"] == pytest.approx(expected.low, abs=0.12 * half)
    assert found["high"] == pytest.approx(expected.high, abs=0.12 * half)


def test_counts_are_put_together_and_have_no_p(monkeypatch):
    # Right and all pixels of each image, pooled: a share of all, not the mean of shares.
    def pooled(counts):
        return 100 * counts[:, 0].sum() / counts[:, 1].sum()

    ours, theirs = np.array([[1.0, 1], [10, 90]]), np.array([[1.0, 1], [1, 90]])
    found = paired_difference(ours, theirs, pooled)
    assert found["mean"] == pytest.approx(100 * 11 / 91 - 100 * 2 / 91, abs=1e-4)
    assert found["p"] is None and found["low"] == 0.0  # the first image twice
    assert found["high"] == pytest.approx(10.0)  # the second image twice
    monkeypatch.setitem(comparison.SCORES, "pos", replace(SCORES["pos"], aggregate=pooled))
    monkeypatch.setattr(comparison, "column_intervals", lambda *_: {})
    both = {
        "a": lines(ours.tolist()),
        "b": lines(theirs.tolist()),
        "c": lines(ours.tolist(), "neg"),
    }
    found = compare(both, "b")
    assert found.differences["a"]["pos"]["mean"] == pytest.approx(900 / 91, abs=1e-4)
    assert found.differences["a"]["pos"]["p_holm"] is None and found.tests == 0


def test_methods_are_compared_on_the_rows_that_both_have():
    ours, theirs = lines([1.0, None, 3.0, 4.0]), lines([0.0, 7.0, 1.0, None])
    found = compare({"ours": ours, "theirs": theirs}, "theirs")
    assert found.rows == 4
    assert found.counts == {"ours": {"pos": 3}, "theirs": {"pos": 3}}
    assert found.methods == {"ours": score_intervals(ours), "theirs": score_intervals(theirs)}
    difference = found.differences["ours"]["pos"]
    assert (difference["mean"], difference["n"]) == (1.5, 2)
    assert difference["p"] == difference["p_holm"] == 0.5  # one in four, twice
    assert "theirs" not in found.differences


def test_rows_of_one_image_are_no_independent_ones():
    # Ten images with three rows each, all alike: as ten images with one.
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 1, 10), rng.normal(0, 1, 10)
    alone = compare({"ours": lines(ours.tolist()), "theirs": lines(theirs.tolist())}, "theirs")
    repeated = {"ours": np.repeat(ours, 3), "theirs": np.repeat(theirs, 3)}
    methods = {name: lines(values.tolist()) for name, values in repeated.items()}
    found = compare(methods, "theirs", [f"image {row // 3}" for row in range(30)])
    assert (found.rows, found.images, alone.images) == (30, 10, 10)
    assert found.methods == alone.methods
    one, other = (c.differences["ours"]["pos"] for c in (found, alone))
    assert {**one, "n": 10} == other and one["n"] == 30
    # Taken for independent, they would be surer than they are.
    surer = compare(methods, "theirs")
    assert surer.differences["ours"]["pos"]["p"] < one["p"] / 10
    narrow, wide = (c.methods["ours"]["pos"] for c in (surer, found))
    assert narrow["high"] - narrow["low"] < 0.7 * (wide["high"] - wide["low"])


def test_the_correction_is_for_all_methods_and_scores():
    rng = np.random.default_rng(0)
    methods = {
        name: [
            {"row": row, "pos": rng.normal(), "neg": rng.normal()}
            for row in range(12)
        ]
        for name in ("a", "b", "reference")
    }  # fmt: skip
    found = compare(methods, "reference")
    each = [found.differences[m][s] for m in ("a", "b") for s in ("pos", "neg")]
    assert [one["p_holm"] for one in each] == holm([one["p"] for one in each])
    assert found.tests == 4


def test_without_a_reference_there_are_no_differences():
    found = compare({"a": lines([1.0]), "b": lines([2.0])}, None)
    assert found.differences == {} and found.tests == 0


def test_the_order_of_rows_and_methods_changes_nothing():
    rng = np.random.default_rng(0)
    methods = {name: lines(rng.random(20).tolist()) for name in ("a", "b", "c")}
    found = compare(methods, "a")
    backwards = compare({name: methods[name] for name in ("c", "b", "a")}, "a")
    assert found.differences == backwards.differences and found.methods == backwards.methods


def test_curves_are_means_whose_area_is_the_score():
    curves = [np.linspace(1, 0, 10), np.ones(10)]
    told = [
        {"row": row, "del": float(np.trapezoid(c, dx=10)), "curves": {"del": c.tolist()}}
        for row, c in enumerate(curves)
    ]
    found = compare({"a": told, "b": lines([1.0])}, None)
    assert np.trapezoid(found.curves["a"]["del"], dx=10) == pytest.approx(
        found.methods["a"]["del"]["mean"]
    )
    assert found.curves["b"] == {}


def test_lines_are_gone_through_once_and_what_was_not_scored_is_counted():
    skipped = [{"row": 1, "image": "b.png", "skipped": "cut off"}]
    methods = {
        "a": [*lines([1.0]), *skipped, {"row": 2, "pos": 3.0, "not_finite": True}],
        "b": [{"row": 2, "pos": 5.0}, *skipped, {"row": 3, "image": "d.png", "skipped": "gone"}],
    }
    found = compare({name: iter(each) for name, each in methods.items()}, "b")
    assert (found.rows, found.skipped, found.not_finite) == (2, 2, {"a": 1})
    assert found.counts == {"a": {"pos": 2}, "b": {"pos": 1}}
    assert found.differences["a"]["pos"]["mean"] == -2.0
