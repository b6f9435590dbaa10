"""Supervised and unseen concepts: apart, of the size asked for, by the seed."""

from __future__ import annotations

import numpy as np
import pytest

from ltx_jax.data.concept_split import images_of_each, split_concepts
from ltx_jax.errors import InputError


def test_images_are_counted_once_for_each_class():
    found = images_of_each([(0, 2), (2, 2), (), (2,)], 4)
    np.testing.assert_array_equal(found, [1, 0, 3, 0])


@pytest.mark.parametrize(
    ("classes", "share", "supervised"),
    [(80, 0.1, 8), (1208, 0.7, 845), (100, 0.29, 29), (10, 1.0, 10), (3, 0.1, 1)],
)
def test_the_share_is_drawn_without_replacement(classes, share, supervised):
    found = split_concepts(np.full(classes, 5), share, 0)
    assert (len(found.supervised), len(found.unseen)) == (supervised, classes - supervised)
    both = np.concatenate(found)
    np.testing.assert_array_equal(np.sort(both), np.arange(classes))
    assert all((np.diff(part) > 0).all() for part in found)


def test_rare_concepts_are_in_neither_part():
    counts = np.array([3, 0, 2, 9, 1, 2])
    found = split_concepts(counts, 0.5, 1, least=2)
    assert sorted(np.concatenate(found).tolist()) == [0, 2, 3, 5] and len(found.supervised) == 2
    # Those that no image has are no concepts at all.
    assert 1 not in np.concatenate(split_concepts(counts, 0.5, 1))


def test_the_seed_decides():
    counts = np.full(40, 3)
    found = [split_concepts(counts, 0.5, seed).supervised.tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    # Over many seeds each concept is as often supervised as the others: half of 400, and within
    # five standard deviations of a coin's.
    times = np.zeros(40, int)
    for seed in range(400):
        times[split_concepts(counts, 0.5, seed).supervised] += 1
    assert abs(times - 200).max() < 50


@pytest.mark.parametrize(
    ("share", "least", "message"),
    [
        (0.0, 1, "share of concepts is 0.0: expected above 0, up to 1"),
        (1.5, 1, "is 1.5: expected"),
        (0.5, 9, "no concept is in 9 images, and the most frequent in 3: set the threshold lower"),
    ],
)
def test_what_cannot_be_split(share, least, message):
    with pytest.raises(InputError, match=message):
        split_concepts(np.full(4, 3), share, 0, least)
