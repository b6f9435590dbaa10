"""Several processes on one run leave what a single one does."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ltx_jax import runtime
from ltx_jax.errors import InputError
from ltx_jax.reporting.lines import Lines
from ltx_jax.tasks import waiting


def command(workdir: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ltx_jax.main", "--config=configs/demo.py"),
        *("--config.limit=5", "--config.finetune.steps=2", "--config.finetune.slots=1"),
        *("--config.rivals=('gradient_x_input',)", f"--workdir={workdir}", *more),
    ]


def start(workdir: Path, *more: str) -> subprocess.Popen[str]:
    """A process of a run, whose output is kept."""
    return subprocess.Popen(
        command(workdir, *more), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a single process leaves."""
    workdir = tmp_path_factory.mktemp("alone") / "one"
    subprocess.run(command(workdir), check=True, capture_output=True)
    return workdir


def by_two(workdir: Path, *more: str) -> list[str]:
    """What two processes print that share a run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [start(workdir, f"--distributed={address},{index}/2", *more) for index in range(2)]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return told


@pytest.mark.slow
def test_two_processes_evaluate_what_one_does(tmp_path):
    more = "--config.task=evaluate", "--config.evaluate.scored_for=both"
    subprocess.run(command(tmp_path / "one", *more), check=True, capture_output=True)
    assert sum("7 rows scored" in text for text in by_two(tmp_path / "two", *more)) == 1
    files = [path for path in (tmp_path / "one").rglob("[!.]*") if path.is_file()]
    assert {"scores.jsonl", "table.csv", "evaluation.html"} <= {path.name for path in files}
    for path in files:
        again = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert again.read_bytes() == path.read_bytes(), path


@pytest.mark.slow
def test_two_processes_do_what_one_does(one, tmp_path):
    assert sum("7 explained" in text for text in by_two(tmp_path)) == 1
    assert_same_results(tmp_path, one)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["done"] == 7 and summary["device"].startswith("2 processes of ")
    assert summary["rivals"].keys() == {"gradient_x_input"}


def assert_same_results(ours: Path, theirs: Path) -> None:
    """The same files of lines and masks, byte by byte, and none of one process alone."""
    for files in ("*.jsonl", "scores/*", "masks/*", "layout.json"):
        both = [{path.relative_to(run) for path in run.glob(files)} for run in (ours, theirs)]
        assert both[0] == both[1] != set()
        for name in both[0]:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.slow
def test_the_living_do_what_a_killed_one_has_begun(one, tmp_path):
    soon = "--config.lost_after=3"
    four = [start(tmp_path, f"--share={index}/3", soon) for index in (0, 1, 1, 2)]
    while len(three := [process for process in four if process.poll() is None]) == 4:
        time.sleep(0.02)
    # One of the two of the same index is refused.
    assert len(three) == 3 and {four[1].poll(), four[2].poll()} == {None, 2}
    while not (begun := list(tmp_path.glob("results-*.jsonl"))):
        assert [process.poll() for process in three] == [None] * 3
        time.sleep(0.02)
    three[int(begun[0].stem.partition("-")[2])].kill()
    told = [process.communicate()[0] for process in four]
    assert sorted(process.returncode for process in four) == [-9, 0, 0, 2]
    assert sum("7 explained" in text for text in told) == 1
    others = re.findall(r"of 3 has done its share; process \d of 3 .* reports\n", "".join(told))
    assert len(others) == 1
    assert_same_results(tmp_path, one)
    assert json.loads((tmp_path / "summary.json").read_text())["done"] == 7
    assert not (tmp_path / ".leases").exists()


@pytest.mark.parametrize("told", ["automatic", "localhost,0/2", "localhost:1234,0"])
def test_a_wrong_address_says_what_was_expected(told):
    with pytest.raises(InputError, match="expected auto or ADDRESS:PORT,INDEX/ALL"):
        runtime.join_processes(told)


def test_a_process_waits_while_rows_come(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "POLL", 0.01)
    first, second = (Lines(tmp_path / "results.jsonl", process) for process in (0, 1))
    first.append({0: {"row": 0}})
    second.append({1: {"row": 1}})
    monkeypatch.setattr(waiting, "_PATIENCE", 0.1)
    with pytest.raises(InputError, match=r"2 of 3 rows are done and none has come for"):
        waiting.await_rows(range(3), first.learn)
    monkeypatch.setattr(waiting, "_PATIENCE", 60)
    later = threading.Timer(0.2, second.append, [{2: {"row": 2}}])
    later.start()
    waiting.await_rows(range(3), first.learn)
    assert first.done == {0, 1, 2}


def test_one_process_is_ready_by_itself():
    with runtime.together():
        pass
    with pytest.raises(InputError, match="of its own"), runtime.together():
        raise InputError("of its own")


def test_a_process_lost_at_the_start_is_one_line(monkeypatch):
    told = []

    def ready(whether):
        told.append(whether)
        if whether:
            raise ValueError("Gloo AllGather failed: Connection reset by peer")

    monkeypatch.setattr(runtime, "_ready", ready)
    lost = "a process was lost before the work began"
    with pytest.raises(InputError, match=lost), runtime.together():
        pass
    with pytest.raises(ZeroDivisionError), runtime.together():
        raise ZeroDivisionError  # whatever it is, the others are told
    assert told == [True, False]
