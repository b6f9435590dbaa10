"""Maps that know nothing of the explainee."""

import jax.numpy as jnp
import numpy as np

import ltx_jax
from ltx_jax.attribution.centre import centre
from ltx_jax.attribution.random_values import random_values

RNG = np.random.default_rng(0)
IMAGES = RNG.random((200, 12, 12, 3), np.float32)
NAMES = jnp.zeros(200, jnp.int32)
WEIGHTS = jnp.asarray(RNG.normal(size=(12, 12, 3, 4)), jnp.float32)
LINEAR = ltx_jax.Explainee(lambda w, x: jnp.einsum("nhwc,hwck->nk", x, w), WEIGHTS, (12, 12), 4)


def _random(images):
    return np.asarray(random_values(LINEAR, jnp.asarray(images), jnp.zeros(len(images), jnp.int32)))


def test_a_random_map_belongs_to_its_image():
    maps = _random(IMAGES[:5])
    assert maps.min() >= 0 and maps.max() < 1
    np.testing.assert_array_equal(_random(IMAGES[[3, 1]]), maps[[3, 1]])
    other = IMAGES[:1].copy()
    other[0, 7, 2, 1] += 1 / 255
    moved = np.roll(IMAGES[:1], 1, axis=2)
    for one in (*maps[1:], _random(other)[0], _random(moved)[0]):
        assert abs(np.corrcoef(one.ravel(), maps[0].ravel())[0, 1]) < 0.35  # 4 standard errors


def test_black_and_white_images_have_maps_of_their_own():
    flat = np.stack([np.full((12, 12, 3), x / 255, np.float32) for x in range(256)])
    assert len(np.unique(_random(flat)[:, 0, 0])) == 256


def test_a_random_order_gains_nothing():
    """SRG is 0 within its error, and the other yardstick's is not told apart from it by chance."""
    maps = ltx_jax.attribute(LINEAR, IMAGES, "random")
    scores = ltx_jax.evaluate(LINEAR, IMAGES, maps).scores["srg"]
    error = scores.std() / np.sqrt(len(scores))
    assert abs(scores.mean()) < 3 * error and 0 < error < 3
    best = ltx_jax.attribute(LINEAR, IMAGES[:20], "occlusion")
    assert ltx_jax.evaluate(LINEAR, IMAGES[:20], best).scores["srg"].mean() > 10 * error


def test_the_centre():
    (found,) = np.asarray(centre(LINEAR, jnp.asarray(IMAGES[:1]), NAMES[:1]))
    np.testing.assert_allclose(found, found[::-1, ::-1], rtol=1e-5)
    # Half a pixel and five and a half from the middle of twelve, in quarters of the side.
    away = np.array([0.5, 5.5]) / 3
    np.testing.assert_allclose(found[6, 11], np.exp(-0.5 * (away**2).sum()), rtol=1e-5)
