"""What an example tells of itself, and examples in turn."""

import threading

import numpy as np
import pytest

from ltx_jax.data.examples import Example, UnreadableImage, iterate, with_next
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import ArraySource

HOW = Preprocessing((2, 2))
BLACK = np.zeros((2, 2, 3), np.uint8)


def test_masks_by_label() -> None:
    masks = np.zeros((3, 2, 2), np.bool_)
    masks[0, 0, 0] = masks[2, 1, 1] = True
    example = Example(BLACK, (4, 7, 9), masks)
    np.testing.assert_array_equal(example.mask_of(4), [[True, False], [False, False]])
    np.testing.assert_array_equal(example.mask_of(9), [[False, False], [False, True]])
    assert example.mask_of(7) is None  # it has no pixel
    assert example.mask_of(5) is None  # nobody spoke of it


def test_two_objects_of_a_label_are_seen_together() -> None:
    masks = np.zeros((2, 2, 2), np.bool_)
    masks[0, 0, 0] = masks[1, 1, 1] = True
    np.testing.assert_array_equal(Example(BLACK, (3, 3), masks).mask_of(3), np.eye(2) > 0)


def test_without_masks_nothing_is_known() -> None:
    assert Example(BLACK, (4,)).mask_of(4) is None
    assert Example(BLACK, (), np.zeros((0, 2, 2), np.bool_)).mask_of(4) is None


def test_image_masks_and_void_go_together() -> None:
    # Of eight rows and columns the middle four remain, and every second of those.
    image = np.zeros((8, 8, 1), np.uint8)
    image[2:4, 4:6] = 255
    marked = image[..., 0] > 0
    how = Preprocessing((2, 2), resize="crop", crop_fraction=0.5)
    found = Example(image, (1, 0), np.stack([marked, ~marked]), marked).preprocessed(how)
    corner = [[False, True], [False, False]]
    assert (found.image[..., 0] > 127).tolist() == corner
    assert found.masks.tolist() == [corner, np.logical_not(corner).tolist()]
    assert found.void.tolist() == corner
    assert found.labels == (1, 0)


def test_what_is_not_known_stays_unknown() -> None:
    found = Example(np.zeros((5, 4, 3), np.uint8)).preprocessed(HOW)
    assert found.image.shape == (2, 2, 3)
    assert (found.labels, found.masks, found.void) == ((), None, None)


def test_bytes_and_floats() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    unit = Example(levels).as_input()
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(unit, levels.astype(np.float32) / 255)
    example = Example(unit)
    np.testing.assert_array_equal(example.as_input(), unit)
    np.testing.assert_array_equal(example.as_picture(), levels)
    np.testing.assert_array_equal(Example(levels).as_picture(), levels)


class Numbered:
    """Images filled with their numbers; the sixth cannot be read."""

    names = tuple("abcdefghij")
    labels = ((),) * 10
    has_masks = False

    def __init__(self) -> None:
        self.loaded: set[int] = set()

    def __len__(self) -> int:
        return 10

    def digest(self) -> str:
        return ""

    def load(self, index: int, how: Preprocessing) -> Example:
        if index == 5:
            raise UnreadableImage("torn")
        self.loaded.add(index)
        return Example(np.full((*how.size, 3), index, np.uint8))


def test_examples_come_in_order_and_unreadable_ones_as_exceptions() -> None:
    found = list(iterate(Numbered(), HOW, [3, 9, 5, 0], ahead=2))
    assert [index for index, _ in found] == [3, 9, 5, 0]
    assert isinstance(found[2][1], UnreadableImage) and str(found[2][1]) == "torn"
    for index, example in (found[0], found[1], found[3]):
        assert (example.image == index).all()


def test_each_has_the_next_image_beside_it() -> None:
    found = dict(iterate(Numbered(), HOW, [3, 9, 4, 5], additions=[with_next]))
    for index, following in ((3, 4), (9, 0)):
        np.testing.assert_allclose(found[index].other, np.full((2, 2, 3), following / 255))
        assert (found[index].image == index).all()
    assert found[4].other is None  # the next cannot be read
    assert isinstance(found[5], UnreadableImage)
    alone = ArraySource(("a",), ((),), BLACK[None])
    assert dict(iterate(alone, HOW, [0], additions=[with_next]))[0].other is None


def test_only_so_many_are_loaded_ahead() -> None:
    source = Numbered()
    stream = iterate(source, HOW, range(10), ahead=2)
    next(stream)
    assert source.loaded <= {0, 1, 2}
    stream.close()


def test_other_errors_are_raised() -> None:
    class Broken(Numbered):
        def load(self, index: int, how: Preprocessing) -> Example:
            raise RuntimeError(threading.current_thread().name)

    with pytest.raises(RuntimeError, match="ThreadPool"):
        next(iterate(Broken(), HOW, range(1)))


def test_objects_are_of_whichever_class_is_asked_for():
    marked = np.zeros((16, 16), bool)
    marked[4:10, 2:8] = True
    example = Example(np.zeros((16, 16, 3), np.uint8), (4,), void=~marked, objects=marked)
    found = example.preprocessed(Preprocessing((8, 8)))
    for label in (4, 5):
        np.testing.assert_array_equal(found.mask_of(label), marked[1::2, 1::2])
    np.testing.assert_array_equal(found.void, ~marked[1::2, 1::2])
    assert Example(BLACK, objects=np.zeros((2, 2), bool)).mask_of(4) is None
