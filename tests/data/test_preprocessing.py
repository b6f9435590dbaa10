"""Images, and masks along with them, at a network's size; files of every mode."""

import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, features

from ltx_jax.data.preprocessing import (
    Preprocessing,
    read_resized,
    read_rgb,
    resize_image,
    resize_masks,
)


def saved(image: Image.Image, path: Path, **how: object) -> np.ndarray:
    """What is read of an image once it is written."""
    image.save(path, **how)
    return read_rgb(path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


# --- Files ----------------------------------------------------------------------------------------


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 4), (200, 0, 0))
    half = Image.new("RGBA", (4, 4), (200, 100, 0, 128))
    grey16 = Image.fromarray(np.full((4, 4), 257 * 90, np.uint16))
    assert (saved(Image.new("L", (4, 4), 77), tmp_path / "grey.png") == 77).all()
    assert (saved(half, tmp_path / "half.png") == [100, 50, 0]).all()
    assert (saved(grey16, tmp_path / "grey16.png") == 90).all()
    palette = saved(red.convert("P"), tmp_path / "palette.png")
    assert np.abs(palette - np.array([200, 0, 0])).max() < 30
    assert saved(red.convert("CMYK"), tmp_path / "cmyk.tiff")[0, 0].tolist() == [200, 0, 0]
    blue = Image.new("RGB", (4, 4), "blue")
    first = saved(red, tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert first[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_grey_value_that_is_transparent_is_black(tmp_path: Path, depth: type) -> None:
    scale = np.iinfo(depth).max // 255
    grey = Image.fromarray((np.array([[0, 5, 90]]) * scale).astype(depth))
    found = saved(grey, tmp_path / "a.png", transparency=90 * scale)
    assert found.tolist() == [[[0] * 3, [5] * 3, [0] * 3]]


def test_images_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), "blue")
    image.paste((255, 0, 0), (0, 0, 2, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # lies on its left side
    upright = saved(image, tmp_path / "a.png", exif=exif)
    assert upright.shape == (4, 2, 3)
    assert upright[0, 0].tolist() == [255, 0, 0] and upright[3, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".jp2", ".tif"])
def test_damaged_pixels_are_not_read_as_if_whole(
    tmp_path: Path, suffix: str, upright: bool
) -> None:
    if suffix == ".jp2" and not features.check("jpg_2000"):
        pytest.skip("Pillow was built without JPEG 2000")
    path = tmp_path / f"a{suffix}"
    compressed = {"compression": "tiff_lzw"} if suffix == ".tif" else {}
    Image.fromarray(noise(40, 60, 3)).save(path, **compressed)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    if suffix == ".jp2":
        content = content[:half]
    else:
        content[half : half + 90] = bytes(90)
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"broken data stream|decoder error"):
        read_rgb(path, upright)


# --- Images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squashed_as_pillow_does(interpolation: str) -> None:
    image = noise(30, 20, 3)
    method = Image.Resampling[interpolation.upper()]
    expected = np.asarray(Image.fromarray(image).resize((8, 12), method))
    found = resize_image(image, Preprocessing((12, 8), interpolation=interpolation))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_read_and_resized_at_once(tmp_path: Path, mode: str, resize: str) -> None:
    values = noise(40, 30, 3)
    picture = Image.fromarray(values).convert(mode)
    if mode == "I;16":
        picture = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    picture.save(path, exif=exif)
    how = Preprocessing((20, 24), resize=resize)
    expected = resize_image(read_rgb(path), how)
    np.testing.assert_array_equal(read_resized(path, how), expected)
    assert expected.shape == (20, 24, 3)


def test_the_crop_is_the_centre() -> None:
    # Scaled by max(2/8, 2/4) / 0.5 = 1: rows 3 and 4 of eight, columns 1 and 2 of four.
    image = noise(8, 4, 3)
    how = Preprocessing((2, 2), resize="crop", crop_fraction=0.5)
    np.testing.assert_array_equal(resize_image(image, how), image[3:5, 1:3])
    masks = np.moveaxis(image > 127, -1, 0)
    np.testing.assert_array_equal(resize_masks(masks, how), masks[:, 3:5, 1:3])


def test_an_image_of_the_size_is_squashed_to_itself() -> None:
    how = Preprocessing((8, 6), interpolation="bicubic")
    for image in (noise(8, 6, 3), np.random.default_rng(0).random((8, 6, 3), np.float32)):
        found = resize_image(image, how)
        assert found.dtype == image.dtype
        np.testing.assert_array_equal(found, image)


