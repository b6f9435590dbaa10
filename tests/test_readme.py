"""Python in README.md runs as it is pasted, with stand-ins for what the text leaves open."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights
from PIL import Image

import ltx_jax

SNIPPETS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL
)


def first_steps(monkeypatch, folder):
    """A tiny network of a thousand classes, and images of its size."""
    pytest.importorskip("grain", reason="it pretrains, which needs grain (the extra `pretrain`)")
    sizes = TINY_VIT | {"depth": 1, "num_classes": 1000}
    random_weights(folder / "resnet50.safetensors", "vit", **sizes)

    real = ltx_jax.load_explainee
    monkeypatch.setattr(ltx_jax, "load_explainee", lambda _, weights: real("vit", weights, **sizes))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / "dog.jpg")
    return {
        "images": rng.random((2, 16, 16, 3), np.float32),
        "many_images": rng.random((40, 16, 16, 3), np.float32),
        "anybodys_maps": rng.normal(size=(2, 4, 4)),
    }


def own_model(monkeypatch, folder):
    """A small module for images of 224 pixels."""
    module = nn.Sequential([lambda x: x[:, ::32, ::32].reshape(len(x), -1), nn.Dense(10)])
    images = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    return {
        "my_module": module,
        "my_params": module.init(jax.random.key(0), images),
        "images": images,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("snippet", "stand_ins"), list(zip(SNIPPETS, [first_steps, own_model], strict=True))
)
def test_it_runs_as_pasted(snippet, stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ltx_jax, "prepare", lambda: None)  # the tests have prepared JAX
    names = stand_ins(monkeypatch, tmp_path)
    monkeypatch.setattr(ltx_jax, "explain", partial(ltx_jax.explain, steps=2))
    exec(snippet, {"ltx_jax": ltx_jax, **names})
