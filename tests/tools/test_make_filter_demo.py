"""Vectors of concepts by what they share, and recalls of several networks together."""

import numpy as np
from make_filter_demo import over_seeds, word_vectors

from ltx_jax.data.concepts import CONCEPTS


def test_names_are_near_that_share_something():
    vectors = word_vectors()
    assert tuple(vectors) == CONCEPTS
    near = np.stack([*vectors.values()]) @ np.stack([*vectors.values()]).T
    np.testing.assert_allclose(np.diag(near), 1, rtol=1e-12)

    def nearest(name: str) -> str:
        others = near[CONCEPTS.index(name)] - 2 * np.eye(len(CONCEPTS))[CONCEPTS.index(name)]
        return CONCEPTS[int(others.argmax())]

    assert {nearest("orange"), nearest("red")} <= {"red", "orange", "yellow"}
    assert (nearest("wavy"), nearest("ring"), nearest("square")) == (
        "spiral",
        "crescent",
        "hexagon",
    )
    # A line's turn by a quarter is as far as it goes; names of two kinds share nothing.
    horizontal = near[CONCEPTS.index("horizontal")]
    assert CONCEPTS[int(horizontal.argmin())] == "vertical"
    np.testing.assert_allclose(horizontal[: CONCEPTS.index("horizontal")], 0, atol=1e-12)


def recalls(ours: float) -> dict:
    means = {"its words": ours, "most frequent words": 20.0, "highest overlap": 60.0}
    return {method: {"unseen": {"5": {"mean": mean}}} for method, mean in means.items()}


def test_networks_of_two_seeds():
    # Student's t of one degree of freedom is 12.706; the error of 30 and 40 is 5.
    found = over_seeds([recalls(30.0), recalls(40.0)])
    assert found["its words"]["unseen @5"] == {"mean": 35.0, "low": -28.5, "high": 98.5}
    assert found["share of the way, %"]["unseen @5"]["mean"] == 37.5
    assert found["highest overlap"]["unseen @5"] == {"mean": 60.0, "low": 60.0, "high": 60.0}
