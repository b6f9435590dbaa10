"""Masks lie in a plain .npy of its full size, whatever has been written of it."""

import numpy as np
import pytest
from disk import names, no_more_than

from ltx_jax.errors import InputError
from ltx_jax.reporting import mask_files
from ltx_jax.reporting.mask_files import MaskFile

MASKS = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)


@pytest.mark.parametrize("block", [1, 5, 24, 100])
def test_unwritten_rows_are_nan(tmp_path, monkeypatch, block):
    monkeypatch.setattr(mask_files, "_BLOCK", block)
    held = MaskFile.hold(tmp_path / "x.npy", (3, 2, 4))
    assert np.load(tmp_path / "x.npy").shape == held.shape == (3, 2, 4)
    assert np.isnan(held.load()).all()
    held.write({1: MASKS[1]})
    stored = np.load(tmp_path / "x.npy")
    assert stored.dtype == np.float32
    assert np.isnan(stored[[0, 2]]).all()
    np.testing.assert_array_equal(stored[1], MASKS[1])


def test_what_was_written_is_found(tmp_path):
    MaskFile.hold(tmp_path / "x.npy", MASKS.shape).write({2: MASKS[2], 0: MASKS[0]})
    again = MaskFile.hold(tmp_path / "x.npy", MASKS.shape, shared=True)
    again.write({1: MASKS[1].astype(np.float64)})
    np.testing.assert_array_equal(again.load(), MASKS)
    np.testing.assert_array_equal(MaskFile(tmp_path / "x.npy").row(1), MASKS[1])


def test_another_shape_is_refused(tmp_path):
    MaskFile.hold(tmp_path / "x.npy", (3, 2, 4))
    with pytest.raises(InputError, match=r"shape \(3, 2, 4\), this run makes \(4, 2, 4\): use"):
        MaskFile.hold(tmp_path / "x.npy", (4, 2, 4))


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (MASKS.astype(np.float64), "holds float64 values"),
        (np.asfortranarray(MASKS), "not float32 masks row after row"),
        (np.float32(1), r"of shape \(\)"),
    ],
)
def test_what_cannot_be_written_in_place_is_refused(tmp_path, stored, told):
    np.save(tmp_path / "x.npy", stored)
    with pytest.raises(InputError, match=told):
        MaskFile(tmp_path / "x.npy")


def test_what_is_no_array_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"x\.npy holds no masks \(No such file or directory\)"):
        MaskFile(tmp_path / "x.npy")
    MaskFile.hold(tmp_path / "x.npy", (4, 3, 3))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole.replace(b"(4, 3, 3)", b"(4, 1, 3)"))
    with pytest.raises(InputError, match=r"x\.npy has not the size of the masks \(4, 1, 3\)"):
        MaskFile(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(whole.replace(b"(4, 3, 3)", b"(4, 3, ((("))
    with pytest.raises(InputError, match=r"x\.npy holds no masks"):
        MaskFile(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY and then nothing")
    with pytest.raises(InputError, match=r"x\.npy holds no masks"):
        MaskFile(tmp_path / "x.npy")


@pytest.mark.parametrize(("row", "mask"), [(3, MASKS[0]), (-1, MASKS[0]), (0, MASKS[0].T)])
def test_a_mask_without_a_place_changes_nothing(tmp_path, row, mask):
    held = MaskFile.hold(tmp_path / "x.npy", MASKS.shape)
    with pytest.raises(ValueError, match=f"no place for row {row}"):
        held.write({1: MASKS[1], row: mask})
    assert np.isnan(held.load()).all() and held.load().shape == MASKS.shape


def test_a_full_disk_is_noticed_at_the_beginning(tmp_path):
    with no_more_than(500), pytest.raises(InputError, match=r"cannot write .*x\.npy .*: choose"):
        MaskFile.hold(tmp_path / "x.npy", (10, 8, 8))
    assert names(tmp_path) == []
