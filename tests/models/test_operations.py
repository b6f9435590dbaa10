"""The operations of a ViT beside JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np

from ltx_jax.models.operations import softmax


def test_the_softmax_and_its_gradient():
    scores = 30 * jax.random.normal(jax.random.key(0), (2, 3, 5, 7), jnp.float32)
    weights = jax.random.normal(jax.random.key(1), scores.shape, jnp.float32)
    np.testing.assert_allclose(softmax(scores), jax.nn.softmax(scores), atol=1e-6)
    ours = jax.grad(lambda x: (softmax(x) * weights).sum())(scores)
    np.testing.assert_allclose(
        ours, jax.grad(lambda x: (jax.nn.softmax(x) * weights).sum())(scores), atol=1e-6
    )
