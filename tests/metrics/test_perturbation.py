"""Perturbation scores against curves worked out by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scoring_tools import FIRST_PIXEL

from ltx_jax.metrics.perturbation import FRACTIONS, contending_areas, perturbation_areas, removal

# Compiled: operation by operation each takes half a minute.
_compiled = partial(jax.jit, static_argnames=("most_relevant_first", "chunk"))
areas_of, contending_areas_of = _compiled(perturbation_areas), _compiled(contending_areas)
logits_of = jax.jit(lambda explainee, images: explainee(images))
WHITE = np.ones((1, 1, 10, 3), np.float32)
FALLING = np.linspace(1, 0, 10, dtype=np.float32).reshape(1, 1, 10)


def areas(mask: np.ndarray, most_relevant_first: bool, chunk: int | None = None):
    logits = FIRST_PIXEL(WHITE)
    found = perturbation_areas(
        FIRST_PIXEL, WHITE, mask, jnp.array([[0, 1]]), logits, most_relevant_first, chunk
    )
    return np.asarray(found.agreement[0]), np.asarray(found.probability[0])


def test_the_only_pixel_that_counts_is_removed_first():
    agreement, probability = areas(FALLING, most_relevant_first=True)
    # Agreement with class 0 is 1, 0, 0 … over ten points: half a trapezoid of width 0.1.
    # Class 1 has the rest: nine trapezoids less that half.
    np.testing.assert_allclose(agreement, [5.0, 85.0], rtol=1e-6)
    before, after = 1 / (1 + np.exp(1 - 4)), 1 / (1 + np.exp(1))
    deletion = 10 * (0.5 * before + 8.5 * after)
    np.testing.assert_allclose(probability, [deletion, 90 - deletion], rtol=1e-5)


def test_the_same_operation_by_operation():
    with jax.disable_jit():
        found = areas(FALLING, most_relevant_first=True)
    np.testing.assert_allclose(found, areas(FALLING, most_relevant_first=True), rtol=1e-6)


def test_the_only_pixel_that_counts_is_never_removed():
    agreement, probability = areas(FALLING, most_relevant_first=False)
    np.testing.assert_allclose(agreement, [90.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(probability[0], 90 / (1 + np.exp(1 - 4)), rtol=1e-5)


def test_the_pixel_goes_in_the_middle():
    mask = np.array([5, 9, 8, 7, 6, 4, 3, 2, 1, 0], np.float32).reshape(1, 1, 10)
    # Removed as the fifth: agreement at 0, .1, .2, .3, .4 and lost from .5 on.
    agreement, _ = areas(mask, most_relevant_first=True)
    np.testing.assert_allclose(agreement[0], 45.0, rtol=1e-6)


def test_ties_go_in_reading_order():
    mask = jnp.array([[[0.5, 0.9, 0.5, 0.1, -0.2, 0.5, 0.5, 0.5, 0.5, 0.9]]])
    first = removal(mask, True).removed()[0, :, 0]
    assert [np.flatnonzero(step).tolist() for step in first[:4]] == [
        [1],
        [1, 9],
        [0, 1, 9],
        [0, 1, 2, 9],
    ]
    last = removal(mask, False).removed()[0, :, 0]
    assert [np.flatnonzero(step).tolist() for step in last[:3]] == [[4], [3, 4], [0, 3, 4]]


@pytest.mark.parametrize("most_relevant_first", [True, False])
def test_removal_is_that_of_a_stable_sort(most_relevant_first):
    rng = np.random.default_rng(0)
    masks = np.stack([rng.normal(size=(16, 16)).round(d) for d in (0, 1, 6)]).astype(np.float32)
    flat = (-masks if most_relevant_first else masks).reshape(3, -1)
    ranks = np.argsort(np.argsort(flat, axis=-1, kind="stable"), axis=-1).reshape(masks.shape)
    found = removal(masks, most_relevant_first).removed()
    for step, fraction in enumerate(FRACTIONS):
        np.testing.assert_array_equal(found[:, step], ranks < int(256 * fraction))


@pytest.mark.parametrize("chunk", [1, 2, 9, 20, 1000])
def test_no_forward_is_larger_than_its_chunk(chunk):
    sizes = []

    def count(scale, x):
        sizes.append(len(x))
        return FIRST_PIXEL.apply(scale, x)

    counting = replace(FIRST_PIXEL, apply=count)
    images, masks = WHITE.repeat(5, 0), FALLING.repeat(5, 0)
    logits = FIRST_PIXEL(images)
    classes = jnp.zeros((5, 1), jnp.int32)
    perturbation_areas(counting, images, masks, classes, logits, True, chunk)
    assert 0 < max(sizes) <= chunk


@pytest.mark.parametrize("chunk", [1, 9, 20, 1000])
def test_chunks_change_nothing(explainee, images, chunk):
    masks = np.random.default_rng(0).random((6, 16, 16), np.float32)
    logits = logits_of(explainee, images[:6])
    classes = logits.argmax(-1).astype(jnp.int32)[:, None]
    setting = (explainee, images[:6], masks, classes, logits)
    whole = areas_of(*setting, most_relevant_first=True)
    parts = areas_of(*setting, most_relevant_first=True, chunk=chunk)
    np.testing.assert_array_equal(whole.agreement, parts.agreement)
    np.testing.assert_allclose(whole.probability, parts.probability, rtol=1e-4)


@pytest.mark.parametrize("most_relevant_first", [True, False])
def test_masks_out_of_the_running_are_left_alone(explainee, images, most_relevant_first):
    rng = np.random.default_rng(2)
    masks = rng.random((len(images), 16, 16), np.float32)
    logits = logits_of(explainee, images)
    classes = np.stack([logits.argmax(-1), np.zeros(len(images))], 1).astype(np.int32)
    setting = (explainee, images, masks, classes, logits)
    whole = areas_of(*setting, most_relevant_first=most_relevant_first)
    to_beat = np.median(np.asarray(whole.agreement[:, 0])) + rng.choice([-5, 5], len(images))
    first, to_beat_32 = most_relevant_first, jnp.asarray(to_beat, jnp.float32)
    found = contending_areas_of(*setting, to_beat=to_beat_32, most_relevant_first=first, chunk=4)
    better = np.asarray(whole.agreement[:, 0]) < to_beat
    better = better if most_relevant_first else np.asarray(whole.agreement[:, 0]) > to_beat
    assert 0 < better.sum() < len(images)
    for ours, theirs in zip(found, whole, strict=True):
        np.testing.assert_allclose(ours[better], theirs[better], atol=1e-3)
    assert np.isnan(found.agreement[~better]).all()


def test_what_is_left_out_does_not_depend_on_the_masks_beside():
    # Agreement is lost in the middle, at 45 of 90, which is to be beaten. Alone the mask is given
    # up after four steps; the nine beside it are settled, and leave it the forwards of all nine.
    middle = np.array([5, 9, 8, 7, 6, 4, 3, 2, 1, 0], np.float32).reshape(1, 1, 10)
    images, masks = WHITE.repeat(10, 0), middle.repeat(10, 0)
    setting = images, masks, jnp.zeros((10, 1), jnp.int32), FIRST_PIXEL(images)
    to_beat = jnp.array([45.0] + 9 * [-jnp.inf], jnp.float32)
    first = {"most_relevant_first": True}
    together = contending_areas_of(FIRST_PIXEL, *setting, to_beat=to_beat, **first)
    alone = contending_areas_of(
        FIRST_PIXEL, *(x[:1] for x in setting), to_beat=to_beat[:1], **first
    )
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_array_equal(ours[:1], theirs)
