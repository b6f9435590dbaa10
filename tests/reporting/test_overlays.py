"""Pictures whose pixels are worked out by hand."""

import numpy as np

from ltx_jax.reporting.overlays import heat_map, overlay, panel


def test_heat_map_ends_and_lightness():
    colours = heat_map(np.linspace(0, 1, 50)[None])[0].astype(float)
    assert colours[0].tolist() == [13, 8, 60]
    assert colours[-1].tolist() == [250, 250, 190]
    lightness = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0).all()


def test_overlay_mixes_grey_and_colour():
    image = np.zeros((1, 2, 3), np.uint8) + np.uint8([30, 60, 90])
    found = overlay(image, np.array([[0.2, 0.4]]))
    # The mask is stretched to 0 and 1: opacities 0.25 and 0.75 over the grey 60.
    assert found[0, 0].tolist() == np.round(60 * 0.75 + 0.25 * np.array([13, 8, 60])).tolist()
    assert found[0, 1].tolist() == np.round(60 * 0.25 + 0.75 * np.array([250, 250, 190])).tolist()


def test_panel_shows_four_enlarged_pictures():
    image = np.full((80, 80, 3), 100, np.uint8)
    found = panel(image, np.full((80, 80), 0.5))
    assert found.shape == (160, 4 * 160 + 3 * 4, 3)
    assert found[0, 0].tolist() == [100, 100, 100]
    assert found[5, 160].tolist() == [255, 255, 255]
    assert found[5, 164].tolist() == [128, 128, 128]
    assert found[-1, -1].tolist() == [50, 50, 50]
