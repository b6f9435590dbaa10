"""ImageNet as people have it, and what nobody can tell the classes of."""

from __future__ import annotations

import numpy as np
import pytest
from imagenet_layouts import (
    DEVKIT,
    GROUND_TRUTH,
    IDS,
    class_of,
    devkit_number,
    validation_name,
    write_devkit,
    write_images,
    write_mapping,
    write_solution,
)

from ltx_jax.data.examples import Source
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import open_images
from ltx_jax.errors import InputError

NUMBERS = (3, 1, 49_999)
FLAT = [validation_name(number) for number in NUMBERS]
LABELS = ((class_of(1),), (class_of(3),), (class_of(49_999),))


def opened(path, **chosen) -> Source:
    return open_images(path, dataset="imagenet", **chosen)


def refused(path, message, **chosen):
    with pytest.raises(InputError, match=message) as caught:
        opened(path, **chosen)
    assert "\n" not in str(caught.value)


# --- Folders of classes ---------------------------------------------------------------------------


def test_folders_of_all_classes_need_no_list(tmp_path):
    write_images(tmp_path / "train", [f"{one}/{one}_1.JPEG" for one in reversed(IDS)])
    write_images(tmp_path / "train", [f"{IDS[2]}/{IDS[2]}_0.JPEG"])
    source = opened(tmp_path)
    assert source.names[:4] == tuple(
        f"{IDS[i]}/{IDS[i]}_{j}.JPEG" for i, j in ((0, 1), (1, 1), (2, 0), (2, 1))
    )
    assert source.labels[:4] == ((0,), (1,), (2,), (2,)) and source.labels[-1] == (999,)
    assert len(source) == 1001 and not source.has_masks
    example = opened(tmp_path / "train", indices="3:5").load(1, Preprocessing((2, 2)))
    assert example.labels == (3,) and (example.image == [10, 20, 30]).all()


@pytest.mark.parametrize("told", [write_mapping, write_devkit])
def test_a_part_of_the_folders_needs_one(tmp_path, told):
    folder = write_images(tmp_path / "imagenet100" / "val", [f"{IDS[i]}/a.JPEG" for i in (700, 8)])
    refused(folder, r"val holds 2 of ImageNet's 1000 classes, and no LOC_synset_mapping.txt or")
    told(tmp_path)
    assert opened(folder).labels == ((8,), (700,))
    assert opened(tmp_path / "imagenet100").labels == ((8,), (700,))
    (folder / "n99999999").mkdir()
    refused(folder, r"has no n99999999, which .*val holds: expected ImageNet's 1000 classes")


# --- Images side by side --------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "val"])
def test_the_devkit_beside_or_above(tmp_path, inside):
    folder = write_images(tmp_path / inside, FLAT)
    write_devkit(tmp_path)
    source = opened(tmp_path)
    assert source.names == tuple(sorted(FLAT)) and source.labels == LABELS
    assert opened(folder, limit=1).labels == LABELS[:1]


def test_kaggle(tmp_path):
    above = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_images(above / "val", FLAT)
    write_solution(tmp_path)
    for path in (above / "val", above, tmp_path / "ILSVRC", tmp_path):
        assert opened(path).labels == LABELS
    write_images(above / "train", [f"{IDS[5]}/{IDS[5]}_1.JPEG"])
    refused(
        tmp_path, "holds ILSVRC/Data/CLS-LOC/train and ILSVRC/Data/CLS-LOC/val: give the folder"
    )
    write_mapping(tmp_path)
    assert opened(above / "train").labels == ((5,),)


def test_two_lists_agree_or_are_refused(tmp_path):
    folder = write_images(tmp_path / "val", FLAT)
    write_devkit(tmp_path)
    write_solution(folder)
    assert opened(folder).labels == LABELS
    write_solution(folder, {3: IDS[0], 7: IDS[class_of(3)]})
    refused(
        folder,
        rf"ILSVRC2012_val_00000003.JPEG is of class {class_of(3)} in .*{GROUND_TRUTH}, and 0 in "
        r".*LOC_val_solution.csv: keep the one that is right",
    )


