"""Time the loader of a pretraining beside a bare loop of Pillow's.

python tools/time_loader.py PHOTOGRAPHS [--count=200] [--side=224] [--workers 0 1 2]

Prints photographs a second and core of Python processes that open, resize and stack them, one a
core, and of the loader with threads (0, on all cores) and with so many worker processes, once its
first batch is there; the loader's also as a share of the bare loops' on as many cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from ltx_jax.data.batches import Order, load
from ltx_jax.data.image_files import open_folder
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError

_BATCH = 16


def main() -> int:
    """Print the table; 2 where the photographs cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="a folder")
    parser.add_argument("--count", type=int, default=200, help="photographs that are timed")
    parser.add_argument("--side", type=int, default=224, help="pixels of what is loaded")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    try:
        cores = os.cpu_count() or 1
        there, least = len(open_folder(given.images)), max(2 * _BATCH, cores)
        if not least <= given.count <= there or min(given.workers) < 0:
            raise InputError(
                f"--count={given.count} of {there} photographs and --workers={given.workers}: give "
                f"at least {least} that are there, and no fewer than 0 workers"
            )
        used = [min(workers, cores) or cores for workers in given.workers]
        bare = {n: by_pillow(given.images, given.count, given.side, n) for n in sorted({*used})}
        for n, rate in bare.items():
            print(f"bare loops on {n} cores: {rate:.0f} a second and core")
        for workers, n in zip(given.workers, used, strict=True):
            rate = by_loader(given.images, given.count, given.side, workers) / n
            print(f"{workers} workers: {rate:.0f} a second and core, {rate / bare[n]:.2f}")
    except InputError as error:
        print(f"time_loader: {error}", file=sys.stderr)
        return 2
    return 0


def by_pillow(folder: Path, count: int, side: int, cores: int) -> float:
    """Photographs a second and core of bare loops, one in each of so many processes."""
    paths = open_folder(folder).only(range(count)).paths
    with ProcessPoolExecutor(cores, get_context("spawn")) as processes:
        loops = [(paths[core::cores], side) for core in range(cores)]
        list(processes.map(_loop, [(part[:1], side) for part, _ in loops]))  # they are up
        return float(np.mean(list(processes.map(_loop, loops))))


def _loop(given: tuple[Sequence[Path], int]) -> float:
    paths, side = given
    began = time.perf_counter()
    loaded = []
    for path in paths:
        with Image.open(path) as file:
            image = file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        loaded.append(np.asarray(image))
    np.stack(loaded)
    return len(paths) / (time.perf_counter() - began)


def by_loader(folder: Path, count: int, side: int, workers: int) -> float:
    """Photographs a second of the loader, from its second batch on."""
    source = open_folder(folder).only(range(count))
    numbers = np.arange(len(source), dtype=np.int32)
    order = Order(source, Preprocessing((side, side)), numbers, numbers, 0, _BATCH, 3)
    batches = load(order, 0, workers)
    next(batches)
    began = time.perf_counter()
    loaded = sum(len(batch.targets) for batch in batches)
    return loaded / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
