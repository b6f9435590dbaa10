"""Leaves by path: apart, together, and where their slots are."""

import jax.numpy as jnp
import pytest

from ltx_jax.explainers.leaves import join, slot_axis, split

PATHS = (
    "params/backbone/cls_token",
    "params/backbone/patch_embed/kernel",
    "params/backbone/frozen_blocks/fc1/kernel",
    "params/backbone/blocks/fc1/kernel",
    "params/backbone/blocks/fc1/lora_a",
    "params/backbone/norm/scale",
    "params/head/mask/kernel",
    "batch_stats/backbone/bn1/mean",
)
VARIABLES = join({path: jnp.float32(i) for i, path in enumerate(PATHS)})


@pytest.mark.parametrize(
    ("trained", "expected"),
    [("all", PATHS[3:7]), ("head", PATHS[6:7]), ("lora", (PATHS[4], PATHS[6]))],
)
def test_what_is_trained(trained, expected):
    changing, frozen = split(VARIABLES, trained)
    assert set(changing) == set(expected)
    assert set(frozen) == set(PATHS) - set(expected)
    assert join(changing, frozen) == VARIABLES


def test_stacks_have_their_slots_behind_the_depth():
    axes = {path: slot_axis(path) for path in split(VARIABLES)[0]}
    assert axes == {PATHS[3]: 1, PATHS[4]: 1, PATHS[5]: 0, PATHS[6]: 0}
