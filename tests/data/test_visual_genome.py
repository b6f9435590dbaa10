"""Visual Genome as it is published: boxes, names, how frequent these are, what may be wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmentation_sets import picture, rectangle

from ltx_jax.data.examples import Source, UnreadableImage, label_names
from ltx_jax.data.joined import Joined
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import open_images
from ltx_jax.data.visual_genome import open_visual_genome
from ltx_jax.errors import InputError
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.inputs import open_source

HEIGHT, WIDTH = 16, 24
HOW = Preprocessing((HEIGHT, WIDTH))


def box(x: int, y: int, w: int, h: int, *names: str) -> dict[str, object]:
    return {"x": x, "y": y, "w": w, "h": h, "names": list(names), "synsets": [], "object_id": 5}


# By number, neither in the order of numbers nor of their folders.
OBJECTS = {
    10: [
        box(2, 3, 4, 5, " Tree "),
        box(10, 0, 3, 2, "tree", "oak"),
        # Across the left and upper edges, and across the lower and right.
        box(-2, -3, 4, 5, "dog"),
        box(20, 14, 9, 9, "dog"),
    ],
    2: [
        box(0, 0, 24, 16, "traffic  Light"),
        box(1, 1, 2, 2, "tree"),
        # None of these has a pixel: beyond an edge, touching one, or of no width.
        box(24, 0, 3, 3, "tree"),
        box(-3, 0, 3, 3, "dog"),
        box(0, 40, 3, 3, "whale"),
        box(5, 5, 0, 3, "whale"),
        box(5, 5, 3, 3),
        box(5, 5, 3, 3, " "),
    ],
    7: [box(3, 3, 2, 2, "Dog")],
    1: [],
}
FOLDER = {10: "VG_100K", 2: "VG_100K_2", 7: "VG_100K_2", 1: "VG_100K"}


def write(root: Path, name: str, content: object) -> None:
    (root / name).write_text(json.dumps(content))


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    for number, folder in FOLDER.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(picture(HEIGHT, WIDTH, number)).save(tmp_path / folder / f"{number}.jpg")
    write(tmp_path, "objects.json", [{"image_id": n, "objects": o} for n, o in OBJECTS.items()])
    sizes = [{"image_id": n, "width": WIDTH, "height": HEIGHT, "url": ""} for n in FOLDER]
    write(tmp_path, "image_data.json", sizes)
    return tmp_path


def refused(message: str, path: Path, least: int = 1) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_images(path, dataset="visual_genome", least=least)
    assert "\n" not in str(caught.value)


def test_names_are_concepts_and_boxes_their_masks(genome):
    source = open_images(genome, dataset="visual_genome")
    assert isinstance(source, Source) and source.has_masks
    assert source.names == ("1.jpg", "2.jpg", "7.jpg", "10.jpg")
    assert source.label_names == {0: "dog", 1: "traffic light", 2: "tree"}
    assert source.labels == ((), (1, 2), (0,), (0, 2))
    bare, _, _, both = (source.load(i, HOW) for i in range(4))
    assert (bare.labels, bare.masks) == ((), None)
    dog = rectangle(HEIGHT, WIDTH, 0, 0, 2, 2) | rectangle(HEIGHT, WIDTH, 14, 20, 16, 24)
    tree = rectangle(HEIGHT, WIDTH, 3, 2, 8, 6) | rectangle(HEIGHT, WIDTH, 0, 10, 2, 13)
    np.testing.assert_array_equal(both.masks, [dog, tree])


def test_labels_of_a_file_are_of_all_objects_together(genome):
    (genome / "labels.txt").write_text("1.jpg 5\n2.jpg 6\n7.jpg 7\n10.jpg 8\n")
    source = open_images(genome, genome / "labels.txt", dataset="visual_genome")
    known = open_images(genome, dataset="visual_genome")
    for i, label in ((2, 7), (3, 8)):
        example = source.load(i, HOW)
        assert example.labels == (label,) and example.masks is None
        np.testing.assert_array_equal(example.mask_of(label), known.load(i, HOW).masks.any(0))


def test_masks_move_with_the_image(genome):
    """Their boxes lie where the image's own pixels went, resized, or enlarged and cropped."""
    bright = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    bright[3:8, 2:6] = bright[0:2, 10:13] = 255
    Image.fromarray(bright).save(genome / "VG_100K" / "10.jpg", format="PNG")
    source = open_images(genome, dataset="visual_genome")
    for how in (Preprocessing((64, 48)), Preprocessing((32, 32), resize="crop", crop_fraction=1.0)):
        example = source.load(3, how)
        tree = example.mask_of(2)
        assert 0 < tree.mean() < 0.3
        assert example.image[tree].mean() > 180 and example.image[~tree].mean() < 40


