"""ADP and PIC worked out by hand."""

import jax.numpy as jnp
import numpy as np

from ltx_jax.metrics.confidence import confidence


def test_drop_and_increase():
    # Logits whose softmax is easy: p = (0.8, 0.2) and (0.5, 0.5) before, (0.4, 0.6) and (0.9, 0.1).
    before = jnp.log(jnp.array([[0.8, 0.2], [0.5, 0.5]]))
    after = jnp.log(jnp.array([[0.4, 0.6], [0.9, 0.1]]))
    found = confidence(before, after, jnp.array([[0, 1], [0, 1]]))
    np.testing.assert_allclose(found.adp, [[50, 0], [0, 80]], atol=1e-4)
    np.testing.assert_allclose(found.pic, [[0, 100], [100, 0]])
    np.testing.assert_allclose(found.probability, [[0.4, 0.6], [0.9, 0.1]], rtol=1e-5)
