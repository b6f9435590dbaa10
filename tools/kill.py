"""Kill a run at random moments, and see that it ends as one that was left alone.

python tools/kill.py [--kills=30] [--processes=4] [--share] [--seed=0] --config=configs/demo.py
    [--config.…]

The run, of any task, is made once as it is; then, in a new work directory each time, it is killed
with SIGKILL (all of its processes) after a random share of the time that took, and run again. With
--share the processes know each other by `--share=INDEX/ALL`, one of them is killed, and never
started again: the others have to come to the end (with --config.lost_after=5 they do so sooner),
but where it died over the report, which another one makes that is started anew. What then lies
there has to be the same, byte by byte, but for times and devices. Prints a line a kill; the exit
code is 1 where anything differed.
"""

from __future__ import annotations

import argparse
import json
import random
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
# Written last: their presence says that the run has reported.
_REPORTS = ("summary.json", "evaluation.json")


def main() -> int:
    """The program; 1 where a restart ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    known, given = parser.parse_known_args()
    if known.share and known.processes < 2:
        parser.error("--share needs others that go on: give --processes=2 or more")
    rng, wrong = random.Random(known.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        see_through(start(given, Path(folder, "whole"), ways(known)))
        seconds, whole = time.monotonic() - began, outcome(Path(folder, "whole"))
        print(f"left alone: {seconds:.0f} s, {len(whole)} files", flush=True)
        for i in range(known.kills):
            workdir, moment = Path(folder, f"killed-{i}"), rng.uniform(0, seconds)
            kill = kill_one if known.share else kill_all
            told = kill(known, given, workdir, moment, rng)
            again = outcome(workdir)
            other = sorted(n for n in whole | again if whole.get(n) != again.get(n))
            wrong += bool(other)
            found = f"differ: {', '.join(other)}" if other else "the same"
            print(f"killed after {moment:.1f} s {told}: {found}", flush=True)
    return 1 if wrong else 0


def kill_all(
    known: argparse.Namespace, given: Sequence[str], workdir: Path, moment: float, _: random.Random
) -> str:
    """Kill the run after so many seconds, and run it again; tells how far it was."""
    processes = start(given, workdir, ways(known))
    time.sleep(moment)
    for process in processes:
        process.kill()
        process.wait()
    told = f"with {done(workdir)} rows done"
    see_through(start(given, workdir, ways(known)))
    return told


def kill_one(
    known: argparse.Namespace,
    given: Sequence[str],
    workdir: Path,
    moment: float,
    rng: random.Random,
) -> str:
    """Kill one of the processes after so many seconds, and let the others do the rest; tells which
    one, and how far they were."""
    processes, index = start(given, workdir, ways(known)), rng.randrange(known.processes)
    time.sleep(moment)
    killed = processes.pop(index)
    killed.kill()
    killed.wait()
    told = f"with {done(workdir)} rows done, process {index}"
    see_through(processes)
    if any((workdir / name).exists() for name in _REPORTS):
        return told
    others = ways(known)
    del others[index]
    see_through(start(given, workdir, others[:1]))
    return f"{told} over its report"


def ways(known: argparse.Namespace) -> list[list[str]]:
    """What each process is told of the others."""
    count = known.processes
    if known.share:
        return [[f"--share={i}/{count}"] for i in range(count)]
    if count == 1:
        return [[]]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [[f"--distributed={address},{i}/{count}"] for i in range(count)]


def start(
    given: Sequence[str], workdir: Path, each: Sequence[Sequence[str]]
) -> list[subprocess.Popen[bytes]]:
    """The command on a work directory, in a process for each of the further arguments."""
    command = [sys.executable, "-m", "ltx_jax.main", *given, f"--workdir={workdir}"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return [subprocess.Popen([*command, *one], **quiet) for one in each]


def see_through(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let processes come to their end.

    Raises:
      SystemExit: where one failed.
    """
    codes = [process.wait() for process in processes]
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
