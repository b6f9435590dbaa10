"""From images and settings to the rows of a run."""

from __future__ import annotations

import numpy as np
import pytest

from ltx_jax.data.sources import ArraySource
from ltx_jax.errors import InputError
from ltx_jax.loading.checkpoints import save_explainer
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.settings.sections import MaskDrawer, Settings
from ltx_jax.tasks.inputs import Row, open_explainer, plan


def test_rows_of_images_with_several_labels(explainee):
    images = np.zeros((3, 16, 16, 3), np.float32)
    source = ArraySource(("a", "b", "c"), ((1, 2), (3,), (0, 4)), images, None)
    # Several labels are no single one, and do not make themselves the target.
    predicted = [Row(0, "a", None, None), Row(1, "b", None, 3), Row(2, "c", None, None)]
    assert plan(source, explainee) == predicted
    first, third = (
        [Row(i, name, label, label) for label in labels]
        for i, name, labels in ((0, "a", (1, 2)), (2, "c", (0, 4)))
    )
    assert plan(source, explainee, "label") == [*first, Row(1, "b", 3, 3), *third]
    assert plan(source, explainee, "predicted", "::2") == [*first, predicted[1], *third]
    unknown = ArraySource(("a",), ((5,),), images[:1], None)
    with pytest.raises(InputError, match="label of a is 5, but vit has 5 classes"):
        plan(unknown, explainee)


def test_the_start_of_a_mask_is_whatever_its_checkpoint_is(explainee, tmp_path):
    path = tmp_path / "e.safetensors"
    network = load_explainer(explainee, trained="lora", lora_rank=3, activation="clamp")
    save_explainer(path, network)
    drawer = open_explainer(Settings(explainer=MaskDrawer(checkpoint=str(path))), explainee)
    assert (drawer.network.module, drawer.network.activation) == (network.module, "clamp")
    part = MaskDrawer(trained="all", checkpoint=str(path))
    with pytest.raises(InputError, match=r"of lora, and explainer\.trained is all: leave it out"):
        open_explainer(Settings(explainer=part), explainee)
