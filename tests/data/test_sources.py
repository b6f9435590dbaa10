"""Every kind of input, and every kind of bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltx_jax.data.preprocessing import Preprocessing, preprocess
from ltx_jax.data.sources import (
    UnreadableImage,
    iterate,
    open_images,
    read_class_names,
)
from ltx_jax.errors import InputError

HOW = Preprocessing((8, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images, one of them in a subfolder, a truncated one and an impostor."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "b.png")
    Image.new("RGB", (20, 10), (10, 20, 30)).save(tmp_path / "in" / "deep" / "a.JPG")
    Image.fromarray(noise).save(tmp_path / "in" / "c.jpg")
    whole = (tmp_path / "in" / "c.jpg").read_bytes()
    (tmp_path / "in" / "c.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "d.jpg").write_text("not a picture")
    (tmp_path / "in" / "notes.md").write_text("ignored")
    return tmp_path / "in"


def test_folder(folder):
    source = open_images(folder)
    assert source.names == ("b.png", "c.jpg", "d.jpg", "deep/a.JPG")
    found = dict(iterate(source, HOW, range(4)))
    assert (found[3] == [10, 20, 30]).all() and found[3].shape == (8, 8, 3)
    assert isinstance(found[1], UnreadableImage) and "truncated" in str(found[1])
    assert isinstance(found[2], UnreadableImage) and "\n" not in str(found[2])
    assert found[0].std() > 0


def test_list_and_slice(folder, tmp_path):
    (tmp_path / "list.txt").write_text("in/b.png\n\nin/deep/a.JPG\n")
    assert open_images(tmp_path / "list.txt").names == ("in/b.png", "in/deep/a.JPG")
    assert open_images(folder, indices=slice(1, None), limit=2).names == ("c.jpg", "d.jpg")


def test_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(12))
    source = open_images(tmp_path / "a.npz", indices=slice(3, 5))
    assert source.names == ("03", "04") and source.labels == (3, 4)
    np.testing.assert_array_equal(source.load(1, HOW), images[4])
    assert source.load(0, Preprocessing((4, 4))).shape == (4, 4, 3)
    np.savez(tmp_path / "f.npz", images=images / 255)
    np.testing.assert_array_equal(open_images(tmp_path / "f.npz").load(0, HOW), images[0])


def test_labels(folder, tmp_path):
    by_name = {"b.png": 3, "c.jpg": 1, "d.jpg": 0, "a.JPG": 7}
    (tmp_path / "l.json").write_text(json.dumps(by_name))
    assert open_images(folder, tmp_path / "l.json").labels == (3, 1, 0, 7)
    (tmp_path / "l.txt").write_text("4\n5\n6\n7\n")
    assert open_images(folder, tmp_path / "l.txt").labels == (4, 5, 6, 7)
    (tmp_path / "n.txt").write_text("b.png 4\nc.jpg 5\nd.jpg 6\ndeep/a.JPG 9\n")
    assert open_images(folder, tmp_path / "n.txt").labels == (4, 5, 6, 9)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.json", '{"b.png": 3}', "no label for 3 of 4 images"),
        ("l.json", '{"b.png": 3', "is not JSON"),
        ("l.json", "[1, 2]", "expected {name: index}"),
        ("l.json", '{"b.png": -1, "c.jpg": 1, "d.jpg": 0, "a.JPG": 7}', "the label -1"),
        ("l.json", '{"b.png": "cat", "c.jpg": 1, "d.jpg": 0, "a.JPG": 7}', "the label 'cat'"),
        ("l.txt", "1\n2\n", "2 labels for 4 images"),
        ("l.txt", "b.png one\n", "no number"),
        ("missing.json", None, "no labels at"),
    ],
)
def test_labels_that_do_not_match(folder, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        open_images(folder, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "x.npz", pictures=np.zeros(3))
    np.savez(tmp_path / "first.npz", images=np.zeros((2, 3, 8, 8), np.uint8))
    np.savez(tmp_path / "wide.npz", images=np.full((2, 8, 8, 3), 7.0))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:50])
    (tmp_path / "list.txt").write_text("nowhere.jpg\n")
    for name, message in {
        "nothing": "no images at",
        "empty": "no images in",
        "x.npz": "no `images`",
        "first.npz": "channels last",
        "wide.npz": "from 7.0 to 7.0",
        "cut.npz": "not a whole .npz",
        "list.txt": "do not exist",
    }.items():
        with pytest.raises(InputError, match=message):
            open_images(tmp_path / name)


def test_every_mode_becomes_rgb(tmp_path):
    red = Image.new("RGB", (4, 4), (200, 0, 0))
    half = Image.new("RGBA", (4, 4), (200, 100, 0, 128))
    grey16 = Image.fromarray(np.full((4, 4), 257 * 90, np.uint16))
    grey16.save(tmp_path / "g.png")
    palette = red.convert("P")
    how = Preprocessing((4, 4))
    assert (preprocess(Image.new("L", (4, 4), 77), how) == 77).all()
    assert (preprocess(half, how)[0, 0] == [100, 50, 0]).all()
    with Image.open(tmp_path / "g.png") as image:
        assert image.mode.startswith("I") and (preprocess(image, how) == 90).all()
    assert np.abs(preprocess(palette, how)[0, 0].astype(int) - [200, 0, 0]).max() < 30
    assert preprocess(red.convert("CMYK"), how)[0, 0, 0] > 150
    red.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    with Image.open(tmp_path / "a.gif") as image:
        image.seek(1)
        assert preprocess(image, how)[0, 0, 0] > 150


def test_orientation_and_crop():
    image = Image.new("RGB", (40, 20), "blue")
    image.paste((255, 0, 0), (0, 0, 20, 20))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.info["exif"] = exif.tobytes()
    turned = preprocess(image, Preprocessing((20, 40)))
    assert turned[0, 0].tolist() == [0, 0, 255]
    cropped = preprocess(image, Preprocessing((10, 10), resize="crop", crop_fraction=0.5))
    assert cropped.shape == (10, 10, 3) and cropped[5, 0, 2] == 255 and cropped[5, 9, 0] == 255


def test_class_names(tmp_path):
    (tmp_path / "a.json").write_text('{"0": ["n01", "tench"], "1": ["n02", "goldfish"]}')
    (tmp_path / "b.json").write_text('["tench", "goldfish"]')
    (tmp_path / "c.txt").write_text("tench\ngoldfish\n")
    for name in ("a.json", "b.json", "c.txt"):
        assert read_class_names(tmp_path / name) == ("tench", "goldfish")
    (tmp_path / "d.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="no list of class names"):
        read_class_names(tmp_path / "d.json")
