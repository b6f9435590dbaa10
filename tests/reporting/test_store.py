"""The work directory survives a kill at any byte, and keeps runs apart."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from ltx_jax.errors import InputError
from ltx_jax.files import write_json
from ltx_jax.reporting import store as store_module
from ltx_jax.reporting.lines import Lines
from ltx_jax.reporting.store import ResultStore, read_records

SETTINGS = {"a": 1, "b": [1, 2], "weights": "x.safetensors"}
MASKS = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
NAMES = ("pltx", "selected")


def begin(directory: Path, process: int | None = None) -> ResultStore:
    store = ResultStore.open(directory, SETTINGS, 3, process)
    for name in NAMES:
        store.hold(name, (2, 2))
    return store


def row(i: int) -> tuple[dict, dict]:
    record = {"row": i, "image": f"ä{i}.jpg", "class": i} | {name: {} for name in NAMES}
    return record, {name: masks[i] for name, masks in zip(NAMES, MASKS, strict=True)}


def fill(directory: Path, rows=(2, 0, 1)) -> ResultStore:
    store = begin(directory)
    for i in rows:
        if i not in store.done:
            store.add({i: row(i)})
    store.finish()
    return store


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_what_a_run_leaves(tmp_path):
    store = fill(tmp_path)
    assert contents(tmp_path).keys() == {
        *("settings.json", "results.jsonl", "masks/pltx.npy", "masks/selected.npy")
    }
    for name, masks in zip(NAMES, MASKS, strict=True):
        np.testing.assert_array_equal(np.load(tmp_path / "masks" / f"{name}.npy"), masks)
        np.testing.assert_array_equal(store.masks(name).row(1), masks[1])
    assert store.records() == [row(i)[0] for i in range(3)]


def test_a_kill_at_any_byte_changes_nothing(tmp_path):
    fill(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    fill(tmp_path / "cut", rows=(2, 0))
    lines = tmp_path / "cut" / "results.jsonl"
    text = lines.read_bytes()
    start = text.index(b"\n") + 1
    for cut in range(start, len(text) + 1):
        lines.write_bytes(text[:cut])
        again = ResultStore.open(tmp_path / "cut", SETTINGS, 3)
        assert again.done == ({0, 2} if cut == len(text) else {0})
        fill(tmp_path / "cut")
        assert contents(tmp_path / "cut") == expected


def test_a_row_is_done_once_its_masks_are_stored(tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    store = begin(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Lines, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            store.add({1: row(1)})
    np.testing.assert_array_equal(store.masks("selected").row(1), MASKS[1, 1])
    assert ResultStore.open(tmp_path, SETTINGS, 3).done == set()


def test_another_configuration_is_refused(tmp_path):
    fill(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"a was 1, is 2; c was None, is 3.*another --workdir"):
        ResultStore.open(tmp_path, SETTINGS | {"a": 2, "c": 3}, 3)
    assert contents(tmp_path) == before


def test_of_two_that_begin_at_one_moment_the_later_is_compared(tmp_path, monkeypatch):
    def after_the_other(path: Path, content: dict, over: bool) -> None:
        write_json(path, {"a": 7}, over)
        write_json(path, content, over)

    monkeypatch.setattr(store_module, "write_json", after_the_other)
    with pytest.raises(InputError, match=r"other settings \(a was 7, is 1\)"):
        ResultStore.open(tmp_path, {"a": 1}, 3, process=0)


def test_an_older_version_is_refused(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "results.jsonl").write_text("")
    np.save(tmp_path / "masks.npy", MASKS)
    for call in (
        lambda: ResultStore.open(tmp_path, SETTINGS, 3),
        lambda: ResultStore.find(tmp_path),
        lambda: read_records(tmp_path),
    ):
        with pytest.raises(InputError, match=r"older version.*in another work directory") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_masks_of_another_shape_are_refused(tmp_path):
    begin(tmp_path)
    with pytest.raises(InputError, match=r"shape \(3, 2, 2\), this run makes \(3, 4, 4\)"):
        ResultStore.open(tmp_path, SETTINGS, 3).hold("selected", (4, 4))


def test_skipped_rows_are_done(tmp_path):
    begin(tmp_path).skip(1, "bad.jpg", "truncated")
    again = ResultStore.open(tmp_path, SETTINGS, 3)
    assert again.done == {1}
    assert again.records() == [{"row": 1, "image": "bad.jpg", "skipped": "truncated"}]


def test_a_read_only_place_is_one_line(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="Read-only file system"):
        ResultStore.open(tmp_path / "run", SETTINGS, 3)


def test_a_rival_is_added_to_a_run(tmp_path):
    store = fill(tmp_path)
    store.hold("rival", (8, 8), (4, 4))
    mask, raw = np.full((8, 8), 0.5, np.float32), np.full((4, 4), -7, np.float32)
    store.keep("rival", {1: (mask, raw)})
    store.scored("rival").append({1: {"row": 1, "class": 1, "pos": 3.0}})
    again = ResultStore.open(tmp_path, SETTINGS, 3)
    assert again.names() == ("pltx", "rival", "selected")
    np.testing.assert_array_equal(again.masks("rival").row(1), mask)
    np.testing.assert_array_equal(np.load(tmp_path / "masks" / "rival.raw.npy")[1], raw)
    np.testing.assert_array_equal(again.masks("rival", raw=True).row(1), raw)
    assert np.isnan(again.masks("rival", raw=True).row(0)).all()
    assert again.scored("rival").done == {1}
    assert again.done == {0, 1, 2}


def test_scores_join_the_records(tmp_path):
    store = ResultStore.open(tmp_path, SETTINGS, 3)
    records = [
        {"row": 0, "selected": {"step": 1, "pos": 10.0}},
        {"row": 1, "selected": {"step": 2, "pos": 20.0}},
        {"row": 2, "skipped": "truncated"},
    ]
    store.scored("selected").append({0: {"row": 0, "pos": 11.0, "tied": 5.0}})
    store.scored("rival").append({row: {"row": row, "pos": 30.0} for row in (1, 2, 7)})
    assert store.joined(records, ["selected", "rival"]) == [
        {"row": 0, "selected": {"row": 0, "step": 1, "pos": 11.0, "tied": 5.0}},
        {"row": 1, "selected": {"step": 2, "pos": 20.0}, "rival": {"row": 1, "pos": 30.0}},
        {"row": 2, "skipped": "truncated"},
    ]
    assert records[0] == {"row": 0, "selected": {"step": 1, "pos": 10.0}}


def test_masks_may_be_their_own_order(tmp_path):
    store = begin(tmp_path)
    store.keep("selected", {2: (MASKS[1, 2], None)})
    np.testing.assert_array_equal(store.masks("selected").row(2), MASKS[1, 2])
    with pytest.raises(InputError, match=r"selected\.raw\.npy holds no masks"):
        store.masks("selected", raw=True)


@pytest.mark.parametrize("name", ["a/b", "../x", "rival-3", "x.raw", ""])
def test_a_name_that_means_another_file_is_refused(tmp_path, name):
    store = begin(tmp_path)
    for call in (lambda: store.hold(name, (2, 2)), lambda: store.scored(name)):
        with pytest.raises(InputError, match="masks cannot be called"):
            call()


def test_processes_write_side_by_side_and_one_merges(tmp_path):
    stores = [begin(tmp_path, process) for process in (0, 1)]
    for i, store in ((2, stores[0]), (0, stores[1]), (1, stores[0])):
        store.add({i: row(i)})
    stores[1].scored("rival").append({2: {"row": 2, "pos": 1.0}})
    stores[0].scored("rival").append({0: {"row": 0, "pos": 2.0}})
    assert stores[1].done == {0}
    with (tmp_path / "results-0.jsonl").open("a") as file:
        file.write('{"row": 0, "torn')  # as it looks while process 0 writes
    stores[1].lines.learn()
    assert stores[1].done == {0, 1, 2}
    stores[0].finish()
    scores = tmp_path / "scores" / "rival.jsonl"
    known = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [(line["row"], line["pos"]) for line in known] == [(0, 2.0), (2, 1.0)]
    found = contents(tmp_path)
    del found["scores/rival.jsonl"]
    fill(tmp_path / "alone")
    assert found == contents(tmp_path / "alone")


def test_a_process_that_comes_later_makes_no_masks_anew(tmp_path):
    first = begin(tmp_path, 0)
    first.add({0: row(0)})
    begin(tmp_path, 1).add({1: row(1)})
    masks = np.load(tmp_path / "masks" / "selected.npy")
    np.testing.assert_array_equal(masks[:2], MASKS[1, :2])
    assert np.isnan(masks[2]).all()


def test_a_run_is_found_whatever_its_settings(tmp_path):
    fill(tmp_path / "run")
    found = ResultStore.find(tmp_path / "run")
    assert (found.rows, found.names(), found.done) == (3, NAMES, {0, 1, 2})
    assert read_records(tmp_path / "run") == found.records()
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no run: give the work directory of one"):
            ResultStore.find(directory)


def test_hidden_files_are_none_of_the_runs(tmp_path):
    fill(tmp_path)
    store = begin(tmp_path)
    store.scored("pltx").append({0: {"row": 0}})
    for file in ("masks/._final.npy", "scores/._pltx.jsonl"):
        (tmp_path / file).write_bytes(b"\0\5\x16\7")
    assert ResultStore.find(tmp_path).names() == NAMES
    store.finish()
    assert [line["row"] for line in store.scored("pltx").records()] == [0]


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("settings.json", None, "without the settings.json that it was made with"),
        ("settings.json", b"", r"settings.json is not JSON \(.*put back what the run wrote"),
        ("settings.json", b'{"a": 1', r"settings.json is not JSON"),
        ("settings.json", b"\xff\xfe", r"settings.json cannot be read as text \(not UTF-8\)"),
        ("settings.json", b"[" * 100_000, "settings.json is JSON nested without end"),
        ("settings.json", b"[1, 2]", "settings.json holds no settings"),
        ("results.jsonl", b"hallo\n", r"results.jsonl is damaged \(line 1 is no row's\)"),
        ("results.jsonl", b'{"row": 0}\n', r"results.jsonl is damaged \(line 1 "),
        ("results.jsonl", b"\0" * 30 + b"\n", r"results.jsonl is damaged \(line 1 "),
        ("masks/pltx.npy", None, r"pltx.npy is gone, of which .*results.jsonl has results: put"),
        ("masks/pltx.npy", b"", "pltx.npy holds no masks"),
        ("masks/pltx.npy", b"\x93NUMPY\x01\x00", "pltx.npy holds no masks"),
    ],
)
def test_a_damaged_directory_is_refused_as_it_is(tmp_path, file, content, told):
    fill(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=told) as caught:
        begin(tmp_path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_a_row_beyond_the_run_is_refused(tmp_path):
    fill(tmp_path)
    with pytest.raises(InputError, match="has a row 2, and the run 2 rows"):
        ResultStore.open(tmp_path, SETTINGS, 2)


def test_masks_that_were_scored_after_the_fact_are_not_made_anew(tmp_path):
    store = begin(tmp_path)
    store.hold("rival", (4, 4))
    store.scored("rival").append({0: {"row": 0, "pos": 1.0}})
    store.hold("rival", (4, 4))
    (tmp_path / "masks" / "rival.npy").unlink()
    with pytest.raises(InputError, match=r"rival.npy is gone, of which .*scores/rival.jsonl has"):
        store.hold("rival", (4, 4))
    (tmp_path / "scores" / "rival.jsonl").unlink()
    begin(tmp_path).hold("rival", (4, 4))
