"""Lines survive a kill at any byte, and several processes."""

import json
import os
import zlib
from pathlib import Path

import pytest
from disk import names, no_more_than

from ltx_jax.errors import InputError
from ltx_jax.reporting.lines import Lines

RECORDS = {row: {"row": row, "image": f"ä{row}.jpg"} for row in range(3)}


def fill(path: Path) -> None:
    lines = Lines(path)
    lines.append({row: RECORDS[row] for row in (2, 0, 1) if row not in lines.done})
    lines.merge()


def test_a_kill_at_any_byte_changes_nothing(tmp_path):
    fill(tmp_path / "whole.jsonl")
    expected = (tmp_path / "whole.jsonl").read_bytes()
    for line, record in zip(expected.splitlines(), RECORDS.values(), strict=True):
        body = line[: line.index(b', "crc32"')]
        assert json.loads(line) == record | {"crc32": zlib.crc32(body)}
    path = tmp_path / "cut.jsonl"
    for cut in range(len(expected) + 1):
        path.write_bytes(expected[:cut])
        lines = Lines(path)
        assert lines.done == set(range(expected[:cut].count(b"\n")))
        assert [record["row"] for record in lines.records()] == sorted(lines.done)
        fill(path)
        assert path.read_bytes() == expected


def test_opening_changes_nothing(tmp_path):
    path = tmp_path / "x.jsonl"
    assert Lines(path).records() == [] and not path.exists()
    Lines(path).append({0: {"row": 0}})
    torn = path.read_bytes() + b'{"row": 1, "to'
    path.write_bytes(torn)
    assert Lines(path).records() == [{"row": 0}]
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    "change", [(b"pos", b"neg"), (b"1.25", b"1.26"), (b"{", b"["), (b"3", b"")]
)
def test_a_damaged_line_is_none(tmp_path, change):
    path = tmp_path / "x.jsonl"
    Lines(path).append({row: {"row": row, "pos": 1.25} for row in (5, 3)})
    whole, line = path.read_bytes(), path.read_bytes().splitlines(keepends=True)[1]
    path.write_bytes(whole.replace(line, line.replace(*change, 1)))
    with pytest.raises(InputError, match=r"x\.jsonl is damaged \(line 2 is .*take that line out"):
        Lines(path)
    path.write_bytes(whole.replace(line, b""))
    assert Lines(path).done == {5}


def test_what_was_read_is_not_read_again(tmp_path):
    ours, theirs = (Lines(tmp_path / "x.jsonl", process) for process in (0, 1))
    theirs.append({0: {"row": 0}})
    ours.learn()
    shard = tmp_path / "x-1.jsonl"
    with shard.open("r+b") as file:
        file.write(b"nothing")
    theirs.append({1: {"row": 1}})
    Lines(tmp_path / "y.jsonl").append({2: {"row": 2, "half a line": 1}})
    line = (tmp_path / "y.jsonl").read_bytes()
    with shard.open("ab") as file:
        file.write(line[:15])
    ours.learn()
    assert ours.done == {0, 1}
    with shard.open("ab") as file:
        file.write(line[15:])
    ours.learn()
    assert ours.done == {0, 1, 2}


def test_the_later_line_of_a_row_wins(tmp_path):
    path = tmp_path / "x.jsonl"
    Lines(path).append({0: {"row": 0, "pos": 1.0}, 1: {"row": 1, "pos": 2.0}})
    Lines(path, 3).append({0: {"row": 0, "pos": 3.0}})
    expected = [{"row": 0, "pos": 3.0}, {"row": 1, "pos": 2.0}]
    assert Lines(path).records() == expected
    Lines(path).merge()
    assert names(tmp_path) == ["x.jsonl"]
    assert Lines(path).records() == expected


def test_merged_lines_can_be_gone_through_again_and_again(tmp_path):
    lines = Lines(tmp_path / "x.jsonl")
    lines.append({row: {"row": row} for row in (2, 0, 1)})
    assert [record["row"] for record in lines] == [2, 0, 1]
    lines.merge()
    assert [record["row"] for record in lines] == [record["row"] for record in lines] == [0, 1, 2]


def test_a_process_that_began_later_wrote_later(tmp_path):
    path = tmp_path / "x.jsonl"
    for process in (10, 2):
        Lines(path, process).append({0: {"row": 0, "pos": float(process)}})
    assert Lines(path).records() == [{"row": 0, "pos": 10.0}]


