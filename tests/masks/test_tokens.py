"""Activations and upsampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.masks.tokens import activate, upsample


def test_upsampling_has_half_pixel_centres():
    mask = np.array([[[0.0, 1.0], [2.0, 3.0]]], np.float32)
    row = np.array([0, 0.25, 0.75, 1])
    expected = row[None, :] + 2 * row[:, None]
    np.testing.assert_allclose(upsample(mask, (4, 4))[0], expected, atol=1e-6)


def test_upsampling_to_another_aspect_keeps_constants():
    mask = np.full((2, 3, 5), 0.7, np.float32)
    np.testing.assert_allclose(upsample(mask, (7, 11)), np.full((2, 7, 11), 0.7), rtol=1e-6)


def test_masks_of_pixels_stay_and_those_of_several_classes_are_each_their_own():
    masks = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    np.testing.assert_array_equal(upsample(masks, (4, 5)), masks)
    each = np.stack([upsample(of_image, (8, 15)) for of_image in masks])
    np.testing.assert_array_equal(upsample(masks, (8, 15)), each)


@pytest.mark.parity
def test_upsampling_is_torchs():
    torch = pytest.importorskip("torch")
    mask = np.random.default_rng(0).random((2, 7, 14), np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(mask)[:, None], (224, 100), mode="bilinear", align_corners=False
    )[:, 0]
    np.testing.assert_allclose(upsample(mask, (224, 100)), theirs.numpy(), atol=1e-6)


def test_activations():
    raw = jnp.array([[[-1.0, 0.0], [0.5, 2.0]]])
    np.testing.assert_allclose(activate(raw, "relu"), [[[0, 0], [0.5, 2]]])
    np.testing.assert_allclose(activate(raw, "clamp"), [[[0, 0], [0.5, 1]]])
    np.testing.assert_allclose(activate(raw, "sigmoid"), 1 / (1 + np.exp(-raw)), rtol=1e-6)
    np.testing.assert_allclose(activate(raw, "softmax").sum(), 1.0, rtol=1e-6)
    with pytest.raises(ValueError, match="sigmoid, relu, softmax, clamp"):
        activate(raw, "tanh")


def test_upsampling_is_in_float32_and_keeps_the_kind_of_array():
    mask = np.random.default_rng(0).random((2, 3, 5))
    expected = upsample(mask.astype(np.float32), (7, 11))
    with jax.enable_x64(True):
        for given, kind in ((mask, np.ndarray), (jnp.asarray(mask), jax.Array)):
            found = upsample(given, (7, 11))
            assert isinstance(found, kind) and found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    half = upsample(jnp.asarray(mask, jnp.bfloat16), (7, 11))
    assert half.dtype == np.float32
