"""The original's result pickles: read without PyTorch, and nothing in them is run."""

from __future__ import annotations

import os
import pickle

import numpy as np
import original_pickles as original
import pytest

from ltx_jax.errors import InputError
from ltx_jax.loading.original_results import numbers_of, read_result, result_files

RNG = np.random.default_rng(0)
MASK = RNG.random((4, 5), np.float32)
IMAGE = RNG.normal(size=(4, 5, 3)).astype(np.float32)


def refused(path, content: bytes) -> str:
    """What is said of a file's content, in one line that names the file."""
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_result(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_original_wrote_comes_out(tmp_path):
    (tmp_path / "7.pkl").write_bytes(original.result(MASK, IMAGE, auc=12.5, step=3))
    found = read_result(tmp_path / "7.pkl")
    assert (found.auc, found.step) == (12.5, 3)
    np.testing.assert_array_equal(found.mask, MASK, strict=True)
    np.testing.assert_array_equal(found.image, IMAGE, strict=True)


@pytest.mark.parity
def test_what_pytorch_writes_comes_out(tmp_path):
    torch = pytest.importorskip("torch")
    content = {
        "auc": 85.0,
        "vis": torch.tensor(MASK[None, None]),
        "original_image": torch.tensor(IMAGE).permute(2, 0, 1)[None],
        "epoch_idx": 3,
    }
    for protocol in (3, 4, 5):  # as `pickle` does by itself
        (tmp_path / "0.pkl").write_bytes(pickle.dumps(content, protocol))
        found = read_result(tmp_path / "0.pkl")
        np.testing.assert_array_equal(found.mask, MASK)
        np.testing.assert_array_equal(found.image, IMAGE)


def test_nothing_that_stands_in_a_pickle_is_run(tmp_path):
    marker = tmp_path / "pwned"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "0.pkl"
    whole = pickle.dumps({"auc": Hostile()})
    assert "holds posix.system, which was not run" in refused(path, whole)
    # As one of the parts, beside good ones.
    inside = original.result(MASK, IMAGE, auc=Hostile())
    assert "holds posix.system, which was not run" in refused(path, inside)
    # Inside of the archive of a storage.
    hidden = original.storage_archive(
        MASK, b"cposix\nsystem\n" + original.pickled(f"touch {marker}")
    )
    assert "holds posix.system, which was not run" in refused(
        path, original.result(MASK, IMAGE, vis=original.storage(hidden))
    )
    assert not marker.exists()


@pytest.mark.parametrize(
    "named",
    [
        "builtins\neval",
        "numpy\nzeros",
        "torch.nn.modules.linear\nLinear",
        "torch\nFloatStorage",  # belongs to the archives inside
        "torch._utils\n_rebuild_parameter",
        "argparse\nNamespace",
    ],
)
def test_nothing_but_arrays_is_let_through(tmp_path, named):
    content = original.result(MASK, IMAGE, more=f"c{named}\n)R".encode())
    assert f"holds {named.replace(chr(10), '.')}, which was not run" in refused(
        tmp_path / "0.pkl", content
    )


def test_an_archive_holds_no_archive(tmp_path):
    inner = original.storage_archive(MASK, original.storage(original.storage_archive(MASK)))
    content = original.result(MASK, IMAGE, vis=original.storage(inner))
    assert "holds torch.storage._load_from_bytes" in refused(tmp_path / "0.pkl", content)


def test_a_storage_is_not_read_more_often_than_it_is_there(tmp_path):
    archive = original.storage_archive(np.zeros(1000, np.float32))
    size = len(archive).to_bytes(4, "little")
    kept = b"B" + size + archive + b"q\x000"  # in the memo, off the stack
    many = b"(" + 1000 * b"ctorch.storage\n_load_from_bytes\nh\x00\x85R" + b"t"
    told = refused(tmp_path / "0.pkl", b"\x80\x04" + kept + many + b".")
    assert "read more often than they are there" in told


def test_pickles_that_are_cut_off(tmp_path):
    content = original.result(MASK, IMAGE)
    for end in range(0, len(content), max(1, len(content) // 60)):
        assert "is no whole pickle of arrays" in refused(tmp_path / "0.pkl", content[:end])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1, 2]), "is no result of the original: expected auc, vis"),
        (original.dictionary(auc=original.pickled(1.0)), "is no result of the original"),
        (original.result(MASK[:3], IMAGE), r"a mask of (3, 5) for an image of (4, 5)"),
        (original.result(MASK, IMAGE, vis=original.tensor(MASK)), "float32 (4, 5) as vis"),
        (original.result(MASK, IMAGE, vis=original.pickled("x")), "str as vis: expected floats"),
        (original.result(MASK, IMAGE, auc="x"), "str as auc: expected a number"),
        (original.result(MASK, IMAGE, step=None), "NoneType as epoch_idx: expected a number"),
        (b"", "is no whole pickle of arrays"),
    ],
)
def test_what_is_no_result(tmp_path, content, message):
    assert message in refused(tmp_path / "0.pkl", content)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_result(tmp_path / "0.pkl")


def test_numbers_of_images():
    assert numbers_of(["ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000001.JPEG"]) == [2, 0]
    assert numbers_of(["07", "10"]) == [7, 10]
    assert numbers_of(["dog.jpg", "ILSVRC2012_val_00000009.JPEG"]) == [0, 1]


def test_files_by_their_number(tmp_path):
    for name in ("0.pkl", "12.pkl", "best.pkl", "3.npy"):
        (tmp_path / name).touch()
    assert result_files(tmp_path) == {0: tmp_path / "0.pkl", 12: tmp_path / "12.pkl"}
