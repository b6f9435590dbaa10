"""LaViSE's explainer against PyTorch's layers, in evaluation and in training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.explainers.word_network import WordNetwork
from ltx_jax.weights.state_dict import from_state_dict, to_state_dict

FEATURES = np.random.default_rng(0).gamma(1.0, 1.0, (6, 8)).astype(np.float32)
WIDTH = 5


def test_inputs_of_both_layers_are_dropped_in_training():
    module = WordNetwork(WIDTH, dropped=0.5).in_training()
    features = jnp.asarray(FEATURES)
    given = module.init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, features)

    def draw(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply(given, features, mutable=["batch_stats"], rngs=rngs)

    assert (draw(1)[0] != draw(2)[0]).any()
    np.testing.assert_array_equal(draw(1)[0], draw(1)[0])
    # A tenth of the way from 0 to the batch's mean.
    moved = draw(1)[1]["batch_stats"]["norm1"]["mean"]
    np.testing.assert_allclose(moved, 0.1 * FEATURES.mean(0), rtol=1e-5)


def theirs(torch):
    torch.manual_seed(0)
    width = FEATURES.shape[1]
    layers = torch.nn.Sequential(
        torch.nn.BatchNorm1d(width),
        torch.nn.Dropout(0.0),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.BatchNorm1d(width),
        torch.nn.Dropout(0.0),
        torch.nn.Linear(width, WIDTH),
    )
    for norm in (layers[0], layers[4]):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            tensor.copy_(0.5 + torch.rand(width))
    return torch.nn.ModuleDict({"fc": layers})


def variables_of(network, module):
    state = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    shapes = jax.eval_shape(module.init, jax.random.key(0), FEATURES)
    return from_state_dict(state, module.table(), shapes, "lavise")


@pytest.mark.parity
def test_in_evaluation():
    torch = pytest.importorskip("torch")
    network, module = theirs(torch).eval(), WordNetwork(WIDTH)
    found = module.apply(variables_of(network, module), jnp.asarray(FEATURES))
    expected = network["fc"](torch.tensor(FEATURES)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parity
def test_in_training_but_for_what_is_dropped():
    torch = pytest.importorskip("torch")
    network, module = theirs(torch).train(), WordNetwork(WIDTH, dropped=0.0).in_training()
    variables = variables_of(network, WordNetwork(WIDTH))
    expected = network["fc"](torch.tensor(FEATURES))
    (expected**2).mean().backward()

    def loss(params):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        points, moved = module.apply(given, jnp.asarray(FEATURES), mutable=["batch_stats"])
        return (points**2).mean(), (points, moved)

    gradient, (points, moved) = jax.grad(loss, has_aux=True)(variables["params"])
    np.testing.assert_allclose(points, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    state = to_state_dict({"params": gradient, **moved}, module.table())
    statistics, parameters = network.state_dict(), dict(network.named_parameters())
    assert len(state) == 12
    for name, found in state.items():
        known = statistics[name] if "running" in name else parameters[name].grad
        np.testing.assert_allclose(found, known.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)
