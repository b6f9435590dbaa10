"""A PyTorch classifier's .pth as .safetensors; PyTorch itself is not needed.

python tools/convert_weights.py squeezenet1_1-b8a52dc0.pth squeezenet1_1.safetensors
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from torch_archive import read_archive

from ltx_jax.errors import InputError
from ltx_jax.files import write_bytes

# Where checkpoints keep their state dict.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")


def state_dict(content: Any, source: str | Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a checkpoint by their plain names.

    Wrappers and a `module.` prefix are taken off, batch counters left out, and the names that
    torchvision's first DenseNets have (`norm.1`) brought up to date.

    Raises:
      InputError: where there are no tensors.
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {
        re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", str(name).removeprefix("module.")): np.asarray(
            value, np.float32
        )
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, np.ndarray) and not str(name).endswith("num_batches_tracked")
    }
    if not tensors:
        raise InputError(f"{source} holds no state dict: give a checkpoint of a network's weights")
    return tensors


def main() -> int:
    """Convert one file; 0 when done, 2 where it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a .pth, .pt or .ckpt file")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    arguments = parser.parse_args()
    try:
        tensors = state_dict(read_archive(arguments.source), arguments.source)
        write_bytes(arguments.target, save(tensors))
    except InputError as error:
        print(f"convert_weights: {error}", file=sys.stderr)
        return 2
    print(f"{len(tensors)} tensors to {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
