"""Scenes of concepts: attributes tell nothing of one another, masks are exact, pixels the same."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest

from ltx_jax.data import concepts as module
from ltx_jax.data.concepts import (
    COLOURS,
    CONCEPTS,
    DIRECTIONS,
    LINED,
    PATTERNS,
    SHAPES,
    ConceptSceneSource,
    Look,
    concept_scene,
    looks,
)
from ltx_jax.data.examples import Redrawn, Source
from ltx_jax.data.figures import Figure
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.inputs import class_names_of, open_source

KINDS = (SHAPES, PATTERNS, COLOURS, DIRECTIONS)
HOW = Preprocessing((64, 64))
# It changes only when the pictures do, and then what was trained on them has to be trained anew.
GOLDEN = "88514527f3b3c022"


def test_thirty_concepts_of_four_kinds():
    assert [len(kind) for kind in KINDS] == [10, 8, 8, 4]
    assert len(CONCEPTS) == len(set(CONCEPTS)) == 30
    assert Look("ring", "striped", "red", "rising").concepts == tuple(
        map(CONCEPTS.index, ("ring", "striped", "red", "rising"))
    )
    # What has no lines shows no direction.
    assert Look("ring", "dotted", "red", "rising").concepts == tuple(
        map(CONCEPTS.index, ("ring", "dotted", "red"))
    )


def test_golden_scene():
    drawn = concept_scene(7, 3, (3, 3))
    digest = hashlib.sha256(drawn.image.tobytes() + drawn.masks.tobytes()).hexdigest()[:16]
    assert digest == GOLDEN
    again = concept_scene(7, 3, (3, 3))
    for one, other in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(one, other)
    others = [concept_scene(seed, index, (3, 3)).image for seed, index in ((7, 4), (3, 7), (8, 3))]
    assert all((other != drawn.image).any() for other in others)


def test_attributes_are_drawn_one_by_one():
    """Over 1,600 objects each value of a kind is as frequent as the others, and no two kinds, nor
    two objects of a scene, tell anything of one another: chi-square within 4 standard deviations.
    """
    scenes = [looks(0, index, (2, 2)) for index in range(800)]
    drawn = np.array(
        [
            [list(kind).index(name) for kind, name in zip(KINDS, look, strict=True)]
            for each in scenes
            for look in each
        ]
    )
    for column, kind in zip(drawn.T, KINDS, strict=True):
        counts = np.bincount(column, minlength=len(kind)).astype(float)
        assert chi_square(counts, np.full(len(kind), len(drawn) / len(kind))) < 4
    pairs = [(drawn[:, i], drawn[:, j], KINDS[i], KINDS[j]) for i, j in combinations(range(4), 2)]
    pairs += [(drawn[::2, i], drawn[1::2, i], kind, kind) for i, kind in enumerate(KINDS)]
    for one, other, rows, columns in pairs:
        counts = np.zeros((len(rows), len(columns)))
        np.add.at(counts, (one, other), 1)
        expected = np.full(counts.shape, len(one) / counts.size)
        assert chi_square(counts, expected) < 4


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Its distance from its mean under independence, in standard deviations."""
    freedom = counts.size - 1
    found = ((counts - expected) ** 2 / expected).sum()
    return abs(float(found - freedom)) / np.sqrt(2 * freedom)


def test_masks_hold_exactly_the_pixels_that_objects_change():
    for index in range(10):
        whole = concept_scene(1, index, (1, 4))
        each = looks(1, index, (1, 4))
        for part, look in enumerate(each):
            others = [i for i in range(len(each)) if i != part]
            # The object alone, so that none hides it; and all but it.
            alone = concept_scene(1, index, (1, 4), without=others)
            bare = concept_scene(1, index, (1, 4), without=range(len(each)))
            changed = (alone.image != bare.image).any(-1)
            assert set(np.flatnonzero(alone.labels)) == set(look.concepts)
            for concept in look.concepts:
                mask = alone.masks[concept]
                assert not changed[~mask].any() and changed[mask].mean() > 0.99
            left = concept_scene(1, index, (1, 4), without=(part,))
            missing = (left.image != whole.image).any(-1)
            # Of its own concepts it takes its pixels with it, and no others.
            assert not missing[~whole.masks[list(look.concepts)].all(0)].any()
        np.testing.assert_array_equal(whole.labels > 0, whole.masks.any((1, 2)))


