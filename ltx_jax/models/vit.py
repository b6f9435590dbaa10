"""Plain vision transformers: ViT and DeiT of every size (Dosovitskiy et al. 2021; Touvron 2021).

With registers (Darcet et al. 2024), LayerScale (Touvron et al. 2021), a distillation token, or the
mean of the patches in place of a class token, as timm has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from ltx_jax.errors import InputError
from ltx_jax.models.backbone import Backbone
from ltx_jax.models.layers import Added, Intermediates, exact_dense, per_channel, plus, tap
from ltx_jax.models.operations import GRADIENT, Operations, layer_norm, mix, scores, softmax

# Ranges of tokens: (first, end) each.
Ranges = tuple[tuple[int, int | None], ...]
EVERY: Ranges = ((0, None),)
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
    operations: Operations = GRADIENT

    @nn.compact
    def __call__(self, images: Float[Array, "n H W C"]) -> Float[Array, "n t d"]:
        """A token a patch, in reading order; images as the network wants them."""
        p = self.patch_size
        shape = (p, p, images.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        n, height, width, channels = images.shape
        grid = images.reshape(n, height // p, p, width // p, p, channels)
        patches = grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, p * p * channels)
        flat_kernel = kernel.reshape(-1, self.width).astype(self.dtype)
        return self.operations.embed(patches.astype(self.dtype), flat_kernel, bias)


class Dense(nn.Module):
    """A dense layer, with an update of low rank beside its weights where `rank` is not 0.

    LoRA (Hu et al. 2021): y = x·W + b + x·A·B, where B starts from zero.
    """

    features: int
    dtype: Any = jnp.float32
    rank: int = 0
    use_bias: bool = True
    operations: Operations = GRADIENT

    @nn.compact
    def __call__(self, inputs: Float[Array, "*n d"]) -> Float[Array, "*n e"]:
        """Of inputs of any width, `features` wide."""
        spread, zeros, width = nn.initializers.lecun_normal(), nn.initializers.zeros, self.features
        inputs = inputs.astype(self.dtype)
        kernel = self._weights("kernel", spread, inputs.shape[-1], width)
        bias = self._weights("bias", zeros, width) if self.use_bias else None
        y = self.operations.dense(inputs, kernel, bias)
        if not self.rank:
            return y
        down = self._weights("lora_a", spread, inputs.shape[-1], self.rank)
        return y + inputs @ down @ self._weights("lora_b", zeros, self.rank, width)

    def _weights(self, name: str, initialise: nn.initializers.Initializer, *shape: int) -> Array:
        return self.param(name, initialise, shape, jnp.float32).astype(self.dtype)


def _mix(
    query: Float[Array, "n h r e"], key: Float[Array, "n h t e"], value: Float[Array, "n h t e"]
) -> Float[Array, "n h r e"]:
    """What each query gets of the values."""
    return mix(softmax(scores(query, key)), value)


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
    nobody reads costs nothing under `jit`. Where `added` is given, the map `attention`
    [n,heads,t,t] as well, which a fused kernel does not have, the `values` [n,heads,t,e] and what
    is `mixed` of them [n,heads,t,e].
    """

    num_heads: int
    dtype: Any = jnp.float32
    lora_rank: int = 0
    kernel: str = "xla"
    queries: Ranges = EVERY
    qkv_bias: bool = True
    operations: Operations = GRADIENT

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "n t d"], added: Added = None
    ) -> tuple[list[Float[Array, "n _ d"]], Intermediates]:
        """What each range gets of all tokens, and the intermediates.

        Args:
          tokens: after the first norm.
          added: to intermediates by name.
        """
        n, t, d = tokens.shape
        with_bias, by = self.qkv_bias, self.operations
        qkv = Dense(3 * d, self.dtype, self.lora_rank, with_bias, by, name="qkv")(tokens)
        heads = checkpoint_name(qkv, _KEPT).reshape(n, t, 3, self.num_heads, -1)
        query, key, value = heads.transpose(2, 0, 3, 1, 4)  # [n,heads,t,d/heads] each
        query = by.scale(query, query.shape[-1] ** -0.5)
        value = plus(value, added, "values")
        project = Dense(d, self.dtype, self.lora_rank, operations=by, name="proj")
        maps: list[Array] = []
        mixtures: list[Array] = []

        def attend(first: int, end: int | None) -> Array:
            asking = query[:, :, first:end]
            if added is None and by == GRADIENT:
                mixed = ATTENTION[self.kernel](asking, key, value)
            else:
                rows = np.s_[:, :, first:end]
                maps.append(plus(by.softmax(by.scores(asking, key)), added, "attention", rows))
                mixed = plus(by.mix(maps[-1], value), added, "mixed", rows)
                mixtures.append(mixed)
            mixed = mixed.swapaxes(1, 2).reshape(n, -1, d)
            return project(checkpoint_name(mixed, _KEPT))

        attended = [attend(first, end) for first, end in self.queries]
        if not maps:
            return attended, {}
        attention, mixed = (jnp.concatenate(parts, axis=2) for parts in (maps, mixtures))
        return attended, {"attention": attention, "values": value, "mixed": mixed}


