"""Everything in float64: how far apart two ways are that are the same but for rounding.

A gradient through ReLUs and maxima jumps where a value near zero is rounded to the other side, so
that in float32 even a package and itself in float64 may be further apart than two methods.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from pytorch_networks import Normalised, load_classifier

from ltx_jax.errors import InputError
from ltx_jax.loading.explainees import explainee_with
from ltx_jax.models.explainee import Explainee


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Within, what says float32 computes in float64."""
    with jax.enable_x64(True), mock.patch.object(jnp, "float32", jnp.float64):
        yield


def doubled(explainee: Explainee) -> Explainee:
    """An explainee that computes in float64, within `double_precision`.

    Raises:
      InputError: for a network of one's own.
    """
    own = explainee.architecture
    if own is None:
        raise InputError(f"{explainee.name} is no network of ours: give explainee.name")
    network = dataclasses.replace(own, module=own.module.clone(dtype=jnp.float64))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), explainee.params)
    return explainee_with(network, params, explainee.class_names, explainee.link)


def doubled_in_pytorch(explainee: Explainee) -> Normalised:
    """The classifier in PyTorch, in float64, its normalisation the same to the last digit; raises
    as `load_classifier`."""
    classifier, own = load_classifier(explainee).double(), explainee.architecture
    assert own is not None  # or it would have been refused
    how = own.preprocessing
    for buffer, values in ((classifier.mean, how.mean), (classifier.std, how.std)):
        buffer.copy_(torch.tensor(values, dtype=torch.float64)[:, None, None])
    return classifier
