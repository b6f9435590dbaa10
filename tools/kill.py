"""Kill a run at random moments, and see that it ends as one that was left alone.

python tools/kill.py [--kills=30] [--processes=4] [--seed=0] --config=configs/demo.py [--config.…]

The run, of any task, is made once as it is; then, in a new work directory each time, it is killed
with SIGKILL (all of its processes) after a random share of the time that took, and run again. What
then lies there has to be the same, byte by byte, but for times and devices. Prints a line a kill;
the exit code is 1 where anything differed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Of a summary or a log: what another run of the same may have otherwise.
_VOLATILE = ("images_per_second", "compile_seconds", "device", "waiting")


def main() -> int:
    """The program; 1 where a restart ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    known, given = parser.parse_known_args()
    rng, wrong = random.Random(known.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        finish(given, Path(folder, "whole"), known.processes)
        seconds, whole = time.monotonic() - began, outcome(Path(folder, "whole"))
        print(f"left alone: {seconds:.0f} s, {len(whole)} files", flush=True)
        for i in range(known.kills):
            workdir, moment = Path(folder, f"killed-{i}"), rng.uniform(0, seconds)
            processes = start(given, workdir, known.processes)
            time.sleep(moment)
            for process in processes:
                process.send_signal(signal.SIGKILL)
                process.wait()
            rows = done(workdir)
            finish(given, workdir, known.processes)
            again = outcome(workdir)
            other = sorted(n for n in whole | again if whole.get(n) != again.get(n))
            wrong += bool(other)
            told = f"differ: {', '.join(other)}" if other else "the same"
            print(f"killed after {moment:.1f} s with {rows} rows done: {told}", flush=True)
    return 1 if wrong else 0


def start(given: Sequence[str], workdir: Path, processes: int) -> list[subprocess.Popen[bytes]]:
    """The command on a work directory, in so many processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "ltx_jax.main", *given, f"--workdir={workdir}"]
    several = [[f"--distributed={address},{i}/{processes}"] for i in range(processes)]
    ways = several if processes > 1 else [[]]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return [subprocess.Popen([*command, *one], **quiet) for one in ways]


def finish(given: Sequence[str], workdir: Path, processes: int) -> None:
    """Run the command to its end.

    Raises:
      SystemExit: where it failed.
    """
    codes = [process.wait() for process in start(given, workdir, processes)]
    if any(codes):
        raise SystemExit(f"the run ended with {codes}: try it alone, and see what it says")


def done(workdir: Path) -> int:
    """Rows that have a line."""
    files = workdir.glob("results*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in files)


def outcome(workdir: Path) -> dict[str, Any]:
    """What is to be the same: results, scores, masks, pictures and networks by name, and the
    summary or curves."""
    kinds = ("results*.jsonl", "scores/*", "masks/*", "overlays/*", "*.safetensors", "*.npy")
    files = [path for kind in kinds for path in workdir.glob(kind)]
    found: dict[str, Any] = {str(p.relative_to(workdir)): p.read_bytes() for p in files}
    for path in (*workdir.glob("summary.json"), *workdir.glob("pretraining.json")):
        told = json.loads(path.read_text())
        found[path.name] = {key: value for key, value in told.items() if key not in _VOLATILE}
    for path in workdir.glob("metrics.jsonl"):
        told = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.name] = [{k: v for k, v in line.items() if k not in _VOLATILE} for line in told]
    return found


if __name__ == "__main__":
    sys.exit(main())
