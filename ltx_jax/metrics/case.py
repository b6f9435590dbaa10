"""Masks to be scored, and what several scores need of them, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, UInt8

from ltx_jax.masks.covering import Fill, covered
from ltx_jax.metrics.perturbation import Areas, Curves, perturbation_curves
from ltx_jax.models.explainee import Explainee, in_chunks
from ltx_jax.models.layers import per_channel


@dataclass(frozen=True, eq=False)
class Case:
    """Masks of n images for k classes each, under JAX's tracing.

    Attributes:
      explainee: the classifier.
      images: in [0,1].
      logits: of the images as they are.
      classes: to score for.
      masks: pixel masks in [0,1].
      order: values that rank the pixels; the masks where nothing finer is known.
      relevance: what adds up over pixels; the masks, or maps that say below zero what speaks
        against the class.
      truth: the pixels of the object of the first class; None where no source knows any.
      beside: the pixels of objects of other classes.
      counted: pixels that count in a comparison with the truth.
      known_truth: for which images there is a truth.
      other: another image beside each, NaN where there is none; None where nobody asks for it.
      without: each image without each of its parts, 0 to 255; as it is for one that it has not.
        None where nobody asks for it.
      chunk: most images in one forward of the explainee.
      known: areas under perturbation curves, the fill black, that are known already, by whether
        the most relevant pixels went first.
    """

    explainee: Explainee
    images: Float[Array, "n H W C"]
    logits: Float[Array, "n classes"]
    classes: Int[Array, "n k"]
    masks: Float[Array, "n H W"]
    order: Float[Array, "n H W"]
    relevance: Float[Array, "n H W"]
    truth: Bool[Array, "n H W"] | None = None
    beside: Bool[Array, "n H W"] | None = None
    counted: Bool[Array, "n H W"] | None = None
    known_truth: Bool[Array, " n"] | None = None
    other: Float[Array, "n H W C"] | None = None
    without: UInt8[Array, "n p H W C"] | None = None
    chunk: int | None = None
    known: Mapping[bool, Areas] = field(default_factory=dict)
    _computed: dict[tuple[bool, Fill], Curves] = field(default_factory=dict)

    @property
    def most_relevant_first(self) -> Areas:
        """Areas under the curves as the most relevant pixels go first, the fill black."""
        return self.areas(True)

    @property
    def least_relevant_first(self) -> Areas:
        """The same as the least relevant pixels go first."""
        return self.areas(False)

    def curves(self, most_relevant_first: bool, fill: Fill = "black") -> Curves:
        """The perturbation curves in either order, under any fill; those of a named one once."""
        if not isinstance(fill, str):
            return self._curves(most_relevant_first, fill)
        which = most_relevant_first, fill
        if which not in self._computed:
            self._computed[which] = self._curves(*which)
        return self._computed[which]

    @cached_property
    def masked_logits(self) -> Float[Array, "n classes"]:
        """Logits through the mask."""
        return in_chunks(self.explainee, covered(self.images, self.masks), self.chunk)

    @cached_property
    def shares(self) -> Float[Array, "n classes"]:
        """The softmax of the answer through the mask, whatever the explainee's link. What is hidden
        is of its mean colour, as NN-Explainer masks, after normalisation."""
        colour = per_channel(self.explainee.mean_colour, self.images)
        shown = covered(self.images, self.masks, colour)
        return jax.nn.softmax(in_chunks(self.explainee, shown, self.chunk))

    @cached_property
    def parts(self) -> tuple[Bool[Array, "n p H W"], Float[Array, "n p classes"]]:
        """Where each part of an image is seen, nowhere for one that it has not; and the logits of
        the image without it."""
        assert self.without is not None
        n, p, *shape = self.without.shape
        without = self.without.astype(jnp.float32) / 255
        # Compared as pictures are, in steps of 1/255.
        parts = (jnp.abs(without - self.images[:, None]) > 0.5 / 255).any(-1)
        logits = in_chunks(self.explainee, without.reshape(n * p, *shape), self.chunk)
        return parts, logits.reshape(n, p, -1)

    def probability(self, logits: Float[Array, "n classes"]) -> Float[Array, "n k"]:
        """The probability of each of the classes."""
        return self.explainee.probability(logits[:, None], self.classes)

    def areas(self, most_relevant_first: bool, fill: Fill = "black") -> Areas:
        """Areas under the curves in either order, under any fill."""
        if isinstance(fill, str) and fill == "black" and most_relevant_first in self.known:
            return self.known[most_relevant_first]
        return self.curves(most_relevant_first, fill).areas()

    def _curves(self, most_relevant_first: bool, fill: Fill) -> Curves:
        return perturbation_curves(
            self.explainee,
            self.images,
            self.order,
            self.classes,
            self.logits,
            most_relevant_first,
            self.chunk,
            fill,
        )
