"""Small files in the layouts of the segmentation data sets, drawn by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise that JPEG keeps the size of."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def rectangle(height: int, width: int, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """True inside."""
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def write_imagenet(path: Path, images: list[np.ndarray], masks: list[np.ndarray]) -> Path:
    """A .mat of format 7.3: cells of references, arrays with their axes in reverse."""
    import h5py

    with h5py.File(path, "w") as file:
        reference = h5py.special_dtype(ref=h5py.Reference)
        shown, marked = (
            file.create_dataset(f"value/{name}", (len(images), 1), reference)
            for name in ("img", "gt")
        )
        for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
            shown[i, 0] = file.create_dataset(f"#refs#/i{i}", data=image.transpose(2, 1, 0)).ref
            cell = file.create_dataset(f"#refs#/c{i}", (1, 1), reference)
            cell[0, 0] = file.create_dataset(f"#refs#/m{i}", data=mask.astype(np.uint8).T).ref
            marked[i, 0] = cell.ref
    return path


def write_voc(
    folder: Path,
    images: dict[str, np.ndarray],
    indices: dict[str, np.ndarray],
    objects: dict[str, list[tuple[str, int]]] | None = None,
    listed: str = "VOC2012/ImageSets/Segmentation/val.txt",
) -> Path:
    """A year of VOCdevkit with one list, JPEGs, palette PNGs of those that have indices, and
    annotations: of each image its objects' classes, and whether they are difficult."""
    root = folder / "VOCdevkit" / listed.split("/")[0]
    for inside in ("JPEGImages", "SegmentationClass", "Annotations"):
        (root / inside).mkdir(parents=True, exist_ok=True)
    (root.parent / listed).parent.mkdir(parents=True, exist_ok=True)
    (root.parent / listed).write_text("\n".join(images) + "\n")
    for name, image in images.items():
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    for name, each in indices.items():
        palette = Image.fromarray(each.astype(np.uint8))
        palette.putpalette([i * 7 % 256 for i in range(768)])
        palette.save(root / "SegmentationClass" / f"{name}.png")
    for name, each in (objects or {}).items():
        boxes = [
            f"<object><name>{kind}</name><difficult>{difficult}</difficult>"
            "<part><name>head</name></part></object>"
            for kind, difficult in each
        ]
        content = f"<annotation><filename>{name}.jpg</filename>{''.join(boxes)}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(content)
    return root


def write_coco(
    folder: Path,
    images: dict[str, np.ndarray],
    instances: list[tuple[str, object, int]],
    categories: list[int] | None = None,
    called: str = "val2017",
) -> Path:
    """A set's annotations and images; each instance is an image's name, its polygons or run
    lengths, and whether it is a crowd; of category 1 if not given. Returns the annotation's path.
    """
    (folder / called).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    listed, numbers = [], {}
    for number, (name, image) in enumerate(images.items(), 7):
        Image.fromarray(image).save(folder / called / name, quality=95)
        height, width = image.shape[:2]
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
        numbers[name] = number
    kinds = [1] * len(instances) if categories is None else categories
    annotations = [
        {
            "id": i,
            "image_id": numbers[name],
            "category_id": kind,
            "iscrowd": crowd,
            "segmentation": one,
        }
        for i, ((name, one, crowd), kind) in enumerate(zip(instances, kinds, strict=True))
    ]
    content = {"info": {"year": int(called[-4:])}, "images": listed, "annotations": annotations}
    known = [{"id": kind, "name": f"kind {kind}"} for kind in sorted(set(kinds))]
    path = folder / "annotations" / f"instances_{called}.json"
    path.write_text(json.dumps(content | {"categories": known}))
    return path


def write_pictures(folder: Path, names: Iterable[str], height: int, width: int) -> None:
    """A picture under each name."""
    for i, name in enumerate(names):
        _save(folder / name, picture(height, width, i))


def write_cub(
    root: Path, birds: Mapping[str, tuple[str, str, str]], height: int, width: int
) -> None:
    """CUB_200_2011 as published, without its segmentations: by its number each bird's file, class,
    and whether it is to be trained on."""
    write_pictures(root / "images", [name for name, _, _ in birds.values()], height, width)
    for i, file in enumerate(("images.txt", "image_class_labels.txt", "train_test_split.txt")):
        lines = [f"{number} {bird[i]}\n" for number, bird in birds.items()]
        (root / file).write_text("".join(lines))


def write_votes(folder: Path, votes: Mapping[str, np.ndarray]) -> None:
    """CUB's segmentations, 0 to 255, by the images' names."""
    for name, each in votes.items():
        _save((folder / name).with_suffix(".png"), each.astype(np.uint8))


def _save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


def run_lengths(mask: np.ndarray) -> dict[str, object]:
    """As COCO writes crowds: lengths of runs in column order, zeros first."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[0] else [0, *counts]}
