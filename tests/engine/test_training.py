"""Training steps: known solutions, states that change without a gradient, devices, compilations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from jax.tree_util import Partial
from optax.tree_utils import tree_get

from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.engine.training import (
    adamw,
    create_train_state,
    data_mesh,
    is_finite,
    train_step,
    warmup_then_decay,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)
START = np.array([0.3, 0.2, -0.1], np.float32)
KEY = jax.random.key(5)
ONE = slot_mesh(1)


def least_squares(params, model_state, batch, rng):
    error = batch["x"] @ params["w"] - batch["y"]
    loss = (error**2).mean()
    return loss, ({"loss": loss}, model_state)


def with_noise(params, model_state, batch, rng):
    """Of which each part of a batch draws its own, and counts itself."""
    loss, (metrics, _) = least_squares(params, {}, batch, rng)
    drawn = jax.random.normal(rng, (), jnp.float32)
    state = {"parts": model_state["parts"] + 1, "drawn": drawn}
    return loss + 0 * drawn, (metrics | {"drawn": drawn}, state)


def gradient(w):
    return 2 / len(X) * X.T.astype(np.float64) @ (X @ w - Y)


def trained(recipes, loss=least_squares, mesh=ONE, start=START):
    """The state after a step with each optimizer, and the losses."""
    state = create_train_state({"w": start}, {}, recipes[0], mesh)
    losses = []
    for recipe in recipes:
        state, metrics = train_step(state, {"x": X, "y": Y}, KEY, loss, recipe, mesh)
        losses.append(float(metrics["loss"]))
    return state, losses


def test_gradient_descent_takes_the_steps_worked_out_by_hand():
    w, expected = START.astype(np.float64), []
    for _ in range(20):
        expected.append(((X @ w - Y) ** 2).mean())
        w = w - 0.1 * gradient(w)
    state, losses = trained([Partial(optax.sgd, 0.1)] * 20)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
    assert state.step == 20 and state.step.dtype == jnp.int32


def test_gradient_descent_finds_the_solution():
    state, losses = trained([Partial(optax.sgd, 0.2)] * 400)
    np.testing.assert_allclose(state.params["w"], [1.0, -2.0, 0.5], atol=1e-5)
    assert losses[-1] < 1e-10


def test_adamw_takes_the_steps_worked_out_by_hand():
    rates, decay = 0.05 * np.linspace(1, 0.1, 15), 0.1
    w, m, v = START.astype(np.float64), np.zeros(3), np.zeros(3)
    for t, rate in enumerate(rates, 1):
        g = gradient(w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w = w - rate * (step + decay * w)
    state, _ = trained([Partial(optax.adamw, rate, weight_decay=decay) for rate in rates])
    np.testing.assert_allclose(state.params["w"], w, rtol=2e-5)


@pytest.mark.usefixtures("equal_programs")
def test_a_rate_given_each_step_is_as_good_as_a_schedule():
    schedule = warmup_then_decay(0.05, 3, 12)
    optimizer = optax.adamw(schedule, weight_decay=0.01)

    @jax.jit
    def step(params, state):
        gradients = jax.grad(lambda p: least_squares(p, {}, {"x": X, "y": Y}, KEY)[0])(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

    params = {"w": jnp.asarray(START)}
    kept = optimizer.init(params)
    for _ in range(12):
        params, kept = step(params, kept)
    rates = np.asarray(jax.jit(schedule)(np.arange(12, dtype=np.int32)))
    state, _ = trained([Partial(optax.adamw, rate, weight_decay=0.01) for rate in rates])
    np.testing.assert_array_equal(state.params["w"], params["w"])


def test_warmup_then_decay():
    schedule = warmup_then_decay(0.5, 4, 14)
    by_hand = {0: 0.0, 1: 0.125, 3: 0.375, 4: 0.5, 5: 0.45, 9: 0.25, 13: 0.05, 14: 0.0, 20: 0.0}
    assert {step: pytest.approx(float(schedule(step))) for step in by_hand} == by_hand


def test_without_warmup_the_rate_falls_from_its_peak():
    schedule = warmup_then_decay(0.5, 0, 10)
    assert [float(schedule(step)) for step in (0, 5, 10)] == [0.5, 0.25, 0.0]


def test_a_schedule_of_warmup_alone_ends_at_its_peak():
    schedule = warmup_then_decay(0.5, 10, 10)
    assert [float(schedule(step)) for step in (0, 5, 10, 11)] == [0.0, 0.25, 0.5, 0.0]


class Net(nn.Module):
    """A batch norm and a dropout in train mode, between two dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="first")(x)
        x = nn.BatchNorm(use_running_average=False, momentum=0.9, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=False, name="dropout")(nn.tanh(x))
        return nn.Dense(1, name="last")(x)[:, 0], x


