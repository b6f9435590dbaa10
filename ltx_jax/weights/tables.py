"""What each network family's weights are called: one declarative table a family.

The names are timm's (for ResNet, DenseNet and SqueezeNet they are torchvision's as well). A
*dialect* renames another library's state dict into them, or returns None where it is not in that
dialect. What a table depends on (depths, groups …) is asked of the module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ltx_jax.weights.state_dict import (
    Entry,
    StateDict,
    batch_norm,
    layer,
    norm,
    numbered,
    plain,
    stack,
    under,
)

Dialect = Callable[[StateDict], StateDict | None]


def vision_transformer(module: Any) -> list[Entry]:
    """timm's plain ViT; the blocks of a scan are stacked, the last one stands alone."""
    block = [
        *norm("norm1", "blocks.{i}.norm1"),
        *layer("attention/qkv", "blocks.{i}.attn.qkv", bias=module.qkv_bias),
        *layer("attention/proj", "blocks.{i}.attn.proj"),
        *norm("norm2", "blocks.{i}.norm2"),
        *layer("fc1", "blocks.{i}.mlp.fc1"),
        *layer("fc2", "blocks.{i}.mlp.fc2"),
    ]
    for name in ("ls1", "ls2") if module.layer_scale else ():
        block += plain(name, f"blocks.{{i}}.{name}.gamma")
    if module.lora_rank:
        dense = {"attention/qkv": "attn.qkv", "attention/proj": "attn.proj"}
        for path, name in (dense | {"fc1": "mlp.fc1", "fc2": "mlp.fc2"}).items():
            for part in ("lora_a", "lora_b"):
                block += plain(f"{path}/{part}", f"blocks.{{i}}.{name}.{part}")
    entries = [
        *(entry for name in module.prefix_tokens() for entry in plain(name, name)),
        *plain("pos_embed", "pos_embed"),
        *layer("patch_embed", "patch_embed.proj"),
    ]
    first = 0
    for name, length in module.stacks().items():
        entries += stack(under(name, block), range(first, first + length))
        first += length
    entries += numbered(under("last_block", block), module.depth - 1)
    last = "fc_norm" if module.norm_pooled else "norm"
    entries += norm(last, last)
    for head in ("head", "head_dist") if module.distilled else ("head",):
        entries += layer(head, head) if module.num_classes else []
    return entries


def resnet(module: Any) -> list[Entry]:
    """torchvision's ResNet."""
    entries = _convolution_norm("conv1", "bn1", "conv1", "bn1")
    for stage, depth in enumerate(module.depths, 1):
        for i in range(depth):
            ours, theirs = f"layer{stage}_{i}", f"layer{stage}.{i}"
            entries += _residual_block(ours, theirs, 3 if module.bottleneck else 2)
            if not i and (stage > 1 or module.bottleneck):
                entries += _convolution_norm(
                    f"{ours}/conv_shortcut",
                    f"{ours}/bn_shortcut",
                    f"{theirs}.downsample.0",
                    f"{theirs}.downsample.1",
                )
    return entries + (layer("fc", "fc") if module.num_classes else [])


