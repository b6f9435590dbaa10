"""How well a mask's foreground covers the true object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def foreground(pixel_mask: Float[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Where a mask, scaled to [0,1], exceeds its own mean (the original's segmentation test)."""
    return pixel_mask > pixel_mask.mean()


def intersection_over_union(
    pixel_mask: Float[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"]
) -> float:
    """IoU in percent of a mask's foreground with the true object; 0 where both are empty."""
    marked = foreground(pixel_mask)
    union = np.logical_or(marked, truth).sum()
    return 100.0 * float(np.logical_and(marked, truth).sum() / union) if union else 0.0
