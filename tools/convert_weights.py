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

from ltx_jax.errors import InputError
from ltx_jax.files import write_bytes
from ltx_jax.weights.state_dict import unwrapped
from ltx_jax.weights.torch_archive import read_archive

# Where checkpoints keep their state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "model_ema", "ema")
# What batch norms and averaged models count: no weights.
_COUNTERS = ("num_batches_tracked", "n_averaged")


def state_dict(content: Any, source: str | Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a checkpoint by their plain names.

    Wrappers and prefixes (`module.`, `_orig_mod.` …) are taken off, counters left out, and the
    names that torchvision's first DenseNets have (`norm.1`) brought up to date.

    Raises:
      InputError: where there are no tensors.
    """
    for _ in _WRAPPERS:  # no deeper: a file can hold itself
        content = _inside(content)
    tensors = {
        # A copy in row-major order, whatever strides the tensor had.
        re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", str(name)): np.array(
            value, np.float32, order="C"
        )
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, np.ndarray) and not str(name).endswith(_COUNTERS)
    }
    if not tensors:
        raise InputError(
            f"{source} holds no state dict: expected tensors by name, or under "
            f"{', '.join(_WRAPPERS)}; save the network's state_dict()"
        )
    return dict(unwrapped(tensors))


def _inside(content: Any) -> Any:
    """What a wrapper holds; anything else is itself."""
    if not isinstance(content, Mapping):
        return content
    return next((c for name in _WRAPPERS if isinstance(c := content.get(name), Mapping)), content)


def main() -> int:
    """Convert one file; 0 when done, 2 where it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a .pth, .pt, .th or .ckpt file")
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
