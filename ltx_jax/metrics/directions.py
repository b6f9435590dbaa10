"""What each score means and which way is better."""

from __future__ import annotations

from typing import NamedTuple


class Direction(NamedTuple):
    """`better` is `lower` or `higher`; `meaning` is one line for people."""

    better: str
    meaning: str

    @property
    def arrow(self) -> str:
        """↓ or ↑."""
        return "↓" if self.better == "lower" else "↑"


DIRECTIONS = {
    "pos": Direction("lower", "area under agreement, most relevant pixels removed first"),
    "neg": Direction("higher", "area under agreement, least relevant pixels removed first"),
    "ins": Direction("higher", "area under probability, least relevant pixels removed first"),
    "del": Direction("lower", "area under probability, most relevant pixels removed first"),
    "adp": Direction("lower", "share of the probability lost through the mask"),
    "pic": Direction("higher", "share of images whose probability rises through the mask"),
    "iou": Direction("higher", "overlap of the mask's foreground with the true object"),
}
