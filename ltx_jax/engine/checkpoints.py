"""Checkpoints of a training, from which it goes on after a kill at any moment (Orbax)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten
from jaxtyping import UInt32

from ltx_jax.engine.sharding import REPLICATED
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of
from ltx_jax.runtime import all_managed

# The name of the score that the best checkpoint is kept by; lower is better.
_SCORE = "score"
_DAMAGED = "damaged-"
_SUMS, _NOTES, _DIGEST = "sums", "notes", "sha256"
_COMMITTED = "commit_success.txt"


class Checkpoints:
    """The checkpoints of a training by its steps, each there as a whole or not at all.

    The newest ones are kept, and the one with the best score. Writing goes on beside the training;
    one that was not finished is as if it had not begun.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        """Open a directory of checkpoints, or make one.

        Args:
          directory: theirs alone.
          keep: how many of the newest.
        """
        from orbax.checkpoint import v1 as ocp

        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[_SCORE],
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._directory = directory.absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self._directory,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )

    def save(
        self, step: int, state: Any, notes: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Begin to write a checkpoint, once the one before is written.

        Args:
          step: taken so far.
          state: pytree of arrays; it may be donated as soon as this returns.
          notes: what else is to be known, as it is now; JSON types.
          score: of the state, where it has one; lower is better.

        Raises:
          InputError: where the disk did not take the one before, or does not take this.
        """
        # Written later, when they may have changed.
        notes = json.loads(json.dumps(notes))
        metrics = None if score is None else {_SCORE: score}
        with self._written():
            self._checkpointer.save_async(
                step,
                _by_name(state) | {_SUMS: _sums(jax.tree.leaves(state))},
                force=True,
                overwrite=True,
                metrics=metrics,
                custom_metadata={_NOTES: notes, _DIGEST: _digest(notes)},
            )

    def close(self) -> None:
        """Wait until all is written.

        Raises:
          InputError: where the disk does not take it.
        """
        with self._written():
            self._checkpointer.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            told = " ".join(str(error).split())
            reason = "No space left on device" if "No space left" in told else told[:200]
            raise InputError(
                f"cannot write {self._directory} ({reason}): choose a work directory with room "
                "where you may write, or make room, and the same command goes on"
            ) from error


def newest(directory: Path, template: Any, mesh: Mesh) -> tuple[Any, dict[str, Any]] | None:
    """The newest checkpoint that can be read, and its notes; None where there is none. One that
    cannot be read is put aside, and the one before taken.

    Args:
      directory: of the checkpoints; need not be there.
      template: a state of the same form, on the devices where the checkpoint's is to be.
      mesh: these devices.

    Raises:
      InputError: where there are checkpoints, and none can be read.
    """
    named = (p for p in directory.glob("[0-9]*") if p.name.isdecimal() and p.is_dir())
    steps = sorted((int(path.name) for path in named), reverse=True)
    for step in steps:
        path = directory.absolute() / str(step)
        found, reason = _read(path, template, mesh)
        if all_managed(found is not None):
            return found
        logging.warning("checkpoint %s cannot be read (%s): going by the one before", path, reason)
        if jax.process_index() == 0:
            path.rename(_put_aside(path))
        all_managed(True)
    # Nor are they the next time: a training that begins anew would write over what it has left.
    if steps or any(directory.glob(f"{_DAMAGED}*")):
        raise InputError(
            f"none of the checkpoints in {directory} can be read: put back what the training "
            f"wrote ({_DAMAGED}N was N), or use another work directory"
        )
    return None


def of_step(
    directory: Path, step: int, template: Any, mesh: Mesh
) -> tuple[Any, dict[str, Any]] | None:
    """The checkpoint of a step, see `newest`; None where a process cannot read it."""
    found, _ = _read(directory.absolute() / str(step), template, mesh)
    return found if all_managed(found is not None) else None


def _put_aside(path: Path) -> Path:
    """A name for a damaged checkpoint that no earlier one has."""
    name = path.with_name(_DAMAGED + path.name)
    others = (name.with_name(f"{name.name}-{k}") for k in count(1))
    return next(one for one in chain((name,), others) if not one.exists())


def _read(path: Path, template: Any, mesh: Mesh) -> tuple[tuple[Any, dict[str, Any]] | None, str]:
    """State and notes, or why there are none."""
    from orbax.checkpoint import v1 as ocp

    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), template
    )
    if not (path / _COMMITTED).exists():
        return None, "it was not finished"
    try:
        told = ocp.checkpointables_metadata(path).custom_metadata
        sums = jax.ShapeDtypeStruct(
            (len(jax.tree.leaves(template)),), jnp.uint32, sharding=NamedSharding(mesh, REPLICATED)
        )
        named = ocp.load(path, _by_name(abstract) | {_SUMS: sums})
    except Exception as error:  # damage breaks Orbax in more ways than it names
        return None, " ".join(str(error).split())[:200] or type(error).__name__
    leaves = [named[_name(leaf)] for leaf, _ in tree_flatten_with_path(template)[0]]
    same = (_sums(leaves) == named[_SUMS]).all()
    if not same or told.get(_DIGEST) != _digest(told.get(_NOTES)):
        return None, "it does not hold what was written"
    return (tree_unflatten(jax.tree.structure(template), leaves), told[_NOTES]), ""


def _digest(notes: Any) -> str:
    return digest_of([json.dumps(notes, sort_keys=True).encode()])


@jax.jit
def _sums(leaves: list[Array]) -> UInt32[Array, " leaves"]:
    """A sum of the bits of each leaf, which no single damaged byte leaves as it was: Orbax does not
    see damage inside the numbers."""
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
    bits = [jax.lax.bitcast_convert_type(leaf, words[leaf.dtype.itemsize]) for leaf in leaves]
    return jnp.stack([word.astype(jnp.uint32).sum(dtype=jnp.uint32) for word in bits])


def _by_name(state: Any) -> dict[str, Any]:
    """The leaves by their names, so that a file does not depend on the types of containers."""
    return {_name(path): leaf for path, leaf in tree_flatten_with_path(state)[0]}


def _name(path: Any) -> str:
    return keystr(path, simple=True, separator=".")
