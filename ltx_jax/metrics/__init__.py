"""Scores of masks: each declares itself in a file of this room."""

from ltx_jax.metrics.score import Score
from ltx_jax.rooms import declared

_DECLARED = declared(__name__, Score)
SCORES: dict[str, Score] = {
    score.name: score for score in sorted(_DECLARED.values(), key=lambda score: score.column)
}
