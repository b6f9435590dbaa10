"""Tiny networks that every test can afford."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading import load_explainee, load_explainer
from ltx_jax.models.registry import architecture
from ltx_jax.weights.state_dict import to_state_dict

# Tests are for the CPU, whatever else there is; the few for a GPU run with JAX_PLATFORMS=cuda.
if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
# Several devices, so that everything is tested divided over them.
jax.config.update("jax_num_cpu_devices", 8)
# Runs with the same settings make the same programs: compiled once a session, not once a run.
_COMPILED = tempfile.TemporaryDirectory()
jax.config.update("jax_compilation_cache_dir", _COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

TINY_VIT = {
    "image_size": 16,
    "patch_size": 4,
    "width": 16,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 5,
}


def random_weights(path: Path, name: str, seed: int = 0, **sizes: object) -> Path:
    """Weights of a network as its initialisers draw them, made lively enough to tell images apart;
    batch-norm statistics are random as well."""
    network = architecture(name, **sizes)
    image = np.zeros((1, *network.size, 3), np.float32)
    variables = jax.jit(network.module.init)(jax.random.key(seed), image)
    rng = np.random.default_rng(seed)

    def lively(path: tuple, leaf: jax.Array) -> np.ndarray:
        last = path[-1].key
        if last == "var":
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if last in ("kernel", "scale"):
            return np.asarray(leaf) * 1.5
        return rng.normal(0, 0.2, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(lively, variables)
    save_file(to_state_dict(variables, network.table(network.module)), path)
    return path


@pytest.fixture(scope="module", autouse=True)
def let_programs_go() -> Iterator[None]:
    """Each loaded program takes memory maps, of which Linux allows a process so many."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def vit_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT's weight file."""
    return random_weights(tmp_path_factory.mktemp("weights") / "vit.safetensors", "vit", **TINY_VIT)


@pytest.fixture(scope="session")
def explainee(vit_weights: Path) -> Explainee:
    """A tiny ViT with five classes and images of 16×16."""
    return load_explainee("vit", vit_weights, **TINY_VIT)


@pytest.fixture(scope="session")
def explainer(explainee: Explainee) -> Explainer:
    """A mask network on the same ViT, with a fresh head."""
    return load_explainer(explainee, seed=3)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Seven images [7,16,16,3] in [0,1]."""
    return np.random.default_rng(7).random((7, 16, 16, 3), np.float32)
