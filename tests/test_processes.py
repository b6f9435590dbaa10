"""Several processes on one run leave what a single one does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
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


def by_two(workdir: Path, *more: str) -> list[str]:
    """What two processes print that share a run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            command(workdir, f"--distributed={address},{index}/2", *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for index in range(2)
    ]
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
def test_two_processes_do_what_one_does(tmp_path):
    subprocess.run(command(tmp_path / "one"), check=True, capture_output=True)
    assert sum("7 explained" in text for text in by_two(tmp_path / "two")) == 1
    one, two = tmp_path / "one", tmp_path / "two"
    assert not list(two.glob("results-*.jsonl"))
    assert (two / "results.jsonl").read_bytes() == (one / "results.jsonl").read_bytes()
    assert not list((two / "scores").glob("*-*.jsonl"))
    scores = "scores/gradient_x_input.jsonl"
    assert (two / scores).read_bytes() == (one / scores).read_bytes()
    masks = sorted(path.name for path in (one / "masks").iterdir())
    assert masks == sorted(path.name for path in (two / "masks").iterdir())
    for name in masks:
        assert (one / "masks" / name).read_bytes() == (two / "masks" / name).read_bytes()
    summary = json.loads((two / "summary.json").read_text())
    assert summary["done"] == 7 and summary["device"].startswith("2 processes of ")
    assert summary["rivals"].keys() == {"gradient_x_input"}


@pytest.mark.parametrize("told", ["automatic", "localhost,0/2", "localhost:1234,0"])
def test_a_wrong_address_says_what_was_expected(told):
    with pytest.raises(InputError, match="expected auto or ADDRESS:PORT,INDEX/ALL"):
        runtime.join_processes(told)


def test_a_process_waits_while_rows_come(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "_POLL", 0.01)
    first, second = (Lines(tmp_path / "results.jsonl", process) for process in (0, 1))
    first.append({0: {"row": 0}})
    second.append({1: {"row": 1}})
    monkeypatch.setattr(waiting, "_PATIENCE", 0.1)
    with pytest.raises(InputError, match=r"2 of 3 rows are done and none has come for"):
        waiting.wait(first, 3)
    monkeypatch.setattr(waiting, "_PATIENCE", 60)
    later = threading.Timer(0.2, second.append, [{2: {"row": 2}}])
    later.start()
    waiting.wait(first, 3)
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


def test_one_process_takes_all():
    assert runtime.share_of_process([1, 4, 5], 7) == ([1, 4, 5], 3)
