"""Every kind of input, and every kind of bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltx_jax.data.examples import UnreadableImage, iterate
from ltx_jax.data.labels import read_class_names
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import DATASETS, LABELS, ArraySource, chosen, open_images
from ltx_jax.data.words import read_words
from ltx_jax.errors import InputError
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.inputs import fingerprint, open_source

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


def test_folder(folder: Path) -> None:
    source = open_images(folder)
    assert source.names == ("b.png", "c.jpg", "d.jpg", "deep/a.JPG")
    assert source.labels == ((), (), (), ())
    found = dict(iterate(source, HOW, range(4)))
    assert (found[3].image == [10, 20, 30]).all() and found[3].image.shape == (8, 8, 3)
    assert isinstance(found[1], UnreadableImage) and "truncated" in str(found[1])
    assert isinstance(found[2], UnreadableImage) and "\n" not in str(found[2])
    assert found[0].image.std() > 0
    assert (found[0].labels, found[0].masks, found[0].void) == ((), None, None)


@pytest.mark.parametrize("error", [TypeError("odd\nin two lines"), KeyError(), MemoryError()])
def test_whatever_breaks_in_a_picture_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.Image.open", broken)
    with pytest.raises(UnreadableImage) as caught:
        open_images(folder).load(0, HOW)
    assert str(caught.value) in ("odd in two lines", "KeyError", "MemoryError")


def test_list_and_slice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("in/b.png\n\nin/deep/a.JPG\n")
    assert open_images(tmp_path / "list.txt").names == ("in/b.png", "in/deep/a.JPG")
    assert open_images(folder, indices="1:", limit=2).names == ("c.jpg", "d.jpg")


# --- Slices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6]),
        (":", [0, 1, 2, 3, 4, 5, 6]),
        ("2:5", [2, 3, 4]),
        ("5:", [5, 6]),
        (":-5", [0, 1]),
        ("-2:", [5, 6]),
        ("::3", [0, 3, 6]),
        ("1:6:2", [1, 3, 5]),
        ("4:100", [4, 5, 6]),
        ("9:", []),
    ],
)
def test_slices(text: str | None, rows: list[int]) -> None:
    assert list(chosen("config.indices", text, 7)) == rows


@pytest.mark.parametrize("text", ["5", "", "a:b", "1:2:3:4", "::0", "::-1", "1.5:"])
def test_what_is_no_slice_is_said(text: str | None) -> None:
    with pytest.raises(
        InputError, match=f"config.label_rows is {text!r}: expected start:stop"
    ) as e:
        chosen("config.label_rows", text, 7)
    assert "\n" not in str(e.value)


def test_a_slice_that_leaves_nothing(folder: Path) -> None:
    with pytest.raises(InputError, match="leave none of the 4 images"):
        open_images(folder, indices="4:")


# --- Subsets --------------------------------------------------------------------------------------


@pytest.fixture
def twelve(tmp_path: Path) -> Settings:
    """Of twelve images with labels."""
    np.savez(tmp_path / "a.npz", **arrays())
    return Settings(images=str(tmp_path / "a.npz"), indices="2:", subset=5)


def numbers(settings: Settings) -> list[int]:
    """Of the images that a run takes."""
    return [int(name) for name in open_source(settings).names]


def test_a_subset_is_drawn_by_the_seed_and_keeps_its_order(twelve: Settings) -> None:
    by_seed = [numbers(replace(twelve, seed=seed)) for seed in range(8)]
    assert numbers(twelve) == by_seed[0]
    assert len({tuple(each) for each in by_seed}) > 4
    for each in by_seed:
        assert each == sorted(set(each)) and len(each) == 5 and min(each) >= 2
    # Each image has its turn, and none is favoured by its place.
    assert set().union(*by_seed) == set(range(2, 12))
    assert numbers(replace(twelve, limit=2)) == by_seed[0][:2]
    assert numbers(replace(twelve, subset=10)) == list(range(2, 12))


def test_what_is_known_goes_along_with_a_subset(twelve: Settings) -> None:
    source, given = open_source(twelve), arrays()
    assert [label for (label,) in source.labels] == numbers(twelve)
    for i, number in enumerate(numbers(twelve)):
        np.testing.assert_array_equal(source.load(i, HOW).image, given["images"][number])


def test_a_subset_of_files_and_of_scenes(folder: Path) -> None:
    whole = open_images(folder)
    part = open_images(folder, subset=3, seed=1)
    assert part.names == tuple(name for name in whole.names if name in part.names)
    scenes = Settings(images="scenes", indices="100:200", subset=4)
    names = open_source(scenes).names
    assert len(names) == 4 and names == tuple(sorted(names))
    assert all(100 <= int(name.removeprefix("scene-")) < 200 for name in names)
    assert names != open_source(replace(scenes, seed=1)).names


def test_a_subset_of_more_than_there_is(twelve: Settings) -> None:
    for images in (twelve.images, "scenes"):
        more = replace(twelve, images=images, indices="2:12", subset=11)
        with pytest.raises(
            InputError, match=r"config\.subset is 11, of 10 images that .*: set it lower"
        ):
            open_source(more)


def test_a_subset_is_part_of_what_a_run_rests_on(twelve: Settings) -> None:
    def told(settings: Settings) -> dict[str, object]:
        source = open_source(settings)
        return fingerprint(settings, source.names, source, (), ())

    drawn = told(twelve)
    assert drawn["subset"] == 5 and drawn == told(twelve)
    key = "images and labels (sha256 of contents)"
    assert drawn[key] != told(replace(twelve, subset=4))[key]
    assert drawn[key] != told(replace(twelve, seed=1))[key]


# --- Arrays ---------------------------------------------------------------------------------------


def arrays(**content: np.ndarray) -> dict[str, np.ndarray]:
    """Twelve random images with labels, unless the content says otherwise."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    return {"images": images, "labels": np.arange(12)} | content


