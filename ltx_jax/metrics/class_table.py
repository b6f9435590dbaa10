"""NN-Explainer's class-specific table: what each class's mask shows of images of each class.

Images of class i are seen through the mask of class j: where each class has a mask of its own, its
diagonal is high and the rest is low.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float64, Int64

from ltx_jax.masks.covering import covered
from ltx_jax.metrics.mask_overlap import THRESHOLDS, rounded_down
from ltx_jax.models.explainee import Explainee, in_chunks
from ltx_jax.models.layers import per_channel


def seen_through(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    masks: Float[Array, "n j H W"],
    chunk: int | None = None,
) -> Float[Array, "n j classes"]:
    """The softmax of the answer to an image through each of its masks, whatever the explainee's
    link; the mean over the thresholds 0.1, 0.2 … 0.9, above which a pixel is seen as it is. Others
    are of the explainee's mean colour, as NN-Explainer masks, after normalisation.

    Args:
      explainee: the classifier.
      images: in [0,1].
      masks: of each image one for each of j classes, in [0,1].
      chunk: most images in one forward of the explainee.
    """
    colour = per_channel(explainee.mean_colour, images)
    thresholds = jnp.asarray([rounded_down(threshold) for threshold in THRESHOLDS])

    def of_class(masks: Float[Array, "n H W"]) -> Float[Array, "n classes"]:
        def above(threshold: Float[Array, ""]) -> Float[Array, "n classes"]:
            shown = covered(images, masks > threshold, colour)
            return jax.nn.softmax(in_chunks(explainee, shown, chunk))

        return jax.lax.map(above, thresholds).mean(0)

    return jnp.moveaxis(jax.lax.map(of_class, jnp.moveaxis(masks, 1, 0)), 0, 1)


def class_means(
    rows: Sequence[Mapping[int, Sequence[float]]], classes: Sequence[int], masks: int
) -> tuple[Float64[np.ndarray, "i j"], Int64[np.ndarray, " i"]]:
    """The table, and how many images each of its rows rests on.

    Args:
      rows: of each image, by those of the classes that it has, its probability through each mask.
      classes: of the table.
      masks: how many there are.

    Returns:
      Means in [0,1], NaN in the row of a class of which there is no image; and the numbers.
    """
    found = [[row[i] for row in rows if i in row] for i in classes]
    nothing = [np.full(masks, np.nan)]
    means = np.stack([np.mean(each or nothing, axis=0, dtype=np.float64) for each in found])
    return means, np.array([len(each) for each in found], np.int64)
