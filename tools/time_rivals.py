"""Time rivals beside the packages that they are checked against.

python tools/time_rivals.py squeezenet1_1 --weights=W.safetensors --images=PHOTOGRAPHS --count=10

For each rival the table gives what an image costs in forwards of the explainee (by operations of
matrix products and convolutions; of a search whose length is not known, one step); milliseconds an
image, one image at a time and in batches, of ours and of the package (`grad-cam` or `captum`, on
the same network in PyTorch) where one has it; how many times as fast ours is; and how far the maps
of the batch are apart, each scaled to span [0,1]. Times are medians of runs in turns, as many as
take a while; all ran before, so that nothing compiles. Classes are the predicted ones.

With `--exact` the table has nothing but how far maps are apart, with everything in float64.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from counting import operations
from jax.sharding import Mesh
from turns import in_turns

import ltx_jax
from ltx_jax.attribution import RIVALS
from ltx_jax.data.examples import Example
from ltx_jax.data.given import as_batch
from ltx_jax.engine.memory import batch_of_use
from ltx_jax.engine.scoring import in_groups
from ltx_jax.engine.sharding import replicate
from ltx_jax.errors import InputError
from ltx_jax.masks.spanning import spanning
from ltx_jax.models.explainee import Explainee
from ltx_jax.tasks.rivals import check_rivals, compute

_WHILE = 3.0  # seconds
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
    parser.add_argument("--exact", action="store_true", help="how far apart maps are in float64")
    arguments = parser.parse_args()
    try:
        ltx_jax.prepare()
        explainee = ltx_jax.load_explainee(arguments.explainee, arguments.weights)
        names = arguments.rivals or _suitable(explainee)
        check_rivals(names, explainee)
        images = _images(explainee, arguments.images, arguments.count)
        if arguments.exact:
            from double_precision import double_precision

            with double_precision():
                _print_apart(explainee, names, images)
        elif arguments.alone:
            _print_times(explainee, names, {}, images)
        else:
            from pytorch_networks import load_classifier

            _print_times(explainee, names, _packages(load_classifier(explainee)), images)
    except InputError as error:
        print(f"time_rivals: {error}", file=sys.stderr)
        return 2
    return 0


def _print_times(
    explainee: Explainee, names: list[str], packages: dict[str, Method], images: np.ndarray
) -> None:
    targets = explainee.predicted(jax.jit(explainee)(images)).astype(np.int32)
    print(" " * 24 + "".join(f"{column:>12}" for column in _COLUMNS))
    for name in names:
        print(line(explainee, name, packages.get(name), images, targets), flush=True)


def _print_apart(explainee: Explainee, names: list[str], images: np.ndarray) -> None:
    from double_precision import doubled, doubled_in_pytorch

    packages = _packages(doubled_in_pytorch(explainee))
    explainee, images = doubled(explainee), images.astype(np.float64)
    targets = explainee.predicted(jax.jit(explainee)(images)).astype(np.int32)
    for name in filter(packages.__contains__, names):
        ours = np.asarray(RIVALS[name].maps(explainee, jnp.asarray(images), jnp.asarray(targets)))
        print(f"{name:24}{_apart(ours, packages[name](images, targets)):12.1e}", flush=True)


def line(
    explainee: Explainee,
    name: str,
    package: Method | None,
    images: np.ndarray,
    targets: np.ndarray,
) -> str:
    """A rival's line of the table, with the package's numbers where there is one."""
    methods = [_on_all_devices(explainee, name), *([package] if package else [])]
    ours, *theirs = timed(methods, images, targets)
    one = images[:1], targets[:1]
    cost = operations(RIVALS[name].maps, explainee, *one) / operations(explainee, one[0])
    text = f"{name:24}{cost:12.1f}{ours.one:12.1f}{ours.batch:12.1f}"
    for their in theirs:
        text += f"{their.one:12.1f}{their.batch:12.1f}"
        text += f"{their.one / ours.one:12.2f}{their.batch / ours.batch:12.2f}"
        text += f"{_apart(ours.maps, their.maps):12.1e}"
    return text


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The greatest difference of maps, each scaled to span [0,1]."""
    one, other = (np.asarray(spanning(jnp.asarray(maps))) for maps in (ours, theirs))
    return float(np.abs(one - other).max())


def timed(methods: Sequence[Method], images: np.ndarray, targets: np.ndarray) -> list[Timed]:
    """Run methods in turns on one image and on all, until a while is over, and take the median of
    each but for its first run."""

    def run(method: Method, n: int) -> np.ndarray:
        return np.asarray(method(images[:n], targets[:n]))

    one, batch = (
        in_turns([partial(run, method, n) for method in methods], 3, _WHILE)
        for n in (1, len(images))
    )
    return [
        Timed(1000 * alone.seconds, 1000 * together.seconds / len(images), together.made)
        for alone, together in zip(one, batch, strict=True)
    ]


def _on_all_devices(explainee: Explainee, name: str) -> Method:
    """Ours, images shared by the devices, as everywhere."""

    @cache  # a run places the weights once
    def placed(mesh: Mesh) -> Explainee:
        return replicate(explainee, mesh)

    def maps(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        batch = batch_of_use(explainee, len(images))
        on_devices = placed(batch.mesh)

        def of_group(group: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
            some, classes = zip(*group, strict=True)
            given = [Example(image) for image in some], np.stack(classes)[:, None]
            return compute(on_devices, name, *given, batch)[:, 0]

        groups = in_groups(zip(images, targets, strict=True), batch.images)
        return np.concatenate([of_group(group) for group in groups])

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
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give --images one with photographs")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) < count:
        raise InputError(f"{folder} holds {len(files)} files: give a --count of at most that")
    pictures = as_batch(files[:count], explainee.preprocessing("squash"))
    return pictures.astype(np.float32) / 255


def _packages(classifier: Any) -> dict[str, Method]:
    """What the packages have, on the same network in PyTorch."""
    from pytorch_rivals import PACKAGES, Case

    def of(package: Callable[[Any], np.ndarray]) -> Method:
        return lambda images, targets: package(Case(classifier, images, targets))

    return {name: of(package) for name, package in PACKAGES.items()}


if __name__ == "__main__":
    sys.exit(main())
