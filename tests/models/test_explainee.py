"""Functions of many images in pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.models.explainee import in_chunks


@pytest.mark.parametrize(
    ("n", "chunk", "expected"),
    [(31, 9, 8), (37, 36, 19), (18, 9, 9), (5, 9, 5), (5, None, 5), (3, 1, 1)],
)
def test_chunks_of_equal_size(n, chunk, expected):
    sizes = []

    def square(item):
        sizes.append(len(item["x"]))
        return item["x"] ** 2

    items = {"x": jnp.arange(2.0 * n).reshape(n, 2)}
    np.testing.assert_array_equal(in_chunks(square, items, chunk), items["x"] ** 2)
    assert set(sizes) == {expected}
    # What fills the last chunk up has no part in the gradient.
    gradient = jax.grad(lambda x: in_chunks(square, {"x": x}, chunk).sum())(items["x"])
    np.testing.assert_array_equal(gradient, 2 * items["x"])
