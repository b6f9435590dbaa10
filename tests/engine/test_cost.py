"""What a step of the engine costs, by count and not by clock: a change here is a decision."""

from functools import partial

import jax
import jax.numpy as jnp
from counting import operations

from ltx_jax.engine.explain import Request, explanations
from ltx_jax.engine.finetune import FinetuneSettings, advance, empty_slots
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.objectives.ltx import Objective

# The compiled step of four slots, as jax 0.10 counts it on a CPU; a quarter more is a regression.
FLOPS, BYTES, TEMPORARY = 10.37e6, 8.20e6, 240_312
SETTINGS = FinetuneSettings(Objective(2.0), (1e-3,) * 3, chunk=9)


def step(explainee, explainer, slots):
    """The step's function of (state, explainee, network, count), and arguments as shapes."""
    network, mesh = explainer.for_slots(), slot_mesh(1)
    state = jax.eval_shape(
        partial(empty_slots, settings=SETTINGS, slots=slots, k=1, mesh=mesh), explainee, network
    )
    arguments = state, explainee, network.without_trained(), jnp.int32(0)
    return partial(advance, settings=SETTINGS, mesh=mesh), arguments


def test_operations_of_a_step(explainee, explainer):
    function, arguments = step(explainee, explainer, 1)
    one = operations(function, *arguments)
    tokens, width, depth = 17, 16, 3
    linear, attention = 24 * tokens * width**2, 4 * tokens**2 * width
    scanned = (depth - 1) * (linear + attention)
    # The classifier's last block is for the class token alone, but for its keys and values.
    classify = scanned + 6 * tokens * width**2 + 4 * tokens * width + 18 * width**2
    draw = scanned + linear + attention
    # Nine forwards of the explainee; it and its input gradient, for which attention has two; the
    # explainer with both gradients. The attention scores of scanned blocks are computed again.
    again = (depth - 1) * attention / 2
    blocks = (9 + 2) * classify + (depth - 1) * attention + 3 * draw + 2 * again
    assert 0 <= one - blocks < 0.15 * blocks  # embeddings, heads, upsampling
    function, arguments = step(explainee, explainer, 5)
    assert operations(function, *arguments) == 5 * one


def test_the_compiled_step_stays_lean(explainee, explainer):
    function, arguments = step(explainee, explainer, 4)
    compiled = jax.jit(function).lower(*arguments).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost["flops"] < 1.25 * FLOPS
    assert cost["bytes accessed"] < 1.25 * BYTES
    assert memory.temp_size_in_bytes < 1.25 * TEMPORARY


def test_more_images_compile_nothing_more(explainee, explainer, images):
    def explain(count):
        requests = [Request(row, images[row % len(images)]) for row in range(count)]
        return list(explanations(explainee, explainer, SETTINGS, requests, 2, slot_mesh(2)))

    compiled = []
    explain(5)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    assert len(explain(11)) == 11
    assert compiled == []
