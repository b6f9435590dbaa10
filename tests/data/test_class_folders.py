"""Labels from the names of folders."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from ltx_jax.data.image_files import held_by
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import open_images
from ltx_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Black cats, grey dogs, a white Yak; capitals come first in sorted order."""
    root = tmp_path / "in"
    for name, level in {"dog/b": 128, "cat/2": 0, "cat/10": 0, "Yak/a": 255}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (level,) * 3).save(root / f"{name}.png")
    (root / "cat" / "notes.txt").write_text("no picture")
    (root / "readme.md").write_text("no picture")
    (root / ".hidden").mkdir()
    return root


def test_a_class_is_the_place_of_its_folder(folder):
    source = open_images(folder, "folders")
    assert source.names == ("Yak/a.png", "cat/10.png", "cat/2.png", "dog/b.png")
    assert source.labels == ((0,), (1,), (1,), (2,))
    part = open_images(folder, "folders", indices="2:")
    assert part.labels == ((1,), (2,))
    example = part.load(1, Preprocessing((2, 2)))
    assert example.labels == (2,) and (example.image == 128).all() and example.masks is None


def test_without_the_word_nothing_is_known(folder):
    assert open_images(folder).labels == ((),) * 4
    assert open_images(folder).names == open_images(folder, "folders").names
    assert open_images(folder).digest() != open_images(folder, "folders").digest()


def test_a_file_of_that_name_is_given_as_a_path(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folders").write_text("7\n8\n9\n6\n")
    assert open_images(folder, "./folders").labels == ((7,), (8,), (9,), (6,))
    assert open_images(folder, tmp_path / "folders").labels == ((7,), (8,), (9,), (6,))


def test_links_to_folders_and_to_nothing(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "elsewhere" / "z.png")
    (folder / "ant").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / "gone.png").symlink_to(tmp_path / "gone.png")
    (folder / "dog" / "self.png").symlink_to("self.png")
    source = open_images(folder, "folders")
    assert source.names[1] == "ant/z.png" and source.labels == ((0,), (1,), (2,), (2,), (3,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stray.png", "stray.png lies beside the folders of .*in: expected each image in a folder"),
        ("cat/more/a.png", "cat holds the folder more: expected images alone in the folder of a"),
        ("empty/notes.txt", "no images in .*empty: expected some in the folder of each class"),
    ],
)
def test_images_that_lie_elsewhere(folder, change, message):
    (folder / change).parent.mkdir(exist_ok=True)
    (folder / change).write_bytes((folder / "cat" / "2.png").read_bytes())
    with pytest.raises(InputError, match=message) as caught:
        open_images(folder, "folders")
    assert "\n" not in str(caught.value)


def test_what_has_no_folders(folder, tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 8, 8, 3), np.uint8))
    (tmp_path / "none").mkdir()
    for path, message in {
        tmp_path / "a.npz": "a.npz is no folder: expected one that holds a folder for each class",
        tmp_path / "none": "no folders in .*none: expected one for each class",
        folder / "cat": "10.png lies beside the folders",
        tmp_path / "gone": "gone is no folder",
    }.items():
        with pytest.raises(InputError, match=message):
            open_images(path, "folders")


@pytest.mark.parametrize(
    ("dataset", "labels", "message"),
    [
        ("imagenet", "folders", "goes with no data set, and config.dataset is imagenet: choose"),
        ("imagenet", "classes", "goes with config.dataset=coco or config.dataset=voc, and"),
        (None, "classes", r"and config.dataset is None: choose one of them, or give .* \./classes"),
        ("coco", "not_difficult", "labels=not_difficult goes with config.dataset=voc, and"),
    ],
)
def test_words_that_go_with_something_else(folder, dataset, labels, message):
    with pytest.raises(InputError, match=message):
        open_images(folder, labels, dataset=dataset)


@pytest.mark.parametrize("labels", [None, "folders"])
def test_no_file_is_asked_for_its_kind(folder, monkeypatch, labels):
    """A million of them on a network's disk would take hours."""
    asked, stat = [], os.stat

    def recorded(path, *rest, **more):
        asked.append(str(path))
        return stat(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr("os.stat", recorded)
        open_images(folder, labels)
    assert not [path for path in asked if path.endswith(".png")]


def test_a_folder_that_cannot_be_read_is_left_out_and_said(folder, monkeypatch, caplog):
    def closed(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", closed)
    with caplog.at_level("WARNING"):
        assert held_by(folder) == []
    assert f"left out {folder}, which cannot be read (Permission denied)" in caplog.text
