"""Which classes of an image are explained where it is not the predicted one or a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltx_jax.data.examples import Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.memory import batch_of_use, batch_within_memory
from ltx_jax.engine.scoring import in_groups, predict
from ltx_jax.engine.sharding import replicate
from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee
from ltx_jax.progress import progress_bar

# Classes of each image; None where nothing is known of them.
Held = Sequence[tuple[int, ...] | None]


def classes_held(source: Source, how: Preprocessing, explainee: Explainee) -> Held:
    """The classes that an explainee holds to be in each image (`Explainee.held`), each of which is
    predicted once.

    Returns:
      In ascending order; None for an image that cannot be read, or whose logits are not finite,
      which whoever explains it finds as well.

    Raises:
      InputError: where memory runs out.
    """
    batch = batch_of_use(explainee, len(source))
    network = replicate(explainee, batch.mesh)
    found: list[tuple[int, ...] | None] = [None] * len(source)
    each = iterate(source, how, range(len(source)), 2 * batch.images)
    with progress_bar(len(source), "images", "predicting") as bar:
        for group in in_groups(each, batch.images):
            read = {i: one for i, one in group if not isinstance(one, UnreadableImage)}
            if read:
                images = [example.as_input() for example in read.values()]
                with batch_within_memory(batch):
                    logits = predict(network, images, batch.images, batch.mesh)
                for i, row in zip(read, logits, strict=True):
                    held = np.flatnonzero(explainee.held(row)).tolist()
                    found[i] = tuple(held) if np.isfinite(row).all() else None
            bar.update(len(group))
    return found


def chosen_classes(named: Sequence[str | int], explainee: Explainee) -> tuple[int, ...]:
    """Classes by their names or numbers, ascending and each once; all of them where none is named.

    Raises:
      InputError: for one that the explainee does not have.
    """
    if not named:
        return tuple(range(explainee.classes))
    return tuple(sorted({_class(one, explainee) for one in named}))


def _class(named: str | int, explainee: Explainee) -> int:
    named = str(named)
    if (index := class_called(named, explainee)) is not None:
        return index
    if named.isascii() and named.isdecimal() and int(named) < explainee.classes:
        return int(named)
    known = ", ".join(explainee.class_names) or "it has no names"
    raise InputError(
        f"config.classes has {named!r}: give classes of {explainee.name} by name ({known}) or by "
        f"number, 0 to {explainee.classes - 1}"
    )


def class_called(name: str, explainee: Explainee) -> int | None:
    """The index of a class by its name; None where none is called that.

    Raises:
      InputError: where several are, as two of ImageNet's are called crane.
    """
    found = [i for i, known in enumerate(explainee.class_names) if known == name]
    if len(found) > 1:
        raise InputError(
            f"classes {', '.join(map(str, found))} of {explainee.name} are all called {name!r}: "
            "give the number of the one that is meant"
        )
    return found[0] if found else None
