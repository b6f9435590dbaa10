"""The original's per-image finetuning in PyTorch on timm's or torchvision's networks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as functional
from pytorch_networks import Normalised, fill, jax_device, load_classifier, timm_vit, unfilled

from ltx_jax.engine.finetune import Task
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import join
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.vit import VisionTransformer
from ltx_jax.settings.sections import Finetune, Objective
from ltx_jax.weights.state_dict import to_state_dict

# Images in [0,1] to logits, or to masks.
Network = Callable[[torch.Tensor], torch.Tensor]


class TokenMask(torch.nn.Module):
    """timm's ViT with the original's mask head."""

    def __init__(self, module: VisionTransformer) -> None:
        super().__init__()
        self.vit = timm_vit(module, 0)
        self.patch_pooler = torch.nn.Linear(module.width, module.width)
        self.patch_classifier = torch.nn.Linear(module.width, 1)
        self.vit.patch_embed.requires_grad_(False)
        for name in (*module.prefix_tokens(), "pos_embed"):
            getattr(self.vit, name).requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images to token masks [n,1,g,g]."""
        tokens = self.vit.forward_features(images)[:, self.vit.num_prefix_tokens :]
        raw = self.patch_classifier(torch.tanh(self.patch_pooler(tokens)))
        side = int(raw.shape[1] ** 0.5)
        return torch.sigmoid(raw).reshape(len(images), 1, side, side)


