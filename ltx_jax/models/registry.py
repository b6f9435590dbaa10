"""Every network by its timm name: module, preprocessing, weight table and where the weights are."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.models.alexnet import AlexNet
from ltx_jax.models.architecture import HALF, Architecture
from ltx_jax.models.backbone import Backbone
from ltx_jax.models.densenet import DenseNet
from ltx_jax.models.mobilenet import MobileNetV2
from ltx_jax.models.resnet import CifarResNet, ResNet
from ltx_jax.models.squeezenet import SqueezeNet
from ltx_jax.models.vgg import VGG
from ltx_jax.models.vit import VisionTransformer
from ltx_jax.weights import tables, vision_transformers
from ltx_jax.weights.state_dict import Entry

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def architecture(
    name: str,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **sizes: Any,
) -> Architecture:
    """Look an architecture up by its timm name.

    Args:
      name: a timm name, with or without its weight tag (`vit_base_patch16_224.augreg_in21k`).
      mean, std: of the input's normalisation where they are not the published ones.
      **sizes: module attributes to change (`num_classes`, `depth` …), and `image_size`, its height
        and width in pixels; None leaves one as it is.

    Raises:
      InputError: for an unknown name (the nearest are shown) or attribute, or sizes that do not
        fit.
    """
    base, _, _ = name.partition(".")
    if base not in ARCHITECTURES:
        near = difflib.get_close_matches(base, ARCHITECTURES, n=3, cutoff=0.3) or ARCHITECTURES
        raise InputError(f"unknown model {name!r}: the nearest names are {', '.join(near)}")
    found = ARCHITECTURES[base]
    found = found.with_sizes({key: size for key, size in sizes.items() if size is not None})
    how = found.preprocessing
    found = found.with_normalisation(
        how.mean if mean is None else mean, how.std if std is None else std
    )
    hub = f"timm/{name}" if "." in name else found.hub
    return dataclasses.replace(found, name=name, hub=hub)


# --- Vision transformers ------------------------------------------------------------------------

_VIT_SIZES: Mapping[str, dict[str, Any]] = {
    "tiny": {"width": 192, "depth": 12, "num_heads": 3},
    "wee": {"width": 256, "depth": 14, "num_heads": 4, "mlp_ratio": 5.0},
    "little": {"width": 320, "depth": 14, "num_heads": 5, "mlp_ratio": 5.6},
    "small": {"width": 384, "depth": 12, "num_heads": 6},
    "medium": {"width": 512, "depth": 12, "num_heads": 8},
    "mediumd": {"width": 512, "depth": 20, "num_heads": 8},
    "betwixt": {"width": 640, "depth": 12, "num_heads": 10},
    "base": {"width": 768, "depth": 12, "num_heads": 12},
    "large": {"width": 1024, "depth": 24, "num_heads": 16},
}
_VITS = (  # size, patch, image: those that timm has classifiers of
    ("tiny", 16, 224),
    ("tiny", 16, 384),
    ("small", 16, 224),
    ("small", 16, 384),
    ("small", 32, 224),
    ("small", 32, 384),
    ("base", 8, 224),
    ("base", 16, 224),
    ("base", 16, 384),
    ("base", 32, 224),
    ("base", 32, 384),
    ("large", 16, 224),
    ("large", 16, 384),
    ("large", 32, 384),
)
_DEITS = (("tiny", 224), ("small", 224), ("base", 224), ("base", 384))
_DEITS3 = (
    ("small", 224),
    ("small", 384),
    ("medium", 224),
    ("base", 224),
    ("base", 384),
    ("large", 224),
    ("large", 384),
)
_DEIT3: dict[str, Any] = {"layer_scale": True, "prefix_positions": False}
_AVERAGED: dict[str, Any] = {
    "class_token": False,
    "average_pool": True,
    "layer_scale": True,
    "prefix_positions": False,
}
_REGISTERED = (  # size, registers, image, timm's default weights
    ("wee", 1, 256, "sbb_in1k"),
    ("little", 1, 256, "sbb_in12k_ft_in1k"),
    ("little", 4, 256, "sbb_in1k"),
    ("medium", 1, 256, "sbb_in1k"),
    ("medium", 4, 256, "sbb_in12k_ft_in1k"),
    ("mediumd", 4, 256, "sbb2_e200_in12k_ft_in1k"),
    ("mediumd", 4, 384, "sbb2_e200_in12k_ft_in1k"),
    ("betwixt", 1, 256, "sbb_in1k"),
    ("betwixt", 4, 256, "sbb2_e200_in12k_ft_in1k"),
    ("betwixt", 4, 384, "sbb2_e200_in12k_ft_in1k"),
)
_TORCHVISION = {  # size, patch, crop fraction, file
    "vit_b_16": ("base", 16, 0.875, "vit_b_16-c867db91"),
    "vit_b_32": ("base", 32, 0.875, "vit_b_32-d86f8d99"),
    "vit_l_16": ("large", 16, 224 / 242, "vit_l_16-852ce7e3"),
    "vit_l_32": ("large", 32, 0.875, "vit_l_32-c7638314"),
}
_VIT_TAGS = {  # timm's default weights where they are not augreg_in21k_ft_in1k
    "vit_base_patch8_224": "augreg2_in21k_ft_in1k",
    "vit_base_patch16_224": "augreg2_in21k_ft_in1k",
    "vit_large_patch32_384": "orig_in21k_ft_in1k",
}


def _vit(
    name: str,
    size: str,
    patch: int,
    image: int,
    tag: str | None,
    *,
    mean: tuple[float, ...] = HALF,
    std: tuple[float, ...] = HALF,
    interpolation: str = "bicubic",
    crop_fraction: float | None = None,
    download: str | None = None,
    **structure: Any,
) -> Architecture:
    if crop_fraction is None:
        crop_fraction = {224: 0.9, 256: 0.95, 384: 1.0}[image]
    return Architecture(
        name=name,
        module=VisionTransformer(
            image_size=image, patch_size=patch, **_VIT_SIZES[size], **structure
        ),
        table=tables.vision_transformer,
        preprocessing=Preprocessing(
            (image, image), mean, std, interpolation=interpolation, crop_fraction=crop_fraction
        ),
        classifier="head",
        hub=f"timm/{name}.{tag}" if tag else None,
        download=download,
        dialects=(
            vision_transformers.vit_from_transformers,
            vision_transformers.vit_from_torchvision,
            vision_transformers.vit_from_deit3,
        ),
        told=(vision_transformers.vit_structure,),
        adapted=vision_transformers.with_positions_of,
    )


def _vits() -> list[Architecture]:
    imagenet: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    found = []
    for size, patch, image in _VITS:
        name = f"vit_{size}_patch{patch}_{image}"
        tag = _VIT_TAGS.get(name, "augreg_in21k_ft_in1k")
        found.append(_vit(name, size, patch, image, tag))
    kinds: tuple[tuple[str, Any, dict[str, Any]], ...] = (
        ("deit_{}", _DEITS, {}),
        ("deit_{}_distilled", _DEITS, {"distilled": True}),
        ("deit3_{}", _DEITS3, _DEIT3),
    )
    for kind, deits, structure in kinds:
        for size, image in deits:
            name = f"{kind.format(size)}_patch16_{image}"
            found.append(_vit(name, size, 16, image, "fb_in1k", **imagenet, **structure))
    for image in (256, 384):
        name, structure = f"vit_medium_patch16_gap_{image}", _AVERAGED | {"qkv_bias": False}
        found.append(
            _vit(name, "medium", 16, image, "sw_in12k_ft_in1k", crop_fraction=0.95, **structure)
        )
    for size, registers, image, tag in _REGISTERED:
        name = f"vit_{size}_patch16_reg{registers}_gap_{image}"
        structure = _AVERAGED | {"norm_pooled": True}
        found.append(_vit(name, size, 16, image, tag, registers=registers, **structure))
    for name, (size, patch, fraction, file) in _TORCHVISION.items():
        how = imagenet | {
            "interpolation": "bilinear",
            "crop_fraction": fraction,
            "download": f"https://download.pytorch.org/models/{file}.pth",
        }
        found.append(_vit(name, size, patch, 224, None, **how))
    return [*found, _any_vit(found[0])]


def _any_vit(known: Architecture) -> Architecture:
    """A ViT of any size: as its weights tell, or by attributes."""
    told = (*known.told, vision_transformers.vit_sizes)
    return dataclasses.replace(known, name="vit", hub=None, told=told)


# --- Convolutional networks ---------------------------------------------------------------------


def _cnn(
    name: str,
    module: Backbone,
    table: Callable[[Any], list[Entry]],
    tag: str | None,
    *,
    classifier: str,
    interpolation: str = "bicubic",
    crop_fraction: float = 0.875,
    size: int = 224,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    **more: Any,
) -> Architecture:
    return Architecture(
        name=name,
        module=module,
        table=table,
        preprocessing=Preprocessing(
            (size, size), mean, std, interpolation=interpolation, crop_fraction=crop_fraction
        ),
        classifier=classifier,
        hub=f"timm/{name}.{tag}" if tag else None,
        **more,
    )


_RESNETS = {  # blocks of each stage, bottleneck, timm's default weights, crop fraction
    "resnet18": ((2, 2, 2, 2), False, "a1_in1k", 0.95),
    "resnet34": ((3, 4, 6, 3), False, "a1_in1k", 0.95),
    "resnet50": ((3, 4, 6, 3), True, "a1_in1k", 0.95),
    "resnet101": ((3, 4, 23, 3), True, "a1h_in1k", 0.95),
    "resnet152": ((3, 8, 36, 3), True, "a1h_in1k", 0.95),
}
_DENSENETS = {  # layers of each block, growth rate, stem features, timm's default weights
    "densenet121": ((6, 12, 24, 16), 32, 64, "ra_in1k"),
    "densenet161": ((6, 12, 36, 24), 48, 96, "tv_in1k"),
    "densenet169": ((6, 12, 32, 32), 32, 64, "tv_in1k"),
    "densenet201": ((6, 12, 48, 32), 32, 64, "tv_in1k"),
}
_VGGS = {  # convolutions of each group
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def _cnns() -> list[Architecture]:
    found = [
        _cnn(
            name,
            ResNet(depths=blocks, bottleneck=neck),
            tables.resnet,
            tag,
            classifier="fc.",
            crop_fraction=fraction,
        )
        for name, (blocks, neck, tag, fraction) in _RESNETS.items()
    ]
    found += [
        _cnn(
            name,
            DenseNet(block_config=blocks, growth_rate=growth, num_init_features=stem),
            tables.densenet,
            tag,
            classifier="classifier.",
        )
        for name, (blocks, growth, stem, tag) in _DENSENETS.items()
    ]
    found += [
        _cnn(
            name,
            VGG(depths=depths),
            tables.vgg,
            "tv_in1k",
            classifier="classifier.",
            interpolation="bilinear",
            dialects=(tables.vgg_from_timm,),
        )
        for name, depths in _VGGS.items()
    ]
    found += [
        _cnn(
            f"cifar_resnet{depth}",
            CifarResNet(depth=depth),
            tables.cifar_resnet,
            None,
            classifier="linear.",
            size=32,
            download="a CIFAR ResNet with option-A shortcuts",
        )
        for depth in (20, 32, 44, 56, 110)
    ]
    alexnet = _cnn(
        "alexnet",
        AlexNet(),
        tables.alexnet,
        None,
        classifier="classifier.",
        interpolation="bilinear",
        download="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    )
    return [*found, alexnet, *_mobile_cnns()]


def _mobile_cnns() -> list[Architecture]:
    return [
        *(
            _cnn(
                f"squeezenet{version}",
                module,
                tables.squeezenet,
                None,
                classifier="classifier.",
                interpolation="bilinear",
                download=f"https://download.pytorch.org/models/squeezenet{version}-{digest}.pth",
            )
            for version, module, digest in (
                ("1_0", SqueezeNet(first=(96, 7), pooled=(3, 7, 12)), "b66bff10"),
                ("1_1", SqueezeNet(), "b8a52dc0"),
            )
        ),
        _cnn(
            "mobilenetv2_100",
            MobileNetV2(),
            tables.mobilenet_v2,
            "ra_in1k",
            classifier="classifier.",
            dialects=(tables.mobilenet_v2_from_timm,),
        ),
        _cnn(
            "mobilenet_v2_keras",
            MobileNetV2(folded=True, same_padding=True),
            tables.mobilenet_v2,
            None,
            classifier="52_",
            interpolation="bilinear",
            mean=HALF,
            std=HALF,
            download="Keras' MobileNetV2 1.0/224 with its batch norms folded into the convolutions",
        ),
    ]


ARCHITECTURES: dict[str, Architecture] = {found.name: found for found in [*_vits(), *_cnns()]}
