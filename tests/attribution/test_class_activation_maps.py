"""Class activation maps and others for CNNs, by value on explainees whose layers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import small

from ltx_jax.attribution import RIVALS
from ltx_jax.attribution.ablation_cam import ablation_cam, ablation_cam_signed
from ltx_jax.attribution.full_grad import full_grad
from ltx_jax.attribution.grad_cam_plus_plus import grad_cam_plus_plus
from ltx_jax.attribution.guided_backpropagation import guided_backpropagation
from ltx_jax.attribution.last_map import as_added
from ltx_jax.attribution.layer_cam import layer_cam
from ltx_jax.attribution.lift_cam import lift_cam_signed
from ltx_jax.attribution.rival import target_logits
from ltx_jax.attribution.score_cam import enlarged, score_cam
from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee

FOR_CNNS = ("full_grad", "guided_backpropagation", "lift_cam")
OF_MAPS = ("grad_cam_plus_plus", "layer_cam", "score_cam", "ablation_cam")
# Two channels of an image of 1×2, which are the features as they are.
IMAGES = jnp.array([[[[1.0, 2.0], [3.0, 1.0]]], [[[0.5, 0.0], [0.5, 4.0]]]])
WEIGHTS = jnp.array([[1.0, -1.0], [-2.0, 3.0]])
TARGETS = jnp.array([0, 1])


def _features(weights, images, added):
    """Logits: weights times the sum over positions of each channel's square."""
    inputs = images + added.get("input", jnp.zeros_like(images))
    features = inputs + added.get("features", jnp.zeros_like(images))
    return (features**2).sum((1, 2)) @ weights, {"input": inputs, "features": features}


def _logits(weights, images):
    return _features(weights, images, {})[0]


TOY = Explainee(_logits, WEIGHTS, (1, 2), 2, channels=2, features=_features)


def cnn(name: str = "cifar_resnet20") -> tuple[Explainee, jax.Array]:
    """A small one of four classes with random weights, and two images."""
    network, variables, images = small(name)
    made = Explainee(
        network.apply, variables, images.shape[1:3], 4, name, features=network.features
    )
    return made, images


def test_gradients_of_higher_orders_weight_channels():
    # Class 0 of the first image: gradients (2, 6) at a channel of sum 4, so that α is 4 / (8 + 32)
    # and 36 / (72 + 864), and its weight 2·0.1 + 6/26; those of the other are negative. Class 1 of
    # the second: a gradient of 24 at a sum of 4, α 576 / (1152 + 55296).
    first, second = 0.2 + 6 / 26, 24 * 576 / 56448
    expected = [[[first, 3 * first]], [[0, 4 * second]]]
    np.testing.assert_allclose(grad_cam_plus_plus(TOY, IMAGES, TARGETS), expected, rtol=1e-5)


def test_each_position_is_weighted_with_its_own_gradient():
    np.testing.assert_allclose(layer_cam(TOY, IMAGES, TARGETS), [[[2, 18]], [[0, 96]]])


def test_channels_are_weighted_with_what_is_lost_without_them():
    # Class 0 of the first image loses 10 and -10; class 1 of the second -0.5 and 48.
    expected = np.array([[[10 - 20, 30 - 10]], [[-0.25, -0.25 + 192]]])
    np.testing.assert_allclose(ablation_cam_signed(TOY, IMAGES, TARGETS), expected, rtol=1e-6)
    np.testing.assert_allclose(ablation_cam(TOY, IMAGES, TARGETS), expected.clip(0), rtol=1e-6)


def test_channels_are_weighted_with_what_is_seen_through_them():
    tenth = Explainee(_logits, WEIGHTS / 10, (1, 2), 2, channels=2, features=_features)
    # The first image's channels show position 1 or 0: logits 0.7 and -0.7; those of the second show
    # nothing, being constant, and position 1: 0 and 4.775.
    first, second = (1 / (1 + np.exp(-difference)) for difference in (1.4, -4.775))
    expected = [
        [[first + 2 * (1 - first), 3 * first + 1 - first]],
        [[0.5 * second, 0.5 * second + 4 * (1 - second)]],
    ]
    np.testing.assert_allclose(score_cam(tenth, IMAGES, TARGETS), expected, rtol=1e-5)


