"""Any Python function explained and scored through a callback, as the same model in JAX is."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltx_jax
from ltx_jax.attribution.rise import rise

RNG = np.random.default_rng(0)
SIZE, CLASSES = (12, 10), 4
HIDDEN = RNG.normal(size=(3, 8)).astype(np.float32)
OUT = RNG.normal(size=(8, CLASSES)).astype(np.float32)
WHERE = RNG.random((*SIZE, 1)).astype(np.float32)
IMAGES = RNG.random((3, *SIZE, 3), np.float32)
TARGETS = [1, 0, 3]
SCORES = ("srg_mean", "srg_road", "rise_deletion")


def in_numpy(images):
    images *= WHERE  # its own to write into
    hidden = np.maximum(images.mean((1, 2)) @ HIDDEN - 0.1, 0)
    return 20 * hidden @ OUT  # float32, or what it likes


def in_jax(_, images):
    hidden = jax.nn.relu((images * WHERE[None]).mean((1, 2)) @ HIDDEN - 0.1)
    return 20 * hidden @ OUT


IN_JAX = ltx_jax.Explainee(in_jax, None, SIZE, CLASSES)
IN_NUMPY = ltx_jax.explainee_of(in_numpy, image_size=SIZE, num_classes=CLASSES, name="mine")


def torch_model():
    """The same in PyTorch, for images with channels first."""
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = torch.nn.Linear(3, 8), torch.nn.Linear(8, CLASSES)
            with torch.no_grad():
                for layer, weight, bias in ((self.hidden, HIDDEN, -0.1), (self.out, OUT, 0.0)):
                    layer.weight.copy_(torch.from_numpy(weight.T.copy()))
                    layer.bias.fill_(bias)

        def forward(self, images):
            images = images * torch.from_numpy(WHERE).permute(2, 0, 1)
            return 20 * self.out(torch.relu(self.hidden(images.mean((2, 3)))))

    model = Model().eval()
    return lambda images: model(torch.from_numpy(images).permute(0, 3, 1, 2))


def in_torch():
    return ltx_jax.explainee_of(torch_model(), image_size=SIZE, num_classes=CLASSES)


@pytest.fixture(scope="module")
def expected():
    """What the model in JAX gives: a map of RISE, masks of occlusion, and their scores."""
    maps = rise(IN_JAX, jnp.asarray(IMAGES), jnp.asarray(TARGETS, jnp.int32), masks=200)
    masks = ltx_jax.attribute(IN_JAX, IMAGES, "occlusion", TARGETS)
    assert (masks.min((1, 2)) == 0).all() and (masks.max((1, 2)) == 1).all()
    return maps, masks, ltx_jax.evaluate(IN_JAX, IMAGES, masks, TARGETS, scores=SCORES)


@pytest.mark.parametrize("given", [lambda: IN_NUMPY, in_torch], ids=["NumPy", "PyTorch"])
def test_maps_and_scores_are_those_of_the_same_model_in_jax(given, expected):
    mine, (maps, masks, scores) = given(), expected
    np.testing.assert_allclose(mine(IMAGES), IN_JAX(IMAGES), atol=1e-5)
    found = rise(mine, jnp.asarray(IMAGES), jnp.asarray(TARGETS, jnp.int32), masks=200)
    np.testing.assert_allclose(found, maps, atol=1e-4)
    np.testing.assert_allclose(
        ltx_jax.attribute(mine, IMAGES, "occlusion", TARGETS), masks, atol=1e-4
    )
    found = ltx_jax.evaluate(mine, IMAGES, masks, TARGETS, scores=SCORES)
    assert set(found.scores) == set(scores.scores) >= {"pos", "ins", "pic", *SCORES}
    for name, values in scores.scores.items():
        # In percent: 1e-4 of the range.
        np.testing.assert_allclose(found.scores[name], values, atol=1e-2, err_msg=name)
    np.testing.assert_allclose(found.probability, scores.probability, atol=1e-4)


def test_the_predicted_class_is_explained_where_none_is_given():
    predicted = np.asarray(IN_JAX(IMAGES)).argmax(-1).tolist()
    usual = ltx_jax.attribute(IN_NUMPY, IMAGES, "occlusion")
    np.testing.assert_array_equal(
        ltx_jax.attribute(IN_NUMPY, IMAGES, "occlusion", predicted), usual
    )
    assert ltx_jax.evaluate(IN_NUMPY, IMAGES, usual).targets.tolist() == predicted
    (alone,) = ltx_jax.attribute(IN_NUMPY, IMAGES[1], "occlusion")
    np.testing.assert_allclose(alone, usual[1], atol=1e-5)


@pytest.mark.parametrize("method", ["integrated_gradients", "igos_plus_plus", "grad_cam"])
def test_what_needs_gradients_is_refused_before_any_work(method, monkeypatch):
    monkeypatch.setattr(jax, "device_get", None)  # nothing can be computed
    message = (
        rf"^{method} needs gradients, and mine, a Python function, gives none: these of "
        r"ltx_jax.attribute need none: centre, occlusion, random, rise, sloc$"
    )
    with pytest.raises(ltx_jax.InputError, match=message):
        ltx_jax.attribute(IN_NUMPY, IMAGES, method)


def test_masks_of_their_own_and_explainers_are_refused():
    with pytest.raises(ltx_jax.InputError, match=r"^explain needs gradients, and mine"):
        ltx_jax.explain(IN_NUMPY, IMAGES)
    with pytest.raises(ltx_jax.InputError, match=r"^pretrain needs gradients, and mine"):
        ltx_jax.pretrain(IN_NUMPY, IMAGES)
    with pytest.raises(ltx_jax.InputError, match="a Python function gives no gradients"):
        jax.grad(lambda images: IN_NUMPY(images).sum())(jnp.asarray(IMAGES))
    with pytest.raises(ltx_jax.InputError, match=r"^unknown rival 'rice': there are"):
        ltx_jax.attribute(IN_NUMPY, IMAGES, "rice")


def test_it_is_an_explainee_like_others():
    named = ltx_jax.explainee_of(
        in_numpy, image_size=SIZE, num_classes=CLASSES, class_names=("a", "b", "c", "d")
    )
    assert repr(named) == "Explainee(custom, 12×10×3, 4 classes)"
    kept = pickle.loads(pickle.dumps(named))
    np.testing.assert_array_equal(kept(IMAGES), named(IMAGES))
    # One program serves whatever calls the same function.
    assert jax.tree.structure(kept) == jax.tree.structure(named) == jax.tree.structure(IN_NUMPY)
    maps = ltx_jax.attribute(kept, IMAGES[:1], "occlusion", "d")
    np.testing.assert_array_equal(maps, ltx_jax.attribute(IN_NUMPY, IMAGES[:1], "occlusion", 3))
    outputs = jax.jit(jax.vmap(named))(jnp.asarray(IMAGES)[:, None])
    np.testing.assert_allclose(outputs[:, 0], IN_JAX(IMAGES), atol=1e-5)


def test_one_logit_is_no_or_yes():
    mine = ltx_jax.explainee_of(
        lambda images: in_numpy(images)[:, :1], image_size=SIZE, num_classes=1
    )
    logits = np.asarray(mine(IMAGES))
    half = 0.5 * np.asarray(IN_JAX(IMAGES))[:, 0]
    np.testing.assert_allclose(logits, np.stack([-half, half], -1), atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: in_numpy(x)[:, :3], r"gives float32 \(2, 3\) for 2 images.*\(2, 4\)"),
        (lambda x: in_numpy(x).argmax(-1), r"gives int64 \(2,\)"),
        (lambda x: in_numpy(x).squeeze() if len(x) == 1 else in_numpy(x), r"\(4,\) for 1 images"),
        (lambda x: x @ np.eye(5), "cannot be applied to images .*ValueError"),
        (lambda x: in_numpy(x / x.sum((1, 2, 3), keepdims=True)), "not finite"),
        (lambda x: in_numpy(x) - in_numpy(x).mean(0), "evaluation mode"),
    ],
    ids=["classes", "answers", "one image", "failure", "black", "neighbours"],
)
def test_functions_that_are_none_of_an_image_are_refused(function, message):
    with np.errstate(invalid="ignore"), pytest.raises(ltx_jax.InputError, match=message) as told:
        ltx_jax.explainee_of(function, image_size=SIZE, num_classes=CLASSES)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (
            lambda x: 1 / 0,
            r"^the function failed on images \(ZeroDivisionError: division",
        ),
        (lambda x: in_numpy(x)[:, :3], r"^the function gives float32 \(\d+, 3\) for \d+ images"),
    ],
)
def test_a_function_that_fails_later_is_told_of_plainly(fails, message, caplog):
    mine = ltx_jax.explainee_of(
        lambda x: fails(x) if x[0].any() else in_numpy(x),
        image_size=SIZE,
        num_classes=CLASSES,
    )
    for call in (
        lambda: ltx_jax.evaluate(mine, IMAGES, IMAGES[..., 0]),
        lambda: ltx_jax.attribute(mine, IMAGES, "occlusion"),
    ):
        with pytest.raises(ltx_jax.InputError, match=message) as told:
            call()
        assert "\n" not in str(told.value) and not caplog.records


def test_names_for_other_classes_are_refused():
    with pytest.raises(ltx_jax.InputError, match="2 class names for 4 classes"):
        ltx_jax.explainee_of(in_numpy, image_size=SIZE, num_classes=CLASSES, class_names=("a", "b"))
