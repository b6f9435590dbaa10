"""In float64 our gradients are PyTorch's but for the last digits, and float32 comes back after."""

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_weights

parity = pytest.importorskip("parity_tools")

from double_precision import double_precision, doubled, doubled_in_pytorch  # noqa: E402

from ltx_jax.attribution.gradient_x_input import gradient_x_input  # noqa: E402
from ltx_jax.loading.explainees import load_explainee  # noqa: E402

pytestmark = pytest.mark.parity


def test_a_gradient_in_float64(tmp_path):
    weights = random_weights(tmp_path / "w.safetensors", "squeezenet1_1", num_classes=3)
    explainee = load_explainee("squeezenet1_1", weights, num_classes=3)
    classifier = doubled_in_pytorch(explainee)
    images = np.random.default_rng(0).random((1, 64, 64, 3))
    x = parity.torch.tensor(images.transpose(0, 3, 1, 2)).requires_grad_()
    classifier(x)[0, 1].backward()
    theirs = (x.grad * x).detach().abs().sum(1).numpy()
    with double_precision():
        found = gradient_x_input(doubled(explainee), jnp.asarray(images), jnp.array([1]))
        assert found.dtype == np.float64
        ours = np.asarray(found)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * theirs.max())
    assert jnp.float32 == np.float32
