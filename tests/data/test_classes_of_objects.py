"""VOC and COCO with the classes of their objects, and sets beside the segmentation test's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from segmentation_sets import picture, rectangle, run_lengths, write_coco, write_voc

from ltx_jax.data.examples import Source, UnreadableImage
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import open_images
from ltx_jax.data.voc import CLASSES
from ltx_jax.errors import InputError

HOW = Preprocessing((16, 24))
HALF = Preprocessing((8, 12))
LEFT, RIGHT = rectangle(16, 24, 0, 0, 16, 8), rectangle(16, 24, 4, 16, 12, 24)
RIM = rectangle(16, 24, 0, 10, 16, 12)


def refused(message: str, *given, **chosen) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_images(*given, **chosen)
    assert "\n" not in str(caught.value)


def same(found: np.ndarray | None, *expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found, np.stack(expected))


# --- VOC ------------------------------------------------------------------------------------------

# A cat beside a person, whose pixels are known; a person and two chairs, difficult both; difficult
# sheep alone; nothing.
OBJECTS = {
    "000005": [("person", 0), ("cat", 0), ("person", 1)],
    "000007": [("chair", 1), ("chair", 1), ("person", 0)],
    "000009": [("sheep", 1)],
    "000012": [],
}
CAT, CHAIR, PERSON, SHEEP = (CLASSES.index(name) for name in ("cat", "chair", "person", "sheep"))
INDICES = 8 * LEFT + 15 * RIGHT + 255 * RIM
MAIN = "VOC2007/ImageSets/Main/train.txt"


@pytest.fixture
def voc(tmp_path):
    images = {name: picture(16, 24, i) for i, name in enumerate(OBJECTS)}
    write_voc(tmp_path, images, {"000005": INDICES}, OBJECTS, MAIN)
    return tmp_path / "VOCdevkit"


def test_voc_counts_classes_by_the_alphabet():
    assert list(CLASSES) == sorted(CLASSES) and len(CLASSES) == 20
    assert (CAT, CHAIR, PERSON, SHEEP) == (7, 8, 14, 16)


def test_voc_with_classes(voc):
    source = open_images(voc / MAIN, "classes", dataset="voc")
    assert isinstance(source, Source) and source.has_masks
    assert source.names == ("000005.jpg", "000007.jpg", "000009.jpg", "000012.jpg")
    assert source.labels == ((CAT, PERSON), (CHAIR, PERSON), (SHEEP,), ())
    found = [source.load(i, HOW) for i in range(4)]
    assert [one.labels for one in found] == list(source.labels)
    same(found[0].masks, LEFT, RIGHT)
    np.testing.assert_array_equal(found[0].void, RIM)
    np.testing.assert_array_equal(found[0].mask_of(PERSON), RIGHT)
    np.testing.assert_array_equal(found[0].mask_beside(PERSON), LEFT)
    assert found[0].mask_of(CHAIR) is None and found[0].objects is None
    # Of these nobody knows the pixels.
    assert all(one.masks is None and one.void is None for one in found[1:])
    same(source.load(0, HALF).masks, LEFT[1::2, 1::2], RIGHT[1::2, 1::2])


def test_difficult_objects_may_be_left_out(voc):
    source = open_images(voc / MAIN, "not_difficult", dataset="voc")
    assert source.labels == ((CAT, PERSON), (PERSON,), (), ())
    with_them = open_images(voc / MAIN, "classes", dataset="voc")
    assert source.digest() != with_them.digest()


def test_a_class_without_a_pixel_has_no_mask(voc):
    write_voc(voc.parent, {"000007": picture(16, 24)}, {"000007": 15 * RIGHT}, listed=MAIN)
    example = open_images(voc / MAIN, "classes", dataset="voc").load(0, HOW)
    same(example.masks, np.zeros((16, 24), bool), RIGHT)
    assert example.mask_of(CHAIR) is None


def test_voc_without_classes_is_as_ever(voc):
    source = open_images(voc / MAIN, dataset="voc")
    assert source.labels == ((),) * 4
    first, second = source.load(0, HOW), source.load(1, HOW)
    np.testing.assert_array_equal(first.objects, LEFT | RIGHT)
    assert first.masks is None and second.objects is None and second.void is None


def test_the_segmentations_own_list_with_classes(tmp_path):
    images = {"2007_000033": picture(16, 24), "2007_000042": picture(16, 24)}
    objects = dict.fromkeys(images, OBJECTS["000005"])
    write_voc(tmp_path, images, dict.fromkeys(images, INDICES), objects)
    source = open_images(tmp_path, "classes", dataset="voc")
    assert source.labels == ((CAT, PERSON),) * 2
    same(source.load(1, HOW).masks, LEFT, RIGHT)
    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "SegmentationClass" / "2007_000042.png").unlink()
    refused("SegmentationClass lacks 1 of 2 files, 2007_000042.png", tmp_path, dataset="voc")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation><object>", "no element found: line 1, column 20"),
        ("", "no element found"),
        ("<html></html>", "it holds html"),
        (
            "<annotation><object><name>unicorn</name></object></annotation>",
            "an object is 'unicorn'",
        ),
        ("<annotation><object/></annotation>", "an object is ''"),
    ],
)
def test_annotations_that_are_damaged(voc, content, reason):
    (voc / "VOC2007" / "Annotations" / "000007.xml").write_text(content)
    refused(
        rf"000007.xml is no annotation of VOC's \({reason}.*\): unpack VOCtrainval_06-Nov-2007",
        *(voc / MAIN, "classes"),
        dataset="voc",
    )
    assert len(open_images(voc / MAIN, dataset="voc")) == 4  # nobody asks for them


@pytest.mark.parametrize("difficult", ["", "<difficult></difficult>", "<difficult> 0 </difficult>"])
def test_an_object_that_nobody_called_difficult_is_none(voc, difficult):
    content = f"<annotation><object><name> dog\n</name>{difficult}</object></annotation>"
    (voc / "VOC2007" / "Annotations" / "000009.xml").write_text(content)
    source = open_images(voc / MAIN, "not_difficult", dataset="voc")
    assert source.labels[2] == (CLASSES.index("dog"),)


def test_voc_lists_that_are_none(voc, monkeypatch):
    root = voc / "VOC2007"
    refused(r"\(but VOC2007\).*or give a list of VOC2007's, as ImageSets/Main", voc, dataset="voc")
    refused("notes.txt", voc / "notes.txt", dataset="voc")
    (voc / "notes.txt").write_text("000005")
    refused("notes.txt is no list of VOC's: expected one that", voc / "notes.txt", dataset="voc")
    (root / "ImageSets" / "Main" / "twice.txt").write_text("000005\n000007\n000005\n")
    twice = root / "ImageSets" / "Main" / "twice.txt"
    refused("twice.txt lists 000005 more than once: list each image once", twice, dataset="voc")
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("000005  1\n000007 -1\n")
    flags = root / "ImageSets" / "Main" / "cat_train.txt"
    refused("JPEGImages lacks 2 of 2 files, 000005  1.jpg first", flags, dataset="voc")
    (root / "Annotations" / "000012.xml").unlink()
    refused("Annotations lacks 1 of 4 files, 000012.xml", voc / MAIN, "classes", dataset="voc")
    monkeypatch.chdir(root / "ImageSets" / "Main")
    assert len(open_images("train.txt", dataset="voc")) == 4


def test_a_class_beyond_vocs(voc):
    write_voc(voc.parent, {"000005": picture(16, 24)}, {"000005": 21 * LEFT}, listed=MAIN)
    source = open_images(voc / MAIN, "classes", dataset="voc")
    with pytest.raises(UnreadableImage, match="its segmentation has the class 21, and VOC 20"):
        source.load(0, HOW)


def test_a_palette_picture_of_another_size(voc):
    small = 8 * LEFT[:, :20]
    write_voc(voc.parent, {"000005": picture(16, 24)}, {"000005": small}, listed=MAIN)
    source = open_images(voc / MAIN, "classes", dataset="voc")
    with pytest.raises(UnreadableImage, match=r"^its segmentation is 16×20 pixels, and the image"):
        source.load(0, HOW)


def test_pixels_that_are_void_alone_are_no_truth(voc):
    images = {name: picture(16, 24) for name in ("000005", "000012")}
    write_voc(voc.parent, images, dict.fromkeys(images, 255 * RIM), listed=MAIN)
    source = open_images(voc / MAIN, "classes", dataset="voc")
    labelled, without = source.load(0, HOW), source.load(1, HOW)
    assert labelled.labels == (CAT, PERSON) and not labelled.masks.any()
    assert labelled.mask_of(CAT) is None and labelled.mask_of(PERSON) is None
    assert (without.labels, without.masks) == ((), None)
    for one in (labelled, without):
        np.testing.assert_array_equal(one.void, RIM)


# --- COCO -----------------------------------------------------------------------------------------

BOX = [[0, 0, 8, 0, 8, 16, 0, 16]]  # LEFT
NAMES = [f"COCO_train2014_00000000000{i}.jpg" for i in range(3)]


@pytest.fixture
def coco(tmp_path):
    """A bear, two people (a crowd one) and a toothbrush, 90, in the first; nothing in the second;
    a person in the third."""
    pytest.importorskip("pycocotools")
    instances = [
        (NAMES[0], run_lengths(RIM), 1),
        (NAMES[0], BOX, 0),
        (NAMES[0], run_lengths(RIGHT), 0),
        (NAMES[0], [[20, 0, 24, 0, 24, 2, 20, 2]], 0),
        (NAMES[2], BOX, 0),
    ]
    images = {name: picture(16, 24, i) for i, name in enumerate(NAMES)}
    write_coco(tmp_path, images, instances, [1, 23, 1, 90, 1], "train2014")
    return tmp_path


def test_coco_with_categories(coco):
    source = open_images(coco / "train2014", "classes", dataset="coco")
    assert isinstance(source, Source) and source.has_masks and source.names == tuple(NAMES)
    assert source.labels == ((1, 23, 90), (), (1,))
    assert source.label_names == {1: "kind 1", 23: "kind 23", 90: "kind 90"}
    found = [source.load(i, HOW) for i in range(3)]
    same(found[0].masks, RIM | RIGHT, LEFT, rectangle(16, 24, 0, 20, 2, 24))
    assert (found[1].labels, found[1].masks, found[1].objects) == ((), None, None)
    assert found[2].labels == (1,)
    same(found[2].masks, LEFT)
    same(source.load(2, HALF).masks, LEFT[1::2, 1::2])


def test_coco_without_categories_is_as_ever(coco):
    (coco / "images").mkdir()
    (coco / "train2014").rename(coco / "images" / "train2014")
    source = open_images(coco / "images" / "train2014", dataset="coco", indices=":1")
    assert source.labels == ((),) and source.load(0, HOW).masks is None
    every = RIM | RIGHT | LEFT | rectangle(16, 24, 0, 20, 2, 24)
    np.testing.assert_array_equal(source.load(0, HOW).objects, every)


def test_the_usual_set_with_categories_and_another_beside_it(coco):
    write_coco(coco, {"a.jpg": picture(16, 24)}, [("a.jpg", BOX, 0)], [44])
    assert open_images(coco, "classes", dataset="coco").labels == ((44,),)
    assert len(open_images(coco / "train2014", dataset="coco")) == 3


def test_the_digest_knows_which_instance_is_what(coco):
    def digest(labels):
        return open_images(coco / "train2014", labels, dataset="coco").digest()

    alone, by_class = digest(None), digest("classes")
    assert alone != by_class
    file = coco / "annotations" / "instances_train2014.json"
    content = json.loads(file.read_text())
    first, second = content["annotations"][:2]
    first["category_id"], second["category_id"] = 23, 1
    file.write_text(json.dumps(content))
    assert digest("classes") != by_class and digest(None) == alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [{"id": 1}, {"id": 23}]}, r"ValueError: no category has the id 90\)"),
        ({"categories": []}, "no category has the id 1"),
        ({"categories": None}, "TypeError"),
        ({"categories": [{"id": 1}, {"id": 1.5}]}, "the id 1.5, which is no whole number"),
        ({"categories": [{"id": float("inf")}]}, "OverflowError"),
        ({"categories": [{"id": 1}, {"id": 1.0}]}, "lists the category id 1 more than once: give"),
        ({"annotations": [{"image_id": 7, "segmentation": BOX}]}, "KeyError: 'category_id'"),
        (
            {"info": {"year": 2017}},
            "2014.json is of 2017: expected .* of train2014, unpack annotations_trainval2014",
        ),
    ],
)
def test_categories_that_are_none(coco, change, message):
    file = coco / "annotations" / "instances_train2014.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(message, coco / "train2014", "classes", dataset="coco")


def test_a_category_is_a_whole_number_however_it_is_written(coco):
    file = coco / "annotations" / "instances_train2014.json"
    content = json.loads(file.read_text())
    for one in content["annotations"]:
        one["category_id"] = float(one["category_id"])
    file.write_text(json.dumps(content))
    source = open_images(coco / "train2014", "classes", dataset="coco")
    assert source.labels == ((1, 23, 90), (), (1,))
    assert {type(label) for each in source.labels for label in each} == {int}


def test_a_category_whose_pixels_are_of_another_size(coco):
    file = coco / "annotations" / "instances_train2014.json"
    content = json.loads(file.read_text())
    content["annotations"][2]["segmentation"] = run_lengths(RIGHT[:, :20])
    file.write_text(json.dumps(content))
    source = open_images(coco / "train2014", "classes", dataset="coco")
    with pytest.raises(UnreadableImage, match=r"^run lengths of \[16, 20\] for 16×24 pixels"):
        source.load(0, HOW)
    content["images"][2]["width"] = 20
    file.write_text(json.dumps(content))
    source = open_images(coco / "train2014", "classes", dataset="coco")
    with pytest.raises(UnreadableImage, match=r"^its segmentation is 16×20 pixels, and the image"):
        source.load(2, HOW)


def test_a_set_without_annotations_has_no_labels(coco):
    file = coco / "annotations" / "instances_train2014.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    source = open_images(coco / "train2014", "classes", dataset="coco")
    example = source.load(0, HOW)
    assert source.labels == ((),) * 3
    assert (example.labels, example.masks, example.objects) == ((), None, None)


def test_sets_that_are_not_there(coco):
    refused(
        r"no annotations/instances_val2017.json in .* \(only instances_train2014.json\): unpack "
        "annotations_trainval2017.zip there, or give the folder of another set's images",
        coco,
        dataset="coco",
    )
    (coco / "val2014").mkdir()
    refused(
        r"no annotations/instances_val2014.json.*trainval2014.zip", coco / "val2014", dataset="coco"
    )
    (coco / "train2014" / NAMES[1]).unlink()
    refused(
        "train2014 lacks 1 of 3 files, .*: unpack train2014.zip", coco / "train2014", dataset="coco"
    )
