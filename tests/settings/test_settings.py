"""Settings: one place for every default, and each value checked."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from ltx_jax.errors import InputError
from ltx_jax.settings.configuration import defaults, help_text, read
from ltx_jax.settings.sections import Finetune, Objective, Settings, checked, fields_of


def config(**changes) -> ConfigDict:
    made = defaults()
    made.images = "photographs"
    made.update_from_flattened_dict(changes)
    return made


def test_a_configuration_of_defaults_is_the_settings():
    found = read(config())
    further = dict.fromkeys(found.objective.terms, 0.0)
    expected = Settings(
        images="photographs",
        objective=Objective(terms=further),
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
    assert "--config.finetune.steps=25\n      most masks an image gets" in told
    assert "(pos | neg)" in told


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
    assert weighted == {"total_variation": 3.0}
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
        (Settings(rivals="smoothgrad"), "rivals is 'smoothgrad': expected several names"),
        (Settings(seed=-1), "seed is -1"),
        (Settings(finetune=Finetune(chunk=0)), "finetune.chunk is 0"),
    ],
)
def test_what_cannot_be_used_is_named(section, message):
    with pytest.raises(InputError, match=message):
        checked(section)


def test_whole_numbers_serve_as_numbers():
    assert checked(Finetune(learning_rate=1, stop_below=6)).learning_rate == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "finetune"}, "is called explain now: set config.task=explain"),
        ({"finetune.resume": True}, "give config.explainer.checkpoint"),
        ({"images": None}, "nothing to explain: set config.images"),
    ],
)
def test_settings_that_exclude_each_other(changes, message):
    with pytest.raises(InputError, match=message):
        read(config(**changes))


def test_the_old_place_of_the_target_names_the_new_one():
    old = ConfigDict(config().to_dict())
    old.objective["target"] = "label"
    with pytest.raises(InputError, match=r"config\.objective\.target is config\.target now"):
        read(old)
