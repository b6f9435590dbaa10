"""Scenes are what they say: the same pixels every time, masks exact, labels true."""

import hashlib

import numpy as np
import pytest

from ltx_jax.data import figures
from ltx_jax.data import scenes as module
from ltx_jax.data.examples import Redrawn, iterate, with_interventions
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.scenes import (
    CLASSES,
    SHAPES,
    SceneSource,
    _layout,
    scene,
    scene_classes,
    scenes,
)
from ltx_jax.errors import InputError

# Of one scene's image and masks: it changes only when the pictures do, and then the bundled
# networks have to be trained anew.
GOLDEN_IMAGE = "feb4db98ed2b1f85"
GOLDEN_MASKS = "af5dc2fead060ab6"


SIDE = np.linspace(-1.2, 1.2, 601)
PLANE = np.meshgrid(SIDE, SIDE)


def area_of(shape: figures.Figure) -> float:
    """In units of the radius squared."""
    return float((shape(*PLANE) < 0).mean() * np.ptp(SIDE) ** 2)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_golden_scene() -> None:
    drawn = scene(7, 3, objects=(3, 3))
    assert scene_classes(7, 3, objects=(3, 3)) == (2, 5, 8)
    assert digest(drawn.image) == GOLDEN_IMAGE
    assert digest(drawn.masks) == GOLDEN_MASKS


def test_shapes_and_types() -> None:
    image, labels, masks = scene(0, 0, size=64)
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((len(CLASSES),), np.float32)
    assert (masks.shape, masks.dtype) == ((len(CLASSES), 64, 64), np.bool_)
    assert len(CLASSES) == len(set(CLASSES)) == 10


def test_a_scene_does_not_depend_on_its_batch() -> None:
    whole, tail = scenes(5, 6), scenes(5, 2, first=4)
    for a, b in zip(whole, tail, strict=True):
        np.testing.assert_array_equal(a[4:], b)
    for a, b in zip(scene(5, 5), whole, strict=True):
        np.testing.assert_array_equal(a, b[5])


def test_other_seeds_and_indices_give_other_scenes() -> None:
    images = [scene(seed, index).image for seed in (0, 1) for index in (0, 1)]
    assert len({digest(image) for image in images}) == 4
    # Seed and index are not interchangeable.
    assert digest(scene(0, 1).image) != digest(scene(1, 0).image)


@pytest.mark.parametrize("size", [96, 128])
def test_masks_hold_exactly_the_pixels_that_objects_change(size: int) -> None:
    for index in range(20):
        image, _, masks = scene(1, index, objects=(1, 4), size=size)
        alone = scene(1, index, (0, 0), size).image
        changed = (image != alone).any(-1)
        inside = masks.any(0)
        assert not changed[~inside].any()
        # An object's pixel may have the background's colour by chance: less than one in fifty.
        assert changed[inside].mean() > 0.98


def test_no_pixel_is_in_two_masks() -> None:
    assert scenes(2, 20, objects=(4, 4)).masks.sum(1).max() == 1


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (figures.disc, np.pi),
        (figures.square, 1.4**2),
        (figures.hexagon, 2 * np.sqrt(3) * 0.85**2),
        (figures.ring, np.pi * (1 - 0.4**2)),
        (figures.cross, 4 * (2 * 0.93 * 0.36 - 0.36**2)),
        (figures.triangle, 3 * np.sqrt(3) * 0.5**2),
        # Ten triangles between the centre, a tip at 1 and a notch at 0.5.
        (figures.star, 10 * 0.5 * 0.5 * np.sin(np.pi / 5)),
    ],
)
def test_areas_of_shapes(shape: figures.Figure, area: float) -> None:
    assert area_of(shape) == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_keep_within_the_unit_circle(shape: figures.Figure) -> None:
    inside = shape(*PLANE) < 0
    assert np.hypot(*PLANE)[inside].max() <= 1.0
    assert area_of(shape) > 1.1  # a third of the circle: none is too thin to be seen


def test_masks_have_their_shapes_area() -> None:
    indices = [i for i in range(60) if scene_classes(4, i, (1, 1)) == (0,)]
    for index in indices:
        mask = scene(4, index, (1, 1)).masks[0]
        height, width = mask.any(1).sum(), mask.any(0).sum()
        assert abs(int(height) - int(width)) <= 1
        assert 31 <= height <= 49
        assert mask.sum() == pytest.approx(np.pi / 4 * height * width, rel=0.06)
    assert indices


def test_labels_masks_and_classes_agree() -> None:
    drawn = scenes(3, 40, objects=(0, 4))
    np.testing.assert_array_equal(drawn.labels > 0, drawn.masks.any((2, 3)))
    assert set(drawn.labels.sum(1)) == {0.0, 1.0, 2.0, 3.0, 4.0}
    for index, labels in enumerate(drawn.labels):
        assert set(scene_classes(3, index, (0, 4))) == set(np.flatnonzero(labels))


def test_single_objects_are_of_every_class_and_whole() -> None:
    drawn = scenes(6, 200, objects=(1, 1))
    np.testing.assert_array_equal(drawn.labels.sum(1), 1.0)
    assert (drawn.labels.sum(0) >= 8).all()
    # None touches the picture's border.
    for edge in (drawn.masks[..., 0, :], drawn.masks[..., :, 0], drawn.masks[..., -1, :]):
        assert not edge.any()