@pytest.mark.parametrize("old", [None, 0])
def test_a_line_that_holds_wins_wherever_it_stands(tmp_path, old):
    path = tmp_path / "x.jsonl"
    Lines(path, old).append({0: {"row": 0, "map": "old"}, 1: {"row": 1, "map": "old"}})
    Lines(path, 1 if old is None else None).append({0: {"row": 0, "map": "new"}})
    Lines(path).merge(lambda line: line["map"] == "new")
    assert Lines(path).records() == [{"row": 0, "map": "new"}, {"row": 1, "map": "old"}]


def test_merged_lines_are_on_the_disk_before_a_shard_is_deleted(tmp_path, monkeypatch):
    for process in (0, 1):
        Lines(tmp_path / "x.jsonl", process).append({process: {"row": process}})
    lines, calls = Lines(tmp_path / "x.jsonl", 0), []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def synced(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        calls.append(("rename", target.name))
        return replace(self, target)

    def deleted(self: Path, missing_ok: bool = False) -> None:
        calls.append(("unlink", self.name))
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        patch.setattr(Path, "replace", renamed)
        patch.setattr(Path, "unlink", deleted)
        lines.merge()
    assert [call for call in calls if not str(call[1]).endswith(".tmp")] == [
        ("fsync", (tmp_path / "x.jsonl").stat().st_ino),
        ("rename", "x.jsonl"),
        ("fsync", tmp_path.stat().st_ino),
        ("unlink", "x-0.jsonl"),
        ("unlink", "x-1.jsonl"),
    ]


def test_a_merge_that_the_disk_refuses_keeps_every_shard(tmp_path):
    Lines(tmp_path / "x.jsonl", 0).append(RECORDS)
    with no_more_than(10), pytest.raises(InputError, match="cannot write"):
        Lines(tmp_path / "x.jsonl", 0).merge()
    assert names(tmp_path) == ["x-0.jsonl"]
    assert Lines(tmp_path / "x.jsonl").done == {0, 1, 2}


def test_others_go_on_after_a_merge(tmp_path):
    ours, theirs = (Lines(tmp_path / "x.jsonl", process) for process in (0, 1))
    ours.append({5: {"row": 5, "image": "a longer name than that of the other row"}})
    theirs.append({1: {"row": 1}})
    theirs.learn()
    ours.merge()
    theirs.learn()
    assert theirs.done == {1, 5}
    theirs.append({2: {"row": 2}})
    ours.append({3: {"row": 3}})
    for lines in (ours, theirs):
        lines.learn()
        assert lines.done == {1, 2, 3, 5}
        assert [record["row"] for record in lines.records()] == [1, 2, 3, 5]


def test_shards_of_another_file_are_not_ours(tmp_path):
    Lines(tmp_path / "grad-cam.jsonl", 3).append({0: {"row": 0}})
    Lines(tmp_path / "grad-cam.jsonl").append({1: {"row": 1}})
    assert Lines(tmp_path / "grad.jsonl").done == set()
    assert Lines(tmp_path / "grad-cam.jsonl").done == {0, 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_written(tmp_path, value):
    lines = Lines(tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        lines.append({0: {"row": 0}, 1: {"row": 1, "pos": value}})
    assert lines.done == set() and names(tmp_path) == []


def test_a_name_may_hold_any_character(tmp_path):
    record = {"row": 0, "image": 'a\u2028b\x85c\n"\\\udcff'}
    Lines(tmp_path / "x.jsonl").append({0: record})
    assert Lines(tmp_path / "x.jsonl").records() == [record]


def test_a_full_disk_is_one_line_and_what_it_tore_is_cut_off(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = Lines(path)
    lines.append({0: {"row": 0}})
    first = path.read_bytes()
    room = no_more_than(len(first) + 9)
    with room, pytest.raises(InputError, match=r"cannot write .*x\.jsonl"):
        lines.append({1: {"row": 1}, 2: {"row": 2}})
    assert path.read_bytes() == first + b'{"row": 1'
    again = Lines(path)
    assert lines.done == again.done == {0}
    again.append({1: {"row": 1}})
    assert path.read_bytes().startswith(first + b'{"row": 1, "crc32": ')
    assert Lines(path).records() == [{"row": 0}, {"row": 1}]
