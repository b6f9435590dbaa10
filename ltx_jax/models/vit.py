"""Plain vision transformers: ViT and DeiT of every size (Dosovitskiy et al. 2021; Touvron 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from ltx_jax.models.layers import Intermediates, exact_dense, precision

if TYPE_CHECKING:
    from jaxtyping import Float

# Ranges of tokens: (first, end) each.
Ranges = tuple[tuple[int, int | None], ...]
EVERY: Ranges = ((0, None),)
_CLASS_AND_PATCHES: Ranges = ((0, 1), (1, None))
# The activations of a block that are kept for its backward pass; the others are computed again.
_KEPT = "kept"


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


class Dense(nn.Dense):
    """A dense layer, with an update of low rank beside its weights where `rank` is not 0.

    LoRA (Hu et al. 2021): y = x·W + b + x·A·B, where B starts from zero.
    """

    rank: int = 0

    @nn.compact
    def __call__(self, inputs: Float[Array, "... d"]) -> Float[Array, "... e"]:
        y = super().__call__(inputs)
        if not self.rank:
            return y
        shapes = (inputs.shape[-1], self.rank), (self.rank, self.features)
        down = self.param("lora_a", nn.initializers.lecun_normal(), shapes[0])
        up = self.param("lora_b", nn.initializers.zeros, shapes[1])
        return y + inputs.astype(self.dtype) @ down.astype(self.dtype) @ up.astype(self.dtype)


def softmax(scores: Float[Array, "... t"]) -> Float[Array, "... t"]:
    """Softmax over the last axis, as products with the reciprocal of the sum.

    A division would become such a product, or would not, with the number of devices, and the last
    digit of a mask with it.
    """
    powers = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    return powers * (1 / powers.sum(-1, keepdims=True))


@jax.custom_vjp
def _scores(
    query: Float[Array, "n h r e"], key: Float[Array, "n h t e"]
) -> Float[Array, "n h r t"]:
    """Each query times each key, in float32. The products of the gradient are in the compute type
    again, where its float32 would make them slow ones."""
    return jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)


def _scores_forward(query: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
    return _scores(query, key), (query, key)


def _scores_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    query, key = kept
    gradient = gradient.astype(query.dtype)
    with precision(query.dtype):  # traced when the network's own has been left
        return gradient @ key, gradient.swapaxes(-1, -2) @ query


_scores.defvjp(_scores_forward, _scores_backward)


def _mix(
    query: Float[Array, "n h r e"], key: Float[Array, "n h t e"], value: Float[Array, "n h t e"]
) -> Float[Array, "n h r e"]:
    """What each query gets of the values; the scores and their softmax in float32."""
    return softmax(_scores(query, key)).astype(value.dtype) @ value


def _mix_fused(
    query: Float[Array, "n h r e"],
    key: Float[Array, "n h t e"],
    value: Float[Array, "n h t e"],
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "n h r e"]:
    """The same in one kernel, which never writes the scores to memory."""
    r, t = query.shape[2], key.shape[2]
    # An empty sum for each item. Under vmap it has the same axes as the query, as lengths must.
    none = query[:, 0, 0, :0].sum(-1).astype(jnp.int32)
    # JAX's rule for the gradient wants even numbers of tokens.
    even = [(0, 0), (0, 0), (0, 1), (0, 0)]
    tokens = (jnp.pad(x, even) if x.shape[2] % 2 else x for x in (query, key, value))
    query, key, value = (x.swapaxes(1, 2) for x in tokens)
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=1.0,
        query_seq_lengths=none + r,
        key_value_seq_lengths=none + t,
        implementation=implementation,
    )
    return mixed.swapaxes(1, 2)[:, :, :r]


# How queries, scaled already, meet keys and values.
ATTENTION = {"xla": _mix, "cudnn": _mix_fused}


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    Returns what each range of `queries` (first token, end) gets from all tokens; a range that
    nobody reads costs nothing under `jit`.
    """

    num_heads: int
    dtype: Any = jnp.float32
    lora_rank: int = 0
    kernel: str = "xla"
    queries: Ranges = EVERY

    @nn.compact
    def __call__(self, tokens: Float[Array, "n t d"]) -> list[Float[Array, "n r d"]]:
        n, t, d = tokens.shape
        qkv = Dense(3 * d, dtype=self.dtype, rank=self.lora_rank, name="qkv")(tokens)
        heads = checkpoint_name(qkv, _KEPT).reshape(n, t, 3, self.num_heads, -1)
        query, key, value = heads.transpose(2, 0, 3, 1, 4)  # [n,heads,t,d/heads] each
        query = query * query.shape[-1] ** -0.5
        mix = ATTENTION[self.kernel]
        project = Dense(d, dtype=self.dtype, rank=self.lora_rank, name="proj")

        def attend(query: Array) -> Array:
            mixed = mix(query, key, value).swapaxes(1, 2).reshape(n, -1, d)
            return project(checkpoint_name(mixed, _KEPT))

        return [attend(query[:, :, first:end]) for first, end in self.queries]


