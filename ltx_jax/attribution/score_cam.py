"""Score-CAM (Wang et al. 2020)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import seen
from ltx_jax.attribution.last_map import last_map, weighted
from ltx_jax.attribution.rival import Rival, each_of
from ltx_jax.masks.spanning import spanning
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.links import of_class

# Forwards at a time.
_CHUNK = 32


@jax.jit
def score_cam(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, "n ..."]
) -> Float[Array, "n ... g h"]:
    """The positive part of the channels of the last map, weighted with the softmax over channels of
    the target's logit for what each of them shows of the image (eq. 6, algorithm 1).

    A channel, enlarged to the image and scaled to span [0,1], is multiplied with what the network
    reads, the normalised image: what it hides is the mean colour. The paper's baseline, the logit
    where all is hidden, is the same for all channels and falls out of the softmax.

    Raises:
      InputError: where the explainee gives no intermediates, or no `input` and `features` among
        them.
    """
    _, found = seen(explainee, images, ["input", "features"], "Score-CAM")
    maps, inputs = last_map(found).astype(jnp.float32), found["input"]
    n, g, h, channels = maps.shape
    classes = targets.reshape(n, -1)

    def scores(pairs: Array) -> Array:
        image, channel = jnp.divmod(pairs, channels)
        masks = spanning(enlarged(maps[image, :, :, channel], explainee.image_size))
        hidden = inputs[image] * (masks[..., None] - 1)
        logits, _ = explainee.intermediates(images[image], {"input": hidden})
        return of_class(logits[:, None], classes[image])

    found_scores = each_of(n * channels, scores, _CHUNK).reshape(n, channels, -1)
    weights = jax.nn.softmax(found_scores, axis=1).swapaxes(1, 2)
    each = weighted(maps[:, None], weights[:, :, None, None])
    return jax.nn.relu(each).reshape(*targets.shape, g, h)


def enlarged(maps: Float[Array, "n g h"], size: tuple[int, int]) -> Float[Array, "n H W"]:
    """Maps interpolated linearly, the corners of both lying on each other."""

    def shares(cells: int, pixels: int) -> Array:
        places = jnp.linspace(0, cells - 1, pixels)[:, None]
        centres = jnp.arange(cells, dtype=jnp.float32)[None]
        return jax.nn.relu(1 - jnp.abs(places - centres))

    rows, columns = (shares(*sizes) for sizes in zip(maps.shape[1:], size, strict=True))
    return jnp.einsum("Hg,ngh,Wh->nHW", rows, maps, columns, precision="highest")


SCORE_CAM = Rival(
    "score_cam",
    "Score-CAM",
    "Wang, Wang, Du, Yang, Zhang, Ding, Mardziel & Hu, CVPR Workshops 2020",
    "1 forward a channel of the last map",
    score_cam,
    in_parts=True,
    of_classes=True,
)
