"""ImageNet-Segmentation, VOC and COCO in their official layouts, and what may be wrong there."""

from __future__ import annotations

import json
import shutil
import sys
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from segmentation_sets import (
    picture,
    rectangle,
    run_lengths,
    write_coco,
    write_imagenet,
    write_voc,
)

from ltx_jax.data.coco import union
from ltx_jax.data.examples import Source, UnreadableImage
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import DATASETS, open_images
from ltx_jax.errors import InputError
from ltx_jax.settings.section import fields_of
from ltx_jax.settings.sections import Settings

# Twice as fine as a network's: every other pixel of a mask is the nearest.
HOW = Preprocessing((8, 12))
MASKS = [rectangle(16, 24, 2, 4, 10, 14), rectangle(16, 24, 0, 0, 16, 3)]


def nearest(mask: np.ndarray) -> np.ndarray:
    return mask[1::2, 1::2]


def refused(message: str):
    return pytest.raises(InputError, match=message)


def said(source: Source, index: int = 0) -> str:
    with pytest.raises(UnreadableImage) as caught:
        source.load(index, HOW)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_setting_names_what_there_is():
    (kind,) = [field.kind for field in fields_of(Settings) if field.name == "dataset"]
    assert set(get_args(get_args(kind)[0])) == set(DATASETS)


# --- ImageNet-Segmentation ------------------------------------------------------------------------


@pytest.fixture
def mat(tmp_path):
    pytest.importorskip("h5py")
    return write_imagenet(
        tmp_path / "gtsegs_ijcv.mat", [picture(16, 24, i) for i in range(2)], MASKS
    )


def test_imagenet(mat):
    source = open_images(mat.parent, dataset="imagenet_segmentation")
    assert isinstance(source, Source) and source.has_masks
    assert source.names == ("0", "1") and source.labels == ((), ())
    for i in range(2):
        example = source.load(i, HOW)
        whole = source.load(i, Preprocessing((16, 24)))
        np.testing.assert_array_equal(whole.image, picture(16, 24, i))
        np.testing.assert_array_equal(whole.mask_of(3), MASKS[i])
        np.testing.assert_array_equal(example.mask_of(0), nearest(MASKS[i]))
        assert example.image.shape == (8, 12, 3) and example.void is None
    assert open_images(mat, dataset="imagenet_segmentation", indices="1:").names == ("1",)


def test_imagenet_with_labels(mat, tmp_path):
    (tmp_path / "labels.txt").write_text("4\n2\n")
    source = open_images(mat, tmp_path / "labels.txt", dataset="imagenet_segmentation")
    example = source.load(1, HOW)
    assert source.labels == ((4,), (2,)) and example.labels == (2,)
    # Whichever class is explained, what is known is where the object is.
    np.testing.assert_array_equal(example.mask_of(4), nearest(MASKS[1]))


