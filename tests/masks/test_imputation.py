"""Imputation by hand, and against a direct solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from ltx_jax.masks.imputation import imputed

AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


def solved(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """One equation for each hidden pixel, solved directly in double precision."""
    places = {place: row for row, place in enumerate(map(tuple, np.argwhere(~seen).tolist()))}
    entries, wanted = [], np.zeros((len(places), image.shape[-1]))
    for (y, x), row in places.items():
        near = [((y + v, x + u), 1 / 12 if v and u else 1 / 6) for v, u in AROUND]
        near = [one for one in near if one[0] in np.ndindex(seen.shape)]
        entries.append((row, row, sum(weight for _, weight in near)))
        entries += [(row, places[place], -weight) for place, weight in near if place in places]
        wanted[row] = sum(weight * image[place] for place, weight in near if seen[place])
    rows, columns, weights = zip(*entries, strict=True)
    found = image.astype(np.float64)
    found[~seen] = spsolve(csc_matrix((weights, (rows, columns))), wanted)
    return found


def test_one_pixel_by_hand():
    image = jnp.arange(9, dtype=jnp.float32).reshape(3, 3, 1)
    seen = np.ones((3, 3), bool)
    seen[1, 1] = False
    # (1 + 3 + 5 + 7)/6 + (0 + 2 + 6 + 8)/12, whatever was there.
    found = imputed(image.at[1, 1].set(99), jnp.asarray(seen))
    np.testing.assert_allclose(found, image, atol=1e-5)
    corner = np.ones((3, 3), bool)
    corner[0, 0] = False
    # (1/6 + 3/6 + 4/12) over 5/12.
    found = imputed(image, jnp.asarray(corner))
    np.testing.assert_allclose(found[0, 0, 0], 2.4, rtol=1e-5)
    np.testing.assert_array_equal(found[corner], image[corner])


def test_two_pixels_of_a_row_depend_on_one_another():
    image, seen = jnp.array([[[0.0], [9.0], [9.0], [3.0]]]), jnp.array([[True, False, False, True]])
    np.testing.assert_allclose(imputed(image, seen)[0, :, 0], [0, 1, 2, 3], atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("scattered", [True, False])
def test_as_a_direct_solver(share, scattered):
    """With half or nine tenths of the pixels hidden, scattered or in one piece; what remains of
    the exact solution is less than a tenth of what is demanded of a half."""
    rng = np.random.default_rng(0)
    image = rng.random((32, 32, 3), np.float32)
    y, x = np.mgrid[:32, :32]
    order = rng.random((32, 32)) if scattered else np.hypot(y - 12, x - 20)
    seen = order > np.quantile(order, share)
    found = jax.jit(imputed)(jnp.asarray(image), jnp.asarray(seen))
    np.testing.assert_allclose(found, solved(image, seen), atol=1e-4)
    assert (~seen).mean() == pytest.approx(share, abs=0.01)


def test_images_do_not_depend_on_one_another_and_nothing_hidden_is_nothing_changed():
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.random((2, 2, 9, 13, 3), np.float32))
    seen = jnp.asarray(rng.random((2, 2, 9, 13)) > 0.7).at[0, 1].set(True)
    found = jax.jit(imputed)(images, seen)
    np.testing.assert_array_equal(found[0, 1], images[0, 1])
    for place in np.ndindex(2, 2):
        np.testing.assert_allclose(found[place], imputed(images[place], seen[place]), atol=1e-5)
