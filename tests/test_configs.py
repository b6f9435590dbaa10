"""Every file of configs/: what it describes, in exact sizes, and the command in its docstring."""

from __future__ import annotations

import importlib
import math
import re
import shlex
from ast import literal_eval
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from ltx_jax.attribution import RIVALS
from ltx_jax.explainers.mask_itself import cells_for
from ltx_jax.loading.explainers import mask_network
from ltx_jax.metrics import SCORES
from ltx_jax.models.registry import architecture
from ltx_jax.settings.configuration import read
from ltx_jax.settings.section import fields_of
from ltx_jax.settings.sections import Settings
from ltx_jax.weights.state_dict import shapes_of

FOLDER = Path(__file__).parents[1] / "configs"
# Parameters of explainee and explainer (batch norms' statistics included), and the mask's grid; a
# mask of its own has no explainer.
EXPECTED = {
    "cifar_vit": (208_074, 211_649, (8, 8)),
    "cifar_vit_direct": (208_074, 0, (8, 8)),
    "demo": (481_066, 0, (12, 12)),
    "demo_classes": (173_434, 0, (12, 12)),
    "demo_filters": (174_734, 0, (8, 8)),
    "demo_ltx": (481_066, 489_505, (12, 12)),
    "direct": (86_567_656, 0, (14, 14)),
    "densenet201": (20_242_984, 18_323_905, (7, 7)),
    "lavise_alexnet_coco": (61_100_840, 0, (14, 14)),
    "lavise_resnet18_coco": (11_699_112, 0, (14, 14)),
    "lavise_resnet18_vg": (11_699_112, 0, (14, 14)),
    "lavise_resnet50_vg": (25_610_152, 0, (14, 14)),
    "nn_explainer_resnet50_coco": (23_747_611, 39_713_563, (28, 28)),
    "nn_explainer_resnet50_voc": (23_602_132, 39_695_316, (28, 28)),
    "nn_explainer_vgg16_coco": (134_633_371, 39_713_563, (28, 28)),
    "nn_explainer_vgg16_cub": (135_079_944, 39_741_576, (28, 28)),
    "nn_explainer_vgg16_voc": (134_342_484, 39_695_316, (28, 28)),
    "resnet101": (44_654_504, 42_607_553, (7, 7)),
    "resnet101_direct": (44_654_504, 0, (14, 14)),
    "resnet50": (25_610_152, 23_563_201, (7, 7)),
    "segmentation_coco": (86_567_656, 86_390_017, (14, 14)),
    "segmentation_imagenet": (86_567_656, 86_390_017, (14, 14)),
    "segmentation_voc": (86_567_656, 86_390_017, (14, 14)),
    "squeezenet": (1_235_496, 723_009, (13, 13)),
    "squeezenet_direct": (1_235_496, 0, (14, 14)),
    "vit_base_direct": (86_567_656, 0, (14, 14)),
    "vit_base": (86_567_656, 86_390_017, (14, 14)),
    "vit_small": (22_050_664, 21_813_889, (14, 14)),
}


def settings(name: str) -> Settings:
    config = importlib.import_module(f"configs.{name}").get_config()
    config.images = config.images or "photographs"
    return read(config)


def literal(text: str) -> Any:
    """What a flag's value says: a number, a tuple, or the text itself."""
    try:
        return literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def count(shapes) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def test_there_is_a_line_here_for_each():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_exact_sizes(name):
    chosen = settings(name)
    explainee = architecture(chosen.explainee.name, **chosen.explainee.sizes)
    classifier = shapes_of(explainee.module, explainee.size, explainee.channels)
    parameters, grid = 0, cells_for(explainee.size, chosen.explainer.grid)
    if chosen.explainer.trained != "mask":
        given, network = chosen.explainer, explainee
        if given.name is not None:
            network = architecture(given.name, **given.sizes)
        _, masks = mask_network(network.with_module(num_classes=0), given)
        image = jax.ShapeDtypeStruct((1, *explainee.size, explainee.channels), jnp.float32)
        raw, variables = jax.eval_shape(masks.init_with_output, jax.random.key(0), image)
        parameters, grid = count(variables), raw.shape[2:]
        assert raw.shape[:2] == (1, given.classes or 1)
    assert (count(classifier), parameters, grid) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_named_is_there(name):
    chosen = settings(name)
    assert set(chosen.rivals) <= set(RIVALS) and set(chosen.scores) <= set(SCORES)


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_is_set_to_what_it_is(name, monkeypatch):
    assign, needless = ConfigDict.__setattr__, []

    def watched(config, key, value):
        if key in config and config[key] == value:
            needless.append(key)
        assign(config, key, value)

    monkeypatch.setattr(ConfigDict, "__setattr__", watched)
    importlib.import_module(f"configs.{name}").get_config()
    assert not needless


@pytest.mark.parametrize("name", EXPECTED)
def test_the_commands_of_the_docstring_are_commands(name):
    module = importlib.import_module(f"configs.{name}")
    told, config = module.__doc__, module.get_config()
    commands = re.findall(r"^python -m ltx_jax\.main(?:.*\\\n)*.*$", told, re.MULTILINE)
    assert commands
    known = {f"config.{f.name}" for f in fields_of(Settings)}
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))[3:]
        assert f"--config=configs/{name}.py" in words
        for word in words:
            flag, _, value = word.removeprefix("--").partition("=")
            assert flag in known | {"config", "workdir"}, word
            if flag in known:
                assert reduce(getattr, flag.split(".")[1:], config) != literal(value), word
