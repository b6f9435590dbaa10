"""RISE's deletion and insertion (Petsiuk, Das & Saenko 2018, section 4.2), a row a step."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.perturbation import curves_of_removal, removal
from ltx_jax.metrics.score import Score


def deletion(case: Case) -> Float[Array, "n k"]:
    """Area under the probability as pixels go black, the most relevant first, to the last one."""
    return _area(case, most_relevant_first=True, fill="black")


def insertion(case: Case) -> Float[Array, "n k"]:
    """The same as pixels come into the blurred image, the most relevant first.

    Read from its end: the least relevant pixels go first, and leave the blurred image.
    """
    return _area(case, most_relevant_first=False, fill="blur")


def _area(case: Case, most_relevant_first: bool, fill: str) -> Float[Array, "n k"]:
    """The trapezoid rule over the share of pixels from 0 to 1, in percent."""
    _, height, width = case.order.shape
    counts = tuple(width * row for row in range(1, height + 1))
    order = removal(case.order, most_relevant_first, counts)
    what = case.explainee, case.images, order, case.classes, case.logits
    p = curves_of_removal(*what, case.chunk, fill).probability
    return 100.0 * (p.sum(-1) - 0.5 * (p[..., 0] + p[..., -1])) / height


_SOURCE = "RISE, Petsiuk, Das & Saenko, BMVC 2018"
DELETION = Score(
    "rise_deletion",
    "RISE deletion",
    "lower",
    0,
    100,
    "area under probability, pixels blackened one row's worth at a time",
    _SOURCE,
    deletion,
    usual=False,
)
INSERTION = Score(
    "rise_insertion",
    "RISE insertion",
    "higher",
    0,
    100,
    "area under probability, pixels put into the blurred image one row's worth at a time",
    _SOURCE,
    insertion,
    usual=False,
)
