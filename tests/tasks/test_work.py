"""From images and settings to the rows of a run."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from ltx_jax.data.sources import ArraySource
from ltx_jax.errors import InputError
from ltx_jax.loading.checkpoints import save_explainer
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.section import checked
from ltx_jax.settings.sections import MaskDrawer, Settings
from ltx_jax.tasks.classes import classes_held
from ltx_jax.tasks.inputs import Row, class_names_of, open_explainer, open_source, plan


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


def test_scenes_are_drawn_where_no_data_set_is_named():
    scenes = Settings(images="scenes")
    assert len(class_names_of(scenes)) == 10
    assert class_names_of(dataclasses.replace(scenes, dataset="imagenet")) == ()
    with pytest.raises(
        InputError, match=r"indices and config\.limit leave no scene: choose a slic"
    ):
        open_source(dataclasses.replace(scenes, indices="5:5"))


def test_a_row_for_each_class_that_is_asked_for(explainee, caplog):
    images = np.zeros((3, 16, 16, 3), np.float32)
    source = ArraySource(("a", "b", "c"), ((1, 2), (), (4,)), images, None)

    def rows(*how):
        return [row[:1] + row[2:] for row in plan(source, explainee, *how)]

    with caplog.at_level(logging.WARNING):
        assert rows("labels") == [(0, 1, 1), (0, 2, 2), (2, 4, 4)]
    assert caplog.messages == ["1 of 3 images have none of the classes asked for, and are left out"]
    assert rows("labels", None, ("4", "0")) == [(2, 4, 4)]
    # A label is known of a class that is one, and else where there is just one.
    held = [(0, 1), None, (3,)]
    assert rows("held", None, (), held) == [(0, 0, None), (0, 1, 1), (1, None, None), (2, 3, 4)]
    named = dataclasses.replace(explainee, class_names=("p", "q", "r", "s", "t"))
    every = [Row(i, name, 1, 1 if i == 0 else last) for i, name, last in
             ((0, "a", 1), (1, "b", None), (2, "c", 4))]  # fmt: skip
    assert plan(source, named, "every", None, ("q",)) == every
    assert len(plan(source, explainee, "every")) == 15
    nothing = ArraySource(("a",), ((),), images[:1], None)
    with pytest.raises(InputError, match=r"a has no label to explain: give config\.labels"):
        plan(nothing, explainee, "labels")
    with pytest.raises(InputError, match="none of 3 images has a class that is asked for"):
        plan(source, explainee, "labels", None, ("0",))
    with pytest.raises(InputError, match=r"config\.classes has '5': give classes of vit by name"):
        plan(source, explainee, "every", None, ("5",))


@pytest.mark.parametrize(
    ("link", "expected"), [("sigmoid", [(0, 2), (2,), None]), ("softmax", [(0,), (2,), None])]
)
def test_classes_that_are_held_to_be_there(link, expected):
    """The logits are the mean colour above a half: the third image has no numbers."""

    def colours(params, images):
        return images.mean((1, 2)) - params["least"]

    explainee = Explainee(colours, {"least": np.float32(0.5)}, (2, 2), 3, link=link)
    means = np.array([[0.9, 0.1, 0.6], [0.2, 0.3, 0.4], [0.0, 0.0, np.nan]], np.float32)
    images = np.broadcast_to(means[:, None, None], (3, 2, 2, 3))
    source = ArraySource(("a", "b", "c"), ((),) * 3, images, None)
    assert classes_held(source, explainee.preprocessing("squash"), explainee) == expected


def test_some_classes_are_chosen_of_several():
    with pytest.raises(InputError, match="classes chooses among several classes of an image, and"):
        checked(Settings(classes=("cat",)))


def test_the_start_of_a_mask_is_whatever_its_checkpoint_is(explainee, tmp_path):
    path = tmp_path / "e.safetensors"
    network = load_explainer(explainee, trained="lora", lora_rank=3, activation="clamp")
    save_explainer(path, network)
    drawer = open_explainer(Settings(explainer=MaskDrawer(checkpoint=str(path))), explainee)
    assert (drawer.network.module, drawer.network.activation) == (network.module, "clamp")
    part = MaskDrawer(trained="all", checkpoint=str(path))
    with pytest.raises(InputError, match=r"of lora, and explainer\.trained is all: leave it out"):
        open_explainer(Settings(explainer=part), explainee)
