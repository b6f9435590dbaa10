"""Reference networks from timm and torchvision, beside a torch without their operators."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from pytorch_networks import define_torchvision_operators  # noqa: E402

define_torchvision_operators()
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")


def lively(network, seed: int = 0):
    """Random weights that tell images apart, and random batch-norm statistics."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like, scale):
        return torch.randn(like.shape, generator=generator) * scale

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.copy_(normal(module.running_mean, 0.3))
                module.running_var.copy_(
                    torch.rand(module.running_var.shape, generator=generator) + 0.5
                )
                module.weight.copy_(1 + normal(module.weight, 0.2))
                module.bias.copy_(normal(module.bias, 0.2))
    return network.eval()


def state_dict(network) -> dict[str, np.ndarray]:
    """A torch network's tensors as numpy arrays."""
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def channels_first(images: np.ndarray):
    """[n,h,w,3] to torch's [n,3,h,w]."""
    return torch.tensor(images.transpose(0, 3, 1, 2))
