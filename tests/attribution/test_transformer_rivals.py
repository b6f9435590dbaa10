"""Rivals for vision transformers against second implementations in PyTorch, on timm's ViTs."""

from __future__ import annotations

import types

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

pytestmark = pytest.mark.parity
parity = pytest.importorskip("parity_tools")

from ltx_jax.attribution import RIVALS  # noqa: E402
from ltx_jax.loading.explainees import load_explainee  # noqa: E402

torch = parity.torch
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
VARIANTS = {
    "registers and LayerScale": {"reg_tokens": 2, "init_values": 0.5, "no_embed_class": True},
    "distilled": {"distilled": True},
    "mean of the patches": {"class_token": False, "global_pool": "avg", "qkv_bias": False},
}
RNG = np.random.default_rng(0)
IMAGES = RNG.random((2, 32, 32, 3), np.float32)
TARGETS = np.array([3, 1], np.int32)


def theirs(variant):
    """timm's network with lively weights, whose attention is not fused."""
    from timm.models.deit import VisionTransformerDistilled

    how = SIZES | {"num_classes": 5} | VARIANTS[variant]
    distilled = how.pop("distilled", False)
    kind = VisionTransformerDistilled if distilled else parity.timm.models.VisionTransformer
    network = kind(**how).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = around + 0.2 * noise
        parameter.requires_grad_(False)
    for block in network.blocks:
        block.attn.fused_attn = False
    return network


def ours(name, network, folder):
    """The rival's maps of the same network, with what speaks against the class."""
    save_file(parity.state_dict(network), folder / "w.safetensors")
    explainee = load_explainee("vit", folder / "w.safetensors", num_heads=2)
    maps = RIVALS[name].signed or RIVALS[name].maps
    return np.asarray(maps(explainee, jnp.asarray(IMAGES), jnp.asarray(TARGETS)))


def close(found, expected, tolerance=1e-4):
    expected = expected.detach().numpy()
    scale = np.abs(expected).max((1, 2), keepdims=True)
    assert (scale > 0).all()
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


class Scaled(torch.autograd.Function):
    """The same, whose gradient is multiplied with a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(factor)
        return x

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


class ResidualSum(torch.autograd.Function):
    """Relevance (gradient × value) is shared out among the summands, and divided by each."""

    @staticmethod
    def forward(ctx, x, update):
        ctx.save_for_backward(x, update)
        return x + update

    @staticmethod
    def backward(ctx, gradient):
        summands = ctx.saved_tensors
        total = summands[0] + summands[1]
        boosted = [torch.where(z * total > 0, 2 * z, z) for z in summands]
        relevance = gradient * total / (boosted[0] + boosted[1])
        return tuple(relevance * b / z for b, z in zip(boosted, summands, strict=True))


def norm_hook(module, inputs, _):
    (x,) = inputs
    deviation = (x.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt().detach()
    return (x - x.mean(-1, keepdim=True)) / deviation * module.weight + module.bias


def gelu_hook(_, inputs, output):
    (x,) = inputs
    return x * (output / x).detach()


def hold_constant(network):
    """Denominators of norms and gates of GELUs."""
    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(norm_hook)
        if isinstance(module, torch.nn.GELU):
            module.register_forward_hook(gelu_hook)


def halve_attention(network):
    """A query's and a key's gradient goes through two products, a value's through one."""
    width = SIZES["embed_dim"]
    factors = torch.tensor([1 / 4, 1 / 4, 1 / 2]).repeat_interleave(width)
    for block in network.blocks:
        block.attn.qkv.register_forward_hook(lambda _m, _i, out: Scaled.apply(out, factors))


def weigh_residuals(network):
    def forward(self, x, **_):
        x = ResidualSum.apply(x, self.ls1(self.attn(self.norm1(x))))
        return ResidualSum.apply(x, self.ls2(self.mlp(self.norm2(x))))

    for block in network.blocks:
        block.forward = types.MethodType(forward, block)


def inputs():
    """As timm's ViTs want them, and asking for gradients."""
    return parity.channels_first((IMAGES - np.float32(0.5)) / np.float32(0.5)).requires_grad_()


def target_logits(network, images):
    return network(images)[range(2), TARGETS].sum()


