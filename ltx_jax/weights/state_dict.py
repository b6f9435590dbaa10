"""A network's weights as PyTorch names them, to and from our variables: strict both ways.

A *state dict* maps tensor names to numpy arrays in PyTorch's layout. *Variables* are nested
dictionaries of our arrays. A *table* is a list of `Entry`, one for each of them; nothing else
decides what goes where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import numpy as np

from ltx_jax.errors import InputError

StateDict = Mapping[str, np.ndarray]
Variables = dict[str, Any]
# Variables by their path, `params/backbone/blocks/fc1/kernel`.
Leaves = dict[str, Any]
# PyTorch counts training batches in its batch norms; a frozen network has no use for it.
_IGNORED_SUFFIX = "num_batches_tracked"
# What trainers put in front of a network's own names.
_WRAPPERS = ("module.", "_orig_mod.", "state_dict.", "model_ema.", "ema.", "model.", "backbone.")


@dataclass(frozen=True)
class Entry:
    """One leaf of the variables and the checkpoint tensors it is made of.

    Attributes:
      path: the leaf, e.g. `params/blocks/attention/qkv/kernel`.
      names: the checkpoint's tensor names. One name is the leaf itself; for a stack of scanned
        layers there is one a layer, stacked along axis 0.
      stacked: whether `names` are to be stacked.
    """

    path: str
    names: tuple[str, ...]
    stacked: bool = False


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by their path, `params/blocks/attention/qkv/kernel`."""
    leaves: dict[str, Any] = {}
    for name, value in variables.items():
        if isinstance(value, Mapping):
            leaves |= {f"{name}/{path}": leaf for path, leaf in flatten(value).items()}
        else:
            leaves[name] = value
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> Variables:
    """The inverse of `flatten`."""
    variables: Variables = {}
    for path, leaf in leaves.items():
        *inside, last = path.split("/")
        place = variables
        for name in inside:
            place = place.setdefault(name, {})
        place[last] = leaf
    return variables


def plain(path: str, name: str) -> list[Entry]:
    """A leaf that is its tensor."""
    return [Entry(f"params/{path}", (name,))]


def layer(path: str, name: str, bias: bool = True) -> list[Entry]:
    """A dense layer or convolution: `weight` to `kernel`, and its bias."""
    entries = plain(f"{path}/kernel", f"{name}.weight")
    return entries + plain(f"{path}/bias", f"{name}.bias") if bias else entries


def norm(path: str, name: str) -> list[Entry]:
    """A layer norm."""
    return plain(f"{path}/scale", f"{name}.weight") + plain(f"{path}/bias", f"{name}.bias")


def batch_norm(path: str, name: str) -> list[Entry]:
    """A batch norm with its running statistics."""
    statistics = [
        Entry(f"batch_stats/{path}/{ours}", (f"{name}.running_{ours}",)) for ours in ("mean", "var")
    ]
    return norm(path, name) + statistics


def stack(entries: Iterable[Entry], layers: Iterable[int]) -> list[Entry]:
    """Entries whose names hold `{i}`, stacked over the given layer numbers."""
    numbers = list(layers)
    return [
        replace(e, names=tuple(e.names[0].format(i=i) for i in numbers), stacked=True)
        for e in entries
    ]


def numbered(entries: Iterable[Entry], number: int) -> list[Entry]:
    """Entries whose names hold `{i}`, for one layer by itself."""
    return [replace(e, names=(e.names[0].format(i=number),)) for e in entries]


def under(prefix: str, entries: Iterable[Entry]) -> list[Entry]:
    """The same entries for a module that is named `prefix` inside another."""
    moved = []
    for entry in entries:
        collection, _, path = entry.path.partition("/")
        moved.append(replace(entry, path=f"{collection}/{prefix}/{path}"))
    return moved


