"""Comparisons as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io

from ltx_jax.attribution import RIVALS
from ltx_jax.reporting.comparison import Comparison
from ltx_jax.reporting.tables import comma_separated, costs, latex, legend, markdown


def value(mean: float) -> dict:
    return {"mean": mean, "low": mean - 1, "high": mean + 1}


SURE = value(3.0) | {"n": 20, "p": 0.001, "p_holm": 0.002}
UNSURE = value(-0.5) | {"n": 20, "p": 0.4, "p_holm": 0.4}
FOUND = Comparison(
    rows=20,
    images=20,
    methods={
        "selected": {"pos": value(10.456), "srg": value(-2.0)},
        "a_b|&%": {"pos": value(13.456), "srg": value(-2.5)},
    },
    counts={"selected": {"pos": 20, "srg": 20}, "a_b|&%": {"pos": 19, "srg": 20}},
    reference="selected",
    differences={"a_b|&%": {"pos": SURE, "srg": UNSURE}},
    curves={},
    skipped=0,
    not_finite={},
)
ALONE = Comparison(2, 2, {"x": {"neg": value(1.0)}}, {"x": {"neg": 2}}, None, {}, {}, 0, {})


def test_markdown():
    assert markdown({"the label": FOUND}) == (
        "## Scores for the label\n\n"
        "| method | POS ↓ | SRG ↑ |\n"
        "| --- | ---: | ---: |\n"
        "| LTX, selected step | **10.46** (9.5 to 11.5) | **-2.00** (-3.0 to -1.0) |\n"
        "| a\\_b\\|&% | 13.46 (12.5 to 14.5) | -2.50 (-3.5 to -1.5) |\n\n"
        "### Difference from LTX, selected step\n\n"
        "| method | POS ↓ | SRG ↑ |\n"
        "| --- | ---: | ---: |\n"
        "| LTX, selected step | – | – |\n"
        "| a\\_b\\|&% | +3.00\\* (2.0 to 4.0) | -0.50 (-1.5 to 0.5) |\n\n"
        f"{legend(FOUND)}\n"
    )
    assert "Difference" not in markdown({"the label": ALONE})


def test_what_rivals_cost_is_said():
    found = {"the label": Comparison(2, 2, {"x": {}, "occlusion": {}}, {}, None, {}, {}, 0, {})}
    assert costs(found) == [f"occlusion: {RIVALS['occlusion'].budget}"]
    assert markdown(found).endswith(f"An image costs\n\n- {costs(found)[0]}\n")
    assert latex(found).endswith(f"% An image costs {costs(found)[0]}")
    assert "costs" not in markdown({"a": ALONE}) + latex({"a": ALONE})


def test_the_legend_says_what_was_tested():
    assert legend(FOUND) == (
        "Means over 20 rows with 95 % bootstrap intervals over the images; the best is bold. "
        "Differences are from LTX, selected step, paired by row. A star: p < 0.05 by Wilcoxon's "
        "signed-rank test, after Holm's correction for all 2 tests."
    )
    assert legend(ALONE).endswith("the best is bold.")
    told = legend(FOUND._replace(images=12))
    assert told.startswith("Means over 20 rows of 12 images with 95 % bootstrap intervals over the")
    assert "signed-rank test of the images’ mean differences, after" in told


def test_comma_separated():
    found = list(csv.DictReader(io.StringIO(comma_separated({"the label": FOUND, "b": ALONE}))))
    assert [(one["class"], one["method"], one["score"]) for one in found] == [
        ("the label", "selected", "pos"),
        ("the label", "selected", "srg"),
        ("the label", "a_b|&%", "pos"),
        ("the label", "a_b|&%", "srg"),
        ("b", "x", "neg"),
    ]
    assert found[2] == {
        **{"class": "the label", "method": "a_b|&%", "score": "pos", "better": "lower"},
        **{"n": "19", "mean": "13.456", "low": "12.456", "high": "14.456"},
        **{"reference": "selected", "pairs": "20", "difference": "3.0"},
        **{"difference_low": "2.0", "difference_high": "4.0", "p": "0.001", "p_holm": "0.002"},
    }
    assert found[0]["reference"] == found[4]["p"] == ""


def test_latex():
    assert latex({"the label": FOUND}).split("\n")[1:] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & POS $\downarrow$ & SRG $\uparrow$ \\",
        r"\midrule",
        r"LTX, selected step & $\mathbf{10.46}$ {\scriptsize ($9.5$ to $11.5$)}"
        r" & $\mathbf{-2.00}$ {\scriptsize ($-3.0$ to $-1.0$)} \\",
        r"a\_b|\&\% & $13.46^{*}$ {\scriptsize ($12.5$ to $14.5$)}"
        r" & $-2.50$ {\scriptsize ($-3.5$ to $-1.5$)} \\",
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ]
    assert "-- \\\\" not in latex({"the label": ALONE})


def test_of_a_score_that_is_neither_good_nor_bad_no_method_is_the_best():
    counts = {"x": {"area": 2}}
    found = {"b": Comparison(2, 2, {"x": {"area": value(40.0)}}, counts, None, {}, {}, 0, {})}
    assert "| method | area |\n" in markdown(found)
    assert "| x | 40.00 (39.0 to 41.0) |\n" in markdown(found)
    assert next(csv.DictReader(io.StringIO(comma_separated(found))))["better"] == ""
    assert " & area \\\\\n" in latex(found)
    assert r"x & $40.00$ {\scriptsize ($39.0$ to $41.0$)} \\" in latex(found)