def test_an_image_of_the_size_is_cropped_too() -> None:
    # Enlarged to 16×16, whose middle eight rows and columns are the image's middle four.
    image, how = noise(8, 8, 1), Preprocessing((8, 8), resize="crop", crop_fraction=0.5)
    enlarged = np.asarray(Image.fromarray(image[..., 0]).resize((16, 16), 2))
    np.testing.assert_array_equal(resize_image(image, how)[..., 0], enlarged[4:12, 4:12])
    masks = np.moveaxis(image > 127, -1, 0)
    np.testing.assert_array_equal(
        resize_masks(masks, how), masks[:, 2:6, 2:6].repeat(2, 1).repeat(2, 2)
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels(channels: int) -> None:
    image, how = noise(9, 7, channels), Preprocessing((4, 4))
    found = resize_image(image, how)
    for c in range(channels):
        alone = Image.fromarray(image[..., c]).resize((4, 4), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[..., c], np.asarray(alone))


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_floats_are_resized_as_bytes_are_but_not_rounded(resize: str, interpolation: str) -> None:
    image = noise(30, 40, 3)
    how = Preprocessing((12, 12), interpolation=interpolation, resize=resize)
    found = resize_image(image.astype(np.float32) / 255, how)
    assert found.dtype == np.float32
    # Each of Pillow's two passes rounds bytes.
    np.testing.assert_allclose(found * 255, resize_image(image, how), atol=1.6)
    assert (found * 255 % 1 > 0).any()


def test_floats_stay_in_their_range() -> None:
    steps = np.zeros((8, 8, 1), np.float32)
    steps[:, 4:] = 1.0
    found = resize_image(steps, Preprocessing((32, 32), interpolation="bicubic"))
    assert found.min() == 0.0 and found.max() == 1.0


# --- Masks ----------------------------------------------------------------------------------------


def test_masks_take_the_pixel_under_each_centre() -> None:
    # Four rows to two: centres at 1 and 3, that is the rows 1 and 3. Five columns to two: centres
    # at 1.25 and 3.75, the columns 1 and 3.
    mask = np.zeros((4, 5), np.bool_)
    mask[1, 3] = mask[3, 1] = mask[0, 0] = mask[2, 2] = True
    found = resize_masks(mask[None], Preprocessing((2, 2)))
    assert found.dtype == np.bool_
    assert found.tolist() == [[[False, True], [True, False]]]


def test_masks_are_enlarged_by_repeating_pixels() -> None:
    mask = np.array([[True, False], [False, True]])
    found = resize_masks(mask[None], Preprocessing((4, 6)))
    np.testing.assert_array_equal(found[0], mask.repeat(2, 0).repeat(3, 1))


def test_no_masks_stay_none() -> None:
    assert resize_masks(np.zeros((0, 4, 4), np.bool_), Preprocessing((2, 3))).shape == (0, 2, 3)


@pytest.mark.parametrize("size", [(16, 16), (24, 18), (96, 100)])
@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (50, 37)])
def test_objects_and_their_masks_stay_together(
    shape: tuple[int, int], resize: str, size: tuple[int, int]
) -> None:
    # White on black, one lying and one standing, so that no corner is rounded off.
    masks = np.zeros((2, *shape), np.bool_)
    masks[0, 20:38] = masks[1, :, 11:29] = True
    image = np.moveaxis(np.where(masks, 255, 0).astype(np.uint8), 0, -1)
    how = Preprocessing(size, resize=resize)
    seen = np.moveaxis(resize_image(image, how), -1, 0)
    found = resize_masks(masks, how)
    for axis in (1, 2):
        assert found.any(axis).any() and not found.all(axis).all()
    # What is clearly inside or outside agrees; only pixels whose middle lies on an edge may not.
    assert found[seen > 140].all() and not found[seen < 115].any()


@pytest.mark.parametrize("shape", [(1, 60_000, 3), (60_000, 1, 3), (2, 100_001, 1)])
def test_of_a_thin_image_only_the_middle_is_enlarged(shape):
    image = np.zeros(shape, np.uint8)
    long = int(np.argmax(shape))
    middle = [slice(None)] * 3
    middle[long] = slice(shape[long] // 2 - 30, shape[long] // 2 + 30)
    image[tuple(middle)] = 200
    how = Preprocessing((64, 64), resize="crop")
    tracemalloc.start()
    found = resize_image(image, how)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (64, 64, shape[2]) and (found == 200).all()
    assert peak < 20 * 2**20


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_cut_first_or_last_it_is_the_same_to_a_few_levels(monkeypatch, method):
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    image = np.cumsum(image // 16, axis=1).astype(np.uint8)
    how = Preprocessing((40, 40), resize="crop", interpolation=method)
    last = resize_image(image, how).astype(int)
    monkeypatch.setattr("ltx_jax.data.preprocessing._MOST_PIXELS", 0)
    assert np.abs(resize_image(image, how) - last).max() <= 2


@pytest.mark.parametrize("size", [(8, 8), (4, 4)])
def test_true_is_one_whatever_pillow_makes_of_it(size):
    """Devices count what a byte says: 255 would be no single pixel."""
    mask = np.asarray(Image.fromarray(np.tri(8) > 0).transpose(Image.Transpose.ROTATE_90))
    resized = resize_masks(mask[None], Preprocessing(size))
    assert resized.any() and set(np.unique(resized.view(np.uint8))) == {0, 1}
    assert jnp.asarray(resized).sum() == resized.sum()
