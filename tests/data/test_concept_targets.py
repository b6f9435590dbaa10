"""What is drawn of an image to learn its words by."""

from __future__ import annotations

import numpy as np
import pytest

from ltx_jax.data.batches import Order
from ltx_jax.data.concept_targets import ConceptTargets, on_grid
from ltx_jax.data.examples import Example
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import ArraySource
from ltx_jax.errors import InputError

IMAGE = np.zeros((8, 8, 3), np.uint8)


def masks(*boxes):
    found = np.zeros((len(boxes), 8, 8), bool)
    for mask, (rows, columns) in zip(found, boxes, strict=True):
        mask[rows, columns] = True
    return found


LEFT, ALL, DOT = (slice(8), slice(4)), (slice(8), slice(8)), (slice(1), slice(1))


def test_a_mask_on_cells_is_what_their_centres_show():
    (left,) = masks(LEFT)
    assert on_grid(left, (2, 4)).tolist() == [[True, True, False, False]] * 2


def test_labels_of_the_same_pixels_are_drawn_together_and_empty_ones_never():
    # Label 5 is not learnt; no cell's centre sees label 4.
    example = Example(IMAGE, (7, 2, 5, 4, 3), masks(LEFT, LEFT, LEFT, DOT, ALL))
    targets = ConceptTargets({2: 0, 3: 1, 7: 2, 4: 3}, 4, (2, 2))
    rng = np.random.default_rng(0)
    drawn = [targets.draw(example, rng) for _ in range(20)]
    found = {(tuple(one["labels"].tolist()), int(one["masks"].sum())) for one in drawn}
    assert found == {((True, False, True, False), 2), ((False, True, False, False), 4)}
    assert targets.draw(Example(IMAGE, (4,), masks(DOT)), rng) is None
    assert targets.draw(Example(IMAGE, (3,)), rng) is None


def test_what_is_an_unseen_concept_as_well_is_not_drawn():
    # Label 9 is unseen: it covers half of what label 3 does, and all that label 2 does.
    example = Example(IMAGE, (2, 3, 9), masks(LEFT, ALL, LEFT))
    rng = np.random.default_rng(0)
    for unseen, expected in ((frozenset(), {0, 1}), (frozenset({9}), {1})):
        targets = ConceptTargets({2: 0, 3: 1}, 2, (2, 2), unseen)
        drawn = [targets.draw(example, rng)["labels"].argmax() for _ in range(20)]
        assert {*map(int, drawn)} == expected
    assert ConceptTargets({2: 0}, 1, (2, 2), frozenset({9})).draw(example, rng) is None


def test_images_with_nothing_to_learn_are_passed_over():
    images = np.stack([IMAGE, IMAGE + 1])
    source = ArraySource(("a", "b"), ((4,), (3,)), images, masks(DOT, ALL)[:, None])
    targets = ConceptTargets({4: 0, 3: 1}, 2, (2, 2))
    about = {"source": source, "how": Preprocessing((8, 8)), "targets": targets, "seed": 0}
    order = Order(images=np.array([0, 1], np.int32), batch_size=2, epochs=1, **about)
    for number in range(2):
        image, target, skipped = order[number]
        assert image[0, 0, 0] == 1 and target["labels"].tolist() == [False, True] and not skipped
    empty = Order(images=np.array([0], np.int32), batch_size=1, epochs=1, **about)
    with pytest.raises(InputError, match="none of the 1 images to train on shows anything to"):
        empty[0]