def test_objects_hide_little_of_one_another() -> None:
    areas = [area_of(shape) for shape in SHAPES]
    for index in range(60):
        layout, _ = _layout(8, index, (3, 4))
        masks = scene(8, index, (3, 4)).masks
        for label, radius in zip(layout.classes, layout.radii, strict=True):
            assert masks[label].sum() > 0.8 * areas[label] * radius**2


def test_a_scene_may_have_no_objects() -> None:
    assert not scene(9, 1, objects=(0, 0)).masks.any()


def test_the_same_picture_at_another_size() -> None:
    small, large = scene(3, 5, size=96), scene(3, 5, size=192)
    # Two by two pixels of the large mask to one of the small: equal but along the outline.
    pooled = large.masks.reshape(10, 96, 2, 96, 2).mean((2, 4)) > 0.5
    assert (pooled != small.masks).mean() < 0.005


def test_a_scene_without_one_of_its_objects() -> None:
    whole, classes = scene(7, 3, objects=(3, 3)), scene_classes(7, 3, objects=(3, 3))
    for part, label in enumerate(classes, start=13):
        found = scene(7, 3, objects=(3, 3), without=(part,))
        changed = (found.image != whole.image).any(-1)
        assert changed[whole.masks[label]].mean() > 0.98
        assert not changed[~whole.masks[label]].any()
        assert not found.masks[label].any() and found.labels[label] == 0
        for other in set(classes) - {label}:
            assert (found.masks[other] >= whole.masks[other]).all() and found.labels[other] == 1
    alone = scene(6, 0, objects=(1, 1), without=(13,))
    np.testing.assert_array_equal(alone.image, scene(6, 0, (0, 0)).image)


def test_a_scene_without_a_piece_of_its_background() -> None:
    whole = scene(7, 3)
    changed = []
    for part in range(13):
        found = scene(7, 3, without=(part,))
        changed.append((found.image != whole.image).any(-1))
        np.testing.assert_array_equal(found.masks, whole.masks)
        np.testing.assert_array_equal(found.labels, whole.labels)
        # Opaque objects hide it; their soft edges show a little.
        assert changed[-1][whole.masks.any(0)].mean() < 0.05
    areas = np.array([one.mean() for one in changed])
    # Nine to thirteen pieces, each small, from the back: those that are missing are the last.
    assert (areas < 0.15).all() and 7 <= (areas > 0.01).sum() <= 13
    np.testing.assert_array_equal(scene(7, 3, without=(99,)).image, whole.image)
    # All of them at once: what each of them changes, and nothing else.
    bare = (scene(7, 3, without=range(13)).image != whole.image).any(-1)
    assert bare.mean() > areas.max() and not bare[~np.any(changed, 0)].any()


def test_too_many_objects_are_refused() -> None:
    with pytest.raises(InputError, match="between 0 and 4"):
        scene(0, 0, objects=(1, 5))


def test_source_tells_all_that_is_in_a_scene() -> None:
    source = SceneSource(2, range(20, 26), objects=(0, 3))
    drawn = scenes(2, 6, objects=(0, 3), first=20)
    assert len(source) == 6
    assert source.names[:3] == ("scene-0020", "scene-0021", "scene-0022")
    for row in range(6):
        example = source.load(row, Preprocessing((96, 96)))
        classes = scene_classes(2, 20 + row, (0, 3))
        assert source.labels[row] == example.labels == classes
        np.testing.assert_array_equal(example.image, drawn.image[row])
        np.testing.assert_array_equal(example.masks, drawn.masks[row, list(classes)])
        assert example.void is None
        for label in classes:
            np.testing.assert_array_equal(example.mask_of(label), drawn.masks[row, label])
    assert {len(labels) for labels in source.labels} == {0, 1, 2, 3}


def test_source_draws_at_the_size_that_is_asked_for() -> None:
    example = SceneSource(2, [7]).load(0, Preprocessing((64, 64), resize="crop"))
    drawn = scene(2, 7, (1, 2), 64)
    np.testing.assert_array_equal(example.image, drawn.image)
    np.testing.assert_array_equal(example.masks, drawn.masks[list(example.labels)])


def test_source_draws_each_scene_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "scene", lambda *which: drawn.append(which) or scene(*which))
    SceneSource(2, [7]).load(0, Preprocessing((64, 64)))
    assert drawn == [(2, 7, (1, 2), 64, ())]


def test_source_draws_scenes_without_each_of_their_parts() -> None:
    source, how = SceneSource(2, range(20, 26)), Preprocessing((64, 64))
    assert isinstance(source, Redrawn)
    found = source.without(4, how)
    assert found.shape == (1 + 2, 64, 64, 3)
    for part, missing in enumerate((range(13), (13,), (14,))):
        np.testing.assert_array_equal(found[part], scene(2, 24, (1, 2), 64, missing).image)
    ((_, example),) = iterate(source, how, [4], additions=[with_interventions])
    np.testing.assert_array_equal(example.without, found)
    np.testing.assert_array_equal(example.image, source.load(4, how).image)


def test_source_refuses_oblong_inputs() -> None:
    with pytest.raises(InputError, match="square"):
        SceneSource(0, range(1)).load(0, Preprocessing((96, 64)))