def net_loss(params, model_state, batch, rng):
    (given, shown), changed = Net().apply(
        {"params": params, **model_state},
        batch["x"],
        rngs={"dropout": rng},
        mutable=["batch_stats"],
    )
    loss = ((given - batch["y"]) ** 2).mean()
    return loss, ({"loss": loss, "dropped": shown == 0}, changed)


def net_steps(steps, devices, key=KEY, rate=0.05):
    """The state after steps of the net, and the metrics of each."""
    variables = Net().init({"params": jax.random.key(1), "dropout": jax.random.key(2)}, X)
    mesh, recipe = slot_mesh(devices), Partial(optax.sgd, rate)
    statistics = {"batch_stats": variables["batch_stats"]}
    state = create_train_state(variables["params"], statistics, recipe, mesh)
    collected = []
    for _ in range(steps):
        state, metrics = train_step(state, {"x": X, "y": Y}, key, net_loss, recipe, mesh)
        collected.append(metrics)
    return state, collected


def test_running_statistics_are_those_worked_out_by_hand():
    state, _ = net_steps(2, devices=1, rate=0.0)
    first = state.params["first"]
    inputs = X.astype(np.float64) @ np.asarray(first["kernel"]) + np.asarray(first["bias"])
    running = state.model_state["batch_stats"]["norm"]
    # From mean 0 and variance 1, a tenth of the batch's each step.
    np.testing.assert_allclose(running["mean"], (0.1 + 0.9 * 0.1) * inputs.mean(0), rtol=1e-5)
    expected = 0.9 * (0.9 + 0.1 * inputs.var(0)) + 0.1 * inputs.var(0)
    np.testing.assert_allclose(running["var"], expected, rtol=1e-5)


def test_dropout_differs_between_steps_and_not_between_runs():
    _, (first, second) = net_steps(2, devices=1)
    _, again = net_steps(2, devices=1)
    _, other = net_steps(2, devices=1, key=jax.random.key(6))
    assert (first["dropped"] != second["dropped"]).any()
    assert (first["dropped"] == again[0]["dropped"]).all()
    assert (second["dropped"] == again[1]["dropped"]).all()
    assert (first["dropped"] != other[0]["dropped"]).any()
    assert 0.2 < first["dropped"].mean() < 0.8


def test_the_key_of_a_step_is_folded_with_its_number():
    def drawn(params, model_state, batch, rng):
        return params["w"].sum(), ({"loss": jax.random.uniform(rng)}, model_state)

    _, losses = trained([Partial(optax.sgd, 0.1)] * 3, drawn)
    assert losses == [float(jax.random.uniform(jax.random.fold_in(KEY, i))) for i in range(3)]


@pytest.mark.parametrize("devices", [2, 4])
def test_the_number_of_devices_makes_no_difference(devices):
    one, several = net_steps(5, 1), net_steps(5, devices)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert len(several[0].params["first"]["kernel"].sharding.device_set) == devices
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(several[0]))


