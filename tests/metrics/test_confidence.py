"""ADP and PIC worked out by hand."""

import jax.numpy as jnp
import numpy as np
from scoring_tools import scored

from ltx_jax.models.explainee import Explainee

# The first pixel's channels are the logits.
CHANNELS = Explainee(lambda _, x: 20 * x[:, 0, 0], None, (1, 2), num_classes=3)


def test_drop_and_increase():
    images = np.zeros((2, 1, 2, 3), np.float32)
    # Half of the first pixel is seen: logits (2, 0, 0) become (1, 0, 0), those of (0, 0, 0) stay.
    images[0, 0, 0, 0] = 0.1
    masks = np.full((2, 1, 2), 0.5)
    found = scored(CHANNELS, images, masks, [[0, 1], [0, 1]], ["adp", "pic"])
    e = np.exp
    before, after = e(2) / (e(2) + 2), e(1) / (e(1) + 2)
    np.testing.assert_allclose(found["adp"][0, 0], 100 * (before - after) / before, rtol=1e-4)
    np.testing.assert_array_equal(found["adp"][:, 1], [0, 0])
    np.testing.assert_array_equal(found["pic"], [[0, 100], [0, 0]])
    np.testing.assert_allclose(found["probability"][0], [after, 1 / (e(1) + 2)], rtol=1e-5)


def test_a_probability_that_underflows_loses_nothing():
    far = Explainee(lambda _, x: 2000 * x[:, 0, 0], None, (1, 2), num_classes=3)
    images = np.zeros((1, 1, 2, 3), np.float32)
    images[0, 0, 0, 0] = 1  # p of class 1 is exp(−2000) = 0 before, and a third through the mask
    found = scored(far, images, np.zeros((1, 1, 2)), [[1]], ["adp", "pic"])
    assert found["adp"].tolist() == [[0.0]] and found["pic"].tolist() == [[100.0]]


def test_one_logit_is_a_sigmoid_of_two_answers():
    one = Explainee(lambda _, x: 4 * x[:, 0, 0, :1] - 1, None, (1, 2), num_classes=1)
    images = np.ones((1, 1, 2, 3), np.float32)
    masks = np.array([[[0.5, 1.0]]])
    found = scored(one, images, masks, [[0, 1]], ["adp", "pic", "neg"])
    yes, through = 1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found["probability"], [[1 - through, through]], rtol=1e-5)
    np.testing.assert_allclose(found["adp"], [[0, 100 * (yes - through) / yes]], rtol=1e-4)
    assert found["pic"].tolist() == [[100, 0]]


def test_a_sigmoid_scores_each_class_by_itself():
    several = Explainee(
        lambda _, x: 4 * x[:, 0, 0] - 1, None, (1, 10), num_classes=3, link="sigmoid"
    )
    images = np.ones((1, 1, 10, 3), np.float32)
    # The first pixel goes first: its classes are there (p > 0.5) until then.
    masks = np.linspace(1, 0, 10)[None, None]
    found = scored(several, images, masks, [[0, 2]], ["pos", "neg", "del"])
    np.testing.assert_allclose(found["pos"], [[5, 5]])
    np.testing.assert_allclose(found["neg"], [[90, 90]], rtol=1e-6)
    there, gone = 1 / (1 + np.exp(-3)), 1 / (1 + np.exp(1))
    np.testing.assert_allclose(found["del"], [[5 * there + 85 * gone] * 2], rtol=1e-5)


def test_link_functions():
    logits = jnp.array([[0.0, np.log(3.0)]])
    soft = Explainee(lambda _, x: x, None, (1, 1), 2)
    hard = Explainee(lambda _, x: x, None, (1, 1), 2, link="sigmoid")
    one = jnp.array([1])
    np.testing.assert_allclose(soft.probability(logits, one), [0.75], rtol=1e-6)
    np.testing.assert_allclose(hard.probability(logits, one), [0.75], rtol=1e-6)
    np.testing.assert_allclose(hard.probability(logits, one - 1), [0.5], rtol=1e-6)
    np.testing.assert_allclose(soft.misfit(logits, one - 1), [np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(hard.misfit(logits, one - 1), [np.log(2)], rtol=1e-6)
    assert hard.agreement(logits, one - 1).tolist() == [False]