class Block(nn.Module):
    """One pre-norm transformer block, on each range of tokens apart; see `Attention`.

    Returns its output for each range, and its intermediates: all of it as `blocks` [n,t,d]. With
    `layer_scale` what is added to a token is multiplied with a learned factor a channel.
    """

    num_heads: int
    mlp_width: int
    epsilon: float
    dtype: Any = jnp.float32
    lora_rank: int = 0
    kernel: str = "xla"
    qkv_bias: bool = True
    layer_scale: bool = False
    operations: Operations = GRADIENT
    ranges: Ranges = EVERY

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "n t d"], added: Added = None
    ) -> tuple[list[Float[Array, "n _ d"]], Intermediates]:
        """What each range becomes, and the intermediates.

        Args:
          tokens: of the block before.
          added: to intermediates by name.
        """
        width, by = tokens.shape[-1], self.operations
        tokens = by.enter(tokens)
        norm1, norm2 = (layer_norm(by, self.epsilon, name) for name in ("norm1", "norm2"))
        attention = Attention(
            self.num_heads,
            self.dtype,
            self.lora_rank,
            self.kernel,
            self.ranges,
            self.qkv_bias,
            by,
            name="attention",
        )
        fc1 = Dense(self.mlp_width, self.dtype, self.lora_rank, operations=by, name="fc1")
        fc2 = Dense(width, self.dtype, self.lora_rank, operations=by, name="fc2")

        scale1, scale2 = (self._scale(name, width) for name in ("ls1", "ls2"))

        def onward(tokens: Array, attended: Array) -> Array:
            tokens = checkpoint_name(by.add(tokens, scale1(attended.astype(tokens.dtype))), _KEPT)
            hidden = checkpoint_name(fc1(norm2(tokens).astype(self.dtype)), _KEPT)
            new = fc2(by.gelu(hidden.astype(jnp.float32)))
            return by.add(tokens, scale2(new.astype(tokens.dtype)))

        attended, out = attention(norm1(tokens).astype(self.dtype), added)
        parts = [
            plus(onward(tokens[:, first:end], new), added, "blocks", np.s_[:, first:end])
            for (first, end), new in zip(self.ranges, attended, strict=True)
        ]
        return parts, out | {"blocks": jnp.concatenate(parts, axis=1)}

    def _scale(self, name: str, width: int) -> Callable[[Array], Array]:
        """What LayerScale makes of an update; nothing where there is none."""
        if not self.layer_scale:
            return lambda update: update
        factors = self.param(name, nn.initializers.ones, (width,), jnp.float32)
        return lambda update: self.operations.scale(update, per_channel(factors, update))


class ScannedBlock(Block):
    """A block of all tokens together, as the body of a scan."""

    @nn.compact
    def __call__(  # type: ignore[override]
        self, tokens: Float[Array, "n t d"], added: Added
    ) -> tuple[Float[Array, "n t d"], Intermediates]:
        """The tokens and the intermediates, see `Block`; `added` as there."""
        (tokens,), out = super().__call__(tokens, added)
        return tokens, out