def test_as_many_devices_as_divide_a_batch():
    assert jax.local_device_count() == 8
    sizes = {1: 1, 2: 2, 6: 6, 7: 7, 8: 8, 9: 3, 11: 1, 12: 6, 32: 8}
    assert {size: data_mesh(size).size for size in sizes} == sizes


def test_the_state_is_donated_and_what_it_was_made_of_is_not():
    params, recipe = {"w": jnp.asarray(START)}, Partial(optax.sgd, 0.1, momentum=0.9)
    before = create_train_state(params, {}, recipe, ONE)
    train_step(before, {"x": X, "y": Y}, KEY, least_squares, recipe, ONE)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    np.testing.assert_array_equal(params["w"], START)


def test_what_a_loss_is_given_is_an_argument_and_nothing_is_compiled_twice():
    traces = []

    def scaled(scale, shift, params, model_state, batch, rng):
        traces.append(1)
        loss = (scale * params["w"] + shift["by"]).sum()
        return loss, ({"loss": loss}, model_state)

    def ran(scale, shift, *recipes):
        loss = Partial(scaled, jnp.full(3, scale, jnp.float32), {"by": shift})
        return trained(recipes, loss)[1]

    def recipe(rate, decay):
        return Partial(optax.adamw, rate, weight_decay=decay)

    assert ran(1.0, 0.5, recipe(0.1, 0.01)) == pytest.approx([START.sum() + 1.5], rel=1e-5)
    assert ran(2.0, 1.0, recipe(0.2, 0.5)) == pytest.approx([2 * START.sum() + 3.0], rel=1e-5)
    # Of the second loss: each weight goes down by the learning rate and a share of itself.
    assert np.diff(ran(2.0, 1.0, *[recipe(0.2, 0.0)] * 2)) == pytest.approx([-1.2], rel=1e-5)
    assert traces == [1]


def test_the_second_step_is_the_first_ones_program():
    traces = []

    def counted(params, model_state, batch, rng):
        traces.append(1)
        loss = (params["w"] - 1.0) ** 2
        return loss, ({"loss": loss}, {"seen": model_state["seen"] + 1})

    # Numbers without a type of their own, as users write them.
    for devices in (1, 4):
        traces.clear()
        mesh, recipe = slot_mesh(devices), Partial(optax.sgd, 0.5)
        state = create_train_state({"w": 0.0}, {"seen": 0}, recipe, mesh)
        for _ in range(3):
            state, _ = train_step(state, {"x": X}, KEY, counted, recipe, mesh)
        assert traces == [1]
        assert float(state.params["w"]) == 1.0 and int(state.model_state["seen"]) == 3


def test_the_frozen_network_stays_where_it_is():
    mesh = slot_mesh(4)
    network = replicate(jnp.ones(3, jnp.float32), mesh)

    def loss(frozen, params, model_state, batch, rng):
        value = (frozen * params["w"]).sum()
        return value, ({"loss": value}, model_state)

    recipe = Partial(optax.sgd, 0.1)
    with jax.transfer_guard_device_to_device("disallow"):
        state = create_train_state({"w": START}, {}, recipe, mesh)
        key = replicate(KEY, mesh)
        train_step(state, {"x": X}, key, Partial(loss, network), recipe, mesh)
    assert not network.is_deleted()


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (
            {"mean": np.zeros(3, np.int32)},
            r"float32\[3\] at \['mean'\] and gave one with int32\[3\]",
        ),
        ({"mean": np.zeros(4, np.float32)}, r"gave one with float32\[4\]"),
        ({}, "gave one with nothing"),
        ({"mean": np.zeros(3, np.float32), "n": 0}, r"nothing at \['n'\]"),
    ],
)
def test_a_model_state_of_another_form_is_refused_by_name(after, message):
    def forgetful(params, model_state, batch, rng):
        return params["w"].sum(), ({}, jax.tree.map(jnp.asarray, after))

    recipe = Partial(optax.sgd, 0.1)
    state = create_train_state({"w": START}, {"mean": np.zeros(3, np.float32)}, recipe, ONE)
    with pytest.raises(TypeError, match=message):
        train_step(state, {"x": X}, KEY, forgetful, recipe, ONE)


