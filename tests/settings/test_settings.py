"""Settings: one place for every default, and each value checked."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from ltx_jax.errors import InputError
from ltx_jax.settings.configuration import defaults, help_text, read
from ltx_jax.settings.section import checked, fields_of
from ltx_jax.settings.sections import LTX, Finetune, MaskDrawer, Objective, Pretrain, Settings


def config(**changes) -> ConfigDict:
    made = defaults()
    made.images = "photographs"
    made.update_from_flattened_dict(changes)
    return made


def test_a_configuration_of_defaults_is_the_settings():
    found = read(config())
    usual = Settings().objective
    absent = dict.fromkeys(found.objective.terms, 0.0)
    expected = Settings(
        images="photographs",
        objective=dataclasses.replace(usual, terms=absent | dict(usual.terms)),
        explainee=dataclasses.replace(Settings().explainee, sizes={}),
    )
    assert found == expected


def test_every_setting_is_in_the_configuration_and_in_the_help():
    flat = {key for key, _ in _flat(defaults().to_dict())}
    names = {f.name for f in fields_of(Settings)}
    assert names - {"explainee.sizes", "explainer.sizes", "objective.terms"} <= flat
    told = help_text()
    assert all(f"--config.{name}=" in told for name in names)
    assert all(f.told for f in fields_of(Settings))
    assert "--config.finetune.steps=50\n      most masks an image gets" in told
    assert "(pos | neg | srg_probability)" in told


def test_what_is_not_given_is_a_checkpoints_or_the_usual():
    given = MaskDrawer(trained="all", frozen_blocks=0)
    usual = dataclasses.replace(
        given, activation="sigmoid", lora_rank=4, classes=1, head="plain", edge_radius=0
    )
    assert given.completed() == usual == usual.completed()
    saved = MaskDrawer(trained="lora", name="vit", activation="relu", frozen_blocks=2)
    assert given.completed(saved) == dataclasses.replace(usual, activation="relu")
    assert MaskDrawer().completed(saved).frozen_blocks == 2


def _flat(nested, prefix=""):
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_values_come_through():
    found = read(
        config(
            **{
                "explainee.sizes.num_classes": 7,
                "objective.terms.total_variation": 3.0,
                "finetune.optimize": "neg",
                "rivals": ("smoothgrad",),
                "limit": 5,
            }
        )
    )
    assert found.explainee.sizes == {"num_classes": 7}
    weighted = {name: weight for name, weight in found.objective.terms.items() if weight}
    assert weighted == {"budget": 2.0, "total_variation": 3.0}
    assert (found.finetune.optimize, found.rivals, found.limit) == ("neg", ("smoothgrad",), 5)
    assert found.pretrain == Settings().pretrain


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (Finetune(steps=-1), "steps is -1: it must be at least 0"),
        (Finetune(slots=0), "slots is 0: it must be at least 1"),
        (Finetune(learning_rate=float("nan")), "learning_rate is nan: expected a finite number"),
        (Finetune(stop_below=float("-inf")), "stop_below is -inf"),
        (Finetune(optimize="nge"), r"optimize is 'nge' \(did you mean 'neg'\?\): it is one of"),
        (Finetune(steps=2.5), "steps is 2.5: expected a whole number"),
        (Finetune(steps=True), "steps is True: expected a whole number"),
        (Finetune(lazy_scoring="no"), "lazy_scoring is 'no': expected True or False"),
        (Objective(mask_weight="50"), "mask_weight is '50': expected a number"),
        (Objective(terms={"total_variation": float("nan")}), "terms is nan"),
        (Objective(terms={"budget": "a"}), "terms has 'a': expected numbers by name"),
        (Objective(terms={"budget": True}), "terms has True: expected numbers"),
        (Settings(rivals="smoothgrad"), "rivals is 'smoothgrad': expected several names"),
        (Settings(seed=-1), "seed is -1"),
        (Settings(labels=""), "labels is empty: give it a value, or leave it out"),
        (MaskDrawer(checkpoint=""), "checkpoint is empty: give it a value, or leave it out"),
        (Settings(finetune=Finetune(chunk=0)), "finetune.chunk is 0"),
        (Objective(terms={"budget": -1.0}), r"terms\.budget is -1\.0: it must be at least 0"),
        (Objective(terms={"budget": float("inf")}), "terms is inf: expected a finite number"),
        (Objective(mask_weight=-2), "mask_weight is -2: it must be at least 0"),
        (Objective(least_budget=0.0), "least_budget is 0.0 and most_budget 0.95: they are shares"),
        (Objective(most_budget=1.0), "most_budget 1.0: they are shares of the pixels"),
        (Objective(least_budget=0.6, most_budget=0.4), "above 0, below 1, in order"),
        (Objective(fills=()), "fills is empty: give one at least"),
        (MaskDrawer(frozen_blocks=2), "frozen_blocks is a network's, and trained is mask"),
        (MaskDrawer(lora_rank=2), "lora_rank is a network's, and trained is mask: leave it out"),
        (MaskDrawer(head_bias=1.0), "head_bias is a network's"),
        (MaskDrawer(edge_radius=2), "edge_radius is a network's, and trained is mask"),
        (MaskDrawer(weights="x"), "weights is a network's, and trained is mask"),
        (MaskDrawer(activation="relu"), "activation is a network's, and trained is mask"),
        (MaskDrawer(name="vit"), "name is a network's, and trained is mask"),
        (MaskDrawer(sizes={"depth": 2}), "sizes is a network's, and trained is mask"),
        (Pretrain(schedule_steps=2**31), "schedule_steps is 2147483648: it must be at most 214"),
        (Pretrain(overlap=True, held_out="x"), "held_out are images of their own, and overlap"),
        (Settings(objects=(1.0, 2.0)), r"objects has 1\.0: expected several whole numbers, e\.g"),
        (Settings(objects=[1, 2]), r"objects is \[1, 2\]: expected several whole numbers"),
        (Settings(rivals=(5, "x")), "rivals has 5: expected several names"),
        (MaskDrawer(trained="all", start="centre"), "start and grid are a mask's"),
        (MaskDrawer(trained="head", grid=7), "start and grid are a mask's: leave them out"),
        (MaskDrawer(checkpoint="x", start="centre"), "checkpoint is not used by start=centre"),
        (MaskDrawer(grid=0), "grid is 0: it must be at least 1"),
        (
            Settings(explainer=MaskDrawer(frozen_blocks=1)),
            r"explainer\.frozen_blocks is a network's",
        ),
    ],
)
def test_what_cannot_be_used_is_named(section, message):
    with pytest.raises(InputError, match=message):
        checked(section)


def test_whole_numbers_serve_as_numbers():
    assert checked(Finetune(learning_rate=1, stop_below=6)).learning_rate == 1
    terms = {"budget": np.float32(0.5)}
    found = checked(Settings(seed=np.int64(2), objective=Objective(terms=terms)))
    scenes = checked(Settings(objects=(np.int64(1), 2), target="labels", classes=(1, "a")))
    assert scenes.classes == (1, "a") and [*map(type, scenes.objects)] == [int, int]
    assert type(found.seed) is int and found.seed == 2
    assert type(checked(found.objective).terms["budget"]) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "finetune"}, "is called explain now: set config.task=explain"),
        ({"finetune": None}, "a section is None: take back what is in it"),
        ({"objective": None}, "a section is None: take back what is in it"),
        (
            {"finetune.resume": True},
            "resume is for a network, and config.explainer.trained is mask",
        ),
        (
            {"finetune.resume": True, "explainer.trained": "all"},
            "give config.explainer.checkpoint",
        ),
        ({"task": "pretrain"}, "trains a network, and config.explainer.trained is mask: set it"),
        ({"images": None}, "nothing to explain: set config.images"),
    ],
)
def test_settings_that_exclude_each_other(changes, message):
    with pytest.raises(InputError, match=message):
        read(config(**changes))


def test_the_papers_settings_pass_through_a_configuration():
    made = defaults(LTX)
    made.images = "photographs"
    found = read(made)
    assert (found.finetune, found.explainer) == (LTX.finetune, LTX.explainer)
    assert found.objective.weights() == {"cross_entropy": 1.0, "mask_bce": 50.0}


def test_the_old_place_of_the_target_names_the_new_one():
    old = ConfigDict(config().to_dict())
    old.objective["target"] = "label"
    with pytest.raises(InputError, match=r"config\.objective\.target is config\.target now"):
        read(old)
