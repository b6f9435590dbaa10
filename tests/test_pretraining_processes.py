"""Several processes pretrain one explainer, are stopped, and go on as a single one."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_VIT

pytest.importorskip("grain")
CONFIG = f"""
from ml_collections import ConfigDict
from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX

def get_config():
    config = defaults(LTX)
    config.task = "pretrain"
    config.explainee.name = "vit"
    config.explainee.sizes = ConfigDict({TINY_VIT})
    config.pretrain.update(
        epochs=4, batch_size=4, learning_rate=1e-3, log_every=1, pictures=2, save_every=1
    )
    return config
"""


def started(folder: Path, workdir: str, *more: str) -> subprocess.Popen[bytes]:
    given = [f"--config={folder / 'tiny.py'}", f"--config.images={folder / 'images.npz'}"]
    given += [f"--config.explainee.weights={folder / 'vit.safetensors'}"]
    command = [sys.executable, "-m", "ltx_jax.main", *given, f"--workdir={folder / workdir}", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def by_two(folder: Path, workdir: str) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [started(folder, workdir, f"--distributed={address},{i}/2") for i in range(2)]


def codes(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    told = [process.communicate()[1].decode() for process in processes]
    assert all("Traceback" not in text for text in told), told
    return [process.returncode for process in processes]


@pytest.mark.slow
def test_what_one_of_two_refuses_ends_both(tmp_path, vit_weights):
    (tmp_path / "tiny.py").write_text(CONFIG)
    (tmp_path / "vit.safetensors").write_bytes(vit_weights.read_bytes())
    np.savez(tmp_path / "images.npz", images=np.zeros((24, 16, 16, 3), np.uint8))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "settings.json").write_text('{"seed": 7}')
    both = by_two(tmp_path, "theirs")
    told = [process.communicate(timeout=120)[1].decode() for process in both]
    assert [process.returncode for process in both] == [2, 2]
    assert "with other settings" in told[0] and "process 0 could not begin" in told[1]


@pytest.mark.slow
def test_two_processes_that_are_terminated_go_on_as_one(tmp_path, vit_weights):
    (tmp_path / "tiny.py").write_text(CONFIG)
    (tmp_path / "vit.safetensors").write_bytes(vit_weights.read_bytes())
    pictures = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pictures)
    assert codes([started(tmp_path, "one")]) == [0]
    both = by_two(tmp_path, "two")
    while all(p.poll() is None for p in both) and not list(tmp_path.glob("two/checkpoints/[0-9]*")):
        time.sleep(0.05)
    for process in both:
        process.send_signal(signal.SIGTERM)
    assert codes(both) == [143, 143]
    assert codes(by_two(tmp_path, "two")) == [0, 0]
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    # Of 24 images 2 are held out and 2 kept: 5 steps an epoch.
    assert [line["step"] for line in two] == [line["step"] for line in one]
    assert sum("loss" in line for line in two) == 20
    for ours, theirs in zip(two, one, strict=True):
        key = "loss" if "loss" in ours else "validation"
        assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-3)