@pytest.mark.parametrize("mesh", [ONE, slot_mesh(4)])
def test_gradients_of_parts_add_up_to_those_of_the_whole(mesh):
    recipe = Partial(optax.sgd, 0.1)
    start = create_train_state({"w": START}, {}, recipe, mesh)
    batch = {"x": X, "y": Y}
    whole, metrics = train_step(start, batch, KEY, least_squares, recipe, mesh)
    start = create_train_state({"w": START}, {}, recipe, mesh)
    parts, several = train_step(start, batch, KEY, least_squares, recipe, mesh, parts=2)
    np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-6)
    np.testing.assert_allclose(several["loss"], metrics["loss"], rtol=1e-6)


def test_each_part_draws_its_own_and_hands_the_models_state_on():
    recipe = Partial(optax.sgd, 0.1)
    model_state = {"parts": jnp.int32(0), "drawn": jnp.float32(0)}
    start = create_train_state({"w": START}, model_state, recipe, ONE)
    batch = {"x": X, "y": Y}
    after, metrics = train_step(start, batch, KEY, with_noise, recipe, ONE, parts=4)
    drawn = [
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(KEY, 0), i), (), jnp.float32)
        for i in range(4)
    ]
    assert after.model_state["parts"] == 4 and after.model_state["drawn"] == drawn[3]
    np.testing.assert_allclose(metrics["drawn"], np.mean(drawn), rtol=1e-6)


def test_a_state_that_is_divided_takes_the_same_steps():
    """Each leaf along its longest axis that four devices divide; one without has copies."""
    mesh, recipe = slot_mesh(4), Partial(optax.adamw, 0.1, weight_decay=0.1)
    params = {"w": START, "v": np.linspace(0, 1, 24, dtype=np.float32).reshape(3, 8)}

    def loss(params, model_state, batch, rng):
        error = batch["x"] @ params["w"] + (batch["x"] @ params["v"]).sum(1) - batch["y"]
        return (error**2).mean(), ({}, model_state)

    states = []
    for sharded in (False, True):
        state = create_train_state(params, {}, recipe, mesh, sharded)
        for _ in range(3):
            state, _ = train_step(state, {"x": X, "y": Y}, KEY, loss, recipe, mesh, sharded=sharded)
        states.append(state)
    whole, divided = states
    for name in params:
        np.testing.assert_allclose(divided.params[name], whole.params[name], rtol=1e-5)
    assert divided.params["v"].sharding.spec == PartitionSpec(None, "slots")
    assert divided.optimizer_state[0].mu["v"].sharding.spec == PartitionSpec(None, "slots")
    assert divided.params["w"].sharding.spec == PartitionSpec() == whole.params["v"].sharding.spec


def test_long_gradients_are_shortened():
    (state, _), (same, _) = (
        trained([Partial(adamw, 0.1, 0.0, longest)]) for longest in (1e-3, None)
    )
    first = gradient(START.astype(np.float64))
    short = first * 1e-3 / np.linalg.norm(first)
    np.testing.assert_allclose(tree_get(state.optimizer_state, "mu")["w"], 0.1 * short, rtol=1e-5)
    np.testing.assert_allclose(tree_get(same.optimizer_state, "mu")["w"], 0.1 * first, rtol=1e-5)


@pytest.mark.parametrize(("odd", "finite"), [(2.0, True), (np.nan, False), (np.inf, False)])
def test_whether_every_number_is_one(odd, finite):
    values = {"a": np.ones((2, 3), np.float32), "b": np.array([1, odd], np.float32)}
    assert bool(is_finite(values)) == finite
