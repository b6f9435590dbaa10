"""LaViSE's part of `check_reference`: its loss, and what stands for a filter in an image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
from reference_rows import Row, arrays_of, file_of, worst

from ltx_jax.explainers.filter_words import masked_features, projected
from ltx_jax.explainers.word_network import cosines
from ltx_jax.objectives.word_ranking import word_ranking_loss

_LIMIT = 1e-5


def check_lavise(folder: Path) -> Iterator[Row]:
    """Losses relative to the original's; the features of one filter in one image.

    Raises:
      InputError: where a file is missing.
    """
    given = arrays_of(folder, "lavise_inputs.npz")
    expected = json.loads(file_of(folder, "lavise_outputs.json").read_text())
    near = cosines(jnp.asarray(given["prediction"]), jnp.asarray(given["embeddings"].T))
    labels = jnp.asarray(given["onehot"] > 0)
    for quantity, key, ours in (
        ("loss", "csmr_all", word_ranking_loss(near, labels)),
        ("loss of a subset", "csmr_subset", word_ranking_loss(near, labels, 1, given["subset"])),
        ("loss at margin 0.5", "csmr_margin_0.5", word_ranking_loss(near, labels, 0.5)),
    ):
        yield Row(f"lavise {quantity}", abs(float(ours) / expected[key] - 1), _LIMIT)
    features = jnp.asarray(given["activation"].transpose(0, 2, 3, 1))
    fired = features[..., expected["filter"]]
    threshold = jnp.float32(expected["threshold"])
    theirs = arrays_of(folder, "lavise_outputs.npz")
    for quantity, key, found in (
        ("projection", "projection", projected(features, fired)),
        ("masked features", "activation_masked", masked_features(features, fired, threshold)),
    ):
        yield Row(f"lavise {quantity}", worst(found, theirs[key]), _LIMIT)
