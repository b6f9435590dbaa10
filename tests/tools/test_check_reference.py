"""The original's numbers, kept in tests/reference/, are reproduced."""

from pathlib import Path

import check_reference
import jax.numpy as jnp
import numpy as np
import pytest
from check_lavise import check_lavise
from reference_rows import arrays_of

from ltx_jax.models.explainee import Explainee

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.mark.slow
@pytest.mark.usefixtures("fast_programs")  # others round otherwise
def test_every_quantity_is_within_its_limit():
    rows = list(check_reference.check(REFERENCE))
    assert len(rows) == 45 + 7 + 8 + 37 + 5
    assert [row for row in rows if not row.passed] == []


def test_a_wrong_number_fails(tmp_path):
    network = check_reference.load(REFERENCE, "vit", tmp_path)
    network.outputs["token_mask"] = network.outputs["token_mask"] + 2e-4
    network.outputs["explainee_logits"] = np.full((3, 10), np.nan)
    verdicts = {row.quantity: row.passed for row in check_reference.check_network(network)}
    assert verdicts == {"vit explainee_logits": False, "vit token_mask": False} | {
        "vit pixel_mask": True
    }


def _blind(_, images):
    return jnp.zeros((len(images), 2))


BLIND = Explainee(_blind, None, (224, 224), num_classes=2)


def test_segmentation_scores_are_the_originals():
    rows = list(check_reference.check_segmentation(REFERENCE, BLIND))
    assert len(rows) == 7 and all(row.quantity.startswith("segmentation ") for row in rows)
    assert [row for row in rows if not row.passed] == []


def test_a_wrong_segmentation_fails(tmp_path):
    (tmp_path / "meta.json").write_text((REFERENCE / "meta.json").read_text())
    given = arrays_of(REFERENCE, "segmentation.npz")
    given["labels"][0] = np.where(given["labels"][0] < 0, 1, given["labels"][0])  # void is object
    np.savez(tmp_path / "segmentation.npz", **given)
    assert not any(r.passed for r in check_reference.check_segmentation(tmp_path, BLIND))


def test_maps_are_compared_image_by_image():
    theirs = np.array([[[3.0, 4.0]], [[0.0, 1.0]]])
    ours = theirs + np.array([[[0.0, 0.5]], [[0.2, 0.0]]])
    assert check_reference._relative(ours, theirs) == pytest.approx(0.2)
    assert check_reference._relative(ours, theirs[:1]) == pytest.approx(0.1)
    assert check_reference._relative(ours[:1], theirs) == np.inf
    assert check_reference._relative(ours[:, :, :1], theirs) == np.inf


def test_words_are_the_originals():
    rows = list(check_lavise(REFERENCE))
    assert [row.quantity for row in rows] == [
        "lavise loss",
        "lavise loss of a subset",
        "lavise loss at margin 0.5",
        "lavise projection",
        "lavise masked features",
    ]
    assert [row for row in rows if not row.passed] == []