def test_arrays(tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "a.npz", **given)
    source = open_images(tmp_path / "a.npz", indices="3:9:2", limit=2)
    assert source.names == ("03", "05") and source.labels == ((3,), (5,))
    example = source.load(1, HOW)
    np.testing.assert_array_equal(example.image, given["images"][5])
    assert (example.labels, example.masks, example.void) == ((5,), None, None)
    assert source.load(0, Preprocessing((4, 4))).image.shape == (4, 4, 3)


def test_float_arrays_are_not_rounded(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 8, 8, 3))
    np.savez(tmp_path / "f.npz", images=images)
    source = open_images(tmp_path / "f.npz")
    found = source.load(1, HOW).image
    assert source.labels == ((), ()) and found.dtype == np.float32
    np.testing.assert_array_equal(found, images[1].astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 1, 1, 3), (3, 2, 2, 3), (3, 1, 5, 3)])
def test_arrays_of_fewer_rows_than_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    found = open_images(tmp_path / "a.npz").load(2, Preprocessing(shape[1:3]))
    np.testing.assert_array_equal(found.image, images[2])


def test_arrays_in_memory() -> None:
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    masks = images[None, ..., 0].swapaxes(0, 1) > np.array([0.3, 0.6]).reshape(1, 2, 1, 1)
    source = ArraySource(("a", "b"), ((3, 4), (4, 0)), images, masks)
    found = source.load(1, HOW)
    np.testing.assert_array_equal(found.image, images[1])
    np.testing.assert_array_equal(found.mask_of(0), images[1, ..., 0] > 0.6)
    assert found.mask_of(3) is None and len(source) == 2


