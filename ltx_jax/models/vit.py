"""Plain vision transformers: ViT and DeiT of every size (Dosovitskiy et al. 2021; Touvron 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from ltx_jax.models.layers import Intermediates

if TYPE_CHECKING:
    from jaxtyping import Float


class PatchEmbedding(nn.Module):
    """Non-overlapping patches projected to tokens.

    The parameters are those of a convolution whose stride is its kernel size; computed as one
    matrix product, whose gradient with respect to the image is one as well.
    """

    patch_size: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "n H W 3"]) -> Float[Array, "n t d"]:
        p = self.patch_size
        shape = (p, p, images.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        n, height, width, channels = images.shape
        grid = images.reshape(n, height // p, p, width // p, p, channels)
        patches = grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, p * p * channels)
        flat_kernel = kernel.reshape(-1, self.width).astype(self.dtype)
        return patches.astype(self.dtype) @ flat_kernel + bias.astype(self.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        n, t, d = tokens.shape
        qkv = nn.Dense(3 * d, dtype=self.dtype, name="qkv")(tokens)
        heads = qkv.reshape(n, t, 3, self.num_heads, -1)
        query, key, value = heads.transpose(2, 0, 3, 1, 4)  # [n,heads,t,d/heads] each
        scores = (query * query.shape[-1] ** -0.5) @ key.swapaxes(-1, -2)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
        mixed = (weights @ value).swapaxes(1, 2).reshape(n, t, d)
        return nn.Dense(d, dtype=self.dtype, name="proj")(mixed)


class Block(nn.Module):
    """One pre-norm transformer block; returns its output twice, as a scan body does."""

    num_heads: int
    mlp_width: int
    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "n t d"], _: None = None
    ) -> tuple[Float[Array, "n t d"], Float[Array, "n t d"]]:
        def norm(name: str) -> nn.Module:
            return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)

        attention = Attention(self.num_heads, self.dtype, name="attention")
        tokens = tokens + attention(norm("norm1")(tokens))
        hidden = nn.Dense(self.mlp_width, dtype=self.dtype, name="fc1")(norm("norm2")(tokens))
        hidden = nn.gelu(hidden, approximate=False)
        tokens = tokens + nn.Dense(tokens.shape[-1], dtype=self.dtype, name="fc2")(hidden)
        return tokens, tokens


class VisionTransformer(nn.Module):
    """A ViT whose blocks are stacked and scanned, so that depth costs no compile time.

    Attributes:
      image_size: side of the square input in pixels.
      patch_size: side of a patch in pixels.
      width, depth, num_heads, mlp_ratio: the usual sizes.
      num_classes: 0 for a network without classifier.
      frozen_blocks: the first blocks, kept as a parameter stack of their own
        (`frozen_blocks` beside `blocks`) so that an optimizer can leave them out whole.
      epsilon: of the layer norms.
      dtype: compute type; parameters stay float32.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    frozen_blocks: int = 0
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along height and width."""
        side = self.image_size // self.patch_size
        return side, side

    @nn.compact
    def __call__(self, images: Float[Array, "n H W 3"]) -> tuple[Array, Intermediates]:
        """Normalised images to (logits, intermediates).

        Intermediates: `embedding` [n,t,d], `blocks` [depth,n,t,d] (outputs), `features`
        [n,g,g,d] (patch tokens after the last norm), `class_token` [n,d]. Without classes the
        logits are the class token.
        """
        tokens = PatchEmbedding(self.patch_size, self.width, self.dtype, name="patch_embed")(images)
        n, t, d = tokens.shape
        class_token = self.param("cls_token", nn.initializers.zeros, (1, 1, d))
        position = self.param("pos_embed", nn.initializers.normal(0.02), (1, t + 1, d))
        first = jnp.broadcast_to(class_token.astype(self.dtype), (n, 1, d))
        tokens = jnp.concatenate([first, tokens], axis=1) + position.astype(self.dtype)
        out: Intermediates = {"embedding": tokens}
        outputs = []
        if self.frozen_blocks:
            tokens, each = self._stack("frozen_blocks", self.frozen_blocks)(tokens, None)
            outputs.append(each)
        tokens, each = self._stack("blocks", self.depth - self.frozen_blocks)(tokens, None)
        out["blocks"] = jnp.concatenate([*outputs, each])
        tokens = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(tokens)
        out["class_token"] = tokens[:, 0]
        out["features"] = tokens[:, 1:].reshape(n, *self.grid, d)
        if not self.num_classes:
            return tokens[:, 0], out
        head = nn.Dense(self.num_classes, dtype=self.dtype, name="head")
        return head(tokens[:, 0]), out

    def _stack(self, name: str, length: int) -> nn.Module:
        # Recomputing a block in the backward pass beats storing its activations even in time on a
        # CPU, and it bounds the memory of a slot.
        scanned = nn.scan(
            nn.remat(Block, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=length,
        )
        mlp_width = int(self.width * self.mlp_ratio)
        return scanned(self.num_heads, mlp_width, self.epsilon, self.dtype, name=name)
