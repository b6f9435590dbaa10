"""The parts of a step, each by itself, of a network that is finetuned and of masks of their own."""

from __future__ import annotations

import parts
import pytest

from ltx_jax.engine.finetune import start_fresh
from ltx_jax.engine.recipe import make_recipe
from ltx_jax.explainers.mask_itself import MaskItself
from ltx_jax.settings.sections import LTX, Settings

DRAWN = ["explainer, forward and backward", "masked explainee and its gradient"]


@pytest.mark.parametrize("itself", [False, True])
def test_each_part_is_timed_and_counted(explainee, explainer, itself):
    drawer, settings = (MaskItself((2, 2)), Settings()) if itself else (explainer, LTX)
    models = parts.Models(explainee, drawer)
    recipe = make_recipe(settings.finetune, settings.objective).with_chunk(4)
    tasks = parts.one_task_a_slot(models, 2)
    found = parts.time_parts(models, recipe, start_fresh(drawer.trained), tasks)
    scored = [] if itself else ["perturbation scores"]
    assert [part.name for part in found] == [*DRAWN, *scored, "optimizer"]
    assert all(part.seconds > 0 for part in found)
    seen = next(part for part in found if part.name == DRAWN[1])
    assert seen.operations > 0
    # The optimizer reads parameters, gradient and two moments, and writes all but the gradient.
    bytes_each = sum(leaf.nbytes for leaf in drawer.trained.values())
    assert found[-1].bytes == 7 * 2 * bytes_each
