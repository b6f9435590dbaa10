"""Weights to files."""

import numpy as np

from ltx_jax.weights.files import read_safetensors, to_safetensors


def test_the_same_content_is_the_same_file(tmp_path):
    tensors = {"b": np.arange(5, dtype=np.float32), "a": np.ones((2, 3), np.float32)}
    metadata = {name: f"{name} of müller" for name in ("format", "step", "epochs", "rate", "name")}
    written = {to_safetensors(tensors, dict(reversed(metadata.items()))) for _ in range(20)}
    assert written == {to_safetensors(tensors, metadata)}
    (tmp_path / "file.safetensors").write_bytes(written.pop())
    found, told = read_safetensors(tmp_path / "file.safetensors")
    assert told == metadata and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
