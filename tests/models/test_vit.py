"""Ways to compute a ViT's attention, and its compute types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT

from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.models.layers import precision
from ltx_jax.models.vit import ATTENTION


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (1, 7), (6, 7), (8, 8)])
def test_the_fused_kernel_is_called_for_the_same_sums(queries, keys):
    rng = np.random.default_rng(0)
    # Slots × images × heads × tokens × width, as the engine has them.
    query, key, value, wanted = (
        rng.normal(size=(2, 3, 4, tokens, 8)).astype(np.float32)
        for tokens in (queries, keys, keys, queries)
    )

    def pulled(mix, *options):
        def total(query, key, value, wanted):
            return (mix(query, key, value, *options) * wanted).sum()

        gradients = jax.grad(total, argnums=(0, 1, 2))
        with precision(jnp.float32):
            return jax.jit(jax.vmap(gradients))(query, key, value, wanted)

    ours = pulled(ATTENTION["cudnn"], "xla")  # the arguments are cuDNN's, the arithmetic is XLA's
    for gradient, expected in zip(ours, pulled(ATTENTION["xla"]), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.fixture(scope="module")
def in_half_precision(vit_weights):
    """Logits of an explainee and masks of an explainer, with the attention asked for."""

    def compute(images, attention="xla"):
        how = {"compute_dtype": "bfloat16", "attention": attention}
        explainee = load_explainee("vit", vit_weights, **how, **TINY_VIT)
        explainer = load_explainer(explainee, seed=3, **how)
        assert jax.eval_shape(explainee, images).dtype == jnp.float32
        return jax.jit(explainee)(images), jax.jit(explainer.masks)(explainer.trained, images)

    return compute


def test_half_precision_is_near(explainee, explainer, images, in_half_precision):
    logits, masks = in_half_precision(images)
    expected = np.asarray(jax.jit(explainee)(images))
    error = np.abs(logits - expected)
    assert 1e-5 < error.max() < 0.02 * np.ptp(expected)
    exact = jax.jit(explainer.masks)(explainer.trained, images)
    # Values to be ranked: bfloat16 itself would give 256 of them to the unit interval.
    assert len(np.unique(masks)) > 0.9 * masks.size
    np.testing.assert_allclose(masks, exact, atol=0.02)


@pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="cuDNN's attention needs a CUDA GPU: JAX_PLATFORMS=cuda"
)
def test_cudnn_gives_what_xla_gives(images, in_half_precision):
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(2, 2, 3, 197, 64)) for _ in range(3))

    def gradients(mix):
        def total(*given):
            mixed = mix(*(x.astype(jnp.bfloat16) for x in given))
            return (mixed.astype(jnp.float32) ** 2).sum()

        return jax.jit(jax.vmap(jax.grad(total, argnums=(0, 1, 2))))(query, key, value)

    pairs = [
        *zip(in_half_precision(images, "cudnn"), in_half_precision(images), strict=True),
        *zip(gradients(ATTENTION["cudnn"]), gradients(ATTENTION["xla"]), strict=True),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.ptp(theirs))
