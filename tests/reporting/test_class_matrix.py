"""The table image class × mask class in files and on a page."""

import csv
import io

import numpy as np
from page import Balanced

from ltx_jax.reporting.class_table import ClassTable, comma_separated, markdown, matrices

MEANS = np.array([[0.9, 0.1, 0.2], [0.05, 0.8, 0.0], [np.nan] * 3])
UNMASKED = np.array([0.7, 0.6, np.nan])
TABLE = ClassTable(("cat", "<i>|", "cow"), MEANS, UNMASKED, np.array([4, 1, 0]))


def test_files():
    head, *rows = csv.reader(io.StringIO(comma_separated({"explainer": TABLE, "rise": TABLE})))
    assert head == ["method", "image class", "images", "no mask", "cat", "<i>|", "cow"]
    assert rows[0] == ["explainer", "cat", "4", "0.700000", "0.900000", "0.100000", "0.200000"]
    assert rows[2] == ["explainer", "cow", "0", "", "", "", ""] and rows[3][0] == "rise"
    text = markdown({"explainer": TABLE, "rise": TABLE})
    assert "## the explainer" in text and "## RISE" in text
    assert (
        "| images \\ mask | n | no mask | cat | \\<i\\>\\| | cow |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |" in text
    )
    assert "| cat | 4 | 0.700 | **0.900** | 0.100 | 0.200 |" in text
    assert "| cow | 0 | – | – | – | **–** |" in text
    assert "On the diagonal it is 0.850, elsewhere 0.088." in text


def test_json():
    found = TABLE.as_json()
    assert (
        found["unmasked"] == [0.7, 0.6, None]
        and found["means"][2] is None
        and found["means"][0] == [0.9, 0.1, 0.2]
    )
    assert round(found["diagonal"], 6) == 0.85 and round(found["elsewhere"], 6) == 0.0875
    alone = ClassTable(("cat",), np.array([[0.5]]), np.array([0.4]), np.array([1]))
    assert alone.as_json()["elsewhere"] is None and "elsewhere" not in markdown({"rise": alone})
    nobody = alone._replace(means=np.array([[np.nan]]), images=np.array([0])).as_json()
    assert nobody["diagonal"] is None and nobody["means"] == [None]


def test_a_matrix_of_colours():
    page = "".join(matrices({"<b>": TABLE}))
    read = Balanced(page)
    assert "i" not in read.seen and read.seen.count("td") == 1 + 3 * 5
    # The map's ends: dark with white letters, light with black ones.
    assert '<td style="background:#0d083c;color:#fff">0.00</td>' in page
    assert 'color:#000">0.90</td>' in page and page.count("<td>–</td>") == 4 and "&lt;b&gt;" in page
