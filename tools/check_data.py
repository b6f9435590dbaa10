"""Check a segmentation data set: is all of it there, and can each image be read?

python tools/check_data.py {imagenet_segmentation,coco,voc} PATH

PATH is what config.images will be. Prints how many images there are beside the official number, of
how many an object is known, what share of their pixels is of objects, and void, and which cannot be
read and why. Exits with 1 where one cannot be read, with 2 where something is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from ltx_jax.data.examples import Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import DATASETS, open_images
from ltx_jax.errors import InputError
from ltx_jax.progress import progress_bar

OFFICIAL = {"imagenet_segmentation": 4276, "coco": 5000, "voc": 1449}
_HOW = Preprocessing((224, 224))  # as most networks see it
_SHOWN = 20  # of images that cannot be read, or have no object


def main() -> int:
    """Check one data set; 0 when each of its images can be read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=sorted(DATASETS))
    parser.add_argument("path", type=Path, help="what config.images will be")
    arguments = parser.parse_args()
    try:
        source = open_images(arguments.path, dataset=arguments.dataset)
    except InputError as error:
        print(f"check_data: {error}", file=sys.stderr)
        return 2
    lines, unreadable = report(source, OFFICIAL[arguments.dataset])
    print("\n".join(lines))
    return 1 if unreadable else 0


def report(source: Source, official: int) -> tuple[list[str], int]:
    """What there is to say of a data set, and how many of its images cannot be read.

    Args:
      source: the data set.
      official: how many images it has as it is published.
    """
    unreadable, without, objects, void = {}, [], 0.0, 0.0
    with progress_bar(len(source), "images", "checked") as bar:
        for index, example in iterate(source, _HOW, range(len(source))):
            bar.update(1)
            if isinstance(example, UnreadableImage):
                unreadable[source.names[index]] = str(example)
                continue
            found = example.mask_of(0)
            without += [] if found is not None else [source.names[index]]
            objects += 0.0 if found is None else float(found.mean())
            void += 0.0 if example.void is None else float(example.void.mean())
    read = len(source) - len(unreadable)
    known = read - len(without)
    lines = [
        f"{len(source)} images; the official set has {official}",
        f"{read} can be read; of {known} an object is known",
        f"{100 * objects / max(known, 1):.1f} % of these images' pixels are of objects; of all "
        f"{100 * void / max(read, 1):.1f} % are void",
        *_some("no object: ", [f"{name}" for name in without]),
        *_some("cannot be read: ", [f"{name} ({why})" for name, why in unreadable.items()]),
    ]
    return lines, len(unreadable)


def _some(what: str, each: list[str]) -> Iterator[str]:
    """The first few, a line each, and how many there are beyond."""
    yield from (f"{what}{one}" for one in each[:_SHOWN])
    if len(each) > _SHOWN:
        yield f"{what}{len(each) - _SHOWN} more"


if __name__ == "__main__":
    sys.exit(main())