def test_arrays_are_cropped_as_files_are(tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "a.npz", **given)
    Image.fromarray(given["images"][0]).save(tmp_path / "a.png")
    how = Preprocessing((8, 8), resize="crop")
    array = open_images(tmp_path / "a.npz").load(0, how).image
    file = open_images(tmp_path).load(0, how).image
    np.testing.assert_array_equal(array, file)
    assert (array != given["images"][0]).any()


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32])
def test_arrays_with_masks(tmp_path: Path, kind: type) -> None:
    marked = np.random.default_rng(1).random((2, 12, 8, 8)) > 0.5
    np.savez(tmp_path / "a.npz", **arrays(masks=marked[0].astype(kind), void=marked[1]))
    source = open_images(tmp_path / "a.npz", indices="7:9")
    found = source.load(1, HOW)
    assert found.labels == (8,)
    assert found.masks.dtype == found.void.dtype == np.bool_
    np.testing.assert_array_equal(found.masks, marked[0, 8][None])
    np.testing.assert_array_equal(found.mask_of(8), marked[0, 8])
    np.testing.assert_array_equal(found.void, marked[1, 8])
    half = source.load(1, Preprocessing((4, 4)))
    np.testing.assert_array_equal(half.masks[0], marked[0, 8, 1::2, 1::2])
    np.testing.assert_array_equal(half.void, marked[1, 8, 1::2, 1::2])


def test_masks_may_have_their_labels_from_elsewhere(tmp_path: Path) -> None:
    content = arrays(masks=np.ones((12, 8, 8), np.bool_))
    del content["labels"]
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(InputError, match="`masks` but no `labels`"):
        open_images(tmp_path / "a.npz")
    (tmp_path / "l.txt").write_text("\n".join("5" * 12))
    source = open_images(tmp_path / "a.npz", tmp_path / "l.txt")
    assert source.load(0, HOW).mask_of(5).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "channels last"),
        ({"images": np.zeros((12, 8, 8), np.uint8)}, "of shape .12, 8, 8."),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "of shape .0, 8, 8, 3."),
        ({"images": np.full((12, 8, 8, 3), 7.0)}, "from 7.0 to 7.0: expected uint8, or floats"),
        ({"images": np.full((12, 8, 8, 3), np.nan)}, "from nan to nan"),
        ({"images": np.zeros((12, 8, 8, 3), np.int64)}, "are int64: expected uint8"),
        ({"images": np.full((12, 8, 8, 3), "x")}, "are <U1: expected uint8"),
        ({"labels": np.zeros(11, np.int64)}, "int64 .11,.: expected one integer"),
        ({"labels": np.zeros(12)}, "float64 .12,.: expected one integer"),
        ({"masks": np.zeros((12, 8, 4), np.bool_)}, "`masks` .* expected bool .12, 8, 8."),
        ({"masks": np.full((12, 8, 8), "x")}, "`masks` .* expected bool"),
        ({"masks": np.full((12, 8, 8), 255, np.uint8)}, "`masks` .* from 255 to 255"),
        ({"void": np.zeros((12, 1, 8, 8), np.bool_)}, "`void` .* expected bool .12, 8, 8."),
        ({"void": np.full((12, 8, 8), 0.5)}, "`void` .* from 0.5 to 0.5"),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, content: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**content))
    with pytest.raises(InputError, match=message) as caught:
        open_images(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


# --- Labels ---------------------------------------------------------------------------------------


def test_labels(folder: Path, tmp_path: Path) -> None:
    by_name = {"b.png": 3, "c.jpg": 1, "d.jpg": 0, "a.JPG": 7}
    (tmp_path / "l.json").write_text(json.dumps(by_name)[:-1] + ', "b.png": 3}')
    assert open_images(folder, tmp_path / "l.json").labels == ((3,), (1,), (0,), (7,))
    (tmp_path / "l.txt").write_text("4\n5\n6\n7\n")
    assert open_images(folder, tmp_path / "l.txt").labels == ((4,), (5,), (6,), (7,))
    (tmp_path / "n.txt").write_text("b.png 4\nc.jpg 5\nd.jpg 6\ndeep/a.JPG 9\n")
    source = open_images(folder, tmp_path / "n.txt")
    assert source.labels == ((4,), (5,), (6,), (9,))
    assert source.load(3, HOW).labels == (9,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.json", '{"b.png": 3}', "no label for 3 of 4 images"),
        ("l.json", '{"b.png": 3', "is not JSON"),
        ("l.json", "[1, 2]", "expected {name: index}"),
        ("l.json", '{"b.png": 3, "c.jpg": 1, "b.png": 4}', "gives 'b.png' more than one value"),
        ("l.json", '{"b.png": -1, "c.jpg": 1, "d.jpg": 0, "a.JPG": 7}', "the label -1"),
        ("l.json", '{"b.png": "cat", "c.jpg": 1, "d.jpg": 0, "a.JPG": 7}', "the label 'cat'"),
        ("l.txt", "1\n2\n", "2 labels for 4 images"),
        ("l.txt", "b.png one\n", "no number"),
        ("missing.json", None, "no labels at"),
    ],
)
def test_labels_that_do_not_match(
    folder: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        open_images(folder, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "x.npz", pictures=np.zeros(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:50])
    (tmp_path / "list.txt").write_text("nowhere.jpg\n")
    (tmp_path / "blank.txt").write_text("\n\n")
    (tmp_path / "twice.txt").write_text("x.npz\ncut.npz\nx.npz\n")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "a").touch()
    (tmp_path / "letter.txt").write_text("a\na\n")
    for name, message in {
        "nothing": "no images at",
        "empty": "no images in",
        "x.npz": "no `images`",
        "cut.npz": "not a whole .npz",
        "one.npz": "not a whole .npz",
        "list.txt": "1 files that do not exist, 'nowhere.jpg' first",
        "blank.txt": "lists nothing",
        "twice.txt": "lists 'x.npz' more than once",
        "letter.txt": "lists 'a' more than once",
    }.items():
        with pytest.raises(InputError, match=message):
            open_images(tmp_path / name)


