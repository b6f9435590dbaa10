"""Explaining from Python."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights

import ltx_jax
from ltx_jax import api
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.sections import Finetune
from ltx_jax.tasks.maps import as_map


@pytest.fixture(scope="module")
def result(explainee, explainer, images):
    return ltx_jax.explain(
        explainee,
        images[:3],
        targets=[0, [1, 2], 4],
        explainer=explainer,
        steps=3,
        slots=2,
        stop_below=-1.0,
        labels=[0, 0, 0],
    )


def test_several_classes_of_one_image(result):
    assert len(result) == 4
    assert result.image_of == (0, 1, 1, 2)
    assert result.targets.tolist() == [0, 1, 2, 4]
    assert result.masks.shape == (4, 4, 4)
    last = result.token_masks("last")
    assert not np.allclose(last[1], last[2])
    assert [one.label_scores is None for one in result.each] == [True, False, False, False]


def test_masks_scores_and_pictures_agree(result):
    assert result.pixel_masks().shape == (4, 16, 16)
    for name, values in result.scores.items():
        assert values.tolist() == [one.scores["selected"][name] for one in result.each]
    assert (result.scores["pos"] <= result.scores_of("pltx")["pos"]).all()
    picture = result.overlay(2)
    enlarged = np.round(result.images[1] * 255).astype(np.uint8).repeat(10, 0).repeat(10, 1)
    np.testing.assert_array_equal(picture[:160, :160], enlarged)


def test_results_are_a_sequence(result):
    assert [part.targets.tolist() for part in result] == [[0], [1], [2], [4]]
    assert result[-1].targets.tolist() == [4] and result[1:3].image_of == (1, 1)
    np.testing.assert_array_equal(result[2].masks, result.masks[2:3])
    np.testing.assert_array_equal(result[2].overlay(0), result.overlay(2))
    assert len(result[9:]) == 0 and "0 of vit" in repr(result[9:])
    with pytest.raises(IndexError):
        result[4]


def test_results_and_explainees_are_copied_and_pickled(result, explainee, images):
    def pickled(x):
        return pickle.loads(pickle.dumps(x))

    for again in (pickled, copy.copy, copy.deepcopy):
        other = again(result)
        np.testing.assert_array_equal(other.masks, result.masks)
        np.testing.assert_array_equal(other.overlay(1), result.overlay(1))
        for name, values in result.scores.items():
            np.testing.assert_array_equal(other.scores[name], values)
        np.testing.assert_array_equal(again(explainee)(images[:1]), explainee(images[:1]))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(Explainee(lambda _, x: x.mean((1, 2)), None, (16, 16), 3))


def test_what_is_shown_of_them_is_short(result, explainee, explainer):
    for one in (result, result.each[0], explainee, explainer):
        assert len(repr(one)) < 100 and "\n" not in repr(one), one
    assert repr(explainee) == "Explainee(vit, 16×16×3, 5 classes)"
    named = replace(result, class_names=("<b>", *"bcde"))
    page = named._repr_html_()
    assert page.count("data:image/jpeg;base64,") == len(result) == page.count("<figure>")
    assert "&lt;b&gt;" in page and "<b>" not in page and "http" not in page


@pytest.mark.slow
def test_bytes_and_floats_are_the_same(explainee, explainer):
    bytes_ = np.random.default_rng(2).integers(0, 255, (1, 16, 16, 3), np.uint8)
    one, other = (
        ltx_jax.explain(explainee, pictures, explainer=explainer, steps=3, slots=1)
        for pictures in (bytes_, bytes_ / 255)
    )
    np.testing.assert_allclose(one.masks, other.masks, atol=1e-6)


def test_save(result, tmp_path):
    result.save(tmp_path / "out")
    for name in ("pltx", "selected", "last", "by_loss"):
        stored = np.load(tmp_path / "out" / "masks" / f"{name}.npy")
        np.testing.assert_array_equal(stored, result.token_masks(name))
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 4
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    other = replace(result, each=result.each[::-1])
    with pytest.raises(ltx_jax.InputError, match="holds a run with other settings"):
        other.save(tmp_path / "out")


@pytest.mark.slow
def test_an_explainee_of_your_own(explainee, explainer, images):
    mine = Explainee(
        apply=lambda p, x: (p["scale"] * x.mean((1, 2))) @ p["weights"],
        params={"weights": jnp.eye(3), "scale": 2.0},
        image_size=(16, 16),
        num_classes=3,
    )
    with pytest.raises(ltx_jax.InputError, match="needs an explainer by name"):
        ltx_jax.load_explainer(mine)
    result = ltx_jax.explain(mine, images[:1], explainer=explainer, steps=2)
    assert result.targets.tolist() == [images[0].mean((0, 1)).argmax()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 3, 16, 16))}, "channels last"),
        ({"images": np.full((2, 16, 16, 3), 3.0)}, "floats from 0 to 1"),
        ({"targets": [1]}, "targets for 1 of 2 images"),
        ({"targets": [1, 9]}, "classes 0 to 4"),
        ({"targets": [[], []]}, "no images to explain"),
        ({"labels": [1]}, "1 labels for 2 images"),
        ({"labels": [1, -1]}, "label -1: .* classes 0 to 4"),
        ({"optimize": "POS"}, "optimize is 'POS'.*: it is one of pos, neg"),
        ({"steps": -1}, "steps is -1: it must be at least 0"),
        ({"slots": 0}, "slots is 0: it must be at least 1"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"step": 3}, "no option 'step': there are chunk, "),
        ({"scores": ("pos", "iuo")}, "unknown score 'iuo'"),
    ],
)
def test_what_does_not_fit_is_said(explainee, explainer, images, change, message):
    arguments = {"images": images[:2], "explainer": explainer} | change
    with pytest.raises(ltx_jax.InputError, match=message):
        ltx_jax.explain(explainee, **arguments)


WRONG = """
import numpy as np, ltx_jax as l
from flax import nnx
apply = lambda p, x: x.mean((1, 2))
mine = l.Explainee(apply, None, (4, 4), 3)
image = np.full((4, 4, 3), 0.5, np.float32)
for call, told in (
    (lambda: l.explain(apply, image), "the explainee is a function: give what load_explainee"),
    (lambda: l.evaluate(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), image, image[None, ..., 0]),
     "the explainee is a Linear: "),
    (lambda: l.attribute(None, image, "random"), "the explainee is a NoneType"),
    (lambda: l.explain_filters("vit", "layer", image, "w", "v"), "the explainee is a str"),
    (lambda: l.pretrain(apply, image), "the explainee is a function"),
    (lambda: l.attribute(mine, image, ["random"]), "method is ['random']: expected the name"),
    (lambda: l.explain(mine, image, objective=l.LTX),
     "objective is a Settings: expected Objective(…), as ltx_jax.LTX.objective is"),
    (lambda: l.explain(mine, image, objective={"budget": 1}), "objective is a dict: "),
    (lambda: l.explain(mine, image, objective=l.Objective(terms={"budget": "a"})),
     "objective.terms has 'a': expected numbers by name"),
    (lambda: l.explain(mine, image, explainer="x.safetensors"), "explainer is a str: expected "),
    (lambda: l.explain(mine, image, explainer=mine), "explainer is a Explainee: expected what "),
    (lambda: l.pretrain(mine, image, explainer=l.load_mask(mine)), "explainer is a MaskItself"),
    (lambda: l.save_explainer(mine, "x.safetensors"), "a str in place of an explainer: call "),
    (lambda: l.explain(mine, image, seed=-1), "seed is -1: it must be at least 0"),
    (lambda: l.explain(mine, image, seed=2**70), "seed is 118"),
    (lambda: l.explain(mine, image, seed=None), "seed is None: expected a whole number"),
    (lambda: l.pretrain(mine, image, seed=1.5), "seed is 1.5: expected a whole number"),
    (lambda: l.load_explainer(mine, seed="a"), "seed is 'a': expected a whole number"),
    (lambda: l.evaluate(mine, image, image[None, ..., 0], chunk=0), "chunk is 0: it must be"),
    (lambda: l.evaluate(mine, image, image[None, ..., 0], chunk="a"), "chunk is 'a': expected"),
    (lambda: l.load_mask(mine, grid="8"), "explainer.grid is '8': expected a whole number"),
):
    try:
        call()
        print("nothing, in place of", told)
    except Exception as error:
        text = str(error)
        if not (type(error) is l.InputError and text.startswith(told) and "\\n" not in text):
            print(f"{type(error).__name__}: {text}, in place of {told}")
