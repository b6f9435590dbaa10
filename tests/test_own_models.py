"""Classifiers of one's own, of any size and link, explained with nothing but their images: the mask
is where the object is."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ltx_jax
from ltx_jax.attribution.grad_cam import grad_cam_signed
from ltx_jax.attribution.gradient_x_input import gradient_x_input

# Of a square as bright as nothing else, in the dark.
SIDE = 7


def scene(shape: tuple[int, int, int], corner: tuple[int, int], channel: int | None) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = (0.3 * rng.random(shape)).astype(np.float32)
    top, left = corner
    image[top : top + SIDE, left : left + SIDE, channel if channel is not None else slice(None)] = 1
    return image


def brightest(images: jax.Array) -> jax.Array:
    """Of each channel [n,C]: how bright its brightest 5×5 window is."""
    window = (1, 5, 5, 1)
    means = jax.lax.reduce_window(images, 0.0, jax.lax.add, window, (1, 1, 1, 1), "VALID") / 25
    return jax.nn.logsumexp(40 * means.reshape(len(images), -1, images.shape[-1]), 1) / 40


def two_classes(_, images):
    seen = 8 * (brightest(images).mean(-1, keepdims=True) - 0.65)
    return jnp.concatenate([jnp.zeros_like(seen), seen], -1)


def one_logit(_, images):
    return 8 * (brightest(images).mean(-1, keepdims=True) - 0.65)


def each_colour(_, images):
    return 8 * (brightest(images) - 0.65)


def of_params(scale, images):
    return scale * two_classes(None, images)


@pytest.mark.parametrize(
    ("apply", "shape", "options", "target"),
    [
        (two_classes, (28, 28, 1), {"num_classes": 2, "channels": 1}, 1),
        (two_classes, (48, 64, 3), {"num_classes": 2}, 1),
        (one_logit, (32, 32, 3), {"num_classes": 1}, 1),
        (each_colour, (32, 32, 3), {"num_classes": 3, "link": "sigmoid"}, 2),
        (of_params, (32, 32, 3), {"num_classes": 2, "params": 1.5}, 1),
    ],
    ids=["grey 28×28", "48×64", "one logit", "sigmoid of several", "a function"],
)
def test_the_mask_is_where_the_object_is(apply, shape, options, target):
    corner = (shape[0] // 2, shape[1] // 8)
    image = scene(shape, corner, target if options.get("link") else None)
    options = {"params": None} | options
    mine = ltx_jax.Explainee(apply=apply, image_size=shape[:2], **options)
    result = ltx_jax.explain(mine, image)
    assert result.targets.tolist() == [target]
    truth = np.zeros((1, *shape[:2]), bool)
    truth[0, corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE] = True
    found = ltx_jax.evaluate(
        mine,
        image[None],
        result.pixel_masks(),
        [target],
        truth=truth,
        scores=("pixel_auc",),
    )
    assert found.scores["pixel_auc"][0] > 95
    (mask,) = result.pixel_masks()
    inside, outside = mask[truth[0]].mean(), mask[~truth[0]].mean()
    assert inside > 0.5 and outside < 0.2, (inside, outside)
    assert result.scores["srg"][0] > 60


def linen():
    net = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(2)])
    return net.apply, net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def flax_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.out = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, images):
            return self.out(self.drop(self.norm(images)).mean((1, 2)))

    net = Net(nnx.Rngs(0))
    net.eval()
    graph, params = nnx.split(net)
    return lambda p, x: nnx.merge(graph, p)(x), params


def called_pytree():
    @jax.tree_util.register_dataclass
    @dataclass
    class Net:
        weights: jax.Array

        def __call__(self, images):
            return images.mean((1, 2)) @ self.weights

    return lambda net, x: net(x), Net(jnp.eye(3)[:, :2])


def equinox():
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(3 * 8 * 8, 2, 4, 1, key=jax.random.key(0))
    params, rest = eqx.partition(net, eqx.is_array)
    return lambda p, x: jax.vmap(lambda one: eqx.combine(p, rest)(one.ravel()))(x), params


def haiku():
    hk = pytest.importorskip("haiku")
    net = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2)(x.mean((1, 2)))))
    return net.apply, net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def pair_of_functions():
    return lambda p, x: x.mean((1, 2)) @ p["w"], {"w": np.eye(3, 2, dtype=np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "given", [linen, flax_nnx, called_pytree, equinox, haiku, pair_of_functions]
)
def test_models_of_every_library(given):
    """As README gives them."""
    apply, params = given()
    mine = ltx_jax.Explainee(apply=apply, params=params, image_size=(8, 8), num_classes=2)
    image = np.random.default_rng(0).random((8, 8, 3), np.float32)
    found = ltx_jax.explain(mine, image, steps=2)
    assert found.targets.tolist() == [apply(params, image[None]).argmax()]
    assert found.masks.shape == (1, 8, 8)


@pytest.mark.slow
def test_many_calls_compile_nothing_more():
    compiled = []

    def listen(event, *_, **__):
        if "backend_compile" in event:
            compiled.append(event)

    def explain(count, scale=1.0, rate=0.3):
        mine = ltx_jax.Explainee(of_params, jnp.float32(scale), (16, 16), 2)
        images = np.random.default_rng(count).random((count, 16, 16, 3), np.float32)
        ltx_jax.explain(mine, images, steps=2, learning_rate=rate)

    for count in (1, 2):
        explain(count)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for i in range(10):
            explain(1 + i % 2, 1 + i / 10, 0.1 + i / 10)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_unknown_is_no_nan_to_stop_at():
    """`jax_debug_nans`; the strict promotions are on in all tests."""
    mine = ltx_jax.Explainee(two_classes, None, (16, 16), 2)
    with jax.debug_nans(True):
        found = ltx_jax.explain(mine, scene((16, 16, 3), (2, 2), None), scores=["srg_other"])
    assert np.isnan(found.scores["srg_other"][0]) and np.isfinite(found.masks).all()


def no_number_where_bright(_, images):
    return jnp.where(images.mean((1, 2)) > 0.9, jnp.nan, images.mean((1, 2)))


@pytest.mark.parametrize(
    ("apply", "params", "message"),
    [
        (lambda p, x: x.mean((1, 2)) * p["w"], {"w": np.float32("nan")}, r"NaN at \['w'\]"),
        (lambda _, x: (x / x.sum((1, 2), keepdims=True)).sum((1, 2)), None, "for a black image"),
        (no_number_where_bright, None, "^image 1: the logits of custom for it are not finite"),
        (lambda _, x: x.mean((1, 2)) + jnp.sqrt(0 * x).sum((1, 2)), None, "^image 0: its mask"),
    ],
    ids=["parameters", "black", "an image", "gradients"],
)
def test_what_is_no_number_is_refused(apply, params, message):
    mine = ltx_jax.Explainee(apply, params, (8, 8), 3)
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    images[1] = 1
    with pytest.raises(ltx_jax.InputError, match=message):
        ltx_jax.explain(mine, images, steps=2)


def test_maps_of_what_is_no_number_are_not_scored():
    mine = ltx_jax.Explainee(no_number_where_bright, None, (8, 8), 3)
    with pytest.raises(ltx_jax.InputError, match="logits of custom for image 0 are not finite"):
        ltx_jax.evaluate(mine, np.ones((1, 8, 8, 3)), np.ones((1, 8, 8)))


def test_features_of_ones_own_start_a_mask_where_they_are_a_map():
    def named(name, shape):
        def features(params, images, added):
            found = images.reshape(len(images), *shape, -1) + added.get(name, 0.0)
            return two_classes(None, found.reshape(images.shape)), {name: found}

        return ltx_jax.Explainee(two_classes, None, (32, 32), 2, features=features)

    starts = {
        ("features", (32, 32)): grad_cam_signed,
        ("features", (1024,)): gradient_x_input,
        ("map", (32, 32)): gradient_x_input,
    }
    for given, start in starts.items():
        assert ltx_jax.load_mask(named(*given)).start is start
    image = scene((32, 32, 3), (16, 4), None)
    with pytest.raises(ltx_jax.InputError, match="no intermediate 'features', which Grad-CAM"):
        mask = ltx_jax.load_mask(named("map", (32, 32)), "grad_cam")
        ltx_jax.explain(named("map", (32, 32)), image, explainer=mask, steps=2)


@pytest.mark.slow
def test_images_as_people_have_them(tmp_path):
    from PIL import Image

    mine = ltx_jax.Explainee(two_classes, None, (32, 32), 2, class_names=("nothing", "a square"))
    image = np.round(255 * scene((32, 32, 3), (16, 4), None)).astype(np.uint8)
    path = tmp_path / "square.png"
    Image.fromarray(image).save(path)
    usual = ltx_jax.explain(mine, image[None], [1], steps=3).masks
    for given in (image, path, str(path), [path], Image.open(path), [Image.open(path)]):
        found = ltx_jax.explain(mine, given, "a square", steps=3)
        np.testing.assert_array_equal(found.masks, usual)
    both = ltx_jax.explain(mine, [path, path], ["a square", ["nothing", 1]], steps=3)
    assert both.targets.tolist() == [1, 0, 1]
    with pytest.raises(ltx_jax.InputError, match="no class is called 'a circle'"):
        ltx_jax.explain(mine, path, "a circle")
    with pytest.raises(ltx_jax.InputError, match="cannot be read"):
        ltx_jax.explain(mine, tmp_path / "none.png")


def test_a_result_is_saved_and_loaded(tmp_path):
    mine = ltx_jax.Explainee(two_classes, None, (32, 32), 2)
    images = np.stack([scene((32, 32, 3), corner, None) for corner in ((16, 4), (3, 20))])
    result = ltx_jax.explain(mine, images, steps=3)
    result.save(tmp_path / "kept")
    found = ltx_jax.load(tmp_path / "kept")
    np.testing.assert_array_equal(found.masks["final"], result.masks)
    raw = np.stack([one.raw["final"] for one in result.each])
    np.testing.assert_array_equal(found.raw["final"], raw)
    assert found.targets.tolist() == [1, 1] and found.images == ("image 0", "image 1")
    np.testing.assert_allclose(found.scores["final"]["srg"], result.scores["srg"], atol=1e-5)
    with pytest.raises(ltx_jax.InputError, match="holds no run"):
        ltx_jax.load(tmp_path)
