"""The original's per-image finetuning in eager PyTorch on timm's ViT, to measure against."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional

from ltx_jax.engine.finetune import FinetuneSettings, Task
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer, join
from ltx_jax.loading import explainer_table
from ltx_jax.models.vit import VisionTransformer
from ltx_jax.weights.state_dict import to_state_dict


def timm_vit(module: VisionTransformer, num_classes: int) -> Any:
    """timm's ViT of the same sizes."""
    try:
        torch.ops.torchvision.nms  # noqa: B018
    except (AttributeError, RuntimeError):
        # torchvision beside a torch of another build: its operators need to be defined at least.
        library = torch.library.Library("torchvision", "DEF")
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(f"nms{boxes}")
        library.define(f"qnms{boxes}")
    from timm.models import VisionTransformer as Timm

    return Timm(
        img_size=module.image_size,
        patch_size=module.patch_size,
        embed_dim=module.width,
        depth=module.depth,
        num_heads=module.num_heads,
        mlp_ratio=module.mlp_ratio,
        num_classes=num_classes,
    ).eval()


class MaskNetwork(torch.nn.Module):
    """timm's ViT with the original's mask head."""

    def __init__(self, module: VisionTransformer) -> None:
        super().__init__()
        self.vit = timm_vit(module, 0)
        self.patch_pooler = torch.nn.Linear(module.width, module.width)
        self.patch_classifier = torch.nn.Linear(module.width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images to token masks [n,1,g,g]."""
        tokens = self.vit.forward_features(images)[:, 1:]
        raw = self.patch_classifier(torch.tanh(self.patch_pooler(tokens)))
        side = int(raw.shape[1] ** 0.5)
        return torch.sigmoid(raw).reshape(len(images), 1, side, side)


def load(explainee: Explainee, explainer: Explainer) -> tuple[Any, MaskNetwork]:
    """Both networks with the weights of ours.

    Raises:
      InputError: where they are no ViTs.
    """
    own = explainee.architecture
    if own is None or not isinstance(own.module, VisionTransformer):
        raise InputError("the PyTorch loop knows ViTs only: measure it with one of their configs")
    classifier = timm_vit(own.module, own.module.num_classes)
    state = to_state_dict(explainee.params, own.table(own.module))
    classifier.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    masks = MaskNetwork(own.module)
    state = to_state_dict(
        join(explainer.trained, explainer.frozen), explainer_table(explainer.architecture)
    )
    masks.load_state_dict(
        {
            name if name.startswith("patch_") and "embed" not in name else f"vit.{name}": (
                torch.tensor(value)
            )
            for name, value in state.items()
        }
    )
    for frozen in (classifier, masks.vit.patch_embed):
        frozen.requires_grad_(False)
    masks.vit.cls_token.requires_grad_(False)
    masks.vit.pos_embed.requires_grad_(False)
    return classifier, masks


def method(
    explainee: Explainee, explainer: Explainer, chosen: FinetuneSettings, result: Any
) -> Callable[[Sequence[Task]], Any]:
    """The loop over a list of tasks; gives `result(seconds, images, steps, pos)`."""
    classifier, pretrained = load(explainee, explainer)
    mean, std = (
        torch.tensor(values, dtype=torch.float32)[:, None, None]
        for values in (explainer.mean, explainer.std)
    )

    def run(tasks: Sequence[Task]) -> Any:
        began = time.perf_counter()
        steps, best = 0, []
        for task in tasks:
            image = torch.tensor(task.image).permute(2, 0, 1)[None]
            scores = finetune(classifier, pretrained, image, chosen, mean, std)
            steps += len(scores)
            best.append(min(scores))
        return result(time.perf_counter() - began, len(tasks), steps, best)

    return run


def finetune(
    classifier: Any,
    pretrained: MaskNetwork,
    image: torch.Tensor,
    chosen: FinetuneSettings,
    mean: torch.Tensor,
    std: torch.Tensor,
) -> list[float]:
    """One image: the POS of each step's mask until one is good enough."""
    network = copy.deepcopy(pretrained)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=chosen.adamw.weight_decay)
    scores: list[float] = []
    for rate in chosen.learning_rates:
        with torch.no_grad():
            target = classifier((image - mean) / std).argmax(-1)
        mask = network((image - mean) / std)
        pixels = functional.interpolate(mask, image.shape[2:], mode="bilinear", align_corners=False)
        fit = functional.cross_entropy(classifier((image * pixels - mean) / std), target)
        area = functional.binary_cross_entropy_with_logits(mask, torch.zeros_like(mask))
        optimizer.zero_grad()
        (fit + chosen.objective.mask_weight * area).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        scores.append(score(classifier, image, pixels.detach(), target, mean, std))
        if scores[-1] < chosen.stop_below:
            break
    return scores


@torch.no_grad()
def score(
    classifier: Any,
    image: torch.Tensor,
    pixels: torch.Tensor,
    target: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
) -> float:
    """POS: ten forwards of one image, most relevant pixels blackened first."""
    count = pixels.numel()
    right = []
    for tenth in range(10):
        perturbed = image.clone().reshape(1, 3, -1)
        removed = torch.topk(pixels.flatten(), int(count * tenth / 10)).indices
        perturbed[..., removed] = 0
        logits = classifier((perturbed.reshape(image.shape) - mean) / std)
        right.append(float(logits.argmax(-1) == target))
    return float(np.trapezoid(right, dx=10.0))
