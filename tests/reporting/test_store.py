"""The work directory survives a kill at any byte, and a disk that refuses."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from ltx_jax.errors import InputError
from ltx_jax.reporting import files
from ltx_jax.reporting.store import ResultStore

SETTINGS = {"a": 1, "b": [1, 2], "weights": "x.safetensors"}
MASKS = np.arange(3 * 2 * 2 * 2, dtype=np.float32).reshape(3, 2, 2, 2)


def record(row: int) -> dict:
    return {"row": row, "image": f"ä{row}.jpg", "class": row}


def fill(directory: Path, rows=(2, 0, 1)) -> ResultStore:
    store = ResultStore.open(directory, SETTINGS, 3, (2, 2, 2))
    for row in rows:
        if row not in store.done:
            store.add({row: (record(row), MASKS[row])})
    store.finish()
    return store


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_masks_are_a_plain_npy(tmp_path):
    store = fill(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "masks.npy", mmap_mode="r"), MASKS)
    np.testing.assert_array_equal(store.masks(1), MASKS[1])
    assert [line["row"] for line in store.records()] == [0, 1, 2]


def test_a_kill_at_any_byte_changes_nothing(tmp_path):
    fill(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    first, second = fill(tmp_path / "cut", rows=(2, 0)), tmp_path / "cut" / "results.jsonl"
    text = second.read_bytes()
    start = text.index(b"\n") + 1
    for cut in range(start, len(text) + 1):
        second.write_bytes(text[:cut])
        again = ResultStore.open(tmp_path / "cut", SETTINGS, 3, (2, 2, 2))
        assert again.done == ({0, 2} if cut == len(text) else {0})
        assert contents(fill(tmp_path / "cut").directory) == expected
    assert first.done == {0, 2}


def test_unwritten_rows_are_nan(tmp_path):
    fill(tmp_path, rows=(1,))
    masks = np.load(tmp_path / "masks.npy")
    assert np.isnan(masks[[0, 2]]).all()
    np.testing.assert_array_equal(masks[1], MASKS[1])


def test_another_configuration_is_refused(tmp_path):
    fill(tmp_path)
    with pytest.raises(InputError, match=r"a was 1, is 2; c was None, is 3.*another --workdir"):
        ResultStore.open(tmp_path, SETTINGS | {"a": 2, "c": 3}, 3, (2, 2, 2))


def test_skipped_rows_are_done(tmp_path):
    store = ResultStore.open(tmp_path, SETTINGS, 3, (2, 2, 2))
    store.skip(1, "bad.jpg", "truncated")
    assert ResultStore.open(tmp_path, SETTINGS, 3, (2, 2, 2)).done == {1}


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch):
    def full(self: Path, content: bytes) -> int:
        Path.open(self, "wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write .*No space left on device.*choose"):
        files.write_bytes(tmp_path / "summary.json", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_place_is_one_line(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="Read-only file system"):
        ResultStore.open(tmp_path / "run", SETTINGS, 3, (2, 2, 2))


def test_a_name_may_hold_any_character(tmp_path):
    store = ResultStore.open(tmp_path, SETTINGS, 3, (2, 2, 2))
    store.add({0: ({"row": 0, "image": "a\u2028b\x85c"}, MASKS[0])})
    again = ResultStore.open(tmp_path, SETTINGS, 3, (2, 2, 2))
    assert again.records() == [{"row": 0, "image": "a\u2028b\x85c"}]


def test_processes_write_side_by_side_and_the_last_merges(tmp_path):
    stores = [
        ResultStore.open(tmp_path, SETTINGS, 3, (2, 2, 2), process=process) for process in (0, 1)
    ]
    for row, store in ((2, stores[0]), (0, stores[1]), (1, stores[0])):
        store.add({row: ({"row": row}, np.full((2, 2, 2), row))})
    assert not stores[1].complete
    with (tmp_path / "results-0.jsonl").open("a") as file:
        file.write('{"row": 0, "torn')  # as it looks while process 0 writes
    stores[1].read()
    assert stores[1].complete
    stores[1].finish()
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [
        {"row": row} for row in range(3)
    ]
    assert not list(tmp_path.glob("results-*"))
    np.testing.assert_array_equal(
        np.load(tmp_path / "masks.npy")[:, 0, 0, 0], np.arange(3, dtype=np.float32)
    )
    alone = ResultStore.open(tmp_path, SETTINGS, 3, (2, 2, 2))
    assert alone.done == {0, 1, 2}
