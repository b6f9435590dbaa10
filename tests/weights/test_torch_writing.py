"""PyTorch files written without PyTorch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from ltx_jax.errors import InputError
from ltx_jax.weights.torch_archive import read_archive
from ltx_jax.weights.torch_writing import write_archive

TYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def content() -> dict:
    """Arrays of all types and layouts, and everything beside them that a checkpoint has."""
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = {kind: np.array([0, 1, 1]).astype(kind) for kind in TYPES}
    arrays |= {"bfloat16": np.array([0.5, -2]).astype(ml_dtypes.bfloat16)}
    arrays |= {"turned": grid.T, "every other": grid[:, ::2], "scalar": np.array(3.5, np.float32)}
    return {
        "state_dict": arrays | {"empty": np.zeros((0, 4), np.float32)},
        "optimizer_states": [{"state": {60: {"step": 3}}, "params": [*range(300)], "none": []}],
        "betas": (0.9, 0.999),
        "nothing": (None, {}, ()),
        "lr": 1e-8,
        "flags": [True, False],
        "numbers": [-1, 1 << 40, 46, 255, 65536],
        "text": "ü\nq.",
    }


def assert_same(found, given):
    if isinstance(given, np.ndarray):
        np.testing.assert_array_equal(found, given, strict=True)
    elif isinstance(given, dict):
        assert list(found) == list(given)
        for name, value in given.items():
            assert_same(found[name], value)
    else:
        assert found == given and type(found) is type(given)


def test_what_is_written_is_read(tmp_path):
    for name in ("a.ckpt", "b.ckpt"):
        write_archive(tmp_path / name, content())
    assert_same(read_archive(tmp_path / "a.ckpt"), content())
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_a_file_is_whole_or_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"cannot write .*none"):
        write_archive(tmp_path / "none" / "a.ckpt", {})
    write_archive(tmp_path / "a.ckpt", {"w": np.ones(2)})
    before = (tmp_path / "a.ckpt").read_bytes()

    def fails(_, *__):
        raise OSError(28, "no space left")

    monkeypatch.setattr("zipfile.ZipFile.writestr", fails)
    with pytest.raises(InputError, match="no space left"):
        write_archive(tmp_path / "a.ckpt", {})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parity
def test_torch_reads_it_without_trusting_it(tmp_path):
    torch = pytest.importorskip("torch")
    write_archive(tmp_path / "a.ckpt", content())
    found = torch.load(tmp_path / "a.ckpt", weights_only=True)
    tensors = found.pop("state_dict")
    given = content()
    assert_same(found, {name: value for name, value in given.items() if name != "state_dict"})
    for name, array in given["state_dict"].items():
        assert str(tensors[name].dtype) == f"torch.{array.dtype}" and tensors[name].is_contiguous()
        expected = array.astype(np.float32)
        np.testing.assert_array_equal(tensors[name].float().numpy(), expected, strict=True)
    # They are tensors as any others.
    torch.nn.Parameter(tensors["turned"]).sum().backward()
    torch.save(tensors, tmp_path / "again.pth")
    assert_same(read_archive(tmp_path / "again.pth"), given["state_dict"])