def test_maps_are_enlarged_between_their_corners():
    found = enlarged(jnp.array([[[0.0, 2.0], [4.0, 6.0]], [[1.0, 1.0], [1.0, 1.0]]]), (3, 5))
    rows, columns = np.array([0, 2, 4]), np.array([0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(found[0], rows[:, None] + columns, atol=1e-6)
    np.testing.assert_allclose(found[1], np.ones((3, 5)))
    np.testing.assert_allclose(enlarged(jnp.full((1, 1, 1), 7.0), (2, 3))[0], np.full((2, 3), 7))


def test_input_and_biases_are_scaled_by_channel_and_added_up():
    bias = jnp.array([0.5, -2.0])

    def features(weights, images, added):
        inputs = images + added.get("input", jnp.zeros_like(images))
        share = jnp.broadcast_to(bias, images.shape) + added.get("a/bias", jnp.zeros_like(images))
        return ((inputs + share) ** 2).sum((1, 2)) @ weights, {"input": inputs, "a/bias": share}

    toy = Explainee(_logits, WEIGHTS, (1, 2), 2, channels=2, features=features)
    # Slopes at both are 2·w·(a + b), with w 1 and -2: (3, 0) and (7, 4) at the first image's
    # positions. Times the input 1·3, 3·7; 2·0, 1·4. Times the bias 1.5, 3.5; 0, 8 (absolute).
    # Scaled: (0, 1) four times.
    found = full_grad(toy, IMAGES[:1], TARGETS[:1])
    np.testing.assert_allclose(found, [[[0, 4]]], atol=1e-6)


def test_contributions_through_a_linear_head_are_what_is_lost():
    explainee, images = cnn()
    lifted, ablated = (
        method(explainee, images, TARGETS) for method in (lift_cam_signed, ablation_cam_signed)
    )
    scale = np.abs(ablated).max()
    assert scale > 0
    np.testing.assert_allclose(lifted / scale, ablated / scale, atol=1e-5)


def test_guided_gradients_are_others_of_the_same_logits():
    explainee, images = cnn()

    @jax.jit
    def gradients(explainee):
        logits = explainee(images)
        return logits, jax.grad(target_logits, argnums=1)(explainee, images, TARGETS)

    logits, plain = gradients(explainee)
    same, guided = gradients(explainee.with_backward("guided"))
    np.testing.assert_allclose(same, logits, rtol=1e-6)
    found = guided_backpropagation(explainee, images, TARGETS)
    np.testing.assert_allclose(found, jnp.abs(guided).sum(-1), rtol=1e-4, atol=1e-6)
    assert np.abs(guided - plain).max() > 0.1 * np.abs(plain).max()


@pytest.mark.parametrize("name", [*OF_MAPS, *FOR_CNNS])
def test_images_beside_change_nothing(name):
    explainee, images = cnn()
    some = RIVALS[name].maps(explainee, images, TARGETS)
    others = RIVALS[name].maps(explainee, images.at[0].set(1 - images[0]), TARGETS)
    scale = np.abs(some[1]).max()
    assert scale > 0
    np.testing.assert_allclose(some[1] / scale, others[1] / scale, atol=1e-4)


def test_a_change_of_the_last_map_has_its_type():
    """A network in bfloat16 has its maps in that, and changes of them are worked out in float32."""
    found = {"features": jnp.zeros((1, 2, 2, 3), jnp.bfloat16)}
    added = as_added(found, jnp.ones((1, 2, 2, 3), jnp.float32))
    assert added["features"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(added["features"].astype(jnp.float32), 1)


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam"])
def test_memory_does_not_grow_with_the_images(name):
    explainee, images = cnn()

    def peak(n):
        given = jnp.tile(images, (n, 1, 1, 1)), jnp.tile(TARGETS, n)
        compiled = RIVALS[name].maps.lower(explainee, *given).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert peak(8) < 1.5 * peak(2)


@pytest.mark.parametrize("name", [*OF_MAPS, *FOR_CNNS])
def test_an_explainee_that_gives_no_features_is_refused(name):
    plain = Explainee(_logits, WEIGHTS, (1, 2), 2, channels=2)
    with pytest.raises(InputError, match=r"custom (gives no intermediates|has no backward rule)"):
        RIVALS[name].maps(plain, IMAGES, TARGETS)


@pytest.mark.parametrize("name", FOR_CNNS)
def test_a_vit_is_refused(name, explainee, images):
    with pytest.raises(InputError, match=r"vit (has no backward rule|does not tell)"):
        RIVALS[name].maps(explainee, jnp.asarray(images[:1]), jnp.array([1]))


def test_an_intermediate_that_is_missing_is_named():
    def without_input(weights, images, added):
        logits, found = _features(weights, images, added)
        return logits, {"features": found["features"]}

    explainee = Explainee(_logits, WEIGHTS, (1, 2), 2, channels=2, features=without_input)
    with pytest.raises(InputError, match="'input', which Score-CAM needs: it has features"):
        score_cam(explainee, IMAGES, TARGETS)