def cifar_resnet(module: Any) -> list[Entry]:
    """CIFAR's ResNets; the shortcuts have no weights."""
    entries = _convolution_norm("conv1", "bn1", "conv1", "bn1")
    for stage in (1, 2, 3):
        for i in range((module.depth - 2) // 6):
            entries += _residual_block(f"layer{stage}_{i}", f"layer{stage}.{i}", 2)
    return entries + (layer("linear", "linear") if module.num_classes else [])


def densenet(module: Any) -> list[Entry]:
    """torchvision's DenseNet."""
    entries = _convolution_norm("conv0", "norm0", "features.conv0", "features.norm0")
    for block, layers in enumerate(module.block_config, 1):
        for i in range(1, layers + 1):
            ours, theirs = f"block{block}_{i}", f"features.denseblock{block}.denselayer{i}"
            for n in (1, 2):
                entries += _convolution_norm(
                    f"{ours}/conv{n}", f"{ours}/norm{n}", f"{theirs}.conv{n}", f"{theirs}.norm{n}"
                )
        if block < len(module.block_config):
            ours, theirs = f"transition{block}", f"features.transition{block}"
            entries += _convolution_norm(
                f"{ours}_conv", f"{ours}_norm", f"{theirs}.conv", f"{theirs}.norm"
            )
    entries += batch_norm("norm5", "features.norm5")
    return entries + (layer("classifier", "classifier") if module.num_classes else [])


def squeezenet(module: Any) -> list[Entry]:
    """torchvision's SqueezeNet 1.0 or 1.1."""
    entries = layer("stem", "features.0")
    for place in module.fires:
        for part in ("squeeze", "expand1x1", "expand3x3"):
            entries += layer(f"fire{place}_{part}", f"features.{place}.{part}")
    return entries + (layer("classifier", "classifier.1") if module.num_classes else [])


def vgg(module: Any) -> list[Entry]:
    """torchvision's VGG, without batch norms."""
    return _plain(module, [place for group in module.places for place in group], (0, 3, 6))


def alexnet(module: Any) -> list[Entry]:
    """torchvision's AlexNet."""
    return _plain(module, module.places, (1, 4, 6))


def _plain(module: Any, places: Sequence[int], read: Sequence[int]) -> list[Entry]:
    """Convolutions one after another, and a classifier of three layers, at torchvision's places."""
    entries = [entry for i in places for entry in layer(f"features_{i}", f"features.{i}")]
    head = zip(("fc1", "fc2", "classifier"), read, strict=True) if module.num_classes else ()
    return entries + [e for path, i in head for e in layer(path, f"classifier.{i}")]


def vgg_from_timm(state: StateDict) -> StateDict | None:
    """timm's VGG in torchvision's names: its first layers of the classifier are convolutions."""
    if "pre_logits.fc1.weight" not in state:
        return None
    renamed = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    renamed["head.fc"] = "classifier.6"
    found = {}
    for name, array in state.items():
        module, _, leaf = name.rpartition(".")
        flat = (
            array.reshape(len(array), -1)
            if module.startswith("pre_") and leaf == "weight" and array.ndim
            else array
        )
        found[f"{renamed.get(module, module)}.{leaf}"] = flat
    return found


def mobilenet_v2(module: Any) -> list[Entry]:
    """torchvision's MobileNetV2; with folded batch norms, tensors numbered in their order."""
    entries: list[Entry] = []
    parts = [("stem", "features.0.0", "features.0.1")]
    number = 0
    for expansion, _, repeats, _ in module.groups:
        for _ in range(repeats):
            ours, theirs = f"block{number}", f"features.{number + 1}.conv"
            names = (
                ("expand", "depthwise", "project") if expansion > 1 else ("depthwise", "project")
            )
            for i, name in enumerate(names[:-1]):
                parts.append((f"{ours}_{name}", f"{theirs}.{i}.0", f"{theirs}.{i}.1"))
            last = len(names) - 1
            parts.append((f"{ours}_project", f"{theirs}.{last}", f"{theirs}.{last + 1}"))
            number += 1
    parts.append(("last", f"features.{number + 1}.0", f"features.{number + 1}.1"))
    for i, (path, convolution, norm_name) in enumerate(parts):
        if module.folded:
            kind = "dw" if path.endswith("depthwise") else "conv"
            entries += layer(path, f"{i:02d}_{kind}")
        else:
            entries += _convolution_norm(path, f"{path}_bn", convolution, norm_name)
    if not module.num_classes:
        return entries
    classifier = f"{len(parts)}_fc" if module.folded else "classifier.1"
    return entries + layer("classifier", classifier)


def mobilenet_v2_from_timm(state: StateDict) -> StateDict | None:
    """timm's `mobilenetv2_100` in torchvision's names."""
    if "conv_stem.weight" not in state:
        return None
    # timm numbers blocks group by group, torchvision from the first to the last.
    places = {match[0] for name in state if (match := re.match(r"blocks\.\d+\.\d+\.", name))}
    blocks = sorted(places, key=lambda place: [int(number) for number in place.split(".")[1:3]])
    renamed = {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": f"features.{len(blocks) + 1}.0",
        "bn2": f"features.{len(blocks) + 1}.1",
        "classifier": "classifier.1",
    }
    for number, theirs in enumerate(blocks, 1):
        ours, expands = f"features.{number}.conv", f"{theirs}conv_pwl.weight" in state
        parts = ("conv_pw", "conv_dw", "conv_pwl") if expands else ("conv_dw", "conv_pw")
        for n, part in enumerate(parts):
            last = n == len(parts) - 1
            renamed[f"{theirs}{part}"] = f"{ours}.{n}" if last else f"{ours}.{n}.0"
            renamed[f"{theirs}bn{n + 1}"] = f"{ours}.{n + 1}" if last else f"{ours}.{n}.1"
    return {
        f"{renamed.get(module, module)}.{leaf}": array
        for name, array in state.items()
        for module, _, leaf in [name.rpartition(".")]
    }


def _convolution_norm(path: str, norm_path: str, name: str, norm_name: str) -> list[Entry]:
    return layer(path, name, bias=False) + batch_norm(norm_path, norm_name)


def _residual_block(ours: str, theirs: str, convolutions: int) -> list[Entry]:
    entries = []
    for n in range(1, convolutions + 1):
        entries += _convolution_norm(
            f"{ours}/conv{n}", f"{ours}/bn{n}", f"{theirs}.conv{n}", f"{theirs}.bn{n}"
        )
    return entries