def gradient_x_input(network):
    images = inputs()
    (gradient,) = torch.autograd.grad(target_logits(network, images), images)
    return (images * gradient).sum(1).unfold(1, 8, 8).unfold(2, 8, 8).sum((-1, -2))


def on_grid(network, tokens):
    return tokens[:, network.num_prefix_tokens :].reshape(2, 4, 4)


def test_attn_lrp(tmp_path):
    network = theirs("distilled")
    found = ours("attn_lrp", network, tmp_path)
    hold_constant(network)
    halve_attention(network)
    close(found, gradient_x_input(network))


@pytest.mark.parametrize("variant", VARIANTS)
def test_res_lrp(variant, tmp_path):
    network = theirs(variant)
    found = ours("res_lrp", network, tmp_path)
    hold_constant(network)
    halve_attention(network)
    weigh_residuals(network)
    close(found, gradient_x_input(network))


@pytest.mark.parametrize("variant", VARIANTS)
def test_libra_fullgrad_plus(variant, tmp_path):
    network = theirs(variant)
    found = ours("libra_fullgrad_plus", network, tmp_path)
    hold_constant(network)
    seen = []  # each bias, or each block's input, beside the activation it is a part of

    def keep_bias(module, _, out):
        if module.bias is not None:
            seen.append((module.bias, out))
        return out

    def keep_input(_, inputs):
        seen.append((inputs[0], inputs[0]))

    for block in network.blocks:
        block.register_forward_pre_hook(keep_input)
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: out.detach())
        biased = (block.norm1, block.attn.qkv, block.attn.proj)
        for module in (*biased, block.norm2, block.mlp.fc1, block.mlp.fc2):
            module.register_forward_hook(keep_bias)
    slopes = torch.autograd.grad(
        target_logits(network, inputs()), [out for _, out in seen], allow_unused=True
    )
    total = sum(
        (part * slope).sum(-1)
        for (part, _), slope in zip(seen, slopes, strict=True)
        if slope is not None
    )
    close(found, on_grid(network, total))


@pytest.mark.parametrize("variant", VARIANTS)
def test_legrad(variant, tmp_path):
    network = theirs(variant)
    found = ours("legrad", network, tmp_path)
    maps, outputs = [], []
    for block in network.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: maps.append(out))
        block.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    network(inputs())
    norm = network.norm if isinstance(network.fc_norm, torch.nn.Identity) else network.fc_norm
    heads = [network.head, getattr(network, "head_dist", network.head)]
    total = 0
    for attention, tokens in zip(maps, outputs, strict=True):
        mean = norm(tokens.mean(1))
        logits = sum(head(mean) for head in heads) / 2
        score = logits[range(2), TARGETS].sum()
        (slope,) = torch.autograd.grad(score, attention, retain_graph=True)
        total = total + slope.clamp(min=0).mean((1, 2)) / len(maps)
    close(found, on_grid(network, total))


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_rivals(variant, tmp_path):
    """Raw attention, rollout, GAE and Grad-CAM on attention, by matrices as they are defined."""
    network = theirs(variant)
    maps = []
    for block in network.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: maps.append(out))
    slopes = torch.autograd.grad(target_logits(network, inputs()), maps)
    tokens = maps[0].shape[-1]
    rows = {"distilled": [0, 1], "mean of the patches": list(range(tokens))}.get(variant, [0])

    def read(matrices):
        return matrices[..., rows, :].mean(-2)

    raw = read(maps[-1]).mean(1)
    one, rolled, generic = torch.eye(tokens), torch.eye(tokens), torch.eye(tokens)
    for attention in maps[1:]:
        mixing = attention.mean(1) + one
        rolled = (mixing / mixing.sum(-1, keepdim=True)) @ rolled
    for attention, slope in zip(maps, slopes, strict=True):
        generic = generic + (attention * slope).clamp(min=0).mean(1) @ generic
    row, slope = (read(last)[..., network.num_prefix_tokens :] for last in (maps[-1], slopes[-1]))
    cam = (row * slope.mean(-1, keepdim=True)).mean(1).reshape(2, 4, 4)
    close(ours("raw_attention", network, tmp_path), on_grid(network, raw))
    close(ours("attention_rollout", network, tmp_path), on_grid(network, read(rolled)))
    close(ours("generic_attention", network, tmp_path), on_grid(network, read(generic)))
    close(ours("attention_grad_cam", network, tmp_path), cam)