def test_a_mask_is_the_union_of_all_objects_that_have_its_concept():
    found = 0
    for index in range(60):
        each = looks(2, index, (3, 3))
        whole = concept_scene(2, index, (3, 3))
        for kind in KINDS:
            names = [CONCEPTS.index(name) for name in kind]
            seen = whole.masks[names].sum(0)
            # Of a kind an object has one, so that no pixel has two; a direction it may lack.
            assert seen.max() <= 1
            if kind is not DIRECTIONS:
                np.testing.assert_array_equal(seen > 0, whole.masks[: len(SHAPES)].any(0))
        lined = whole.masks[[CONCEPTS.index(name) for name in LINED]].any(0)
        np.testing.assert_array_equal(
            lined, whole.masks[[CONCEPTS.index(name) for name in DIRECTIONS]].any(0)
        )
        shared = {look.colour for look in each if sum(o.colour == look.colour for o in each) > 1}
        for name in shared:
            mask, found = whole.masks[CONCEPTS.index(name)], found + 1
            of_shapes = [CONCEPTS.index(look.shape) for look in each if look.colour == name]
            assert all((mask & whole.masks[shape]).any() for shape in of_shapes)
    assert found > 5


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("horizontal", (0, 1)),
        ("vertical", (1, 0)),
        ("falling", (1, 1)),
        ("rising", (-1, 1)),
    ],
)
def test_stripes_run_as_their_direction_says(name, steps):
    """Along it neighbours are alike, across it they are not."""
    look = Look("circle", "striped", "yellow", name)
    canvas, seen = np.zeros((3, 96, 96), np.float32), np.zeros((96, 96), np.int8)
    one = module._Object(look, 24.0, np.array([48.0, 48.0]), np.full(4, 0.5))
    module._draw(canvas, seen, 1, one)
    middle = canvas[0, 36:60, 36:60]

    def unlike(down: int, right: int) -> float:
        return float(np.abs(middle - np.roll(middle, (down, right), (0, 1)))[2:-2, 2:-2].mean())

    down, right = steps
    assert unlike(right, -down) > 4 * unlike(down, right)


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_nearest_to_their_own(name):
    """Of whatever pattern: the mean pixel's direction is that of its colour."""
    palette = np.array(list(COLOURS.values()))
    for pattern in PATTERNS:
        canvas, seen = np.full((3, 96, 96), 0.5, np.float32), np.zeros((96, 96), np.int8)
        look = Look("square", pattern, name, "rising")
        one = module._Object(look, 20.0, np.array([48.0, 48.0]), np.full(4, 0.5))
        module._draw(canvas, seen, 1, one)
        mean = canvas[:, seen == 1].mean(1)
        cosines = palette @ mean / np.linalg.norm(palette, axis=1)
        assert list(COLOURS)[int(cosines.argmax())] == name


@pytest.mark.parametrize("pattern", ["plain", "checkered"])
def test_inked_share(pattern):
    figure: Figure = PATTERNS[pattern]
    plane = np.meshgrid(np.linspace(0, 10, 500), np.linspace(0, 10, 500))
    assert (figure(*plane) > 0).mean() == pytest.approx({"plain": 1.0, "checkered": 0.5}[pattern])


def test_the_same_picture_at_another_size():
    small, large = concept_scene(3, 5), concept_scene(3, 5, size=192)
    pooled = large.masks.reshape(30, 96, 2, 96, 2).mean((2, 4)) > 0.5
    assert (pooled != small.masks).mean() < 0.005
    np.testing.assert_array_equal(small.labels, large.labels)


def test_source_tells_all_that_is_in_a_scene():
    source = ConceptSceneSource(2, range(20, 26), (0, 3))
    assert isinstance(source, Source) and isinstance(source, Redrawn) and len(source) == 6
    assert source.names[:2] == ("concepts-0020", "concepts-0021")
    for row in range(6):
        example, drawn = source.load(row, HOW), concept_scene(2, 20 + row, (0, 3), 64)
        assert example.labels == source.labels[row] == tuple(np.flatnonzero(drawn.labels).tolist())
        np.testing.assert_array_equal(example.image, drawn.image)
        np.testing.assert_array_equal(example.masks, drawn.masks[list(example.labels)])
    names = [source.label_names[label] for label in source.labels[1]]
    assert set(names) == {CONCEPTS[i] for look in looks(2, 21, (0, 3)) for i in look.concepts}
    assert source.digest() != ConceptSceneSource(3, range(20, 26), (0, 3)).digest()
    with pytest.raises(InputError, match="square"):
        source.load(0, Preprocessing((64, 32)))
    with pytest.raises(InputError, match="between 0 and 4"):
        looks(0, 0, (1, 5))


def test_source_draws_scenes_without_each_of_their_objects():
    source = ConceptSceneSource(2, [7], (1, 3))
    found, whole = source.without(0, HOW), source.load(0, HOW).image
    assert found.shape == (3, 64, 64, 3)
    there = len(looks(2, 7, (1, 3)))
    changed = [bool((image != whole).any()) for image in found]
    assert changed == [i < there for i in range(3)]


def test_a_configuration_opens_them():
    settings = Settings(images="concepts", indices="10:20", limit=2, objects=(1, 1), seed=5)
    source = open_source(settings)
    assert source.names == ("concepts-0010", "concepts-0011")
    assert source.labels == tuple(looks(5, index, (1, 1))[0].concepts for index in (10, 11))
    assert tuple(class_names_of(settings)) == CONCEPTS == tuple(source.label_names.values())