LONG = "x" * 300  # which file systems refuse to look up
PATHS = sorted({*DATASETS} - {"tfds"})


@pytest.mark.parametrize(
    ("dataset", "labels"), [(None, None), *((name, None) for name in PATHS), *LABELS]
)
def test_a_path_that_no_file_system_takes_is_one_line(
    tmp_path: Path, dataset: str | None, labels: str | None
) -> None:
    with pytest.raises(InputError) as caught:
        open_images(tmp_path / LONG, labels, dataset=dataset)
    assert LONG in str(caught.value) and "\n" not in str(caught.value)


def test_files_whose_names_no_file_system_takes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"in/b.png\n{LONG}\n")
    with pytest.raises(InputError, match="lists 1 files that do not exist, 'xxx"):
        open_images(tmp_path / "list.txt")
    with pytest.raises(InputError, match=r"no labels at .*xxx: give"):
        open_images(folder, tmp_path / LONG)
    with pytest.raises(InputError, match=r"no class names at .*xxx: give"):
        read_class_names(tmp_path / LONG)
    with pytest.raises(InputError, match=r"no word embedding at .*xxx: give"):
        read_words(tmp_path / LONG, ["cat"])


def test_class_names(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"0": ["n01", "tench"], "1": ["n02", "goldfish"]}')
    (tmp_path / "b.json").write_text('["tench", "goldfish"]')
    (tmp_path / "c.txt").write_text("tench\ngoldfish\n")
    for name in ("a.json", "b.json", "c.txt"):
        assert read_class_names(tmp_path / name) == ("tench", "goldfish")
    (tmp_path / "e.json").write_text('{"0": "tench", "0": "goldfish"}')
    with pytest.raises(InputError, match="gives '0' more than one value: mend it"):
        read_class_names(tmp_path / "e.json")
    for content in ('{"a": 1}', '"cat"', '{"0": ["n01", null]}', "[1]", "[[]]"):
        (tmp_path / "d.json").write_text(content)
        with pytest.raises(InputError, match="no list of class names"):
            read_class_names(tmp_path / "d.json")