def from_state_dict(
    state: StateDict,
    table: Sequence[Entry],
    template: Variables,
    source: str,
    unused: Sequence[str] = (),
) -> Variables:
    """A network's variables from a state dict.

    Args:
      state: name → array in PyTorch's layout.
      table: one entry for each leaf of `template`.
      template: variables or their shapes (`jax.eval_shape` of the module's `init`).
      source: what the weights are, for the error.
      unused: name prefixes that may be present without being used (an explainer leaves out its
        backbone's classifier).

    Returns:
      Variables of float32 numpy arrays.

    Raises:
      InputError: naming every tensor that is missing, unexpected or misshapen, that is quantised,
        or that holds NaN or an infinity.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(template).items()}
    if {entry.path for entry in table} != set(shapes):
        raise AssertionError("the weight table does not cover the network")
    missing, misshapen = [], []
    found: dict[str, list[np.ndarray]] = {entry.path: [] for entry in table}
    for entry in table:
        shape = shapes[entry.path][1:] if entry.stacked else shapes[entry.path]
        for name in entry.names:
            if name not in state:
                missing.append(name)
            elif (array := _from_torch(np.asarray(state[name]), shape, entry.path)) is None:
                have, want = tuple(state[name].shape), _torch_shape(shape, entry.path)
                misshapen.append(f"{name} {have} instead of {want}")
            else:
                found[entry.path].append(array)
    _refuse(source, missing, _unexpected(state, table, unused), misshapen)
    _refuse_no_numbers(source, {n: state[n] for entry in table for n in entry.names})
    return unflatten(
        {e.path: np.stack(found[e.path]) if e.stacked else found[e.path][0] for e in table}
    )


def _refuse_no_numbers(source: str, used: StateDict) -> None:
    whole = [name for name, array in used.items() if array.dtype.kind in "iub"]
    if whole:
        raise InputError(
            f"{source} is quantised, with {used[whole[0]].dtype} in {', '.join(collapse(whole))}: "
            "give its weights in floats"
        )
    broken = [name for name, array in used.items() if not np.isfinite(array).all()]
    if broken:
        raise InputError(
            f"{source} holds values that are no finite numbers, in {', '.join(collapse(broken))}: "
            "fetch them again, or take those of an earlier step of their training"
        )


def unwrapped(state: StateDict) -> StateDict:
    """The state dict without the prefixes that wrappers gave to all of its names."""
    for wrapper in _WRAPPERS if state else ():
        if all(name.startswith(wrapper) for name in state):
            return unwrapped({n.removeprefix(wrapper): tensor for n, tensor in state.items()})
    return state


def _unexpected(state: StateDict, table: Sequence[Entry], unused: Sequence[str]) -> list[str]:
    """Names of tensors that the table has no place for."""
    wanted = {name for entry in table for name in entry.names}
    return [
        name
        for name in state
        if name not in wanted
        and not name.startswith(tuple(unused))
        and not name.endswith(_IGNORED_SUFFIX)
    ]


def to_state_dict(variables: Variables, table: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The inverse of `from_state_dict`, in PyTorch's layout; `variables` may be a part."""
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    state = {}
    for entry in table:
        if entry.path not in leaves:
            continue
        parts = leaves[entry.path] if entry.stacked else [leaves[entry.path]]
        for name, part in zip(entry.names, parts, strict=True):
            state[name] = _to_torch(part, entry.path)
    return state


@cache
def shapes_of(module: Any, image_size: tuple[int, int], channels: int = 3) -> Variables:
    """A module's variables as shapes, without computing anything; not to be changed."""
    image = jax.ShapeDtypeStruct((1, *image_size, channels), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image)


def _torch_shape(shape: tuple[int, ...], path: str) -> tuple[int, ...]:
    return _to_torch(np.empty(shape, np.bool_), path).shape


def _to_torch(array: np.ndarray, path: str) -> np.ndarray:
    if path.endswith("/kernel"):
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return np.ascontiguousarray(array)


def _from_torch(array: np.ndarray, expected: tuple[int, ...], path: str) -> np.ndarray | None:
    """PyTorch's layout to ours, or None where the shape does not fit."""
    if path.endswith("/kernel"):
        if array.ndim == 4 and len(expected) == 2 and array.shape[2:] == (1, 1):
            array = array[:, :, 0, 0]  # a 1×1 convolution that we compute as a dense layer
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return np.ascontiguousarray(array, np.float32) if array.shape == tuple(expected) else None


def _refuse(
    source: str, missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]
) -> None:
    problems = [
        f"{len(names)} {kind}: {', '.join(collapse(names))}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{source} does not fit the network ({'; '.join(problems)}): "
            "check the network's name and its number of classes, or give the weights made for it"
        )


def collapse(names: Sequence[str]) -> list[str]:
    """Names that differ only in their first number as one, e.g. `blocks.{0-11}.norm1.weight`."""
    groups: dict[tuple[str, str], list[int]] = {}
    for name in names:
        match = re.match(r"([^\d]*)(\d+)(\..*)$", name)
        if match:
            groups.setdefault((match[1], match[3]), []).append(int(match[2]))
        else:
            groups.setdefault((name, ""), [])
    return [
        head + (_ranges(numbers) if numbers else "") + tail
        for (head, tail), numbers in groups.items()
    ]


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return text if len(numbers) == 1 else "{" + text + "}"
