"""Several processes on one run leave what a single one does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ltx_jax import run, runtime
from ltx_jax.errors import InputError
from ltx_jax.reporting.store import ResultStore


def command(workdir: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ltx_jax.main", "--config=configs/demo.py"),
        *("--config.limit=5", "--config.finetune.steps=2", "--config.finetune.slots=1"),
        *("--config.rivals=()", f"--workdir={workdir}", *more),
    ]


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    subprocess.run(command(tmp_path / "one"), check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            command(tmp_path / "two", f"--distributed={address},{index}/2"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for index in range(2)
    ]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("7 explained" in text for text in told) == 1
    one, two = tmp_path / "one", tmp_path / "two"
    assert not list(two.glob("results-*.jsonl"))
    assert (two / "results.jsonl").read_bytes() == (one / "results.jsonl").read_bytes()
    np.testing.assert_array_equal(np.load(two / "masks.npy"), np.load(one / "masks.npy"))
    summary = json.loads((two / "summary.json").read_text())
    assert summary["done"] == 7 and summary["device"].startswith("2 processes of ")


@pytest.mark.parametrize("told", ["automatic", "localhost,0/2", "localhost:1234,0"])
def test_a_wrong_address_says_what_was_expected(told):
    with pytest.raises(InputError, match="expected auto or ADDRESS:PORT,INDEX/ALL"):
        runtime.join_processes(told)


def test_process_0_waits_while_rows_come(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_POLL", 0.01)
    stores = [ResultStore.open(tmp_path, {}, 3, (1, 1, 1), process=index) for index in (0, 1)]
    stores[0].add({0: ({"row": 0}, np.zeros((1, 1, 1)))})
    stores[1].add({1: ({"row": 1}, np.zeros((1, 1, 1)))})
    monkeypatch.setattr(run, "_PATIENCE", 0.1)
    with pytest.raises(InputError, match=r"2 of 3 explanations are done and none has come for"):
        run.await_others(stores[0])
    monkeypatch.setattr(run, "_PATIENCE", 60)
    later = threading.Timer(0.2, stores[1].add, [{2: ({"row": 2}, np.zeros((1, 1, 1)))}])
    later.start()
    run.await_others(stores[0])
    assert stores[0].done == {0, 1, 2}


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
