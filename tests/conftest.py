"""Tiny networks that every test can afford."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Tests compile many programs and run each for a moment, in processes of their own too: see
# `fast_programs`. XLA's older code for fusions compiles faster; later versions do not have it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
    )

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

# Shapes and types of every annotation are checked as functions are called; settings are not, since
# they say themselves what is wrong with a value.
ROOMS = (
    "api attribution data engine explainers files leases loading masks metrics models objectives "
    "progress reporting rooms runtime tasks weights"
)
install_import_hook([f"ltx_jax.{room}" for room in ROOMS.split()], "type_checker.checked")

from ml_collections import ConfigDict  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from ltx_jax.explainers.explainer import Explainer  # noqa: E402
from ltx_jax.loading.explainees import load_explainee  # noqa: E402
from ltx_jax.loading.explainers import load_explainer  # noqa: E402
from ltx_jax.models.explainee import Explainee  # noqa: E402
from ltx_jax.models.registry import architecture  # noqa: E402
from ltx_jax.runtime import add_in_one_order  # noqa: E402
from ltx_jax.settings.configuration import defaults  # noqa: E402
from ltx_jax.settings.sections import LTX  # noqa: E402
from ltx_jax.weights.state_dict import to_state_dict  # noqa: E402

# Tests are for the CPU, whatever else there is; the few for a GPU run with JAX_PLATFORMS=cuda.
if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
add_in_one_order()
# Nothing is promoted to another type or rank without a word.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
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


@pytest.fixture(scope="module")
def fast_programs() -> Iterator[None]:
    """For tests that compute for longer than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def equal_programs() -> Iterator[None]:
    """For a test whose programs are to agree to the last bit: all of them are compiled as users
    compile them, none is one that a test before has left."""
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()


@pytest.fixture
def orbax_gives_up() -> Iterator[None]:
    """What Orbax leaves unfinished as it fails on a damaged checkpoint goes here, not in whatever
    test comes later."""
    yield
    gc.collect()


# For tests that take that fixture: what is unfinished complains as it goes.
UNFINISHED = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning"
)


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


@pytest.fixture
def config(tmp_path: Path, vit_weights: Path) -> ConfigDict:
    """Five good images and a truncated one, explained in four steps."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcde":
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(rng.integers(0, 255, (50, 50, 3), np.uint8)).save(folder / "bad.jpg")
    (folder / "bad.jpg").write_bytes((folder / "bad.jpg").read_bytes()[:700])
    settings = defaults(LTX)
    settings.images = str(folder)
    settings.explainee.name = "vit"
    settings.explainee.weights = str(vit_weights)
    settings.explainee.sizes = ConfigDict(TINY_VIT)
    settings.finetune.steps = 4
    settings.finetune.slots = 2
    return settings
