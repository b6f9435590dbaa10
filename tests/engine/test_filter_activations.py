"""The streaming quantile against NumPy's."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ltx_jax.engine.filter_activations import _BINS, ERROR, _bins, quantile


def test_a_quantile_is_within_its_error():
    rng = np.random.default_rng(0)
    sizes = np.array([1e-4, 1.0, 300.0, 1.0])
    values = (rng.gamma(0.3, 1.0, (5000, 4)) * sizes).astype(np.float32)
    values[:, 3] = np.where(rng.random(5000) < 0.999, -1, values[:, 3])
    bins = np.asarray(_bins(jnp.asarray(values)))
    counts = np.stack([np.bincount(each, minlength=_BINS) for each in bins.T]).astype(np.int64)
    for share in (0.5, 0.9, 0.995):
        exact = np.quantile(values, share, axis=0, method="inverted_cdf")
        exact = np.where(exact > 1e-6, exact, 0)
        np.testing.assert_allclose(quantile(counts, share), exact, rtol=1.001 * ERROR)
