"""A comparison as tables of files: Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping

from ltx_jax.attribution import RIVALS
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import Score
from ltx_jax.reporting.comparison import LEVEL, Comparison, Difference
from ltx_jax.reporting.pages import best_methods
from ltx_jax.reporting.summary import Interval, scores_in
from ltx_jax.reporting.titles import title_of

_COLUMNS = (
    *("class", "method", "score", "better", "n", "mean", "low", "high", "reference", "pairs"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
)
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "–": "--", "−": "$-$", "×": r"$\times$"},
}

# Comparisons by the class that is scored for.
Comparisons = Mapping[str, Comparison]


def legend(comparison: Comparison) -> str:
    """What stands in a comparison's tables, in words."""
    several = comparison.images < comparison.rows
    rows = f"{comparison.rows} rows" + f" of {comparison.images} images" * several
    told = f"Means over {rows} with 95 % bootstrap intervals over the images; the best is bold."
    if comparison.reference is None:
        return told
    tests = (
        f" A star: p < {LEVEL:g} by Wilcoxon's signed-rank test"
        f"{' of the images’ mean differences' * several}, after Holm's correction for all "
        f"{comparison.tests} tests."
        if comparison.tests
        else ""
    )
    return f"{told} Differences are from {title_of(comparison.reference)}, paired by row.{tests}"


def costs(comparisons: Comparisons) -> list[str]:
    """What each rival of some comparisons costs an image, in words."""
    names = dict.fromkeys(name for one in comparisons.values() for name in one.methods)
    rivals = [RIVALS[name] for name in names if name in RIVALS]
    return [f"{rival.title}: {rival.budget}" for rival in rivals]


def is_sure(difference: Difference | None) -> bool:
    """Whether a difference stands after the correction for many."""
    p = None if difference is None else difference["p_holm"]
    return p is not None and p < LEVEL


# --- Markdown -------------------------------------------------------------------------------------


def markdown(comparisons: Comparisons) -> str:
    """For each class a table of means, and one of differences where there is a reference."""
    parts = []
    for about, comparison in comparisons.items():
        parts.append(f"## Scores for {about}\n\n{_markdown_table(comparison, _markdown_mean)}")
        if comparison.reference is not None:
            beside = title_of(comparison.reference)
            parts.append(
                f"### Difference from {plain(beside)}\n\n"
                f"{_markdown_table(comparison, _markdown_difference)}"
            )
        parts.append(legend(comparison))
    if told := costs(comparisons):
        parts += ["An image costs", "\n".join(f"- {plain(one)}" for one in told)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(comparison: Comparison, cell: Callable[[Comparison, str, Score], str]) -> str:
    scores = scores_in(comparison.methods)
    lines = [
        ["method", *(score.heading for score in scores)],
        ["---", *("---:" for _ in scores)],
        *(
            [plain(title_of(name)), *(cell(comparison, name, score) for score in scores)]
            for name in comparison.methods
        ),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_mean(comparison: Comparison, name: str, score: Score) -> str:
    value = comparison.methods[name].get(score.name)
    if value is None:
        return "–"
    shown = f"{value['mean']:.2f}"
    if name in best_methods(score, comparison.methods):
        shown = f"**{shown}**"
    return f"{shown} ({_span(value)})"


def _markdown_difference(comparison: Comparison, name: str, score: Score) -> str:
    found = comparison.differences.get(name, {}).get(score.name)
    if found is None:
        return "–"
    star = "\\*" if is_sure(found) else ""
    return f"{found['mean']:+.2f}{star} ({_span(found)})"


def plain(text: str) -> str:
    """A text in which Markdown sees no signs of its own."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def _span(value: Interval | Difference) -> str:
    return f"{value['low']:.1f} to {value['high']:.1f}"


# --- CSV ------------------------------------------------------------------------------------------


def comma_separated(comparisons: Comparisons) -> str:
    """A line a class, method and score, with all that is known of it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for about, comparison in comparisons.items():
        for method, scores in comparison.methods.items():
            for name, value in scores.items():
                line = {"class": about, "method": method, "score": name, **value}
                line |= {"better": SCORES[name].better, "n": comparison.counts[method][name]}
                if found := comparison.differences.get(method, {}).get(name):
                    line |= {"reference": comparison.reference, "pairs": found["n"]}
                    line |= {"p": found["p"], "p_holm": found["p_holm"]}
                    line |= {"difference": found["mean"]}
                    line |= {f"difference_{end}": found[end] for end in ("low", "high")}
                writer.writerow(line)
    return text.getvalue()


# --- LaTeX ----------------------------------------------------------------------------------------


def latex(comparisons: Comparisons) -> str:
    """A `tabular` for each class, for the package booktabs."""
    parts = [_tabular(about, comparison) for about, comparison in comparisons.items()]
    return "\n".join([*parts, *(f"% An image costs {one}" for one in costs(comparisons))])


def _tabular(about: str, comparison: Comparison) -> str:
    scores = scores_in(comparison.methods)
    arrows = {"lower": r"$\downarrow$", "higher": r"$\uparrow$", None: ""}
    head = ["", *(f"{_escaped(score.title)} {arrows[score.better]}".rstrip() for score in scores)]
    body = [
        [_escaped(title_of(name)), *(_latex_cell(comparison, name, score) for score in scores)]
        for name in comparison.methods
    ]
    return "\n".join(
        [
            f"% Scores for {about}. {legend(comparison)}",
            rf"\begin{{tabular}}{{l{'r' * len(scores)}}}",
            r"\toprule",
            f"{' & '.join(head)} \\\\",
            r"\midrule",
            *(f"{' & '.join(line)} \\\\" for line in body),
            r"\bottomrule",
            "\\end{tabular}\n",
        ]
    )


def _latex_cell(comparison: Comparison, name: str, score: Score) -> str:
    value = comparison.methods[name].get(score.name)
    if value is None:
        return "--"
    shown = f"{value['mean']:.2f}"
    if name in best_methods(score, comparison.methods):
        shown = rf"\mathbf{{{shown}}}"
    if is_sure(comparison.differences.get(name, {}).get(score.name)):
        shown += "^{*}"
    return rf"${shown}$ {{\scriptsize (${value['low']:.1f}$ to ${value['high']:.1f}$)}}"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
