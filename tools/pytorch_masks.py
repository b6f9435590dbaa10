"""The mask itself with budgets in PyTorch: each image's raw values, with no network to draw them.

Every step the classifier sees each image three times: through the mask; through the mask made so
steep that a share k of the pixels is let through, a budget which is drawn anew each step; and
through the complement of that.
"""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional

from ltx_jax.masks.tokens import interpolation_matrix

# The most that losing the class is worth, in nats.
_LOST = 6.0
# Differences of neighbours below it count by their square.
_EQUAL = 0.01
# A budgeted mask's width, in standard deviations of the raw values, and the least it may be.
_WIDTH, _LEAST_WIDTH = 0.5, 0.3


class Problem(NamedTuple):
    """What is optimised for, the same in every step.

    Attributes:
      images: [n,3,H,W] in [0,1].
      targets: [n].
      fillings: [3,n,3,H,W], what stands where nothing is seen: black, mean colour, blur.
      rows, columns: [H,g] and [h,W], which interpolate cells bilinearly, as products: the gradient
        of two uses of `interpolate` through `torch.compile` was wrong on a CPU (PyTorch 2.13).
      mask_weight: of the mask's size.
      budget_weight: of keeping and losing the class with a budget.
      variation_weight: of its total variation.
    """

    images: torch.Tensor
    targets: torch.Tensor
    fillings: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    mask_weight: float
    budget_weight: float
    variation_weight: float

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        targets: np.ndarray,
        blur: np.ndarray,
        grid: tuple[int, ...],
        weights: tuple[float, float, float],
        device: torch.device,
    ) -> Problem:
        """On a device, for masks of `grid` (g, h); the rest as `optimise` takes it, the weights in
        the order they have here."""
        mean = np.broadcast_to(images.mean((2, 3), keepdims=True), images.shape)
        fillings = np.stack([np.zeros_like(images), mean, blur])
        rows, columns = map(interpolation_matrix, grid, images.shape[2:])
        on = partial(torch.tensor, device=device)
        classes = on(targets).long()
        return cls(on(images), classes, on(fillings), on(rows), on(columns.T), *weights)


def optimise(
    classifier: torch.nn.Module,
    images: np.ndarray,
    targets: np.ndarray,
    start: np.ndarray,
    ks: np.ndarray,
    fills: np.ndarray,
    blur: np.ndarray,
    steps: int,
    weights: tuple[float, float, float],
    learning_rate: float,
    compiled: bool,
) -> tuple[np.ndarray, float]:
    """Optimise the masks of a batch of images with Adam, side by side: none depends on another.

    Args:
      classifier: images [n,3,H,W] in [0,1] to logits; frozen, in evaluation mode. All is computed
        on its device.
      images: [n,3,H,W] in [0,1].
      targets: [n], the classes to explain.
      start: raw values [n,g,h] to begin with.
      ks: budgets of each step and image [steps,n], shares of the pixels in (0,1).
      fills: of each step and image [steps,n]: 0 black, 1 mean colour, 2 blur.
      blur: the images blurred [n,3,H,W].
      steps: how many.
      weights: of the mask's size, the budget and total variation.
      learning_rate: Adam's.
      compiled: whether loss and gradient go through `torch.compile`.

    Returns:
      The last raw values, and the seconds that took; a step before them, which compiles and warms
      up, is not counted.
    """
    device = next(classifier.parameters()).device
    problem = Problem.of(images, targets, blur, start.shape[1:], weights, device)
    budgets, chosen = (torch.tensor(x, device=device) for x in (ks, fills))
    loss = torch.compile(total_loss, dynamic=False) if compiled else total_loss

    def run(steps: int) -> np.ndarray:
        raw = torch.tensor(start, device=device, requires_grad=True)
        optimizer = torch.optim.Adam([raw], lr=learning_rate)
        for k, fill in zip(budgets[:steps], chosen[:steps], strict=True):
            optimizer.zero_grad()
            loss(classifier, problem, raw, k, fill).backward()
            optimizer.step()
        return raw.detach().cpu().numpy()

    run(1)
    began = time.perf_counter()
    final = run(steps)
    return final, time.perf_counter() - began


def total_loss(
    classifier: torch.nn.Module,
    problem: Problem,
    raw: torch.Tensor,
    k: torch.Tensor,
    fill: torch.Tensor,
) -> torch.Tensor:
    """The sum of the images' losses, so that each one's gradient is its own.

    Args:
      classifier, problem: see `optimise`.
      raw: [n,g,h].
      k: [n], the budgets.
      fill: [n], which of the fillings.
    """
    images, masks = problem.images, torch.sigmoid(raw)
    other = problem.fillings[fill, torch.arange(len(images), device=fill.device)]
    # A budget says which cells to prefer, not how many: its gradient does not move all together.
    mean = raw.mean((1, 2), keepdim=True)
    order = raw + (mean.detach() - mean)
    seen, values = ((problem.rows @ cells @ problem.columns)[:, None] for cells in (masks, order))
    kept = budgeted(values, k)
    covered = [images * shown + other * (1 - shown) for shown in (seen, kept, 1 - kept)]
    logits = classifier(torch.cat(covered))
    misfit = functional.cross_entropy(logits, problem.targets.repeat(3), reduction="none")
    of_mask, of_kept, of_hidden = misfit.chunk(3)
    budget = of_kept - of_hidden.clamp(max=_LOST)
    size, variation = functional.softplus(masks).mean((1, 2)), total_variation(masks)
    total = of_mask + problem.mask_weight * size + problem.budget_weight * budget
    return (total + problem.variation_weight * variation).sum()


def budgeted(raw: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """A mask [n,1,H,W] of raw values [n,1,H,W] that is above a half on a share k [n] of the pixels.

    Where its edge lies and how wide it is are no matters of the gradient.
    """
    values = raw.detach().flatten(1)
    edge = _quantile(values, 1 - k)
    width = (_WIDTH * values.std(1, correction=0)).clamp(min=_LEAST_WIDTH)
    edge, width = (x[:, None, None, None] for x in (edge, width))
    return torch.sigmoid((raw - edge) / width)


def _quantile(values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """A quantile of each row, between two values linearly; torch's has one share for all rows."""
    ordered, last = values.sort(1).values, values.shape[1] - 1
    position = share * last
    lower = position.long()
    around = ordered.gather(1, torch.stack([lower, (lower + 1).clamp(max=last)], 1))
    return torch.lerp(around[:, 0], around[:, 1], position - lower)


def total_variation(masks: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbours along the height, plus along the width, [n]; Huber's
    below a hundredth."""
    huber = partial(functional.huber_loss, reduction="none", delta=_EQUAL)
    down, across = (
        huber(d, torch.zeros_like(d)).mean((1, 2)) / _EQUAL
        for d in (masks.diff(dim=1), masks.diff(dim=2))
    )
    return down + across
