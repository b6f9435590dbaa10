"""Time rivals beside the packages that they are checked against.

python tools/time_rivals.py squeezenet1_1 --weights=W.safetensors --images=PHOTOGRAPHS --count=10

For each rival the table gives what an image costs in forwards of the explainee (by operations of
matrix products and convolutions; of a search whose length is not known, one step); milliseconds an
image, one image at a time and in batches, of ours and of the package (`grad-cam` or `captum`, on
the same network in PyTorch) where one has it; how many times as fast ours is; and how far the maps
of the batch are apart, each scaled to span [0,1]. Compiling is left out: what is timed ran before,
a package on one image alone. Classes are the predicted ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from counting import operations

import ltx_jax
from ltx_jax.attribution import RIVALS
from ltx_jax.data.examples import Example
from ltx_jax.data.given import as_batch
from ltx_jax.engine.memory import batch_of_use
from ltx_jax.engine.sharding import replicate
from ltx_jax.errors import InputError
from ltx_jax.masks.spanning import spanning
from ltx_jax.models.explainee import Explainee
from ltx_jax.tasks.rivals import check_rivals, compute
from ltx_jax.tasks.scoring import Asked, in_groups

_COLUMNS = ("forwards", "one", "batch", "package one", "batch", "times one", "batch", "apart")
Method = Callable[[np.ndarray, np.ndarray], Any]


class Timed(NamedTuple):
    """Milliseconds an image, of one alone and in a batch, and the maps [n,g,h] of the batch."""

    one: float
    batch: float
    maps: np.ndarray


def main() -> int:
    """Print the table as it grows; 2 where something given cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("explainee", help="a network's timm name")
    parser.add_argument("--weights", help="its file; from the hub if not given")
    parser.add_argument("--images", type=Path, help="a folder; noise if not given")
    parser.add_argument("--count", type=int, default=8, help="images in the batch")
    parser.add_argument("--rivals", nargs="+", default=[], help="those for the network by default")
    parser.add_argument("--alone", action="store_true", help="without the packages")
    parser.add_argument(
        "--exact", action="store_true", help="packages in float64, for how far apart maps are"
    )
    arguments = parser.parse_args()
    try:
        ltx_jax.prepare()
        explainee = ltx_jax.load_explainee(arguments.explainee, arguments.weights)
        names = arguments.rivals or _suitable(explainee)
        check_rivals(names, explainee)
        images = _images(explainee, arguments.images, arguments.count)
        packages = {} if arguments.alone else _packages(explainee, arguments.exact)
        targets = explainee.predicted(jax.jit(explainee)(images)).astype(np.int32)
        print(" " * 24 + "".join(f"{column:>12}" for column in _COLUMNS))
        for name in names:
            print(line(explainee, name, packages.get(name), images, targets), flush=True)
    except InputError as error:
        print(f"time_rivals: {error}", file=sys.stderr)
        return 2
    return 0


def line(
    explainee: Explainee,
    name: str,
    package: Method | None,
    images: np.ndarray,
    targets: np.ndarray,
) -> str:
    """A rival's line of the table, with the package's numbers where there is one."""
    ours = timed(_on_all_devices(explainee, name), images, targets, warm=True)
    one = images[:1], targets[:1]
    cost = operations(RIVALS[name].maps, explainee, *one) / operations(explainee, one[0])
    found = [cost, ours.one, ours.batch]
    text = "".join(f"{value:12.1f}" for value in found)
    if package is None:
        return f"{name:24}{text}"
    theirs = timed(package, images, targets, warm=False)
    apart = float(np.abs(np.asarray(spanning(ours.maps)) - spanning(theirs.maps)).max())
    ratios = theirs.one / ours.one, theirs.batch / ours.batch
    text += f"{theirs.one:12.1f}{theirs.batch:12.1f}"
    return f"{name:24}{text}" + "".join(f"{ratio:12.2f}" for ratio in ratios) + f"{apart:12.1e}"


def timed(method: Method, images: np.ndarray, targets: np.ndarray, warm: bool) -> Timed:
    """Run a method on one image, twice, and on all, twice where that has to be warm, and time the
    last of each."""
    milliseconds = []
    for n, times in ((1, 2), (len(images), 1 + warm)):
        for _ in range(times):
            began = time.perf_counter()
            maps = np.asarray(method(images[:n], targets[:n]))
            seconds = time.perf_counter() - began
        milliseconds.append(1000 * seconds / n)
    one, batch = milliseconds
    return Timed(one, batch, maps)


def _on_all_devices(explainee: Explainee, name: str) -> Method:
    """Ours, images shared by the devices, as everywhere."""

    def maps(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        batch = batch_of_use(explainee, len(images))
        on_devices = replicate(explainee, batch.mesh)
        given = [
            (Asked(row, int(target)), Example(image))
            for row, (image, target) in enumerate(zip(images, targets, strict=True))
        ]
        groups = in_groups(given, batch.images)
        return np.concatenate([compute(on_devices, name, group, batch) for group in groups])

    return maps


def _suitable(explainee: Explainee) -> list[str]:
    """The rivals that the explainee has all for."""

    def suits(name: str) -> bool:
        try:
            check_rivals([name], explainee)
        except InputError:
            return False
        return True

    return [name for name in RIVALS if suits(name)]


def _images(explainee: Explainee, folder: Path | None, count: int) -> np.ndarray:
    if folder is None:
        rng = np.random.default_rng(0)
        return rng.random((count, *explainee.image_shape), np.float32)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) < count:
        raise InputError(f"{folder} holds {len(files)} files: give a --count of at most that")
    pictures = as_batch(files[:count], explainee.preprocessing("squash"))
    return pictures.astype(np.float32) / 255


def _packages(explainee: Explainee, exact: bool) -> dict[str, Method]:
    """What the packages have, on the same network in PyTorch."""
    from pytorch_networks import load_classifier
    from pytorch_rivals import PACKAGES, Case

    classifier = load_classifier(explainee)
    if exact:  # in float32 a ReLU on the edge now and then lets through what it should not
        classifier = classifier.double()

    def of(package: Callable[[Any], np.ndarray]) -> Method:
        return lambda images, targets: package(Case(classifier, images, targets))

    return {name: of(package) for name, package in PACKAGES.items()}


if __name__ == "__main__":
    sys.exit(main())