class VisionTransformer(Backbone):
    """A ViT whose blocks are stacked and scanned, so that depth costs no compile time.

    Attributes:
      image_size: side of the square input in pixels.
      patch_size: side of a patch in pixels.
      width, depth, num_heads, mlp_ratio: the usual sizes.
      frozen_blocks: the first blocks, kept as a parameter stack of their own
        (`frozen_blocks` beside `blocks`) so that an optimizer can leave them out whole.
      lora_rank: of an update beside the weights of every dense layer; 0 for none.
      attention: `xla`, or `cudnn` for cuDNN's fused kernel (CUDA GPUs, compute type bfloat16).
      epsilon: of the layer norms.
      class_token: whether there is one; the classifier reads the mean of the patches otherwise.
      distilled: whether a distillation token follows it, with a classifier of its own; the logits
        are the mean of both.
      registers: how many more tokens stand before the patches, which nobody reads.
      average_pool: the classifier reads the mean of the patches although there is a class token.
      norm_pooled: the last norm is of what the classifier reads, not of every token.
      layer_scale, qkv_bias: see `Block`; whether queries, keys and values have a bias.
      prefix_positions: whether the tokens before the patches have a position embedding as well.
      operations: what it computes with, which is what its gradients are.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    frozen_blocks: int = 0
    lora_rank: int = 0
    attention: str = "xla"
    epsilon: float = 1e-6
    class_token: bool = True
    distilled: bool = False
    registers: int = 0
    average_pool: bool = False
    norm_pooled: bool = False
    layer_scale: bool = False
    qkv_bias: bool = True
    prefix_positions: bool = True
    operations: Operations = GRADIENT
    feature_kind: ClassVar[str] = "tokens"

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along height and width."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def averaged(self) -> bool:
        """Whether the classifier reads the mean of the patches."""
        return self.average_pool or not self.class_token

    @property
    def last_norm(self) -> str:
        """Name of the norm before the classifier."""
        return "fc_norm" if self.norm_pooled else "norm"

    def prefix_tokens(self) -> dict[str, int]:
        """timm's names and the numbers of the tokens before the patches, in order."""
        numbers = {
            "cls_token": int(self.class_token),
            "dist_token": int(self.distilled),
            "reg_token": self.registers,
        }
        return {name: number for name, number in numbers.items() if number}

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "n H W C"] | Float[Array, "n t d"],
        added: Added = None,
        until_prefix: bool = False,
    ) -> tuple[Array, Intermediates]:
        """Normalised images, or the `prefix` of some, to (logits, intermediates).

        Intermediates: `embedding` [n,t,d], `blocks` [depth,n,t,d] (outputs), `features` [n,g,g,d]
        (patch tokens after the last norm, if it is of every token), and what the classifier reads:
        `class_token` [n,d], and `distillation_token` [n,d], where no logit depends on `features`;
        or `pooled` [n,d], their mean. Where `added` is given also `attention` [depth,n,heads,t,t]
        (after the softmax), and [depth,n,heads,t,e] the `values` and what is `mixed` of them. What
        is before the prefix is missing where that is given.
        """
        out: Intermediates = {}
        tokens, stacked = images, []
        if images.ndim == 4:
            tokens = tap(out, "embedding", self._embedding(images), added)
            if self.frozen_blocks:
                tokens, each = self._stack("frozen_blocks", tokens, added)
                stacked.append(each)
        if until_prefix:
            return tokens, out
        if "blocks" in self.stacks():
            tokens, each = self._stack("blocks", tokens, added)
            stacked.append(each)
        last = Block(*self._block_sizes(), ranges=self._apart(), name="last_block")
        parts, each = last(tokens, _of_blocks(added, self.depth - 1))
        stacked.append(jax.tree.map(lambda x: x[None], each))
        out |= jax.tree.map(lambda *stacks: jnp.concatenate(stacks), *stacked)
        return self._logits(parts, out, added), out

    def _apart(self) -> Ranges:
        """The tokens before the patches, if there are any, apart from the patches: a classifier
        reads the one, a mask head the other."""
        prefix = sum(self.prefix_tokens().values())
        return ((0, prefix), (prefix, None)) if prefix else EVERY

    def _logits(self, parts: Sequence[Array], out: Intermediates, added: Added) -> Array:
        """From what leaves the last block, the patches last; notes what is read on the way."""
        norm = layer_norm(self.operations, self.epsilon, self.last_norm)
        if not self.norm_pooled:
            parts = [norm(part) for part in parts]
        features = parts[-1].reshape(len(parts[-1]), *self.grid, self.width)
        features = tap(out, "features", features, added)
        read = features.mean((1, 2)) if self.averaged else parts[0][:, 0]
        read = norm(read) if self.norm_pooled else read
        read = tap(out, "pooled" if self.averaged else "class_token", read, added)
        logits = self.classified(read, "head")
        if not self.distilled:
            return logits
        distilled = tap(out, "distillation_token", parts[0][:, 1], added)
        return (logits + self.classified(distilled, "head_dist")) / 2

    def classified(self, read: Float[Array, "n d"], name: str) -> Float[Array, "n classes"]:
        """As every network's, by its own operations."""
        if self.operations == GRADIENT or not self.num_classes:
            return super().classified(read, name)
        return Dense(self.num_classes, operations=self.operations, name=name)(read)

    def prefix(self, images: Float[Array, "n H W C"]) -> Float[Array, "n t d"]:
        """The tokens after the frozen blocks, from which the network can go on."""
        return self(images, until_prefix=True)[0]

    def logits_of(
        self, params: Mapping[str, Any], tokens: Float[Array, "*n d"]
    ) -> Float[Array, "*n classes"]:
        """What the last norm and the classifier make of any tokens, of any depth.

        Args:
          params: the network's variables.
          tokens: in place of the one that it reads, before the norm.
        """
        leaves = params["params"]
        norm = nn.LayerNorm(epsilon=self.epsilon, parent=None)
        normed = norm.apply({"params": leaves[self.last_norm]}, tokens)
        head = exact_dense(self.num_classes, parent=None)
        names = [name for name in ("head", "head_dist") if name in leaves]
        logits: list[Any] = [head.apply({"params": leaves[name]}, normed) for name in names]
        return jnp.stack(logits).mean(0)

    def with_trained(self, name: str, frozen_blocks: int, lora_rank: int) -> VisionTransformer:
        """With its first blocks in a stack of their own, and updates beside its dense layers.

        Raises:
          InputError: where no block is left to be trained.
        """
        if not 0 <= frozen_blocks < self.depth:
            raise InputError(
                f"frozen_blocks {frozen_blocks} of {self.depth}: at least one block is to be "
                "trained"
            )
        return self.clone(frozen_blocks=frozen_blocks, lora_rank=lora_rank)

    def trained_part(self) -> dict[str, int | None]:
        """How many blocks are frozen, and the rank of updates, None where there are none."""
        return {"frozen_blocks": self.frozen_blocks, "lora_rank": self.lora_rank or None}

    def with_attention(self, name: str, kernel: str) -> VisionTransformer:
        """With that kernel.

        Raises:
          InputError: for cuDNN's in float32, which it has not, or without a GPU.
        """
        backend = jax.default_backend()
        if kernel == "cudnn" and (self.dtype == jnp.float32 or backend != "gpu"):
            raise InputError(
                "attention cudnn is for CUDA GPUs and compute_dtype bfloat16, not for "
                f"{jnp.dtype(self.dtype)} on a {backend}: leave it at xla"
            )
        return self.clone(attention=kernel)

    def stacks(self) -> dict[str, int]:
        """Names and lengths of the stacks of blocks, in order; the last block is none of them."""
        lengths = {
            "frozen_blocks": self.frozen_blocks,
            "blocks": self.depth - self.frozen_blocks - 1,
        }
        return {name: length for name, length in lengths.items() if length}

    def _embedding(self, images: Array) -> Array:
        by = self.operations
        embed = PatchEmbedding(self.patch_size, self.width, self.dtype, by, name="patch_embed")
        tokens = embed(images)
        n, t, d = tokens.shape
        exact = jnp.float32
        first = [
            jnp.broadcast_to(
                self.param(name, nn.initializers.zeros, (1, number, d), exact), (n, number, d)
            )
            for name, number in self.prefix_tokens().items()
        ]
        positions = t + sum(self.prefix_tokens().values()) * self.prefix_positions
        position = self.param("pos_embed", nn.initializers.normal(0.02), (1, positions, d), exact)
        tokens = tokens.astype(exact)
        if self.prefix_positions:
            return by.place(jnp.concatenate([*first, tokens], axis=1), position)
        return jnp.concatenate([*first, by.place(tokens, position)], axis=1)

    def _block_sizes(self) -> tuple[int, int, float, Any, int, str, bool, bool, Operations]:
        # A ratio of two whole numbers may fall short of them by its rounding.
        mlp_width = int(self.width * self.mlp_ratio + 1e-6)
        return (
            self.num_heads,
            mlp_width,
            self.epsilon,
            self.dtype,
            self.lora_rank,
            self.attention,
            self.qkv_bias,
            self.layer_scale,
            self.operations,
        )

    def _stack(self, name: str, tokens: Array, added: Added) -> tuple[Array, Intermediates]:
        """The tokens after a stack of blocks, and its intermediates along the depth."""
        # Storing all activations of a block takes longer than recomputing most of them, on a CPU at
        # least, and would be most of a slot's memory.
        keep = jax.checkpoint_policies.save_only_these_names(_KEPT)
        first = self.frozen_blocks if name == "blocks" else 0
        length = self.stacks()[name]
        scanned = nn.scan(
            nn.remat(ScannedBlock, prevent_cse=False, policy=keep),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=length,
        )
        stack = scanned(*self._block_sizes(), name=name)
        return stack(tokens, _of_blocks(added, np.s_[first : first + length]))


def _of_blocks(added: Added, blocks: slice | int) -> Added:
    """What is added inside these blocks."""
    if added is None:
        return None
    names = [name for name in ("attention", "values", "mixed", "blocks") if name in added]
    return {name: jnp.asarray(added[name])[blocks] for name in names}
