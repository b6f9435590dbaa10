"""The mask of one class, of an explainer with one for each."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.errors import InputError
from ltx_jax.explainers.deeplab import DeepLabHead
from ltx_jax.explainers.head_for import head_for
from ltx_jax.explainers.one_class import OneClass, drawer_of
from ltx_jax.loading.checkpoints import save_explainer
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.registry import architecture


@pytest.fixture(scope="module")
def every(explainee):
    return load_explainer(explainee, classes=5, seed=3)


def test_it_is_that_class_of_all(explainee, explainer, every, images):
    raw = every.draw(every.trained, every.prefix(images))
    assert raw.shape == (7, 5, 4, 4) and drawer_of(explainer) is explainer
    drawer = drawer_of(every)
    assert isinstance(drawer, OneClass)
    for target in (0, 3):
        leaves, prefix = drawer.begin(explainee, images[2], jnp.int32(target))
        alone = drawer.without_trained().draw(leaves, prefix[None])
        # Brought to pixels before any activation, as in NN-Explainer.
        pixels = upsample(raw[2:3, target : target + 1], (16, 16))
        assert drawer.grid() == (16, 16)
        np.testing.assert_allclose(alone, pixels, atol=1e-5)
        assert {path: leaf.shape for path, leaf in leaves.items()} == {
            path: leaf.shape for path, leaf in drawer.trained.items()
        }
    assert leaves["params/head/mask/kernel"].shape == (16, 1)


def test_a_file_says_how_many_classes(explainee, every, tmp_path):
    save_explainer(tmp_path / "every.safetensors", every)
    again = load_explainer(explainee, checkpoint=tmp_path / "every.safetensors")
    assert again.module == every.module and again.classes == 5
    assert repr(again) == "Explainer(vit, masks 4×4 of 5 classes, trained all)"
    for path, leaf in every.trained.items():
        np.testing.assert_array_equal(leaf, again.trained[path])
    with pytest.raises(InputError, match=r"is of 5, and explainer\.classes is 1"):
        load_explainer(explainee, checkpoint=tmp_path / "every.safetensors", classes=1)


def test_its_classes_are_the_explainees(explainee):
    with pytest.raises(InputError, match="masks for 4 classes, and vit has 5: give one of 5, or"):
        load_explainer(explainee, classes=4)


def test_deeplab_reads_maps():
    head = head_for(architecture("resnet50").module, "deeplab", 5)
    assert isinstance(head, DeepLabHead) and head.classes == 5
    with pytest.raises(InputError, match="head=deeplab reads a map of features, and the"):
        head_for(architecture("vit").module, "deeplab", 5)
