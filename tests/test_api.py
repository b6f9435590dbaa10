"""Explaining from Python."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights

import ltx_jax
from ltx_jax.explainee import Explainee


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


def test_bytes_and_floats_are_the_same(explainee, explainer):
    bytes_ = np.random.default_rng(2).integers(0, 255, (1, 16, 16, 3), np.uint8)
    one, other = (
        ltx_jax.explain(explainee, pictures, explainer=explainer, steps=3, slots=1)
        for pictures in (bytes_, bytes_ / 255)
    )
    np.testing.assert_allclose(one.masks, other.masks, atol=1e-6)


def test_save(result, tmp_path):
    result.save(tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "masks.npy")[:, 1], result.masks)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 4
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    other = replace(result, each=result.each[::-1])
    with pytest.raises(ltx_jax.InputError, match="holds a run with other settings"):
        other.save(tmp_path / "out")


def test_an_explainee_of_your_own(explainee, explainer, images):
    mine = Explainee(
        apply=lambda p, x: p["scale"] * x.mean((1, 2)) @ p["weights"],
        params={"weights": jnp.eye(3), "scale": 2.0},
        image_size=(16, 16),
        num_classes=3,
    )
    with pytest.raises(ltx_jax.InputError, match="needs an explainer by name"):
        ltx_jax.explain(mine, images[:1], steps=2)
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
        ({"optimize": "POS"}, "expected pos or neg"),
        ({"steps": 0}, "at least one step"),
        ({"slots": 0}, "at least one slot"),
    ],
)
def test_what_does_not_fit_is_said(explainee, explainer, images, change, message):
    arguments = {"images": images[:2], "explainer": explainer} | change
    with pytest.raises(ltx_jax.InputError, match=message):
        ltx_jax.explain(explainee, **arguments)


def test_the_core_imports_without_its_extras():
    code = "import sys\n" + "".join(
        f"sys.modules[{name!r}] = None\n"
        for name in ("jaxtyping", "PIL", "ml_collections", "tqdm", "huggingface_hub", "torch")
    )
    subprocess.run([sys.executable, "-c", code + "import ltx_jax"], check=True)


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
