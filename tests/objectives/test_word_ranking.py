"""LaViSE's loss by hand; the original's numbers are in `check_reference`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.objectives.word_ranking import word_ranking_loss

COSINES = jnp.array([[0.5, 0.9, -0.5, 0.1], [0.0, 0.2, -0.9, 0.6], [0.3, 0.3, 0.3, 0.3]])
LABELS = jnp.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
# Of the first image 1 − 0.3 + 0.9 and 1 − 0.3 − 0.5; of the second 0.8, 0 (of −0.1) and 1.4.
SUMS = (1.6 + 0.2, 0.8 + 1.4)


def test_other_words_are_to_be_further_off_by_the_margin():
    # An image without words of its own counts, with nothing.
    assert float(word_ranking_loss(COSINES, LABELS)) == pytest.approx(sum(SUMS) / 3)
    # 0.25 − 0.3 + 0.9; 0.25 − 0.2 + 0.6 and 0.25 − 0.2.
    smaller = word_ranking_loss(COSINES, LABELS, margin=0.25)
    assert float(smaller) == pytest.approx((0.85 + 0.05 + 0.65) / 3)


def test_of_a_subset_only_images_with_words_in_it_count():
    # The first image is left with its word 0 (0.5) and the words 2 and 1; the second with none.
    loss = word_ranking_loss(COSINES, LABELS.at[1].set(False), subset=np.array([0, 2, 1]))
    assert float(loss) == pytest.approx((1 - 0.5 - 0.5) + (1 - 0.5 + 0.9))
    shown = jnp.array([[True, False, False, False]] * 3)
    every = word_ranking_loss(COSINES, shown, subset=jnp.arange(4))
    assert float(every) == pytest.approx(float(word_ranking_loss(COSINES, shown)))


def test_without_any_word_there_is_no_loss_and_no_gradient():
    nothing = jnp.zeros_like(LABELS)
    for subset in (None, np.array([1, 2])):
        value, gradient = jax.value_and_grad(word_ranking_loss)(COSINES, nothing, 1.0, subset)
        assert float(value) == 0 and not gradient.any()


def test_gradients_are_of_what_is_too_near():
    gradient = jax.grad(word_ranking_loss)(COSINES, LABELS)
    # Two words of the first image push, and its own two share what they pull.
    np.testing.assert_allclose(gradient[0], np.array([-1, 1, 1, -1]) / 3, rtol=1e-6)
    np.testing.assert_allclose(gradient[1], np.array([1, -2, 0, 1]) / 3, rtol=1e-6)
    np.testing.assert_array_equal(gradient[2], 0)


def as_published_for_coco(cosines, labels, margin=1.0):
    """What the original's training on COCO came to, one object at a time: labels that were indexed
    by None in place of all indices had one column, of the words, and every word was a sample."""
    labels = labels[:, None].astype(cosines.dtype)
    own = (labels * cosines).sum(1) / labels.sum(1)
    terms = (1 - labels) * (margin - own[:, None] + (1 - labels) * cosines)
    return jnp.maximum(jnp.where(jnp.isnan(terms), 0, terms), 0).sum(1).mean()


def test_the_original_learned_nothing_from_coco():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cosines = jnp.asarray(rng.uniform(-1, 1, (1, 9)), jnp.float32)
        labels = jnp.asarray(rng.permutation(np.arange(9) < rng.integers(1, 4)))
        assert float(as_published_for_coco(cosines, labels)) == 0
        slope = jax.grad(lambda x, labels: as_published_for_coco(x, labels))(cosines, labels)
        assert not np.nan_to_num(slope).any()
        assert float(word_ranking_loss(cosines, labels[None])) > 0
