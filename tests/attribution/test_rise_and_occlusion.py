"""RISE by its expectation, occlusion by hand and against captum."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.attribution.occlusion import occlusion
from ltx_jax.attribution.rise import rise, smooth_mask
from ltx_jax.masks.tokens import interpolation_matrix
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import architecture
from ltx_jax.weights.state_dict import from_state_dict, shapes_of

pytestmark = pytest.mark.usefixtures("fast_programs")

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((3, 7, 6, 2)), jnp.float32)
TARGETS = jnp.array([1, 0, 1], jnp.int32)
WEIGHTS = jnp.asarray(RNG.normal(size=(7, 6, 2, 2)), jnp.float32)
LINEAR = Explainee(lambda w, x: jnp.einsum("nhwc,hwck->nk", x, w), WEIGHTS, (7, 6), 2, channels=2)


def _of_probability(weights, images):
    """Logits whose softmax is linear in the pixels."""
    p = 0.05 + jnp.einsum("nhwc,hwc->n", images, weights)
    return jnp.log(jnp.stack([1 - p, p], -1))


def test_rise_converges_to_its_expectation():
    size, cells, kept = (7, 6), 3, 0.4
    weights = np.zeros((*size, 2), np.float32)
    weights[1:3, 1:3] = 0.09
    mine = Explainee(_of_probability, jnp.asarray(weights), size, 2, channels=2)
    found = rise(mine, IMAGES, jnp.ones(3, jnp.int32), masks=20_000, cells=cells, kept=kept)

    # A mask is B·W of cells B: E[m m'] = k² + k(1 − k) ΣWW', the mean over where it is cut out.
    shared = np.zeros((42, 42))
    pixels = [-(-side // cells) for side in size]
    enlarged = [interpolation_matrix(cells, (cells + 1) * n) for n in pixels]
    for down in range(pixels[0]):
        for across in range(pixels[1]):
            rows, columns = enlarged[0][down : down + 7], enlarged[1][across : across + 6]
            part = np.einsum("ha,wb->hwab", rows, columns).reshape(42, cells**2)
            shared += part @ part.T / np.prod(pixels)
    both = kept**2 + kept * (1 - kept) * shared
    parts = (weights * np.asarray(IMAGES)).sum(-1).reshape(3, 42)
    expected = (0.05 + parts @ both / kept).reshape(3, *size)
    # A standard error is about 0.004.
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.ptp(expected, axis=(1, 2)).min() > 0.08


def test_a_mask_is_its_number_s():
    draw = jax.jit(jax.vmap(lambda i: smooth_mask(i, 7, 0.5, (20, 30))))
    masks = np.asarray(draw(jnp.arange(500)))
    assert masks.shape == (500, 20, 30) and masks.min() >= 0 and masks.max() <= 1
    np.testing.assert_allclose(masks.mean((1, 2)).mean(), 0.5, atol=0.02)
    np.testing.assert_array_equal(draw(jnp.array([17]))[0], masks[17])
    assert len(np.unique(masks.reshape(500, -1), axis=0)) == 500


def test_neighbours_change_nothing_but_rounding():
    together = rise(LINEAR, IMAGES, TARGETS, masks=37)
    alone = rise(LINEAR, IMAGES[1:2], TARGETS[1:2], masks=37)
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-5)
    together = occlusion(LINEAR, IMAGES, TARGETS)
    alone = occlusion(LINEAR, IMAGES[1:2], TARGETS[1:2])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("window", "stride"), [((3, 2), (2, 2)), ((3, 4), (3, 1)), ((1, 1), (1, 1)), ((7, 6), (1, 1))]
)
def test_occlusion_of_a_linear_explainee_is_the_mean_over_windows(window, stride):
    """The weight times pixel of all that a window hides, of every window that holds a pixel."""
    parts = np.stack([np.asarray(WEIGHTS)[..., k] for k in TARGETS]) * np.asarray(IMAGES)
    total, count = np.zeros((3, 7, 6)), np.zeros((7, 6))
    top = 0
    while True:
        left = 0
        while True:
            place = slice(top, top + window[0]), slice(left, left + window[1])
            total[:, *place] += parts[:, *place].sum((1, 2, 3))[:, None, None]
            count[place] += 1
            if left + window[1] >= 6:
                break
            left += stride[1]
        if top + window[0] >= 7:
            break
        top += stride[0]
    found = occlusion(LINEAR, IMAGES, TARGETS, window=window, stride=stride)
    np.testing.assert_allclose(found, total / count, atol=1e-5)


@pytest.mark.parity
def test_occlusion_is_captum_s():
    parity = pytest.importorskip("parity_tools")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captum = pytest.importorskip("captum.attr")
    parity.torch.manual_seed(0)
    theirs = parity.lively(parity.torchvision.models.resnet18(weights=None))
    network = architecture("resnet18")
    params = from_state_dict(
        parity.state_dict(theirs),
        network.table(network.module),
        shapes_of(network.module, (64, 64)),
        "resnet18",
    )
    mine = Explainee(network.apply, params, (64, 64), 1000)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    targets = np.array([3, 7], np.int32)
    how = network.preprocessing
    mean, std = (parity.torch.tensor(x)[:, None, None] for x in (how.mean, how.std))

    def normalised(seen):
        return theirs((seen - mean) / std)

    with parity.torch.no_grad():
        expected = (
            captum.Occlusion(normalised)
            .attribute(
                parity.channels_first(images),
                sliding_window_shapes=(3, 15, 15),
                strides=(3, 8, 8),
                target=parity.torch.tensor(targets).long(),
                perturbations_per_eval=16,
            )[:, 0]
            .numpy()
        )
    found = occlusion(mine, jnp.asarray(images), jnp.asarray(targets), (15, 15), (8, 8))
    spans = np.ptp(expected, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found / spans, expected / spans, atol=1e-3)
