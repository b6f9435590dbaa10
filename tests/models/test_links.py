"""What logits say, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.loading.classifiers import classifier_from
from ltx_jax.models.links import cross_entropy, of_answers
from ltx_jax.settings.sections import Network


def nats(probability: float) -> float:
    return -np.log(probability)


def test_a_single_output_is_no_or_yes():
    outputs = jnp.array([[3.0], [-3.0]])
    np.testing.assert_array_equal(of_answers(outputs), [[-1.5, 1.5], [1.5, -1.5]])
    several = jnp.array([[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(of_answers(several), several)


def test_cross_entropy_of_a_single_output():
    yes = 1 / (1 + np.exp(-3))
    logits = of_answers(jnp.array([[3.0], [-3.0]]))
    for labels, expected in (
        ([[0, 1], [1, 0]], [nats(yes), nats(yes)]),
        ([[1, 0], [0, 1]], [nats(1 - yes), nats(1 - yes)]),
    ):
        found = cross_entropy(logits, jnp.array(labels, bool), single=True)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cross_entropy_of_several_that_are_there_or_not():
    yes = 1 / (1 + np.exp(-3))
    found = cross_entropy(jnp.array([[3.0, -3.0]]), jnp.array([[True, True]]), single=False)
    np.testing.assert_allclose(found, [(nats(yes) + nats(1 - yes)) / 2], rtol=1e-5)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_classifier_with_one_output_has_one_answer_whatever_its_link(link):
    sizes = {"image_size": 16, "patch_size": 8, "num_classes": 1, "depth": 1}
    network = Network("vit_tiny_patch16_224", weights="fresh", link=link, sizes=sizes)
    classifier, explainee = classifier_from(
        network, compute_dtype="float32", attention="xla", class_names=(), seed=0
    )
    assert classifier.single and explainee.single
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    logits = np.asarray(classifier.logits(jnp.asarray(images)))
    np.testing.assert_array_equal(logits[:, 0], -logits[:, 1])
    np.testing.assert_allclose(logits, explainee(images), rtol=1e-6)
