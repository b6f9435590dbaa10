"""Small files in the layouts of the segmentation data sets, drawn by hand."""

from __future__ import annotations

import json
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


def write_voc(folder: Path, images: dict[str, np.ndarray], indices: dict[str, np.ndarray]) -> Path:
    """VOCdevkit/VOC2012 with its list, JPEGs and palette PNGs."""
    root = folder / "VOCdevkit" / "VOC2012"
    for inside in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / inside).mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(images) + "\n")
    for name, image in images.items():
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        palette = Image.fromarray(indices[name].astype(np.uint8))
        palette.putpalette([i * 7 % 256 for i in range(768)])
        palette.save(root / "SegmentationClass" / f"{name}.png")
    return root


def write_coco(
    folder: Path, images: dict[str, np.ndarray], instances: list[tuple[str, object, int]]
) -> Path:
    """annotations/instances_val2017.json and val2017/; each instance is an image's name, its
    polygons or run lengths, and whether it is a crowd. Returns the annotation's path."""
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    listed, numbers = [], {}
    for number, (name, image) in enumerate(images.items(), 7):
        Image.fromarray(image).save(folder / "val2017" / name, quality=95)
        height, width = image.shape[:2]
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
        numbers[name] = number
    annotations = [
        {
            "id": i,
            "image_id": numbers[name],
            "category_id": 1,
            "iscrowd": crowd,
            "segmentation": one,
        }
        for i, (name, one, crowd) in enumerate(instances)
    ]
    content = {"info": {"year": 2017}, "images": listed, "annotations": annotations}
    path = folder / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "person"}]}))
    return path


def run_lengths(mask: np.ndarray) -> dict[str, object]:
    """As COCO writes crowds: lengths of runs in column order, zeros first."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[0] else [0, *counts]}
