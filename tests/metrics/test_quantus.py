"""Scores against the package `quantus`, where both define the same thing."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import scored

from ltx_jax.models.explainee import Explainee

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]  # the package's own
torch = pytest.importorskip("torch")
quantus = pytest.importorskip("quantus")

# One channel, since quantus ranks the channels of a pixel apart; its pixels in ten equal parts.
N, HEIGHT, WIDTH = 3, 20, 10
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(0, 0.1, (HEIGHT * WIDTH, 4)).astype(np.float32)
IMAGES = RNG.random((N, HEIGHT, WIDTH, 1), np.float32)
MAPS = RNG.random((N, HEIGHT, WIDTH), np.float32)
TRUTH = RNG.random((N, HEIGHT, WIDTH)) < 0.3
CLASSES = np.array([[0], [2], [3]])
EXPLAINEE = Explainee(
    lambda w, x: jnp.tanh(x.reshape(len(x), -1) @ w), jnp.asarray(WEIGHTS), (HEIGHT, WIDTH), 4
)


class Twin(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x.flatten(1) @ torch.from_numpy(WEIGHTS))


def ours(*names):
    return scored(EXPLAINEE, IMAGES, MAPS, CLASSES, names, truth=TRUTH, known_truth=[True] * N)


def flipped(maps, softmax):
    """What remains at the nine first of ten steps, most relevant first."""
    flip = quantus.PixelFlipping(
        HEIGHT * WIDTH // 10, perturb_baseline=0.0, normalise=False, disable_warnings=True
    )
    found = flip(
        Twin().eval(),
        IMAGES.transpose(0, 3, 1, 2),
        CLASSES[:, 0],
        maps[:, None],
        channel_first=True,
        softmax=softmax,
    )
    return np.array(found)[:, :-1]


@pytest.mark.parametrize("name", ["srg_probability", "srg_logit"])
def test_symmetric_relevance_gain_is_the_difference_of_two_flippings(name):
    of_logit = name == "srg_logit"
    gain = flipped(1 - MAPS, not of_logit) - flipped(MAPS, not of_logit)
    curve = np.concatenate([np.zeros((N, 1)), gain], 1)  # both begin with the image itself
    expected = np.trapezoid(curve, axis=1) * (1 / 9 if of_logit else 10)
    np.testing.assert_allclose(ours(name)[name][:, 0], expected, rtol=1e-4, atol=1e-5)


def test_where_maps_lie():
    found = ours("pointing_game", "pixel_auc")
    given = {"model": None, "x_batch": IMAGES.transpose(0, 3, 1, 2), "y_batch": CLASSES[:, 0]}
    given |= {"a_batch": MAPS[:, None], "s_batch": TRUTH[:, None], "channel_first": True}
    for name, theirs in (("pointing_game", quantus.PointingGame), ("pixel_auc", quantus.AUC)):
        expected = theirs(normalise=False, disable_warnings=True)(**given)
        np.testing.assert_allclose(found[name][:, 0], 100 * np.array(expected), rtol=1e-5)
