"""What a step of the engine costs, by count and not by clock: a change here is a decision."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from conftest import TINY_VIT
from counting import operations, products

from ltx_jax.data.examples import Example
from ltx_jax.engine.explain import Request, explanations
from ltx_jax.engine.finetune import advance, empty_slots
from ltx_jax.engine.recipe import make_recipe
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.settings.sections import LTX

# The compiled step of four slots, as jax 0.10 counts it on a CPU: operations, bytes that it moves,
# and temporary ones (of lazy scoring one round). A quarter more is a regression.
WHOLE = 10.37e6, 8.20e6, 240_312
LAZY = 8.80e6, 7.72e6, 172_912
RECIPE = make_recipe(
    replace(LTX.finetune, learning_rate=1e-3, steps=3, chunk=9, lazy_scoring=False),
    replace(LTX.objective, mask_weight=2.0),
)


def step(explainee, explainer, slots, recipe=RECIPE):
    """The step's function of what changes, and its arguments as shapes."""
    network, mesh, (method, numbers) = explainer.for_slots(), slot_mesh(1), recipe
    empty = partial(empty_slots, method=method, slots=slots, k=1, mesh=mesh)
    state = jax.eval_shape(empty, explainee, network, numbers)
    arguments = state, explainee, network.without_trained(), jnp.int32(0), numbers
    return partial(advance, method=method, mesh=mesh), arguments


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


@pytest.mark.parametrize("lazy", [False, True])
def test_the_compiled_step_stays_lean(explainee, explainer, lazy):
    function, arguments = step(
        explainee, explainer, 4, RECIPE._replace(method=replace(RECIPE.method, lazy=lazy))
    )
    compiled = jax.jit(function).lower(*arguments).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    now = cost["flops"], cost["bytes accessed"], memory.temp_size_in_bytes
    for figure, known in zip(now, LAZY if lazy else WHOLE, strict=True):
        assert figure < 1.25 * known


@pytest.mark.parametrize("rank", [0, 2])
def test_half_precision_reaches_every_product(vit_weights, rank):
    how = {"compute_dtype": "bfloat16"}
    explainee = load_explainee("vit", vit_weights, **how, **TINY_VIT)
    trained = {"trained": "lora", "lora_rank": rank} if rank else {}
    explainer = load_explainer(explainee, **trained, **how)
    function, arguments = step(explainee, explainer, 2)
    found = {
        (*(str(operand.aval.dtype) for operand in product.invars), *product.params["precision"])
        for product, _ in products(function, *arguments)
    }
    # The upsampling of masks and the last layers in full; nothing of both types, which would run as
    # a product of float32.
    default, highest = jax.lax.Precision.DEFAULT, jax.lax.Precision.HIGHEST
    assert found == {
        ("bfloat16", "bfloat16", default, default),
        ("float32", "float32", highest, highest),
    }


@contextmanager
def no_retrace(caplog):
    """Nothing is traced inside; what was says which argument was another than before."""
    caplog.clear()
    with jax.explain_cache_misses(True), caplog.at_level("WARNING", "jax"):
        yield
    told = [r.getMessage() for r in caplog.records if "TRACING CACHE MISS" in r.getMessage()]
    assert not told, "\n".join(told)


def test_a_retrace_names_its_argument(caplog):
    doubled = jax.jit(lambda values, times: 2 * values * times)
    doubled(jnp.ones(3, jnp.float32), 1.0)
    with no_retrace(caplog):
        doubled(jnp.zeros(3, jnp.float32), 5.0)
    with pytest.raises(AssertionError, match=r"values.*f32\[4\]"), no_retrace(caplog):
        doubled(jnp.ones(4, jnp.float32), 1.0)


def test_more_images_compile_nothing_more(explainee, explainer, images, caplog):
    def explain(count):
        requests = [Request(row, Example(images[row % len(images)])) for row in range(count)]
        given = explainee, explainer, RECIPE, requests, 2, slot_mesh(2), None, ("pos", "neg")
        return list(explanations(*given, skip=lambda *_: None))

    compiled = []

    def listen(event, *_, **__):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        explain(5)
        once = len(compiled)
        assert once > 0
        with no_retrace(caplog):
            assert len(explain(11)) == 11
        assert len(compiled) == once
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