class Block(nn.Module):
    """One pre-norm transformer block, on each range of tokens apart; see `Attention`."""

    num_heads: int
    mlp_width: int
    epsilon: float
    dtype: Any = jnp.float32
    lora_rank: int = 0
    kernel: str = "xla"
    ranges: Ranges = EVERY

    @nn.compact
    def __call__(self, tokens: Float[Array, "n t d"]) -> list[Float[Array, "n r d"]]:
        width = tokens.shape[-1]
        norm1, norm2 = (
            nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)
            for name in ("norm1", "norm2")
        )
        attention = Attention(
            self.num_heads, self.dtype, self.lora_rank, self.kernel, self.ranges, name="attention"
        )
        fc1 = Dense(self.mlp_width, dtype=self.dtype, rank=self.lora_rank, name="fc1")
        fc2 = Dense(width, dtype=self.dtype, rank=self.lora_rank, name="fc2")

        def onward(tokens: Array, attended: Array) -> Array:
            tokens = checkpoint_name(tokens + attended, _KEPT)
            hidden = checkpoint_name(fc1(norm2(tokens)), _KEPT)
            return tokens + fc2(nn.gelu(hidden.astype(jnp.float32), approximate=False))

        attended = attention(norm1(tokens))
        return [
            onward(tokens[:, first:end], new)
            for (first, end), new in zip(self.ranges, attended, strict=True)
        ]


class ScannedBlock(Block):
    """A block as the body of a scan, which returns its output twice."""

    @nn.compact
    def __call__(  # type: ignore[override]
        self, tokens: Float[Array, "n t d"], _: None
    ) -> tuple[Float[Array, "n t d"], Float[Array, "n t d"]]:
        (tokens,) = super().__call__(tokens)
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
      lora_rank: of an update beside the weights of every dense layer; 0 for none.
      attention: `xla`, or `cudnn` for cuDNN's fused kernel (CUDA GPUs, compute type bfloat16).
      epsilon: of the layer norms.
      dtype: compute type of the products; parameters, tokens and logits stay float32.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    frozen_blocks: int = 0
    lora_rank: int = 0
    attention: str = "xla"
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along height and width."""
        side = self.image_size // self.patch_size
        return side, side

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "n H W 3"] | Float[Array, "n t d"], until_prefix: bool = False
    ) -> tuple[Array, Intermediates]:
        """Normalised images, or the `prefix` of some, to (logits, intermediates).

        Intermediates: `embedding` [n,t,d], `blocks` [depth,n,t,d] (outputs), `features` [n,g,g,d]
        (patch tokens after the last norm), `class_token` [n,d]. Without classes the logits are the
        class token. What is before the prefix is missing where that is given.
        """
        out: Intermediates = {}
        tokens, outputs = inputs, []
        if inputs.ndim == 4:
            tokens = out["embedding"] = self._embedding(inputs)
            if self.frozen_blocks:
                tokens, each = self._stack("frozen_blocks")(tokens, None)
                outputs.append(each)
        if until_prefix:
            return tokens, out
        if "blocks" in self.stacks():
            tokens, each = self._stack("blocks")(tokens, None)
            outputs.append(each)
        # The class token apart from the patches: a classifier reads the one, a mask head the other.
        last = Block(*self._block_sizes(), ranges=_CLASS_AND_PATCHES, name="last_block")(tokens)
        out["blocks"] = jnp.concatenate([*outputs, jnp.concatenate(last, axis=1)[None]])
        norm = nn.LayerNorm(epsilon=self.epsilon, name="norm")
        class_token, patches = (norm(part) for part in last)
        out["class_token"] = class_token[:, 0]
        out["features"] = patches.reshape(len(patches), *self.grid, self.width)
        if not self.num_classes:
            return out["class_token"], out
        head = exact_dense(self.num_classes, name="head")
        return head(out["class_token"]), out

    def prefix(self, images: Float[Array, "n H W 3"]) -> Float[Array, "n t d"]:
        """The tokens after the frozen blocks, from which the network can go on."""
        return self(images, until_prefix=True)[0]

    def stacks(self) -> dict[str, int]:
        """Names and lengths of the stacks of blocks, in order; the last block is none of them."""
        lengths = {
            "frozen_blocks": self.frozen_blocks,
            "blocks": self.depth - self.frozen_blocks - 1,
        }
        return {name: length for name, length in lengths.items() if length}

    def _embedding(self, images: Array) -> Array:
        tokens = PatchEmbedding(self.patch_size, self.width, self.dtype, name="patch_embed")(images)
        n, t, d = tokens.shape
        class_token = self.param("cls_token", nn.initializers.zeros, (1, 1, d))
        position = self.param("pos_embed", nn.initializers.normal(0.02), (1, t + 1, d))
        first = jnp.broadcast_to(class_token, (n, 1, d))
        return jnp.concatenate([first, tokens], axis=1) + position

    def _block_sizes(self) -> tuple[int, int, float, Any, int, str]:
        mlp_width = int(self.width * self.mlp_ratio)
        return (
            self.num_heads,
            mlp_width,
            self.epsilon,
            self.dtype,
            self.lora_rank,
            self.attention,
        )

    def _stack(self, name: str) -> nn.Module:
        # Storing all activations of a block takes longer than recomputing most of them, on a CPU at
        # least, and would be most of a slot's memory.
        keep = jax.checkpoint_policies.save_only_these_names(_KEPT)
        scanned = nn.scan(
            nn.remat(ScannedBlock, prevent_cse=False, policy=keep),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.stacks()[name],
        )
        return scanned(*self._block_sizes(), name=name)
