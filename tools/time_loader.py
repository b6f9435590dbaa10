"""Time the loader of a pretraining beside a bare loop of Pillow's.

python tools/time_loader.py PHOTOGRAPHS [--count=200] [--side=224] [--workers 0 1 2]

Prints photographs a second of one Python thread that opens, resizes and stacks them, and of the
loader with threads (0) and with so many worker processes, once its first batch is there; each also
as a share of the bare loop's by core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
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
        bare = by_pillow(given.images, given.count, given.side)
        print(f"bare loop      {bare:8.1f} a second")
        for workers in given.workers:
            rate = by_loader(given.images, given.count, given.side, workers)
            cores = min(workers, os.cpu_count() or 1) or os.cpu_count() or 1
            print(f"{workers:2} workers     {rate:8.1f} a second, {rate / bare / cores:.2f} a core")
    except InputError as error:
        print(f"time_loader: {error}", file=sys.stderr)
        return 2
    return 0


def by_pillow(folder: Path, count: int, side: int) -> float:
    """Photographs a second of a bare loop."""
    paths = open_folder(folder).only(range(count)).paths
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
