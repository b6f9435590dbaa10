"""CUB-200 as it is published and as NN-Explainer's authors have it, and what may be wrong there."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmentation_sets import rectangle, write_cub, write_pictures, write_votes

from ltx_jax.data.cub import open_cub
from ltx_jax.data.examples import Source, UnreadableImage
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import open_images
from ltx_jax.errors import InputError

HOW = Preprocessing((16, 24))
# By their numbers: not in the order of names or classes.
BIRDS = {
    "1": ("002.Laysan_Albatross/Laysan_0001.jpg", "2", "1"),
    "2": ("001.Black_footed_Albatross/Black_0002.jpg", "1", "0"),
    "10": ("200.Common_Yellowthroat/Common_0003.jpg", "200", "1"),
}
NAMES = tuple(name for name, _, _ in BIRDS.values())
BIRD = rectangle(16, 24, 2, 4, 10, 14)


def refused(message: str, path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_images(path, dataset="cub")
    assert "\n" not in str(caught.value)


# --- As published ---------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    write_cub(root, BIRDS, 16, 24)
    return root


def test_published_images_and_their_parts(published):
    source = open_images(published, dataset="cub")
    assert isinstance(source, Source) and not source.has_masks
    assert source.names == NAMES and source.labels == ((1,), (0,), (199,))
    example = source.load(2, HOW)
    assert example.labels == (199,) and example.masks is None and example.image.shape == (16, 24, 3)
    train = open_images(published / "train", dataset="cub")
    assert (train.names, train.labels) == (NAMES[::2], ((1,), (199,)))
    assert open_images(published / "test", dataset="cub").labels == ((0,),)
    assert open_images(published / "test", dataset="cub").digest() != train.digest()


@pytest.mark.parametrize("place", ["CUB_200_2011/segmentations", "segmentations"])
def test_the_bird_is_what_more_than_half_of_the_annotators_marked(tmp_path, published, place):
    # Two of five everywhere, three or all of five on the bird.
    votes = np.where(BIRD, 153, 102)
    votes[3, 5] = 255
    write_votes(tmp_path / place, dict.fromkeys(NAMES, votes))
    source = open_images(published / "train", dataset="cub")
    assert source.has_masks and source.names == NAMES[::2] and source.labels == ((1,), (199,))
    example = source.load(1, HOW)
    np.testing.assert_array_equal(example.masks, BIRD[None])
    np.testing.assert_array_equal(example.mask_of(199), BIRD)
    assert example.mask_of(1) is None
    half = source.load(1, Preprocessing((8, 12))).masks
    np.testing.assert_array_equal(half, BIRD[None, 1::2, 1::2])


def test_segmentations_belong_to_the_digest(published):
    write_votes(published / "segmentations", dict.fromkeys(NAMES, 255 * BIRD))
    before = open_images(published, dataset="cub").digest()
    write_votes(published / "segmentations", dict.fromkeys(NAMES, 255 * ~BIRD))
    assert open_images(published, dataset="cub").digest() != before


def test_segmentations_that_do_not_fit(published):
    write_votes(published / "segmentations", dict.fromkeys(NAMES, 255 * BIRD))
    file = (published / "segmentations" / NAMES[0]).with_suffix(".png")
    source = open_images(published, dataset="cub")
    Image.fromarray(BIRD[:, :20]).convert("L").save(file)
    with pytest.raises(UnreadableImage, match=r"^its segmentation is 16×20 pixels, and the image"):
        source.load(0, HOW)
    Image.fromarray(255 * BIRD.astype(np.int32)).convert("I;16").save(file)
    with pytest.raises(UnreadableImage, match=r"^its segmentation is I;16, not a grey picture"):
        source.load(0, HOW)
    # Channels beside the grey one say nothing more.
    Image.fromarray(255 * BIRD.astype(np.uint8)).convert("LA").save(file)
    np.testing.assert_array_equal(source.load(0, HOW).masks, BIRD[None])
    file.unlink()
    refused("lacks 1 of 3 files, 002.*png first: unpack segmentations.tgz again", published)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "image_class_labels.txt",
            None,
            "no image_class_labels.txt in .*2011: unpack CUB_200_2011",
        ),
        (
            "image_class_labels.txt",
            "1 2\n2 0\n10 1",
            "the image number 2 the class '0': expected 1",
        ),
        ("image_class_labels.txt", "1 201\n2 1\n10 1", "'201': expected 1 to 200; unpack CUB_200"),
        ("image_class_labels.txt", "1 a\n2 1\n10 1", "the class 'a'"),
        (
            "image_class_labels.txt",
            "1 1\n2 1",
            "image_class_labels.txt in .* lacks the image number",
        ),
        (
            "image_class_labels.txt",
            "1 1\n2 1\n10 1\n3 1",
            "images.txt in .* lacks the image number 3",
        ),
        ("image_class_labels.txt", "1 1\n2\n10 1", "has the line '2': expected an image's number"),
        ("image_class_labels.txt", "1 1\n1 2\n10 1", "lists 1 more than once: unpack"),
        ("images.txt", "", "images.txt lists nothing: expected an image's number and"),
        ("images.txt", f"1 {NAMES[0]}\n2 {NAMES[0]}\n10 {NAMES[2]}", "lists 002.*more than once"),
        (
            "images.txt",
            f"1 {NAMES[0]}\n2 no.jpg\n10 {NAMES[2]}",
            "lacks 1 of 3 files, no.jpg first",
        ),
    ],
)
def test_published_lists_that_are_damaged(published, file, content, message):
    if content is None:
        (published / file).unlink()
    else:
        (published / file).write_text(content)
    refused(message, published)


def test_parts_that_are_not_there(published):
    refused("2011 has no part val: give .*2011/train, .*2011/test, or", published / "val")
    split = published / "train_test_split.txt"
    split.write_text("1 1\n2 1\n10 1\n")
    refused("train_test_split.txt marks no image as of test: unpack", published / "test")
    split.write_text("1 1\n2 yes\n10 1\n")
    refused("marks the image number 2 'yes': expected 1 for training or 0", published / "train")
    split.unlink()
    refused("no train_test_split.txt in", published / "train")
    assert len(open_images(published, dataset="cub")) == 3  # nobody asks for it


def test_a_published_image_that_is_missing(published):
    (published / "images" / NAMES[1]).unlink()
    refused("images lacks 1 of 3 files, 001.*jpg first: unpack CUB_200_2011.tgz again", published)
    # It is of the other part.
    assert len(open_images(published / "train", dataset="cub")) == 2


# --- As NN-Explainer's authors have it ------------------------------------------------------------

LISTED = [("b.jpg", 199), ("a.jpg", 0), ("c.jpg", 7)]


def pickled(pairs: list[tuple[object, object]]) -> bytes:
    return pickle.dumps(
        [
            {"filename": name, "class": {"label": label, "text": "a bird"}, "id": str(i)}
            for i, (name, label) in enumerate(pairs)
        ]
    )


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "val", [name for name, _ in LISTED], 16, 24)
    (tmp_path / "annotations").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        pickled([(f"002.Laysan_Albatross/{name}", label) for name, label in LISTED]),
        "".join(f"{name} {label}\n" for name, label in LISTED).encode(),
    ],
)
def test_the_authors_lists(authors, content, monkeypatch):
    (authors / "annotations" / "val.txt").write_bytes(content)
    source = open_images(authors / "val", dataset="cub")
    assert isinstance(source, Source) and not source.has_masks
    assert source.names == ("b.jpg", "a.jpg", "c.jpg") and source.labels == ((199,), (0,), (7,))
    example = source.load(0, HOW)
    assert example.labels == (199,) and example.masks is None
    monkeypatch.chdir(authors)
    assert open_cub(Path("val")).labels == source.labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no images.txt in .*val, and no annotations/val.txt beside it: give CUB_200_2011"),
        (b"", "val.txt lists nothing: give a line of NAME LABEL"),
        (pickled([]), "val.txt lists nothing"),
        (pickled(LISTED)[:60], r"val.txt is no list of images \(.*\): give lines of NAME LABEL"),
        (pickle.dumps(5), "not iterable"),
        (pickle.dumps([{"filename": "a.jpg"}]), r"no list of images \('class'\)"),
        (pickle.dumps([Path("a.jpg")]), r"holds a pathlib\S*Path beside plain texts and numbers"),
        (b"a.jpg 1\nb.jpg\n", r"no list of images \(a line is 'b.jpg'\)"),
        (b"a.jpg one\n", "a line is 'a.jpg one'"),
        (b"a.jpg 200\n", "val.txt gives a.jpg the label 200: expected 0 to 199"),
        (b"a.jpg -1\n", "the label -1: expected"),
        (pickled([("a.jpg", "7")]), "the label '7': expected"),
        (pickled([("a.jpg", True)]), "the label True: expected"),
        (b"a.jpg 1\nx/a.jpg 2\n", "lists a.jpg more than once: give each image once"),
        (b"a.jpg 1\nd.jpg 1\n", "val lacks 1 of 2 files, d.jpg first: copy there what .*val.txt"),
    ],
)
def test_lists_that_are_damaged(authors, content, message):
    if content is not None:
        (authors / "annotations" / "val.txt").write_bytes(content)
    refused(message, authors / "val")


def test_nothing_is_there(tmp_path):
    refused("no images.txt in .*gone, and no annotations/gone.txt beside it", tmp_path / "gone")
