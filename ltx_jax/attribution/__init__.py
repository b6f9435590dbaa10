"""Rival methods: each declares itself in a file of this room."""

from ltx_jax.attribution.rival import Rival
from ltx_jax.rooms import declared

RIVALS: dict[str, Rival] = declared(__name__, Rival)