def test_without_a_list_labels_are_unknown_or_given(tmp_path, caplog):
    folder = write_images(tmp_path / "val", FLAT)
    with caplog.at_level("INFO"):
        assert opened(folder).labels == ((), (), ())
    assert "no labels: neither ILSVRC2012_devkit_t12/data/ILSVRC2012_val" in caplog.text
    # The original's own lists.
    (tmp_path / "val ground truth.txt").write_text("4\n6\n5\n")
    given = [(3, 6), (1, 4), (50_000, 9), (49_999, 5)]
    rows = [f"{i},{validation_name(number)},{label}" for i, (number, label) in enumerate(given)]
    csv = tmp_path / "val_ground_truth_2012.csv"
    csv.write_text("\n".join([",img_name,label", *rows]))
    assert opened(folder, labels=tmp_path / "val ground truth.txt").labels == ((4,), (6,), (5,))
    assert opened(folder, labels=csv).labels == ((4,), (6,), (5,))
    assert open_images(folder, csv).labels == ((4,), (6,), (5,))


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no ImageNet: give the folder"),
        (["other/a.JPEG"], "holds no ImageNet: give the folder"),
        (["photo.jpg"], r"holds 1 other images \(photo.jpg\): expected folders as n01440764"),
        ([FLAT[0], "b.png"], r"1 validation images \(.*\) and 1 other images \(b.png\)"),
        (
            [FLAT[0], f"{IDS[1]}/a.JPEG"],
            rf"holds 1 classes' folders \({IDS[1]}\) and 1 validation images \({FLAT[0]}\)",
        ),
        (["train/n10000000/a.JPEG", f"val/{FLAT[0]}"], "holds train and val: give the folder"),
        (["ILSVRC2012_val_00050001.JPEG"], "00050001.JPEG is none of the validation images"),
        (["ILSVRC2012_val_00000000.JPEG"], "expected a number from 1 to 50000"),
        ([f"{IDS[1]}/images/a.JPEG"], f"{IDS[1]} holds the folder images: expected images alone"),
        ([f"{IDS[1]}/notes.txt"], f"no images in .*{IDS[1]}"),
    ],
)
def test_layouts_that_are_none(tmp_path, names, message):
    write_devkit(tmp_path)
    refused(write_images(tmp_path / "in", names), message)


def test_what_is_no_folder_at_all(tmp_path):
    refused(tmp_path / "gone", "no data set at")
    (tmp_path / "a.txt").write_text("")
    refused(tmp_path / "a.txt", "a.txt holds no ImageNet: give the folder of the images")


@pytest.fixture
def flat(tmp_path):
    return write_images(tmp_path / "val", FLAT)


USUAL = [devkit_number(class_of(number)) for number in range(1, 50_001)]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (USUAL[1:], "has 49999 lines: expected 50000, one for each validation image"),
        ([*USUAL, 1], "has 50001 lines: expected 50000"),
        (
            [*USUAL[:8], 1001, *USUAL[9:]],
            "line 9 of .* is '1001': expected a number from 1 to 1000",
        ),
        ([0, *USUAL[1:]], "line 1 of .* is '0'"),
        (["cat", *USUAL[1:]], "line 1 of .* is 'cat'"),
    ],
)
def test_ground_truths_that_are_none(flat, numbers, message):
    write_devkit(flat.parent, numbers)
    refused(flat, message)


def test_a_devkit_that_is_not_whole(flat):
    meta = write_devkit(flat.parent).with_name("meta.mat")
    whole = meta.read_bytes()
    for content, message in ((whole[:2000], ""), (b"", ""), (b"no MATLAB" * 30, "")):
        meta.write_bytes(content)
        refused(
            flat, rf"meta.mat is not the devkit's \(.*{message}\): unpack ILSVRC2012_devkit_t12"
        )
    meta.unlink()
    refused(flat, f"no .*{DEVKIT}/meta.mat, which gives the numbers of {GROUND_TRUTH} ids: unpack")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: None}, "has 49999 lines for 49999 images: expected one for each of 50000"),
        ({3: "dog"}, "has the class 'dog': expected a WordNet id as n01440764"),
        ({3: "n99999999"}, "has 1001 classes: expected ImageNet's 1000"),
        (
            {number: IDS[0] for number in range(1, 50_001) if class_of(number) == 9},
            "has 999 classes",
        ),
    ],
)
def test_solutions_that_are_none(flat, change, message):
    write_solution(flat.parent, change)
    refused(flat, message)


def test_solutions_of_another_form(flat):
    file = write_solution(flat.parent)
    lines = file.read_text().splitlines()
    file.write_text("\n".join(["image,label", *lines[1:]]))
    refused(flat, "has the columns image, label: expected ImageId and PredictionString")
    file.write_text("\n".join([*lines[:-1], lines[1]]))
    refused(flat, "has 50000 lines for 49999 images")
    file.write_text("\n".join([*lines[:-1], lines[-1].replace("val_00000001", "val_00050001")]))
    refused(flat, "has no label for ILSVRC2012_val_00000001")


def test_a_mapping_that_is_not_whole(tmp_path):
    folder = write_images(tmp_path / "val", [f"{IDS[3]}/a.JPEG"])
    write_mapping(tmp_path, IDS[1:])
    refused(folder, "LOC_synset_mapping.txt has 999 classes: expected ImageNet's 1000")
    (tmp_path / "LOC_synset_mapping.txt").write_text("tench, a fish\n")
    refused(folder, "LOC_synset_mapping.txt has the class 'tench,'")


def test_the_digest_is_of_images_and_labels(flat):
    before = opened(flat).digest()
    write_devkit(flat.parent)
    labelled = opened(flat).digest()
    assert labelled != before and opened(flat).digest() == labelled


def test_an_image_that_cannot_be_read_is_told_alone(flat):
    (flat / FLAT[0]).unlink()
    (flat / FLAT[0]).write_text("no picture")
    source = opened(flat)
    with pytest.raises(Exception, match="cannot identify image file"):
        source.load(1, Preprocessing((2, 2)))
    assert source.load(0, Preprocessing((2, 2))).image.dtype == np.uint8
