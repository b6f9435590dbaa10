"""Which parameters are shuffled, and what two masks have in common."""

import jax
import numpy as np
import pytest
import randomise

from ltx_jax.settings.sections import LTX
from ltx_jax.weights.state_dict import to_state_dict


def test_layers_come_in_the_network_s_order(explainee):
    network = explainee.architecture
    layers = randomise.layers_of(network.table(network.module))
    names = [name for layer in layers for name in layer]
    assert sorted(names) == sorted(to_state_dict(explainee.params, network.table(network.module)))
    firsts = [layer[0].rpartition(".")[0] for layer in layers]
    assert firsts[1] == "patch_embed.proj" and firsts[-1] == "head"
    blocks = [int(first.split(".")[1]) for first in firsts if first.startswith("blocks.")]
    assert blocks == sorted(blocks) and set(blocks) == {0, 1, 2}


def test_only_the_layers_asked_for_are_shuffled(explainee):
    network = explainee.architecture
    table = network.table(network.module)
    layers = randomise.layers_of(table)
    before = to_state_dict(explainee.params, table)
    after = to_state_dict(randomise.shuffled(explainee, layers[-2:]).params, table)
    for name, values in before.items():
        same = np.array_equal(values, after[name])
        alike = np.ptp(values) == 0  # ones, which shuffling leaves as they are
        assert same == (alike or name not in (*layers[-1], *layers[-2])), name
        np.testing.assert_array_equal(np.sort(values.ravel()), np.sort(after[name].ravel()))


def test_layers_are_shuffled_from_the_last_on(explainee):
    network = explainee.architecture
    table = network.table(network.module)
    layers, before = randomise.layers_of(table), to_state_dict(explainee.params, table)
    stages = dict(randomise.networks(LTX, explainee, 2, None))
    whole = len(layers)
    assert list(stages) == [f"last {n} of {whole} layers" for n in (1, round(whole / 2), whole)]
    after = to_state_dict(stages[f"last 1 of {whole} layers"].params, table)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and changed <= set(layers[-1])


def test_rank_correlation():
    a = np.arange(6.0).reshape(2, 3)
    assert randomise.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert randomise.rank_correlation(a, -a) == pytest.approx(-1)
    assert randomise.rank_correlation(a, np.ones((2, 3))) == 0


def test_the_mean_and_its_error_over_the_images():
    a = np.arange(6.0).reshape(1, 2, 3).repeat(2, 0)
    told = randomise.line("all", {"ours": a}, {"ours": np.stack([a[0], -a[1]])})
    assert told.split() == ["all", "0.00", "±", "1.00"]  # 1 and −1: deviation √2, of two


def test_another_network_s_masks_are_its_own(explainee, images):
    network = explainee.architecture
    other = randomise.shuffled(explainee, randomise.layers_of(network.table(network.module)))
    logits = jax.jit(lambda network, x: network(x))
    assert not np.allclose(logits(explainee, images), logits(other, images))
