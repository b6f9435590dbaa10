"""Mask heads: which fits, how it starts, what its weights are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES, small

from ltx_jax.explainers.head_for import head_for
from ltx_jax.explainers.heads import MapHead, TokenHead

FEATURES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 256)), jnp.float32)


def begun(head):
    return head.init(jax.random.key(0), FEATURES)["params"]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_decide_the_head(name):
    head = head_for(small(name).network.module, head_bias=0.5)
    assert isinstance(head, TokenHead if name == "vit" else MapHead)
    assert head.head_bias == 0.5


def test_a_token_head_is_a_pooler_and_a_value():
    head = TokenHead()
    params = begun(head)
    pooler, mask = params["pooler"], params["mask"]
    pooled = np.tanh(FEATURES @ pooler["kernel"] + 0.1)
    params = {"pooler": pooler | {"bias": jnp.full(256, 0.1, jnp.float32)}, "mask": mask}
    raw = head.apply({"params": params}, FEATURES)
    expected = (pooled @ mask["kernel"])[..., 0]
    assert raw.shape == (2, 1, 3, 5)
    np.testing.assert_allclose(raw[:, 0], expected, atol=1e-5)
    assert [leaf.std() for leaf in (pooler["kernel"], mask["kernel"])] == pytest.approx(
        [0.02, 0.02], rel=0.15
    )
    assert not pooler["bias"].any() and not mask["bias"].any()


def test_a_map_head_is_a_convolution_that_starts_as_pytorchs():
    head = MapHead()
    mask = begun(head)["mask"]
    raw = head.apply({"params": {"mask": mask}}, FEATURES)
    assert raw.shape == (2, 1, 3, 5)
    expected = (FEATURES @ mask["kernel"])[..., 0] + float(mask["bias"][0])
    np.testing.assert_allclose(raw[:, 0], expected, atol=1e-5)
    limit = 256**-0.5
    assert 0.95 * limit < np.abs(mask["kernel"]).max() <= limit
    assert 0 < abs(mask["bias"][0]) <= limit


@pytest.mark.parametrize("kind", [TokenHead, MapHead])
def test_a_bias_may_be_given(kind):
    plain, biased = begun(kind()), begun(kind(head_bias=2.5))
    assert biased["mask"]["bias"].tolist() == [2.5]
    np.testing.assert_array_equal(plain["mask"]["kernel"], biased["mask"]["kernel"])


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (TokenHead, {"patch_pooler.weight", "patch_pooler.bias"} | {"patch_classifier.weight"}),
        (MapHead, {"bottleneck.weight"}),
    ],
)
def test_names_are_the_originals(kind, names):
    entries = kind().table()
    paths = {f"params/{layer}/{leaf}" for layer, x in begun(kind()).items() for leaf in x}
    assert {entry.path for entry in entries} == paths
    assert names < {name for entry in entries for name in entry.names}


def test_values_to_be_ranked_are_exact_in_half_precision():
    head = TokenHead(dtype=jnp.bfloat16)
    raw = head.apply({"params": begun(head)}, FEATURES)
    assert raw.dtype == jnp.float32
    assert len(np.unique(raw)) == raw.size
