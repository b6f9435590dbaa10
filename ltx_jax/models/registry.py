"""Every network by its timm name: module, preprocessing, weight table and where the weights are."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.models.vit import VisionTransformer
from ltx_jax.weights import tables
from ltx_jax.weights.state_dict import Entry

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """A network that can explain or be explained.

    Attributes:
      name: the timm name.
      module: the Flax module, with its classifier.
      table: gives the module's weight table.
      preprocessing: what the published weights were trained with.
      classifier: name prefix of the classifier's tensors in a checkpoint.
      mask_head: which mask head fits its features: `tokens` (dense, tanh, dense) or `features`
        (one 1×1 convolution).
      hub: the Hugging Face repository of the published weights, or None.
      download: where the weights are to be had by hand when they are not on the hub.
      dialects: renamings of other libraries' tensor names, tried in turn.
    """

    name: str
    module: nn.Module
    table: Callable[[Any], list[Entry]]
    preprocessing: Preprocessing
    classifier: str
    mask_head: str
    hub: str | None = None
    download: str | None = None
    dialects: tuple[tables.Dialect, ...] = field(default=())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.preprocessing.size

    def with_module(self, **attributes: Any) -> Architecture:
        """The same architecture with some of its module's attributes changed."""
        return dataclasses.replace(self, module=self.module.clone(**attributes))


def architecture(
    name: str,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    **sizes: Any,
) -> Architecture:
    """Look an architecture up by its timm name.

    Args:
      name: a timm name, with or without its weight tag (`vit_base_patch16_224.augreg_in21k`).
      mean, std: of the input's normalisation where they are not the published ones.
      **sizes: module attributes to change (`num_classes`, `depth`, `image_size` …).

    Raises:
      InputError: for an unknown name (the nearest are shown) or attribute.
    """
    base = name.split(".")[0]
    if base not in ARCHITECTURES:
        near = difflib.get_close_matches(base, ARCHITECTURES, n=3, cutoff=0.3) or ARCHITECTURES
        raise InputError(f"unknown model {name!r}: the nearest names are {', '.join(near)}")
    found = ARCHITECTURES[base]
    known = {f.name for f in dataclasses.fields(found.module)} - {"parent", "name"}
    for key in set(sizes) - known:
        raise InputError(
            f"{base} has no size {key!r}: it has {', '.join(sorted(known))}; correct the setting"
        )
    module = found.module.clone(**sizes)
    how = found.preprocessing
    if "image_size" in sizes:
        how = dataclasses.replace(how, size=(sizes["image_size"],) * 2)
    how = dataclasses.replace(how, mean=mean or how.mean, std=std or how.std)
    return dataclasses.replace(found, name=name, module=module, preprocessing=how)


# --- Vision transformers ------------------------------------------------------------------------

_VIT_SIZES: Mapping[str, dict[str, int]] = {
    "tiny": {"width": 192, "depth": 12, "num_heads": 3},
    "small": {"width": 384, "depth": 12, "num_heads": 6},
    "base": {"width": 768, "depth": 12, "num_heads": 12},
    "large": {"width": 1024, "depth": 24, "num_heads": 16},
}
_VIT_TAGS = {  # the default weights of timm
    "vit_base_patch8_224": "augreg2_in21k_ft_in1k",
    "vit_base_patch16_224": "augreg2_in21k_ft_in1k",
}


def _vit(name: str, size: str, patch: int, image: int, deit: bool) -> Architecture:
    module = VisionTransformer(image_size=image, patch_size=patch, **_VIT_SIZES[size])
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if deit else (HALF, HALF)
    fraction = 1.0 if image == 384 else 0.9
    tag = "fb_in1k" if deit else _VIT_TAGS.get(name, "augreg_in21k_ft_in1k")
    return Architecture(
        name=name,
        module=module,
        table=tables.vision_transformer,
        preprocessing=Preprocessing(
            (image, image), mean, std, interpolation="bicubic", crop_fraction=fraction
        ),
        classifier="head.",
        mask_head="tokens",
        hub=f"timm/{name}.{tag}",
        dialects=(tables.vit_from_transformers,),
    )


def _vits() -> list[Architecture]:
    found = [
        _vit(f"vit_{size}_patch{patch}_{image}", size, patch, image, deit=False)
        for size in _VIT_SIZES
        for patch in (8, 14, 16, 32)
        for image in (224, 384)
    ]
    found += [
        _vit(f"deit_{size}_patch16_{image}", size, 16, image, deit=True)
        for size in ("tiny", "small", "base")
        for image in (224, 384)
    ]
    # A ViT of any other size: give it by attributes.
    return [*found, dataclasses.replace(found[0], name="vit", hub=None, download=None)]


ARCHITECTURES: dict[str, Architecture] = {found.name: found for found in _vits()}
