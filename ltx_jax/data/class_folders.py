"""Images that lie in a folder for each class, one level down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ltx_jax.data.image_files import FileSource, held_by, is_image, kind_of, readable
from ltx_jax.errors import InputError
from ltx_jax.files import is_there


def open_class_folders(folder: Path) -> FileSource:
    """The images of a folder of folders; a class is the place of its folder in their sorted order.

    Args:
      folder: hidden files and folders in it are left out, and files that are no images.

    Raises:
      InputError: where an image lies beside the folders or below them, or one holds none.
    """
    if not is_there(folder, Path.is_dir):
        raise InputError(f"{folder} is no folder: expected one that holds a folder for each class")
    entries = held_by(folder)
    names = [entry.name for entry in entries if kind_of(entry) == "folder"]
    files = [entry.name for entry in entries if kind_of(entry) != "folder"]
    if beside := [name for name in files if is_image(name)]:
        raise InputError(
            f"{readable(beside[0])} lies beside the folders of {folder}: expected each image in a "
            "folder that is its class"
        )
    if not names:
        raise InputError(f"no folders in {folder}: expected one for each class")
    return of_folders(folder, {name: i for i, name in enumerate(names)})


def of_folders(folder: Path, classes: Mapping[str, int]) -> FileSource:
    """The images of some folders of a folder, in sorted order.

    Args:
      folder: that holds them.
      classes: the class index of each, by its name.

    Raises:
      InputError: where one holds no image, or a further folder.
    """
    inside, labels = [], []
    for name, index in sorted(classes.items()):
        images = _images_in(folder / name)
        inside += [f"{name}/{image}" for image in images]
        labels += [(index,)] * len(images)
    names = {index: readable(name) for name, index in classes.items()}
    return FileSource.of(folder, inside, labels, names)


def _images_in(folder: Path) -> list[str]:
    images = []
    for entry in held_by(folder):
        kind = kind_of(entry)
        if kind == "folder":
            raise InputError(
                f"{folder} holds the folder {readable(entry.name)}: expected images alone in the "
                "folder of a class"
            )
        if kind == "file" and is_image(entry.name):
            images.append(entry.name)
    if not images:
        raise InputError(
            f"no images in {folder}: expected some in the folder of each class, or no folder"
        )
    return images
