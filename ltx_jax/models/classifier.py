"""A classifier as it is trained: a network, and which of its leaves an optimizer changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
from jaxtyping import Float

from ltx_jax.models.architecture import Architecture
from ltx_jax.models.layers import STATISTICS, normalised, precision, statistics_of
from ltx_jax.models.links import of_answers, one_is_the_answer
from ltx_jax.weights.state_dict import Leaves, flatten, unflatten


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["trained", "frozen"],
    meta_fields=["architecture", "link"],
)
@dataclass(frozen=True, eq=False)
class Classifier:
    """A network by name with its leaves: those that are trained, and those that are not.

    Attributes:
      architecture: the network.
      link: `softmax` or `sigmoid`, see `Explainee`.
      trained: leaves by path that an optimizer changes.
      frozen: the other leaves by path.
    """

    architecture: Architecture
    link: str
    trained: Any
    frozen: Any

    @property
    def statistics(self) -> Leaves:
        """Of its batch norms, which a training of the whole network moves."""
        return statistics_of(self.frozen)

    @property
    def whole(self) -> bool:
        """Whether all of its parameters are trained."""
        return not any(path.startswith("params/") for path in self.frozen)

    @property
    def single(self) -> bool:
        """Whether one class is the answer, see `Explainee`."""
        return one_is_the_answer(self.architecture.module.num_classes, self.link)

    def logits(self, images: Float[Array, "n H W C"]) -> Float[Array, "n classes"]:
        """Of images in [0,1], in evaluation mode; of one logit those of no and yes."""
        logits: Array = self.architecture.apply(unflatten(self.trained | self.frozen), images)
        return of_answers(logits)

    def logits_in_training(
        self, trained: Leaves, statistics: Leaves, images: Float[Array, "n H W C"], rng: Array
    ) -> tuple[Float[Array, "n classes"], Leaves]:
        """Logits as the network is while it is trained, and its statistics moved by the batch."""
        how, module = self.architecture.preprocessing, self.architecture.module
        # Batch norms of frozen features stay as they are; what has none may drop in its classifier.
        if self.whole or not self.statistics:
            module = module.in_training()
        given = unflatten(self.frozen | statistics | trained)
        with precision(module.dtype):
            (logits, _), moved = module.apply(
                given,
                normalised(images, how.mean, how.std),
                mutable=[STATISTICS],
                rngs={"dropout": rng},
            )
        told = flatten(moved)
        return of_answers(logits), {path: told[path] for path in statistics}
