"""Filters whose words are known: each answers to one colour of the scenes of concepts."""

from __future__ import annotations

import json
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.data.concepts import COLOURS, CONCEPTS, ConceptSceneSource
from ltx_jax.engine.filter_passes import Asked, Vocabulary
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.sections import Pretrain, Words
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.explain_filters import explain_filters
from ltx_jax.tasks.train_words import train_words

pytest.importorskip("grain", reason="needs grain (the extra `pretrain`)")
NAMES = tuple(COLOURS)


def features(colours, images, added):
    """How near each cell of 4×4 pixels is to each colour."""
    cells = images.reshape(len(images), 8, 4, 8, 4, 3).mean((2, 4))
    distance = ((cells[:, :, :, None] - colours[None, None, None]) ** 2).sum(-1)
    near = jnp.exp(-distance / 0.05)
    return near.mean((1, 2)), {"cells": near}


class Kept(ConceptSceneSource):
    """Scenes that are drawn once."""

    load = cache(ConceptSceneSource.load)


@pytest.mark.slow
def test_the_first_word_of_each_is_its_colour(tmp_path, fast_programs):
    colours = jnp.asarray(np.array(list(COLOURS.values()), np.float32))
    explainee = Explainee(
        lambda params, images: features(params, images, {})[0],
        colours,
        image_size=(32, 32),
        num_classes=len(NAMES),
        features=features,
    )
    vectors = np.random.default_rng(0).normal(size=(len(NAMES), 32)).astype(np.float32)
    named = dict(zip(NAMES, vectors.tolist(), strict=True))
    (tmp_path / "words.json").write_text(json.dumps(named))
    source = Kept(0, range(200), (1, 2))
    given = {"vectors": str(tmp_path / "words.json"), "layer": "cells", "nearest": 1}
    how = Pretrain(epochs=30, batch_size=32, learning_rate=2e-2, warmup=0.0, weight_decay=0.0)
    words = Words(**given, supervised=1.0)
    explainer, learnt, _ = train_words(explainee, words, Course(source, how))
    assert {*learnt.supervised} == {*NAMES}
    places = {CONCEPTS.index(name): k for k, name in enumerate(NAMES)}
    vocabulary = Vocabulary(NAMES, vectors, np.ones(len(NAMES), bool), places)
    about = explainee, explainer, source, explainee.preprocessing("squash"), vocabulary
    for stands in ("projection", "masked_features"):
        found = explain_filters(Asked(*about, Words(**given, stands=stands)))
        assert [NAMES[word] for word in found.words[:, 0]] == [*NAMES], stands