class FeatureMask(torch.nn.Module):
    """torchvision's CNN with the original's mask head."""

    def __init__(self, cnn: Any, width: int) -> None:
        super().__init__()
        self.cnn = cnn
        layers = [layer for layer in cnn.children() if not isinstance(layer, torch.nn.Linear)]
        # Of a ResNet all but the pooling at the end.
        self.features = getattr(cnn, "features", None) or torch.nn.Sequential(*layers[:-1])
        self.bottleneck = torch.nn.Conv2d(width, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images to token masks [n,1,g,g]."""
        return torch.sigmoid(self.bottleneck(self.features(images)))


def load_masks(explainee: Explainee, explainer: Explainer, dtype: torch.dtype | None) -> Normalised:
    """The explainer with its weights, on JAX's device.

    Args:
      explainee: what it explains, of the same kind.
      explainer: ours.
      dtype: see `Normalised`.

    Raises:
      InputError: as `load_classifier`; for two different networks, or an explainer of which only a
        part is trained.
    """
    own, whole = explainee.architecture, explainer.module
    part = getattr(whole.backbone, "frozen_blocks", 0) or whole.trained != "all"
    if own is None or own.name != explainer.architecture.name or part:
        raise InputError(
            "the PyTorch loop trains the whole of an explainer of the explainee's own kind: leave "
            "explainer.name, explainer.trained and explainer.frozen_blocks as they are"
        )
    state = to_state_dict(join(explainer.trained, explainer.frozen), explainer.table())
    masks: Any
    if isinstance(own.module, VisionTransformer):
        masks = TokenMask(own.module)
        head = ("patch_pooler.", "patch_classifier.")
        fill(masks, {n if n.startswith(head) else f"vit.{n}": x for n, x in state.items()})
    else:
        kernel, bias = (state.pop(f"bottleneck.{part}") for part in ("weight", "bias"))
        masks = FeatureMask(unfilled(own), kernel.shape[1]).eval()
        fill(masks.cnn, state)
        fill(masks.bottleneck, {"weight": kernel[..., None, None], "bias": bias})
    return Normalised(masks, explainer.architecture.preprocessing, dtype).to(jax_device())


class How(NamedTuple):
    """How PyTorch goes about it.

    Attributes:
      batched: the unmasked prediction once an image, and the perturbed images in one forward. The
        original does one at a time.
      compiled: both networks through `torch.compile`.
      dtype: of autocast; None for float32 throughout, as the original.
    """

    batched: bool = False
    compiled: bool = False
    dtype: torch.dtype | None = None


def ways(explainee: Explainee) -> dict[str, How]:
    """The original's way, and the best that PyTorch makes of it, in the explainee's type."""
    own = explainee.architecture
    half = own is not None and own.module.dtype == jnp.bfloat16
    dtype = torch.bfloat16 if half else None
    suffix = " bfloat16" if half else ""
    return {
        "pytorch": How(),
        f"pytorch batched{suffix}": How(True, False, dtype),
        f"pytorch compiled{suffix}": How(True, True, dtype),
    }


def method(
    explainee: Explainee,
    explainer: Explainer,
    objective: Objective,
    chosen: Finetune,
    result: Any,
    how: How,
) -> Callable[[Sequence[Task]], Any]:
    """The loop over a list of tasks; gives `result(seconds, images, steps, scores)`.

    Runs on the device that JAX runs on.

    Args:
      explainee, explainer, objective, chosen: ours, whose weights and settings it takes.
      result: makes the result.
      how: see `How`.

    Raises:
      InputError: as `load_masks`, or for another objective than the default.
    """
    further = any(objective.terms.values())
    if further or objective.mask_loss != "bce" or objective.logits_only or objective.counterfactual:
        raise InputError("the PyTorch loop has the default objective alone: leave the others out")
    classifier = load_classifier(explainee, how.dtype)
    network = load_masks(explainee, explainer, how.dtype)
    start = copy.deepcopy(network.state_dict())
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    classify, draw = classifier, network
    if how.compiled:
        classify, draw = torch.compile(classifier), torch.compile(network)

    def run(tasks: Sequence[Task]) -> Any:
        began = time.perf_counter()
        steps, best = 0, []
        for task in tasks:
            network.load_state_dict(start)
            image = torch.tensor(task.image, device=classifier.mean.device)
            image = image.permute(2, 0, 1)[None]
            scores = finetune(classify, draw, trained, image, objective, chosen, how.batched)
            steps += len(scores)
            best.append(min(scores) if chosen.optimize == "pos" else max(scores))
        return result(time.perf_counter() - began, len(tasks), steps, best)

    return run


def finetune(
    classifier: Network,
    network: Network,
    trained: list[torch.nn.Parameter],
    image: torch.Tensor,
    objective: Objective,
    chosen: Finetune,
    batched: bool,
) -> list[float]:
    """One image: the POS (or NEG) of each step's mask until one is good enough."""
    optimizer = torch.optim.AdamW(
        trained, lr=chosen.learning_rate, weight_decay=chosen.weight_decay
    )
    scores: list[float] = []
    unmasked = None
    for _ in range(chosen.steps):
        if unmasked is None or not batched:
            with torch.no_grad():
                unmasked = classifier(image)
        target = unmasked.argmax(-1)
        mask = network(image)
        pixels = functional.interpolate(mask, image.shape[2:], mode="bilinear", align_corners=False)
        fit = functional.cross_entropy(classifier(image * pixels), target)
        area = functional.binary_cross_entropy_with_logits(mask, torch.zeros_like(mask))
        optimizer.zero_grad()
        (fit + objective.mask_weight * area).backward()
        optimizer.step()
        most_relevant_first = chosen.optimize == "pos"
        order = pixels.detach() if most_relevant_first else -pixels.detach()
        classify = _all_at_once if batched else _one_at_a_time
        scores.append(score(classifier, image, order, int(target), classify))
        good = scores[-1] < chosen.stop_below
        if good if most_relevant_first else scores[-1] > chosen.stop_above:
            break
    return scores


@torch.no_grad()
def judge(classifier: Network, network: Network, images: torch.Tensor, batched: bool) -> float:
    """The mean POS of a network's masks, an image after the other, as the original validates."""
    classify, scores = _all_at_once if batched else _one_at_a_time, []
    for image in images[:, None]:
        pixels = functional.interpolate(network(image), image.shape[2:], mode="bilinear")
        target = int(classifier(image).argmax(-1))
        scores.append(score(classifier, image, pixels, target, classify))
    return float(np.mean(scores))


@torch.no_grad()
def score(
    classifier: Network,
    image: torch.Tensor,
    order: torch.Tensor,
    target: int,
    classify: Callable[[Network, torch.Tensor], torch.Tensor],
) -> float:
    """The area of top-1 agreement over ten images, highest values of `order` blackened first."""
    count = order.numel()
    perturbed = image.repeat(10, 1, 1, 1).reshape(10, 3, -1)
    for tenth in range(10):
        removed = torch.topk(order.flatten(), int(count * tenth / 10)).indices
        perturbed[tenth, :, removed] = 0
    predicted = classify(classifier, perturbed.reshape(10, *image.shape[1:]))
    return float(np.trapezoid((predicted == target).float().cpu().numpy(), dx=10.0))


def _one_at_a_time(classifier: Network, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([classifier(image[None]).argmax(-1) for image in images])


def _all_at_once(classifier: Network, images: torch.Tensor) -> torch.Tensor:
    return classifier(images).argmax(-1)