def test_rare_names_are_left_out(genome):
    source = open_visual_genome(genome, least=2)
    # "traffic light" is in one image; of the boxes of "dog" one image has two.
    assert source.label_names == {0: "dog", 1: "tree"}
    assert source.labels == ((), (1,), (0,), (0, 1))
    # Images that are taken do not change which names are frequent.
    part = open_images(genome, dataset="visual_genome", indices="1:3", least=2)
    assert part.labels == ((1,), (0,)) and part.label_names == source.label_names


def test_boxes_without_a_pixel_or_a_name_are_counted(genome, caplog):
    caplog.set_level(logging.WARNING)
    open_visual_genome(genome)
    (told,) = caplog.messages
    assert told.startswith("6 of 13 boxes of ") and told.endswith("and are left out")


def test_two_sets_whose_names_differ_are_not_joined(genome):
    every, frequent = open_visual_genome(genome), open_visual_genome(genome, least=2)
    same = Joined(every.only([0, 1]), every.only([2, 3]))
    assert same.label_names == label_names(same) == every.label_names
    # Classes of one name have one number, the first's.
    renumbered = Joined(every.only([0, 1]), frequent.only([2, 3]))
    assert every.label_names == {0: "dog", 1: "traffic light", 2: "tree"}
    assert frequent.labels[3] == (0, 1) and renumbered.labels[3] == (0, 2)
    assert renumbered.load(3, HOW).labels == (0, 2)
    assert renumbered.label_names == every.label_names
    with pytest.raises(InputError, match="held out have a class 'traffic light' that those to"):
        Joined(frequent.only([1]), every.only([0]))


def test_the_digest_knows_names_and_boxes(genome):
    before = open_visual_genome(genome).digest()
    file = genome / "objects.json"
    text = file.read_text()
    file.write_text(text.replace("Dog", "dog").replace(" Tree ", "TREE"))
    assert open_visual_genome(genome).digest() == before
    for one, other in (('"x": 3', '"x": 4'), ("traffic", "red")):
        assert one in text
        file.write_text(text.replace(one, other))
        assert open_visual_genome(genome).digest() != before


def test_an_image_of_another_size(genome):
    source = open_visual_genome(genome)
    Image.fromarray(picture(WIDTH, HEIGHT)).save(genome / "VG_100K" / "10.jpg")
    with pytest.raises(UnreadableImage, match=r"^its segmentation is 16×24 pixels, and the image"):
        source.load(3, HOW)


def test_files_that_are_missing(genome):
    refused(
        r"no name of .*objects.json is in 4 images \(the most frequent, '(tree|dog)', is in 2",
        genome,
        4,
    )
    (genome / "VG_100K_2" / "7.jpg").unlink()
    refused("lacks 1 of 4 files, 7.jpg first: unpack images.zip and images2.zip there", genome)
    (genome / "image_data.json").unlink()
    refused("no image_data.json in .*: unpack image_data.json.zip there", genome)
    refused("no data set at .*gone: give the folder or file", genome / "gone")


@pytest.mark.parametrize("file", ["objects.json", "image_data.json"])
def test_a_file_that_is_truncated(genome, file):
    whole = (genome / file).read_bytes()
    (genome / file).write_bytes(whole[: len(whole) // 2])
    refused(f"{file} is not JSON .*: unpack {file}.zip again", genome)
    (genome / file).unlink()
    refused(f"no {file} in .*: unpack {file}.zip there", genome)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("objects.json", [], r"\(it has no box\): set config.least_images lower"),
        ("objects.json", {"1": 5}, r"objects.json holds no boxes \(TypeError: .*own file"),
        ("objects.json", [{"image_id": 1}], r"\(KeyError: 'objects'\)"),
        ("objects.json", [{"image_id": 1, "objects": 5}], "holds no boxes"),
        ("objects.json", [{"image_id": 1, "objects": [{"x": 1}]}], r"\(KeyError: 'y'\)"),
        ("objects.json", [{"image_id": 1, "objects": [box(0, 0, 1, 1, 5)]}], "AttributeError"),
        ("objects.json", [{"image_id": 9, "objects": []}], "boxes in the image 9, which image_da"),
        ("image_data.json", [], "image_data.json lists no image"),
        ("image_data.json", [{"image_id": 1, "width": 2}], r"holds no sizes of images \(KeyError"),
        ("image_data.json", 7, "holds no sizes of images"),
    ],
)
def test_files_that_are_others(genome, file, content, message):
    write(genome, file, content)
    refused(message, genome)


def test_a_configuration_sets_the_threshold(genome):
    settings = Settings(images=str(genome), dataset="visual_genome", least_images=2, limit=2)
    assert open_source(settings).label_names == {0: "dog", 1: "tree"}
    with pytest.raises(InputError, match=r"is in 100 images .*: set config.least_images lower"):
        open_source(Settings(images=str(genome), dataset="visual_genome"))
