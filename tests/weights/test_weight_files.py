"""Weights to files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ltx_jax.errors import InputError
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


def described(path: Path, dtype: str, shape: list[int], size: int) -> Path:
    """A file of one tensor that is nothing but zeros."""
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_numbers_of_64_bits_are_as_they_are(tmp_path):
    whole = np.array([2**40, -1], np.int64)
    save_file({"n": whole, "f": np.array([0.1, 1e300])}, tmp_path / "w.safetensors")
    found, _ = read_safetensors(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(found["n"], whole, strict=True)
    np.testing.assert_array_equal(found["f"], np.array([0.1, np.inf], np.float32), strict=True)


def test_bfloat16_without_anything_loaded_before(tmp_path):
    path = described(tmp_path / "w.safetensors", "BF16", [2], 4)
    code = (
        "import sys; from ltx_jax.weights.files import read_safetensors; "
        "print(read_safetensors(sys.argv[1])[0]['w'].dtype)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert run.stdout == "float32\n"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_types_that_are_no_weights(tmp_path, dtype):
    path = described(tmp_path / "w.safetensors", dtype, [8], 8)
    refused(path, f"holds w as {dtype}: expected floats of 16 to 64 bits")


def test_complex_numbers(tmp_path):
    # Older readers do not know the type at all.
    refused(described(tmp_path / "w.safetensors", "C64", [8], 64), "as C64|is not a whole")


def test_a_giant_of_no_values(tmp_path):
    refused(described(tmp_path / "w.safetensors", "F32", [0, 2**63], 0), "is not a whole")


@pytest.mark.parametrize(
    "places", [{}, [], None, {"a": None}, {"a": ""}, {"a": "x\ny.safetensors"}, {"a": "x" * 5000}]
)
def test_an_index_of_nothing(tmp_path, places):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": places}))
    refused(path, "is no index of shards")


def test_a_pytorch_file_is_told_what_to_do(tmp_path):
    (tmp_path / "w.th").write_bytes(b"x")
    refused(tmp_path / "w.th", "convert it once")
