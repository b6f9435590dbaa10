"""The LTX objective worked out by hand on a linear explainee."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.explainee import Explainee
from ltx_jax.objectives.ltx import Objective, losses, mask_term

# Logits: the sum of the red channel over four pixels, and 0.
SUM = Explainee(
    apply=lambda _, x: jnp.stack([x[..., 0].sum((1, 2)), jnp.zeros(len(x))], -1),
    params=None,
    image_size=(2, 2),
    num_classes=2,
)
WHITE = np.ones((1, 2, 2, 3), np.float32)
HALF = np.full((1, 2, 2), 0.25, np.float32)  # visible sum 1, hidden sum 3


def cross_entropy(logit: float) -> float:
    return float(np.log1p(np.exp(-logit)))


@pytest.mark.parametrize(
    ("objective", "prediction"),
    [
        (Objective(2.0, "l1"), cross_entropy(1)),
        (Objective(2.0, "l1", logits_only=True), -1.0),
        (
            Objective(2.0, "l1", counterfactual=True),
            0.5 * (cross_entropy(1) - cross_entropy(3)),
        ),
    ],
)
def test_prediction_terms(objective, prediction):
    found = losses(objective, SUM, WHITE, HALF, jnp.array([0]))
    np.testing.assert_allclose(found.prediction, [prediction], rtol=1e-5)
    np.testing.assert_allclose(found.mask, [0.25], rtol=1e-6)
    np.testing.assert_allclose(found.total, [prediction + 2 * 0.25], rtol=1e-5)


def test_mask_terms():
    masks = jnp.array([[[0.0, 1.0], [0.0, 1.0]]])
    softplus = (np.log(2) + np.log1p(np.e)) / 2
    np.testing.assert_allclose(mask_term(masks, "bce"), [softplus], rtol=1e-6)
    np.testing.assert_allclose(mask_term(masks, "l1"), [0.5])
    # Two of four tokens share everything: log 2 / log 4.
    np.testing.assert_allclose(mask_term(masks, "entropy"), [0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="bce, l1, entropy"):
        mask_term(masks, "l2")
