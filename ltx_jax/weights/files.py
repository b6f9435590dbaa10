"""Weights in files: safetensors, and by name from the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.files import is_there

# How the list of a sharded file's parts ends.
_INDEX = ".safetensors.index.json"
# What may name a part: a line, no longer than file systems take.
_FILE = re.compile(r"[^\0-\x1f]{1,200}\.safetensors")


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a `.safetensors` file, or of one in shards.

    Args:
      path: of the file; or of shards by their `.safetensors.index.json`, or the folder of either.

    Returns:
      Floats of any precision as float32, whole numbers as they are; the metadata of the first
      shard.

    Raises:
      InputError: where a file is missing, of another kind, or damaged.
    """
    tensors: dict[str, np.ndarray] = {}
    metadata: list[dict[str, str]] = []
    for file in files_of(Path(path)):
        found, told = _read_one(file)
        tensors |= found
        metadata.append(told)
    return tensors, metadata[0]


def files_of(path: Path) -> list[Path]:
    """The file itself, or its shards in order.

    Raises:
      InputError: for a folder with several files and no index, or an index that is none.
    """
    if is_there(path, Path.is_dir):
        indices, files = sorted(path.glob(f"[!.]*{_INDEX}")), sorted(path.glob("[!.]*.safetensors"))
        if len(indices) > 1 or (not indices and len(files) != 1):
            told = ", ".join(one.name for one in indices or files) or "none"
            raise InputError(
                f"the folder {path} holds {told}: expected one .safetensors file, or shards with "
                f"one {_INDEX}; give the path of a file"
            )
        return files_of(indices[0]) if indices else files
    if not path.name.endswith(_INDEX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        if not names or not all(map(_FILE.fullmatch, names)):
            raise ValueError("no names of files")
        return [path.parent / Path(name).name for name in names]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no index of shards: fetch it again") from error


def _read_one(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import ml_dtypes  # noqa: F401 numpy knows bfloat16 from then on
    from safetensors import SafetensorError, safe_open

    if not is_there(path, Path.is_file):
        raise InputError(f"no weights at {path}: give the path of a .safetensors file")
    if path.suffix in {".pth", ".pt", ".th", ".ckpt", ".bin", ".tar"}:
        raise InputError(
            f"{path} is a PyTorch file: convert it once with "
            f"`python tools/convert_weights.py {path} {path.with_suffix('.safetensors').name}` "
            "(tools/convert_ltx_checkpoint.py for an explainer, "
            "tools/convert_nn_explainer_checkpoint.py for NN-Explainer's)"
        )
    try:
        # Not as JAX's arrays, which have no 64 bits unless they are told to.
        with safe_open(path, framework="numpy") as file:
            names = tuple(file.keys())
            for name in names:
                _refuse_type(path, name, file.get_slice(name).get_dtype())
            tensors = {name: _at_full_precision(file.get_tensor(name)) for name in names}
            return tensors, dict(file.metadata() or {})
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): fetch it again") from (
            error
        )


def _refuse_type(path: Path, name: str, dtype: str) -> None:
    if not re.fullmatch(r"BOOL|BF16|F(16|32|64)|[IU](8|16|32|64)", dtype):
        raise InputError(
            f"{path} holds {name} as {dtype}: expected floats of 16 to 64 bits, or whole numbers; "
            "save it as those"
        )


def _at_full_precision(array: np.ndarray) -> np.ndarray:
    """Of the types numpy does not know itself (bfloat16), float32 as well."""
    with np.errstate(over="ignore"):  # infinities are refused where weights are used
        return array if array.dtype.kind in "iub" else array.astype(np.float32)


def to_safetensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The content of a `.safetensors` file, the same for the same tensors and metadata.

    The library writes metadata in an order drawn anew each time.
    """
    from safetensors.numpy import save

    content = memoryview(save(dict(tensors)))
    begin = 8 + int.from_bytes(content[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(bytes(content[8:begin]))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, content[begin:]))


def hub_file(repository: str, flag: str) -> Path:
    """Path of a hub repository's `model.safetensors`, downloaded unless it is cached.

    Args:
      repository: e.g. `timm/resnet50.a1_in1k`.
      flag: the setting that takes a local path instead, for the error.

    Raises:
      InputError: offline, or nothing there; says what to download and which flag takes the path.
    """
    address = f"https://huggingface.co/{repository}/resolve/main/model.safetensors"
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise InputError(
            f"fetching {repository} needs `pip install 'ltx_jax[hub]'`: or download {address} and "
            f"give its path with {flag}"
        ) from error
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the hub client raises many kinds; all mean "not to be had"
        raise InputError(
            f"the weights of {repository} are not cached and could not be fetched "
            f"({type(error).__name__}): download {address} and give its path with {flag}"
        ) from error
