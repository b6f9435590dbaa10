"""Rivals by value on explainees whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_class_activation_maps import FOR_CNNS

from ltx_jax.attribution import RIVALS, rival
from ltx_jax.attribution.gradient_x_input import gradient_x_input
from ltx_jax.attribution.integrated_gradients import integrated_gradients
from ltx_jax.attribution.rival import PARTS, each_of, mean_gradient
from ltx_jax.attribution.smoothgrad import smoothgrad
from ltx_jax.data.examples import Example
from ltx_jax.engine.memory import batch_of_use
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.masks.spanning import spanning
from ltx_jax.models.explainee import Explainee
from ltx_jax.tasks import rivals
from ltx_jax.tasks.inputs import Row, Work
from ltx_jax.tasks.rivals import _with_parts, compute
from ltx_jax.tasks.scoring import Asked

RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.normal(size=(4, 4, 3, 2)), jnp.float32)
IMAGES = jnp.asarray(RNG.random((2, 4, 4, 3)), jnp.float32)
TARGETS = jnp.array([1, 0], jnp.int32)


def _linear(weights, images):
    return jnp.einsum("nhwc,hwck->nk", images, weights)


def _square(weights, images):
    return _square_with_features(weights, images, {})[0]


def _square_with_features(weights, images, added):
    inputs = images + added.get("input", jnp.zeros_like(images))
    features = inputs**2 + added.get("features", jnp.zeros_like(images))
    logits = jnp.einsum("nhwc,hwck->nk", features, weights)
    return logits, {"input": inputs, "features": features}


LINEAR = Explainee(_linear, WEIGHTS, (4, 4), 2)
SQUARE = Explainee(_square, WEIGHTS, (4, 4), 2, features=_square_with_features)
OF_TARGET = np.stack([np.asarray(WEIGHTS)[..., k] for k in (1, 0)])


NAMES = """
ablation_cam attention_grad_cam attention_rollout attn_lrp centre extremal_perturbation full_grad
full_lrp generic_attention grad_cam grad_cam_plus_plus gradient_x_input guided_backpropagation
igos_plus_plus integrated_gradients layer_cam legrad libra_fullgrad_plus lift_cam lrp_rollout
occlusion partial_lrp random raw_attention res_lrp rise score_cam sloc smoothgrad
transformer_attribution
"""


def test_what_there_is():
    assert set(RIVALS) == set(NAMES.split())
    assert all(rival.source and rival.budget and rival.title for rival in RIVALS.values())


@pytest.mark.parametrize("method", [gradient_x_input, integrated_gradients])
def test_on_a_linear_explainee_attributions_are_weight_times_pixel(method):
    expected = np.abs(OF_TARGET * IMAGES).sum(-1)
    np.testing.assert_allclose(method(LINEAR, IMAGES, TARGETS), expected, rtol=1e-5)


def test_where_the_gradient_is_not_constant():
    # The gradient of w·x² is 2·w·x; its mean on the way from black is w·x.
    square = np.abs(OF_TARGET * IMAGES**2)
    np.testing.assert_allclose(
        gradient_x_input(SQUARE, IMAGES, TARGETS), 2 * square.sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(
        integrated_gradients(SQUARE, IMAGES, TARGETS), square.sum(-1), rtol=1e-5
    )


def test_integrated_gradients_of_a_cubic_use_midpoints():
    cubic = Explainee(lambda w, x: _linear(w, x**3), WEIGHTS, (4, 4), 2)
    # 3·w·x² at midpoints of n intervals: the mean of a² is 1/3 − 1/(12 n²).
    found = integrated_gradients(cubic, IMAGES, TARGETS, steps=2)
    expected = (1 - 3 / (12 * 4)) * np.abs(OF_TARGET * IMAGES**3).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_several_variations_in_one_pass_change_nothing(monkeypatch):
    alone = mean_gradient(SQUARE, lambda k: IMAGES * k, jnp.arange(6.0), TARGETS)
    monkeypatch.setattr(rival, "masks_at_once", lambda images: 4)
    found = mean_gradient(SQUARE, lambda k: IMAGES * k, jnp.arange(6.0), TARGETS)
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    # The gradient of w·(kx)² with respect to kx, where the mean of k is 2.5.
    np.testing.assert_allclose(found, 5 * OF_TARGET * IMAGES, rtol=1e-5)


def test_smoothgrad_averages_over_its_own_noise():
    # On a linear explainee noise changes nothing.
    np.testing.assert_allclose(
        smoothgrad(LINEAR, IMAGES, TARGETS), np.abs(OF_TARGET).sum(-1), rtol=1e-4
    )
    found = smoothgrad(SQUARE, IMAGES, TARGETS, samples=5, noise=0.3)
    keys = jax.random.split(jax.random.key(0), 5)
    noise = np.mean([jax.random.normal(key, (4, 4, 3)) for key in keys], 0)
    span = np.asarray(IMAGES.max((1, 2, 3)) - IMAGES.min((1, 2, 3)))[:, None, None, None]
    expected = np.abs(2 * OF_TARGET * (IMAGES + 0.3 * span * noise)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# Those are tested with fewer masks or steps, in files of their own.
DEAR = {"rise", "sloc", "extremal_perturbation", "igos_plus_plus"}


@pytest.mark.parametrize("name", [name for name in RIVALS if name not in DEAR | set(FOR_CNNS)])
def test_neighbours_change_nothing(name, explainee, images):
    targets = jnp.array([0, 3, 1], jnp.int32)
    pictures = jnp.asarray(images[:3])
    some = RIVALS[name].maps(explainee, pictures, targets)
    beside = (1 - pictures).at[1].set(pictures[1]), targets.at[::2].set(2)
    others = RIVALS[name].maps(explainee, *beside)
    np.testing.assert_allclose(some[1], others[1], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, rival in RIVALS.items() if rival.in_parts])
@pytest.mark.parametrize("count", [1, 2])
def test_devices_share_an_image_where_there_are_few(name, count):
    images, targets = IMAGES[:count], TARGETS[:count]
    given = [Example(np.asarray(image)) for image in images], np.asarray(targets)[:, None]
    found = compute(SQUARE, name, *given, batch_of_use(SQUARE, count))
    np.testing.assert_allclose(found[:, 0], RIVALS[name].maps(SQUARE, images, targets), rtol=1e-5)


TOGETHER = [name for name, rival in RIVALS.items() if rival.of_classes]


@pytest.mark.parametrize("name", [*TOGETHER, "gradient_x_input"])
def test_several_classes_of_an_image_are_those_of_each(name):
    classes = np.array([[1, 0, 1], [0, 0, 1]], np.int32)
    given = [Example(np.asarray(image)) for image in IMAGES], classes
    found = compute(SQUARE, name, *given, batch_of_use(SQUARE, 2))
    each = [RIVALS[name].maps(SQUARE, IMAGES, jnp.asarray(k)) for k in classes.T]
    np.testing.assert_allclose(found, np.stack(each, axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "images"), [("occlusion", [1, 2]), ("gradient_x_input", [2, 2, 1])]
)
def test_an_image_s_classes_are_computed_with_the_first_of_them(name, images, monkeypatch):
    examples = [Example(np.asarray(image)) for image in (*IMAGES, 1 - IMAGES[0])]
    rows = [Row(i, "", k, None) for i, k in [(0, 1), (0, 0), (1, 0), (2, 1), (2, 0)]]
    work = Work(SQUARE, None, None, rows, ())
    asked = [Asked(i, row.target) for i, row in enumerate(rows)]
    computed = []

    def counted(explainee, name, examples, *given):
        computed.append(len(examples))
        return compute(explainee, name, examples, *given)

    monkeypatch.setattr(rivals, "compute", counted)
    maps_of, batch = rivals.RowMaps(work, name, asked), batch_of_use(SQUARE, 2)
    given = [(one, examples[rows[one.row].image]) for one in asked]
    found = np.concatenate([maps_of.maps(given[i : i + 2], batch) for i in (0, 2, 4)])
    images_of_rows = jnp.stack([example.image for _, example in given])
    targets = jnp.array([row.target for row in rows], jnp.int32)
    expected = RIVALS[name].maps(SQUARE, images_of_rows, targets)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert computed == images


def test_each_of_many_is_in_its_place():
    given = jnp.outer(jnp.arange(7, dtype=jnp.float32), jnp.array([1.0, -2.0]))
    found = each_of(7, lambda numbers: given[numbers] ** 2, at_once=3)
    np.testing.assert_array_equal(found, given**2)


def test_devices_without_an_image_are_shared_out():
    assert dict(_with_parts(slot_mesh(3)).shape) == {"slots": 3, PARTS: 2}
    assert _with_parts(slot_mesh(5)) == slot_mesh(5)


def test_scaled_spans_the_unit_interval():
    maps = jnp.array([[[1.0, 3.0]], [[2.0, 2.0]], [[-1.0, 0.0]]])
    np.testing.assert_allclose(spanning(maps), [[[0, 1]], [[0, 0]], [[0, 1]]])
    wide = np.array([[[-3e38, 0, 3e38]]], np.float32)  # whose range is no float32
    np.testing.assert_allclose(spanning(wide), [[[0, 0.5, 1]]])
