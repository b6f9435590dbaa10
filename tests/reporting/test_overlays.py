"""Pictures whose pixels are worked out by hand."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ltx_jax.reporting.overlays import (
    class_colour,
    class_overlay,
    heat_map,
    in_colour,
    overlay,
    panel,
    save_png,
    stretched,
    views,
)


def test_heat_map_ends_and_lightness():
    colours = heat_map(np.linspace(0, 1, 50)[None])[0].astype(float)
    assert colours[0].tolist() == [13, 8, 60]
    assert colours[-1].tolist() == [250, 250, 190]
    lightness = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("pixel", [[30, 60, 90], [60], [20, 100], [0, 240, 0, 0]])
def test_overlay_mixes_grey_and_colour(pixel):
    image = np.zeros((1, 2, len(pixel)), np.uint8) + np.uint8(pixel)
    found = overlay(image, np.array([[0.2, 0.4]]))
    # The mask is stretched to 0 and 1: opacities 0.25 and 0.75 over the grey 60.
    assert found[0, 0].tolist() == np.round(60 * 0.75 + 0.25 * np.array([13, 8, 60])).tolist()
    assert found[0, 1].tolist() == np.round(60 * 0.25 + 0.75 * np.array([250, 250, 190])).tolist()


def test_classes_have_colours_of_their_own():
    assert class_colour(0).tolist() == [255, 38, 38]  # red
    colours = np.stack([class_colour(i) for i in range(20)]).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(20, dtype=int)
    assert apart.min() > 20


def test_masks_of_classes_are_mixed_by_their_values():
    image = np.full((1, 3, 3), 100, np.uint8)
    masks = np.array([[[1.0, 0.6, 0.0]], [[0.0, 0.2, 0.0]]])
    found = class_overlay(image, masks, [0, 7])[0]
    red, other = (class_colour(i).astype(float) for i in (0, 7))
    assert found[0].tolist() == np.round(25 + 0.75 * red).tolist()
    mixed = 0.75 * red + 0.25 * other
    assert found[1].tolist() == np.round(100 * 0.55 + mixed * 0.45).tolist()
    assert found[2].tolist() == [100] * 3


def test_a_nearly_constant_mask_is_not_stretched():
    almost = np.array([[0.4, 0.45], [0.48, 0.4]], np.float32)
    np.testing.assert_array_equal(stretched(almost), almost)
    np.testing.assert_allclose(stretched(10 * almost - 3.9)[0], [0.0, 0.625], rtol=1e-4)


def test_a_constant_mask_is_shown_as_it_is():
    found = overlay(np.zeros((1, 1, 3), np.uint8), np.array([[1.0]]))
    assert found[0, 0].tolist() == np.round(0.75 * np.array([250, 250, 190])).tolist()
    # One of an activation without an upper bound as 1.
    above = overlay(np.zeros((1, 1, 3), np.uint8), np.array([[3.0]]))
    np.testing.assert_array_equal(above, found)


@pytest.mark.parametrize(
    ("pixel", "shown"),
    [([1, 2, 3], [1, 2, 3]), ([7], [7, 7, 7]), ([1, 2], [2, 2, 2]), ([8, 0, 0, 0], [2, 2, 2])],
)
def test_other_channels_than_three_are_grey(pixel, shown):
    assert in_colour(np.uint8([[pixel]]))[0, 0].tolist() == shown


def test_views_of_a_grey_image():
    found = views(np.full((1, 1, 1), 100, np.uint8), np.array([[0.5]]))
    pixels = {name: view[0, 0].tolist() for name, view in found.items()}
    assert list(pixels) == ["image", "mask", "overlay", "masked"]
    assert (pixels["image"], pixels["mask"], pixels["masked"]) == ([100] * 3, [128] * 3, [50] * 3)


def test_panel_shows_four_enlarged_pictures(tmp_path):
    image = np.full((80, 80, 3), 100, np.uint8)
    found = panel(image, np.full((80, 80), 0.5))
    assert found.shape == (160, 4 * 160 + 3 * 4, 3)
    assert found[0, 0].tolist() == [100, 100, 100]
    assert found[5, 160].tolist() == [255, 255, 255]
    assert found[5, 164].tolist() == [128, 128, 128]
    assert found[-1, -1].tolist() == [50, 50, 50]
    save_png(tmp_path / "x.png", found)
    with Image.open(BytesIO((tmp_path / "x.png").read_bytes())) as stored:
        np.testing.assert_array_equal(np.asarray(stored), found)