def test_a_mat_that_is_not_whole(mat, tmp_path):
    whole = mat.read_bytes()
    mat.write_bytes(whole[: len(whole) // 2])
    with refused(r"no whole HDF5 file \(truncated file: eof = \d+\): fetch gtsegs_ijcv.mat again"):
        open_images(mat, dataset="imagenet_segmentation")
    mat.write_bytes(b"MATLAB 5.0 MAT-file" + whole[19:3000])
    with refused(r"no whole HDF5 file \(file signature not found\)"):
        open_images(mat, dataset="imagenet_segmentation")
    with refused("no gtsegs_ijcv.mat in .*: give the file"):
        open_images(tmp_path / "..", dataset="imagenet_segmentation")
    with refused("no data set at .*gone.mat"):
        open_images(tmp_path / "gone.mat", dataset="imagenet_segmentation")


def test_a_mat_of_something_else(mat):
    h5py = pytest.importorskip("h5py")
    with h5py.File(mat, "w") as file:
        file["value/img"] = np.zeros((3, 1))
    with refused(r"has /value/img of shape \(3, 1\) and /value/gt of shape None: expected \[n,1\]"):
        open_images(mat, dataset="imagenet_segmentation")


def test_a_mask_of_another_size(mat):
    images = [picture(16, 24), picture(16, 24)]
    write_imagenet(mat, images, [rectangle(8, 24, 0, 0, 4, 4), MASKS[1]])
    source = open_images(mat, dataset="imagenet_segmentation")
    assert said(source) == "its segmentation is 8×24 pixels, and the image 16×24"
    assert source.load(1, HOW).mask_of(0) is not None
    write_imagenet(mat, [picture(16, 24)[..., :1]], MASKS[:1])
    assert "entry 0 is uint8 (1, 24, 16)" in said(open_images(mat, dataset="imagenet_segmentation"))


def test_a_package_that_is_missing(mat, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with refused(r"ImageNet-Segmentation needs h5py: pip install 'ltx_jax\[segmentation\]'"):
        open_images(mat, dataset="imagenet_segmentation")


# --- VOC ------------------------------------------------------------------------------------------

INDICES = np.where(MASKS[0], 15, 0) + np.where(MASKS[1], 255, 0)


@pytest.fixture
def voc(tmp_path):
    names = ("2007_000033", "2007_000042", "2007_000061")
    images = {name: picture(16, 24, i) for i, name in enumerate(names)}
    # The second is void only, the third has nothing at all.
    indices = [INDICES, np.where(MASKS[1], 255, 0), np.zeros((16, 24))]
    write_voc(tmp_path, images, dict(zip(names, indices, strict=True)))
    return tmp_path


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc(voc, inside):
    source = open_images(voc / inside, dataset="voc")
    assert source.names == ("2007_000033.jpg", "2007_000042.jpg", "2007_000061.jpg")
    example = source.load(0, HOW)
    np.testing.assert_array_equal(example.mask_of(9), nearest(MASKS[0]))
    np.testing.assert_array_equal(example.void, nearest(MASKS[1]))
    void_only, nothing = source.load(1, HOW), source.load(2, HOW)
    assert void_only.mask_of(0) is None and void_only.void.any()
    assert nothing.mask_of(0) is None and not nothing.void.any()


def test_the_digest_is_of_images_and_segmentations(voc):
    def digest(**chosen):
        return open_images(voc, dataset="voc", **chosen).digest()

    before, part = digest(), digest(indices="1:")
    assert before != part and digest() == before
    (voc / "labels.txt").write_text("1\n2\n3\n")
    assert digest(labels=voc / "labels.txt") != before
    segmentation = voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000033.png"
    shutil.copy(segmentation.with_name("2007_000042.png"), segmentation)
    assert digest() != before and digest(indices="1:") == part


def test_voc_that_is_not_whole(voc):
    root = voc / "VOCdevkit" / "VOC2012"
    (root / "SegmentationClass" / "2007_000042.png").unlink()
    with refused("SegmentationClass lacks 1 of 3 files, 2007_000042.png first: unpack VOCtrainval"):
        open_images(voc, dataset="voc")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with refused("val.txt lists nothing"):
        open_images(voc, dataset="voc")
    root.rename(root.with_name("VOC2007"))
    with refused(r"no VOC2012 with ImageSets/Segmentation/val.txt in .* \(but VOC2007\)"):
        open_images(voc, dataset="voc")
    with refused(r"VOC2007 \(but VOC2007\): unpack VOCtrainval_11-May-2012.tar there"):
        open_images(root.with_name("VOC2007"), dataset="voc")


def test_voc_segmentations_that_do_not_fit(voc):
    source = open_images(voc, dataset="voc")
    segmentation = voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000033.png"
    Image.fromarray(picture(16, 24)).save(segmentation)
    assert said(source) == "its segmentation is RGB, not a picture with a palette"
    Image.fromarray(INDICES.astype(np.uint8)[:, :20]).save(segmentation)
    assert said(source) == "its segmentation is 16×20 pixels, and the image 16×24"
    assert source.load(1, HOW).void.any()


# --- COCO -----------------------------------------------------------------------------------------

# The first mask; polygons lie on the corners of pixels.
BOX = [[4, 2, 14, 2, 14, 10, 4, 10]]


@pytest.fixture
def coco(tmp_path):
    pytest.importorskip("pycocotools")
    images = {f"00000000{i}.jpg": picture(16, 24, i) for i in (3, 1, 2)}
    crowd = run_lengths(MASKS[1])
    one, three = "000000001.jpg", "000000003.jpg"
    write_coco(tmp_path, images, [(one, BOX, 0), (one, crowd, 1), (three, crowd, 1)])
    return tmp_path


def test_coco(coco):
    source = open_images(coco, dataset="coco")
    assert source.names == ("000000001.jpg", "000000002.jpg", "000000003.jpg")
    found = [source.load(i, HOW) for i in range(3)]
    np.testing.assert_array_equal(found[0].mask_of(77), nearest(MASKS[0] | MASKS[1]))
    assert found[1].mask_of(77) is None and found[1].void is None
    np.testing.assert_array_equal(found[2].mask_of(0), nearest(MASKS[1]))


def test_coco_where_the_original_keeps_it(coco):
    (coco / "images").mkdir()
    (coco / "val2017").rename(coco / "images" / "val2017")
    assert len(open_images(coco, dataset="coco", limit=2)) == 2


def test_polygons_and_run_lengths_together():
    pytest.importorskip("pycocotools")
    encoded = pytest.importorskip("pycocotools.mask").encode(np.asfortranarray(MASKS[1].view("u1")))
    compressed = {"size": [16, 24], "counts": encoded["counts"].decode()}
    for one in (run_lengths(MASKS[1]), compressed):
        np.testing.assert_array_equal(union((BOX, one), 16, 24), MASKS[0] | MASKS[1])
    far = [[20, 12, 22, 12, 22, 14, 20, 14]]
    np.testing.assert_array_equal(
        union((BOX + far,), 16, 24), MASKS[0] | rectangle(16, 24, 12, 20, 14, 22)
    )
    # Four numbers are no box here, but a line, which encloses nothing.
    assert not union(([[4, 2, 10, 8]],), 16, 24).any()
    with pytest.raises(ValueError, match=r"run lengths of \[16, 24\] for 24×16"):
        union((compressed,), 24, 16)


@pytest.mark.parametrize("counts", [[0, 50], [0, 400], [0, 300, -100], [], "0P3", "0d6P", "0b\x90"])
def test_run_lengths_that_do_not_fill_the_image(counts):
    pytest.importorskip("pycocotools")
    with pytest.raises(ValueError, match="run lengths"):
        union(({"size": [10, 20], "counts": counts},), 10, 20)


@pytest.mark.parametrize("seed", range(5))
def test_compressed_run_lengths_are_read_as_pycocotools_does(seed):
    coding = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    drawn = rng.random((90, 70)) < rng.choice([0.01, 0.5, 0.99])
    drawn[:, 20:60] = seed % 2  # a long run, of several characters
    one = coding.encode(np.asfortranarray(drawn.view("u1")))
    shape = {"size": [90, 70], "counts": one["counts"].decode()}
    np.testing.assert_array_equal(union((shape,), 90, 70), drawn)


@pytest.mark.parametrize("coordinate", [np.nan, np.inf, -np.inf, 1e9, -100])
def test_a_polygon_far_from_its_image(coordinate):
    pytest.importorskip("pycocotools")
    with pytest.raises(ValueError, match=r"coordinate \S+, far from 16×24 pixels"):
        union(([[4, 2, 14, 2, coordinate, 10, 4, 10]],), 16, 24)
    beside = union(([[4, 2, 30, 2, 30, 10, 4, 10]],), 16, 24)
    np.testing.assert_array_equal(beside, rectangle(16, 24, 2, 4, 10, 24))


def test_the_exif_orientation_is_left_alone(coco):
    """Annotations are of the pixels as they are stored."""
    image = Image.fromarray(picture(16, 24, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(coco / "val2017" / "000000003.jpg", exif=exif)
    example = open_images(coco, dataset="coco").load(2, HOW)
    np.testing.assert_array_equal(example.mask_of(0), nearest(MASKS[1]))


def test_an_image_of_another_size(coco):
    Image.fromarray(picture(24, 16)).save(coco / "val2017" / "000000001.jpg")
    source = open_images(coco, dataset="coco")
    assert said(source) == "its segmentation is 16×24 pixels, and the image 24×16"


def test_coco_that_is_not_whole(coco):
    (coco / "val2017" / "000000002.jpg").unlink()
    with refused("val2017 lacks 1 of 3 files, 000000002.jpg first: unpack val2017.zip again"):
        open_images(coco, dataset="coco")
    file = coco / "annotations" / "instances_val2017.json"
    file.rename(file.with_name("instances_val2014.json"))
    with refused(r"no annotations/instances_val2017.json in .* \(only instances_val2014.json\)"):
        open_images(coco, dataset="coco")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"info": {"year": 2014}}, "is of 2014: expected the annotations of val2017"),
        ({"images": []}, "lists 0 images, and 2 that it annotates are not among them"),
        ({"annotations": [{"image_id": 7, "caption": "a dog"}]}, r"holds no instances \(KeyError"),
        ({"annotations": None}, r"holds no instances \(TypeError"),
        (None, "holds no instances .AttributeError"),
    ],
)
def test_annotations_of_something_else(coco, change, message):
    file = coco / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps([] if change is None else content | change))
    with refused(message) as caught:
        open_images(coco, dataset="coco")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("file_name", "lists the image 000000001.jpg more than once: give COCO's own file"),
        ("id", "lists the image id 8 more than once: give COCO's own file"),
    ],
)
def test_an_image_that_is_listed_twice(coco, key, message):
    file = coco / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    images = content["images"]
    images[0][key] = images[1][key]
    file.write_text(json.dumps(content))
    with refused(message):
        open_images(coco, dataset="coco")


def test_annotations_cut_off(coco):
    file = coco / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text()[:300])
    with refused("is not JSON .*: unpack annotations_trainval2017.zip again"):
        open_images(coco, dataset="coco")


def test_a_change_of_an_annotation_is_noticed(coco):
    before = open_images(coco, dataset="coco").digest()
    file = coco / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace("[4, 2, 14, 2,", "[4, 2, 13, 2,"))
    assert open_images(coco, dataset="coco").digest() != before
