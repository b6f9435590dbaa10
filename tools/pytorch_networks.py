"""Our networks as timm's and torchvision's, to be compared with in PyTorch."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import jax
import numpy as np
import torch

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.models.architecture import Architecture
from ltx_jax.models.densenet import DenseNet
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.resnet import ResNet
from ltx_jax.models.squeezenet import SqueezeNet
from ltx_jax.models.vit import VisionTransformer
from ltx_jax.weights.state_dict import to_state_dict


@cache
def define_torchvision_operators() -> Any:
    """torchvision beside a torch of another build, which cannot load its operators: they need to be
    defined at least.

    What is returned, and cached, keeps them defined.
    """
    try:
        import torchvision
    except RuntimeError:  # they are missing
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(f"nms{boxes}")
        library.define(f"qnms{boxes}")
        return library
    return torchvision


def jax_device() -> torch.device:
    """The device that JAX runs on, where float32 is float32 from now on, as ours is.

    Raises:
      InputError: where JAX has a GPU and PyTorch has none.
    """
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise InputError("this PyTorch has no CUDA: install one that has, to compare on the GPU")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if on_gpu else "cpu")


def channels_first(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """Images [n,H,W,C], uint8 or in [0,1], as [n,C,H,W] in [0,1]."""
    scaled = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
    return torch.tensor(scaled, device=device).permute(0, 3, 1, 2)


class Normalised(torch.nn.Module):
    """A network of images [n,3,H,W] in [0,1], whose answer is float32."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, network: torch.nn.Module, how: Preprocessing, dtype: torch.dtype | None
    ) -> None:
        """Of a network of normalised images.

        Args:
          network: its weights are float32.
          how: says how images are normalised.
          dtype: of autocast; None for float32 throughout.
        """
        super().__init__()
        self.network, self.dtype = network, dtype
        for name, values in (("mean", how.mean), ("std", how.std)):
            shaped = torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, shaped, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to what the network makes of them."""
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            return self.network((images - self.mean) / self.std).float()


def load_classifier(explainee: Explainee, dtype: torch.dtype | None = None) -> Normalised:
    """The classifier with its weights, frozen, on JAX's device.

    Args:
      explainee: what `load_explainee` gives.
      dtype: see `Normalised`.

    Raises:
      InputError: for a network of one's own; as `unfilled` and `jax_device`.
    """
    own = explainee.architecture
    if own is None:
        raise InputError(f"{explainee.name} is no network of PyTorch's: give explainee.name")
    network = unfilled(own)
    fill(network, to_state_dict(explainee.params, own.table(own.module)))
    return Normalised(network, own.preprocessing, dtype).requires_grad_(False).to(jax_device())


def unfilled(own: Architecture) -> torch.nn.Module:
    """timm's or torchvision's classifier of the same sizes, with any weights.

    Raises:
      InputError: for a family that is not known here.
    """
    if isinstance(own.module, VisionTransformer):
        return timm_vit(own.module, own.module.num_classes)
    if isinstance(own.module, ResNet | DenseNet | SqueezeNet):
        define_torchvision_operators()
        import torchvision

        make = getattr(torchvision.models, own.name.partition(".")[0])
        return make(num_classes=own.module.num_classes).eval()
    raise InputError(
        "comparisons with PyTorch know ViTs, ResNets, DenseNets and SqueezeNet: choose one of "
        "them, or leave out --against-pytorch"
    )


def timm_vit(module: VisionTransformer, num_classes: int) -> Any:
    """timm's ViT of the same sizes.

    Raises:
      InputError: for a distilled one.
    """
    if module.distilled:
        raise InputError(
            "comparisons with PyTorch know no distilled ViT: choose another, or leave out "
            "--against-pytorch"
        )
    define_torchvision_operators()
    from timm.models import VisionTransformer as Timm

    return Timm(
        img_size=module.image_size,
        patch_size=module.patch_size,
        embed_dim=module.width,
        depth=module.depth,
        num_heads=module.num_heads,
        mlp_ratio=module.mlp_ratio,
        num_classes=num_classes,
        class_token=module.class_token,
        reg_tokens=module.registers,
        global_pool="avg" if module.averaged else "token",
        fc_norm=module.norm_pooled,
        init_values=1.0 if module.layer_scale else None,
        qkv_bias=module.qkv_bias,
        no_embed_class=not module.prefix_positions,
    ).eval()


def fill(network: torch.nn.Module, state: dict[str, np.ndarray]) -> None:
    """All weights but PyTorch's counts of batches, and a classifier that an explainer lacks."""
    tensors = {name: torch.tensor(value) for name, value in state.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    lost = [name for name in missing if not name.endswith("batches_tracked")]
    assert not unexpected and all(name.startswith(("fc.", "classifier.")) for name in lost), lost