"""


def test_what_is_of_another_kind_is_named():
    """Without the checks of annotations that tests are run with."""
    done = subprocess.run(
        [sys.executable, "-c", WRONG], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_numbers_of_numpy_are_numbers(explainee, explainer, images):
    given = {"steps": np.int64(2), "learning_rate": np.float32(0.5)}
    one, other = (
        ltx_jax.explain(explainee, images[:1], explainer=explainer, **options)
        for options in (given, {"steps": 2, "learning_rate": 0.5})
    )
    np.testing.assert_array_equal(one.masks, other.masks)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 3), r"takes images \(16, 16, 3\), the explainee custom \(8, 8, 3\): choose two"),
        ((16, 16, 1), r"the explainee custom \(16, 16, 1\): choose two of the same size and ch"),
    ],
)
@pytest.mark.parametrize("function", [ltx_jax.explain, ltx_jax.pretrain])
def test_an_explainer_for_other_images(explainer, function, shape, message):
    mine = Explainee(lambda _, x: x.mean((1, 2)), None, shape[:2], shape[2], channels=shape[2])
    with pytest.raises(ltx_jax.InputError, match=message):
        function(replace(mine, num_classes=shape[2]), np.zeros((2, *shape)), explainer=explainer)


def test_one_image_is_no_data_set(explainee, explainer, images):
    with pytest.raises(ltx_jax.InputError, match="1 image to train on: give two at least"):
        ltx_jax.pretrain(explainee, images[0], explainer=explainer, batch_size=1)


def test_random_keys_are_parameters_as_well():
    one, same, other = ({"rng": jax.random.key(seed)} for seed in (1, 1, 2))
    assert api._digest_of_leaves(one) == api._digest_of_leaves(same)
    assert api._digest_of_leaves(one) != api._digest_of_leaves(other)


def test_what_a_part_of_results_does_not_have(result, tmp_path):
    for asked in (
        lambda: result[:0].masks,
        lambda: result[:0].scores,
        lambda: result[:0].save(tmp_path / "none"),
    ):
        with pytest.raises(ltx_jax.InputError, match="no explanations here"):
            asked()
    assert not (tmp_path / "none").exists()
    for asked in (result.token_masks, result.pixel_masks, result.scores_of):
        with pytest.raises(ltx_jax.InputError, match="no mask is called 'selekted': there are"):
            asked("selekted")
    (tmp_path / "file").touch()
    with pytest.raises(ltx_jax.InputError, match="file is a file: give a folder"):
        result.save(tmp_path / "file")


def test_the_core_imports_without_what_the_command_needs():
    code = "import sys\n" + "".join(
        f"sys.modules[{name!r}] = None\n"
        for name in ("PIL", "ml_collections", "tqdm", "huggingface_hub", "torch")
    )
    subprocess.run([sys.executable, "-c", code + "import ltx_jax"], check=True)


def test_prepare_does_later_what_can_be_done(tmp_path):
    code = (
        "import os; os.sched_getaffinity = lambda _: range(3)\n"
        "import jax, ltx_jax; jax.jit(lambda x: x + 1)(1.0)\n"
        "ltx_jax.prepare()\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "jax.jit(lambda x: x + 2)(1.0)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "JAX was used before ltx_jax.prepare(): 1 of 3 cores" in found.stderr
    assert found.stderr.count("\n") == 1
    assert list((tmp_path / "ltx_jax" / "compiled").iterdir())


@pytest.mark.slow
def test_a_cnn_explains_a_vit(tmp_path):
    sizes = TINY_VIT | {"image_size": 32, "patch_size": 8}
    vit, cnn = tmp_path / "vit.safetensors", tmp_path / "cnn.safetensors"
    explainee = ltx_jax.load_explainee("vit", random_weights(vit, "vit", **sizes), **sizes)
    weights = random_weights(cnn, "cifar_resnet20", depth=8)
    explainer = ltx_jax.load_explainer(explainee, "cifar_resnet20", weights=weights, depth=8)
    images = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    found = ltx_jax.explain(explainee, images, explainer=explainer, steps=3, stop_below=-1.0)
    # The mask of a CNN has the size of its last features, and training changes it.
    assert found.token_masks("last").shape == (1, 8, 8)
    before = explainer.masks(explainer.trained, images)
    np.testing.assert_allclose(found.token_masks("pltx"), before, atol=1e-5)
    assert found.each[0].loss[2] < found.each[0].loss[0]


@pytest.mark.slow
def test_evaluate_scores_maps_of_any_origin(explainee, images):
    pictures, rng = images[:3], np.random.default_rng(1)
    pixels, cells = rng.random((3, 16, 16), np.float32), rng.random((3, 4, 4), np.float32)
    found = ltx_jax.evaluate(explainee, pictures, pixels, targets=[0, 1, 2])
    assert found.targets.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.scores["srg"], found.scores["neg"] - found.scores["pos"])
    # Any monotone scaling keeps the order, and so all scores that see only that.
    other = ltx_jax.evaluate(explainee, pictures, 7 * pixels - 5, targets=[0, 1, 2])
    for name in ("pos", "neg", "ins", "del", "tied"):
        np.testing.assert_allclose(other.scores[name], found.scores[name], rtol=1e-5)
    # Cells are enlarged as an explainer's are; alone or together is the same.
    whole = ltx_jax.evaluate(explainee, pictures, upsample(cells, (16, 16)))
    by_cell = ltx_jax.evaluate(explainee, pictures, cells)
    alone = ltx_jax.evaluate(explainee, pictures[1:2], cells[1:2])
    for name, values in by_cell.scores.items():
        np.testing.assert_allclose(values, whole.scores[name], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(values[1], alone.scores[name][0], rtol=1e-4, atol=1e-3)
    assert by_cell.targets.tolist() == np.asarray(explainee(pictures)).argmax(-1).tolist()
    summary = by_cell.summary()
    assert summary["pos"]["mean"] == pytest.approx(by_cell.scores["pos"].mean(), abs=1e-3)


def test_evaluate_agrees_with_explain(explainee, explainer, images):
    explained = ltx_jax.explain(explainee, images[:2], explainer=explainer, steps=2, slots=1)
    found = ltx_jax.evaluate(explainee, images[:2], explained.masks, explained.targets)
    for name, values in explained.scores.items():
        np.testing.assert_allclose(found.scores[name], values, rtol=1e-4, atol=1e-3)


def test_evaluate_knows_the_object(explainee, images):
    truth = np.zeros((2, 16, 16), bool)
    truth[:, :8] = True
    found = ltx_jax.evaluate(explainee, images[:2], truth, targets=[0, 1], truth=truth)
    assert found.scores["iou"].tolist() == [100, 100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": np.zeros((2, 4))}, r"masks are float64 of shape \(2, 4\): expected .*\[2,g,h\]"),
        ({"masks": np.zeros((3, 4, 4))}, r"expected numbers \[2,g,h\]"),
        ({"masks": np.full((2, 4, 4), np.nan)}, "mask 0 holds values that are no numbers"),
        ({"masks": np.zeros((2, 4, 17))}, r"holds maps of \(4, 17\), and vit sees \(16, 16\)"),
        ({"masks": np.zeros((2, 0, 0))}, r"holds maps of \(0, 0\), and vit sees"),
        ({"masks": [np.zeros((4, 4)), np.zeros((5, 4))]}, "masks of several shapes: bring them"),
        ({"targets": [1, 9]}, "classes 0 to 4"),
        ({"scores": ["iou"]}, "iou needs truth="),
        ({"targets": [1, [2, 3]]}, "one target for each mask"),
        ({"targets": [0, 1], "truth": np.zeros((2, 4, 4), bool)}, "truth is bool of shape"),
    ],
)
def test_maps_that_do_not_fit_are_refused(explainee, images, change, message):
    arguments = {"images": images[:2], "masks": np.zeros((2, 4, 4))} | change
    with pytest.raises(ltx_jax.InputError, match=message):
        ltx_jax.evaluate(explainee, **arguments)


def test_maps_of_one_array_are_scaled_alike(explainee, images):
    """One of them lies in [0,1], and is no mask where the other shows that they are none."""
    maps = np.stack([np.linspace(0.5, 0.99, 16), np.linspace(0.5, 1.01, 16)]).reshape(2, 4, 4)
    pictures = images[[0, 0]]
    both = ltx_jax.evaluate(explainee, pictures, maps, [1, 1])
    assert both.probability[0] == pytest.approx(both.probability[1], abs=1e-5)
    alone = ltx_jax.evaluate(explainee, pictures[:1], maps[:1], [1])
    assert abs(alone.probability[0] - both.probability[0]) > 1e-4


@pytest.mark.parametrize(
    "values",
    [[[1, 1 + 1e-9], [2, 1 + 2e-9]], [[-1e39, 1e30], [2e39, 1e39]], [[1, 1e39], [3e39, 2e39]]],
)
def test_maps_beyond_float32_keep_their_order(values):
    mask, order = as_map(np.array(values))
    assert mask.dtype == order.dtype == np.float32 and np.isfinite(order).all()
    expected = np.argsort(np.ravel(values))
    for found in (mask, order):
        np.testing.assert_array_equal(np.argsort(found.ravel()), expected)
        assert len(np.unique(found)) == 4
    assert (mask.min(), mask.max()) == (0, 1)


def test_tensors_that_know_gradients_are_arrays(explainee, images):
    class Tensor(np.ndarray):
        """As PyTorch's, which NumPy takes once detached alone."""

        def detach(self):
            return self

        def cpu(self):
            return np.asarray(self)

        def __array__(self, *_, **__):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    def tensor(values):
        return np.array(values).view(Tensor)

    maps = np.random.default_rng(0).random((1, 4, 4))
    usual = ltx_jax.evaluate(explainee, images[:1], maps).probability
    for given in (tensor(maps), [tensor(maps[0])]):
        found = ltx_jax.evaluate(explainee, tensor(images[:1]), given).probability
        np.testing.assert_array_equal(found, usual)


def test_another_explainee_or_rate_compiles_nothing_more(vit_weights, images):
    """Programs are kept by structure: what need not be static is an argument."""
    compiled = []

    def listen(event, *_, **__):
        if "backend_compile" in event:
            compiled.append(event)

    def explained(**options):
        explainee = ltx_jax.load_explainee("vit", vit_weights, **TINY_VIT)
        explainer = ltx_jax.load_explainer(explainee, seed=1)
        return ltx_jax.explain(explainee, images[:2], explainer=explainer, steps=2, **options)

    explained()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        explained(learning_rate=1e-3, weight_decay=0.5, stop_below=3.0)
        explained(objective=replace(ltx_jax.LTX.objective, mask_weight=7.0))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_keywords_and_defaults_are_the_settings():
    parameters = inspect.signature(ltx_jax.explain).parameters
    for f in dataclasses.fields(Finetune):
        if f.name not in ("resume", "schedule_steps"):
            assert parameters[f.name].default == f.default
            assert f.metadata["told"] in ltx_jax.explain.__doc__
    assert parameters["steps"].default == 50
