"""The original's result files, written byte by byte as PyTorch pickles them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np


def pickled(value: object) -> bytes:
    """What stands for a plain value inside of a pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


def storage_archive(values: np.ndarray, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """A storage as `torch.save` wrote one before PyTorch 1.6, from a GPU."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    told = pickled("0") + pickled("cuda:0") + pickled(values.size) + b"N"
    content = b"\x80\x02(" + pickled("storage") + kind + told + b"tQ."
    return b"".join(
        [
            *(pickle.dumps(part, protocol=2) for part in head),
            content,
            pickle.dumps(["0"], protocol=2),
            values.size.to_bytes(8, "little"),
            values.astype("<f4").tobytes(),
        ]
    )


def storage(archive: bytes) -> bytes:
    """An archive that is read as the pickle is."""
    size = len(archive).to_bytes(4, "little")
    return b"ctorch.storage\n_load_from_bytes\nB" + size + archive + b"\x85R"


def tensor(values: np.ndarray) -> bytes:
    """A tensor over a storage of its own."""
    strides = tuple(int(np.prod(values.shape[i + 1 :])) for i in range(values.ndim))
    rest = pickled(0) + pickled(values.shape) + pickled(strides) + b"\x89"
    hooks = b"ccollections\nOrderedDict\n)R"
    body = storage(storage_archive(values)) + rest + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + body + b"tR"


def dictionary(**values: bytes) -> bytes:
    """A whole pickle of a dictionary of pickled values."""
    items = b"".join(pickled(name) + value for name, value in values.items())
    return b"\x80\x04}(" + items + b"u."


def result(
    mask: np.ndarray, image: np.ndarray, auc: object = 12.5, step: object = 3, **more: bytes
) -> bytes:
    """An image's result: mask [H,W] and image [H,W,3]; more replaces what stands in it."""
    content = {
        "auc": pickled(auc),
        "vis": tensor(mask[None, None]),
        "original_image": tensor(np.moveaxis(image, -1, 0)[None]),
        "epoch_idx": pickled(step),
    }
    return dictionary(**(content | more))


def write_results(folder: Path, masks: np.ndarray, images: np.ndarray, start: int = 0) -> Path:
    """A folder of results: masks [n,H,W] of images [n,H,W,3]."""
    folder.mkdir(parents=True)
    for i, (mask, image) in enumerate(zip(masks, images, strict=True)):
        (folder / f"{start + i}.pkl").write_bytes(result(mask, image, 10.0 + i, i))
    return folder
