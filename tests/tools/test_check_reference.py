"""The original's numbers, kept in tests/reference/, are reproduced."""

from pathlib import Path

import check_reference
import numpy as np
import pytest

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.mark.slow
def test_every_quantity_is_within_its_limit():
    rows = list(check_reference.check(REFERENCE))
    assert len(rows) == 45
    assert [row for row in rows if not row.passed] == []


def test_a_wrong_number_fails(tmp_path):
    network = check_reference.load(REFERENCE, "vit", tmp_path)
    network.outputs["token_mask"] = network.outputs["token_mask"] + 2e-4
    network.outputs["explainee_logits"] = np.full((3, 10), np.nan)
    verdicts = {row.quantity: row.passed for row in check_reference.check_network(network)}
    assert verdicts == {"vit explainee_logits": False, "vit token_mask": False} | {
        "vit pixel_mask": True
    }
