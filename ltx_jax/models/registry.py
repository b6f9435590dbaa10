"""Every network by its timm name: module, preprocessing, weight table and where the weights are."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.models.alexnet import AlexNet
from ltx_jax.models.backbone import Backbone, Features, Logits
from ltx_jax.models.densenet import DenseNet
from ltx_jax.models.mobilenet import MobileNetV2
from ltx_jax.models.resnet import CifarResNet, ResNet
from ltx_jax.models.squeezenet import SqueezeNet
from ltx_jax.models.vgg import VGG
from ltx_jax.models.vit import VisionTransformer
from ltx_jax.weights import tables, vision_transformers
from ltx_jax.weights.state_dict import Entry, StateDict

# Attributes of modules that do not make another network.
_FLAX = {"parent", "name", "operations"}
_NO_SIZES = {
    *_FLAX,
    *("num_classes", "frozen_blocks", "lora_rank"),
    *("dtype", "attention", "as_products", "backward", "training", "dropped"),
}
HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _as_it_is(state: StateDict, module: Any) -> StateDict:
    return state


@dataclass(frozen=True)
class Architecture:
    """A network that can explain or be explained.

    Attributes:
      name: the timm name.
      module: the Flax module.
      table: gives the module's weight table.
      preprocessing: what the published weights were trained with.
      classifier: name prefix of the classifier's tensors in a checkpoint.
      hub: the Hugging Face repository of the published weights, or None.
      download: where the weights are to be had by hand when they are not on the hub.
      dialects: renamings of other libraries' tensor names, tried in turn.
      told: what a state dict tells of the module's attributes, each of them.
      adapted: a state dict made to fit the module where it can be.
    """

    name: str
    module: Backbone
    table: Callable[[Any], list[Entry]]
    preprocessing: Preprocessing
    classifier: str
    hub: str | None = None
    download: str | None = None
    dialects: tuple[tables.Dialect, ...] = ()
    told: tuple[Callable[[StateDict], dict[str, Any]], ...] = ()
    adapted: Callable[[StateDict, Any], StateDict] = _as_it_is

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.preprocessing.size

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return len(self.preprocessing.mean)

    @property
    def sizes(self) -> dict[str, Any]:
        """What `architecture` makes the same network of, beside its name: it leaves out the
        classes, which part is trained and how it is computed."""
        fields = (field.name for field in dataclasses.fields(self.module))
        found = {name: getattr(self.module, name) for name in fields if name not in _NO_SIZES}
        how = self.preprocessing
        return found | {"image_size": max(how.size), "mean": how.mean, "std": how.std}

    @property
    def features(self) -> Features:
        """The network as a function of parameters and images to logits and intermediates."""
        how = self.preprocessing
        return Features(self.module, how.mean, how.std)

    @property
    def apply(self) -> Logits:
        """The network as a function of parameters and images to logits."""
        return Logits(self.features)

    def with_module(self, **attributes: Any) -> Architecture:
        """The same architecture with some of its module's attributes changed."""
        return dataclasses.replace(self, module=self.module.clone(**attributes))

    def of(self, state: StateDict, given: Collection[str]) -> Architecture:
        """The architecture that a state dict tells of, but for `given` attributes of its module.

        Raises:
          InputError: for sizes that do not fit, or that must be given.
        """
        found = {name: value for tell in self.told for name, value in tell(state).items()}
        found = {name: value for name, value in found.items() if name not in given}
        width = found.get("width")
        if width and "num_heads" not in found and "num_heads" not in given:
            raise InputError(
                f"the weights for {self.name} have a width of {width}, which is no multiple of 64 "
                "and does not tell the number of heads: give num_heads"
            )
        return dataclasses.replace(_sized(self, found), told=())


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
    known = {f.name for f in dataclasses.fields(found.module)} - _FLAX | {"image_size"}
    sizes = {key: hashable(size) for key, size in sizes.items() if size is not None}
    for key in set(sizes) - known:
        raise InputError(
            f"{base} has no size {key!r}: it has {', '.join(sorted(known))}; correct the setting"
        )
    found = _sized(found, sizes)
    how = found.preprocessing
    mean, std = how.mean if mean is None else mean, how.std if std is None else std
    if not (_is_like(mean, HALF) and _is_like(std, HALF) and len(mean) == len(std) and all(std)):
        raise InputError(
            f"the mean of {base} is {mean} and its std {std}: expected numbers, one a channel, and "
            "no std of 0"
        )
    how = dataclasses.replace(how, mean=tuple(mean), std=tuple(std))
    hub = f"timm/{name}" if "." in name else found.hub
    return dataclasses.replace(found, name=name, preprocessing=how, hub=hub)


def _sized(found: Architecture, sizes: Mapping[str, Any]) -> Architecture:
    """An architecture with these attributes of its module, once they are seen to fit."""
    base, _, _ = found.name.partition(".")
    for key, size in sizes.items():
        # A CNN takes images of any size.
        usual = getattr(found.module, key, max(found.size))
        if not _is_like(size, usual):
            raise InputError(f"the size {key} of {base} is {size!r}: expected one such as {usual}")
        least = {"num_classes": 0, "registers": 0, "image_size": found.module.smallest}.get(key, 1)
        if type(size) is int and size < least:
            raise InputError(f"the size {key} of {base} is {size}: it must be at least {least}")
    module: Any = found.module.clone(**{k: v for k, v in sizes.items() if hasattr(found.module, k)})
    for part, whole in (("patch_size", "image_size"), ("num_heads", "width")):
        if hasattr(module, part) and getattr(module, whole) % getattr(module, part):
            raise InputError(
                f"the {whole} of {base} is {getattr(module, whole)}: it must be a multiple of its "
                f"{part}, {getattr(module, part)}"
            )
    if getattr(module, "distilled", False) and (module.averaged or module.norm_pooled):
        raise InputError(
            f"{base} is distilled, but has no class token or reads a mean: its logits are of its "
            "class and distillation tokens; leave distilled out, or the other"
        )
    how = found.preprocessing
    if "image_size" in sizes:
        how = dataclasses.replace(how, size=(sizes["image_size"],) * 2)
    return dataclasses.replace(found, module=module, preprocessing=how)


def _is_like(given: Any, usual: Any) -> bool:
    """Whether a value is of the usual one's kind: yes or no, a number, a whole one, or several."""
    if isinstance(usual, tuple):
        several = isinstance(given, tuple | list) and bool(given)
        return several and all(_is_like(one, usual[0]) for one in given)
    if isinstance(usual, bool) or isinstance(given, bool):
        return isinstance(usual, bool) and isinstance(given, bool)
    if isinstance(usual, int):
        return isinstance(given, Integral)
    return not isinstance(usual, float) or (isinstance(given, Real) and math.isfinite(given))


def hashable(size: Any) -> Any:
    """A size as modules have it: they are compared and hashed, which lists of a configuration or
    of JSON cannot be."""
    return tuple(size) if isinstance(size, list) else size


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
