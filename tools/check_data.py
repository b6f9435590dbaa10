"""Check a data set: is all of it there, and can each image be read?

python tools/check_data.py DATASET PATH [--labels=…]

DATASET is imagenet, imagenet_segmentation, coco, voc, cub, visual_genome, tfds, or folders, which
is no data set but a folder with one for each class. PATH is what config.images will be, --labels
what config.labels will be. Prints how many images there are beside the official number; of how many
the classes are known, and which; of how many an object is known, what share of their pixels is of
objects, and void; and which cannot be read and why. Exits with 1 where one cannot be read, with 2
where something is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from ltx_jax.data.examples import Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import DATASETS, open_images
from ltx_jax.errors import InputError
from ltx_jax.progress import progress_bar

FOLDERS = "folders"
# Images of each set as it is published, by how its path ends; the last of those that fit.
OFFICIAL = {
    "imagenet": {"train": 1_281_167, "val": 50_000},
    "imagenet_segmentation": {"": 4276},
    "coco": {"": 5000, "train2014": 82_783, "val2014": 40_504, "train2017": 118_287},
    "voc": {
        "": 1449,
        "VOC2007/ImageSets/Main/train.txt": 2501,
        "VOC2007/ImageSets/Main/val.txt": 2510,
        "VOC2007/ImageSets/Main/trainval.txt": 5011,
        "VOC2007/ImageSets/Main/test.txt": 4952,
        "VOC2012/ImageSets/Main/train.txt": 5717,
        "VOC2012/ImageSets/Main/val.txt": 5823,
        "VOC2012/ImageSets/Main/trainval.txt": 11_540,
        "VOC2012/ImageSets/Segmentation/train.txt": 1464,
        "VOC2012/ImageSets/Segmentation/trainval.txt": 2913,
    },
    "cub": {
        "CUB_200_2011": 11_788,
        "CUB_200_2011/train": 5994,
        "CUB_200_2011/test": 5794,
    },
    "visual_genome": {"": 108_077},
}
_HOW = Preprocessing((224, 224))  # as most networks see it
_SHOWN = 20  # of images that cannot be read, or have no object


def main() -> int:
    """Check one data set; 0 when each of its images can be read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=[*sorted(DATASETS), FOLDERS])
    parser.add_argument("path", help="what config.images will be")
    parser.add_argument("--labels", help="what config.labels will be")
    given = parser.parse_args()
    if given.dataset == FOLDERS and given.labels is not None:
        parser.error("folders are the labels: leave --labels out")
    dataset = None if given.dataset == FOLDERS else given.dataset
    labels = FOLDERS if given.dataset == FOLDERS else given.labels
    try:
        source = open_images(given.path, labels, dataset=dataset)
        lines, unreadable = report(source, _official(given.dataset, given.path))
    except InputError as error:
        print(f"check_data: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 1 if unreadable else 0


def _official(dataset: str, path: str) -> int | None:
    """How many images there are of a set; None where nobody says."""
    known = OFFICIAL.get(dataset, {}).items()
    return next((count for end, count in reversed(known) if path.rstrip("/").endswith(end)), None)


def report(source: Source, official: int | None) -> tuple[list[str], int]:
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
            found = example.united().mask_of(0)
            without += [] if found is not None else [source.names[index]]
            objects += 0.0 if found is None else float(found.mean())
            void += 0.0 if example.void is None else float(example.void.mean())
    read = len(source) - len(unreadable)
    known = read - len(without)
    beside = "" if official is None else f"; the official set has {official}"
    masks = f"; of {known} an object is known" if source.has_masks else ""
    lines = [f"{len(source)} images{beside}", f"{read} can be read{masks}", *_classes(source)]
    if source.has_masks:
        lines += [
            f"{100 * objects / max(known, 1):.1f} % of these images' pixels are of objects; of all "
            f"{100 * void / max(read, 1):.1f} % are void",
            *_some("no object: ", [f"{name}" for name in without]),
        ]
    lines += _some("cannot be read: ", [f"{name} ({why})" for name, why in unreadable.items()])
    return lines, len(unreadable)


def _classes(source: Source) -> Iterator[str]:
    """What is known of the images' classes, if anything."""
    labels = {label for labels in source.labels for label in labels}
    if labels:
        known = sum(map(bool, source.labels))
        yield (
            f"of {known} classes are known, {len(labels)} in all, from {min(labels)} to "
            f"{max(labels)}"
        )


def _some(what: str, each: list[str]) -> Iterator[str]:
    """The first few, a line each, and how many there are beyond."""
    yield from (f"{what}{one}" for one in each[:_SHOWN])
    if len(each) > _SHOWN:
        yield f"{what}{len(each) - _SHOWN} more"


if __name__ == "__main__":
    sys.exit(main())
