"""Programs for a TPU that is not here: their text, their steps as shapes, how large they fit."""

from __future__ import annotations

import dataclasses
import importlib.util

import fitting
import hlo
import jax
import numpy as np
import pytest
from abstract import _training_shapes, drawer_of, explainee_of, pretraining
from conftest import TINY_VIT
from jax.tree_util import keystr, tree_leaves_with_path

from ltx_jax.engine.memory import step_of_shapes
from ltx_jax.engine.recipe import make_recipe
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.engine.training import create_train_state
from ltx_jax.errors import InputError
from ltx_jax.settings.sections import LTX, Network

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='needs libtpu: pip install "jax[tpu]"'
)

# Three rounds of a loop with a loop of five inside, and one whose length nobody knows.
PROGRAM = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,8]{1,0})->f32[8,8]{1,0}}

FileNames
1 "step.py"

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

%turned (p: bf16[4,8]) -> bf16[8,4] {
  %p = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  %copy.9 = bf16[4,8]{0,1:T(8,128)(2,1)} copy(%p)
  ROOT %transpose.1 = bf16[8,4]{1,0:T(8,128)(2,1)} transpose(%copy.9), dimensions={1,0}
}

%gathered (q: f32[6]) -> f32[24] {
  %q = f32[6]{0:T(128)} parameter(0)
  ROOT %all-gather.1 = f32[24]{0:T(128)} all-gather(%q), replica_groups=[1,4]<=[4], dimensions={0}
}

%inner.condition (i: (s32[], pred[16])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  %i = (s32[]{:T(128)}, pred[16]{0:T(512)(128)(4,1)}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%i), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%at, %five), direction=LT
}

%inner.body (j: (s32[], pred[16])) -> (s32[], pred[16]) {
  %j = (s32[]{:T(128)}, /*index=1*/pred[16]{0:T(512)(128)(4,1)}) parameter(0)
  %of = pred[16]{0:T(512)(128)(4,1)} get-tuple-element(%j), index=1
  %copy.2 = pred[16]{0:T(512)(128)(4,1)S(1)} copy(%of), metadata={op_name="jit(step)/b (c)/copy"}
  ROOT %tuple.1 = (s32[]{:T(128)}, pred[16]{0:T(512)(128)(4,1)}) tuple(%at, %copy.2)
}

%outer.condition (k: (s32[], pred[16])) -> pred[] {
  %k = (s32[]{:T(128)}, pred[16]{0:T(512)(128)(4,1)}) parameter(0)
  %now = s32[]{:T(128)} get-tuple-element(%k), index=0
  %three = s32[]{:T(128)} constant(3)
  ROOT %lt.2 = pred[]{:T(512)} compare(%now, %three), direction=LT
}

%outer.body (l: (s32[], pred[16])) -> (s32[], pred[16]) {
  %l = (s32[]{:T(128)}, pred[16]{0:T(512)(128)(4,1)}) parameter(0)
  %weights = bf16[4,8]{1,0:T(8,128)(2,1)} constant({...})
  %fusion.1 = bf16[8,4]{1,0:T(8,128)(2,1)} fusion(%weights), kind=kLoop, calls=%turned
  %reduced = f32[8,4]{1,0} convert(%fusion.1)
  %all-reduce-start.1 = f32[8,4]{1,0} all-reduce-start(%reduced), channel_id=1, to_apply=%sum
  %all-reduce-done.1 = f32[8,4]{1,0} all-reduce-done(%all-reduce-start.1)
  ROOT %while.2 = (s32[], pred[16]) while(%l), condition=%inner.condition, body=%inner.body
}

%asked (m: (s32[], pred[16])) -> pred[] {
  %m = (s32[], pred[16]) parameter(0)
  ROOT %any = pred[] custom-call(%m), custom_call_target="any"
}

%unknown.body (n: (s32[], pred[16])) -> (s32[], pred[16]) {
  %n = (s32[], pred[16]) parameter(0)
  %copy-start.1 = (f32[9]{0:S(1)}, f32[9]{0}, u32[]{:S(2)}) copy-start(%o)
  ROOT %copy.3 = (s32[], pred[16]) copy(%n)
}

ENTRY %main.5_spmd (param: f32[8,8]) -> f32[8,8] {
  %param = f32[8,8]{1,0:T(8,128)} parameter(0)
  %small = f32[6]{0:T(128)} slice(%param), slice={[0:6]}
  %fusion.2 = f32[24]{0:T(128)} fusion(%small), kind=kCustom, calls=%gathered
  %while.1 = (s32[]{:T(128)}, pred[16]{0}) while(%t), condition=%outer.condition, body=%outer.body
  %while.3 = (s32[], pred[16]) while(%while.1), condition=%asked, body=%unknown.body
  ROOT %copy.1 = f32[8,8]{0,1:T(8,128)} copy(%param), metadata={op_name="jit(step)/a"}
}
"""


def test_how_often_computations_run():
    times = hlo.times_run(hlo.parse(PROGRAM))
    bodies = {name: count for name, count in times.items() if name.endswith("body")}
    assert times["main.5_spmd"] == 1 and "sum" not in times and "turned" not in times
    assert bodies == {"outer.body": 3, "inner.body": 15, "unknown.body": 1}


def test_copies_and_transposes():
    found = {
        (one.operation, one.times, one.bytes, one.elements, one.came_from)
        for one in hlo.moves(hlo.parse(PROGRAM))
    }
    assert found == {
        ("copy", 1, 4 * 64, 64, "jit(step)/a"),
        ("copy", 15, 16, 16, "jit(step)/b (c)/copy"),
        ("transpose", 3, 2 * 32, 32, ""),  # the fusion is one
        ("copy", 1, 4 + 16, 17, ""),
    }


def test_what_devices_tell_each_other():
    found = {(one.operation, one.times, one.bytes) for one in hlo.collectives(hlo.parse(PROGRAM))}
    assert found == {("all-reduce", 3, 4 * 32), ("all-gather", 1, 4 * 6)}


@pytest.mark.parametrize(
    ("arrays", "size"),
    [
        ("f32[]", 4),
        ("(bf16[2,3]{1,0:T(8,128)(2,1)}, /*index=1*/f8e4m3fn[5], pred[7])", 12 + 5 + 7),
        ("s4[6]{0:E(4)}", 3),
        ("token[]", 0),
    ],
)
def test_bytes_of_arrays(arrays, size):
    assert hlo.bytes_of(arrays) == size


def tiny(**settings):
    sizes = TINY_VIT | {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    return dataclasses.replace(LTX, images="any", explainee=Network("vit", sizes=sizes), **settings)


def forms(tree):
    return [(keystr(path), x.shape, x.dtype) for path, x in tree_leaves_with_path(tree)]


def test_shapes_are_those_of_a_run(explainee, explainer):
    settings, mesh = tiny(), slot_mesh(2)
    recipe = make_recipe(settings.finetune, settings.objective).with_chunk(9)
    alike = explainee_of(settings)
    given, static = step_of_shapes(alike, drawer_of(settings, alike), recipe, 3, mesh)
    arguments, method = step_of_shapes(explainee, explainer, recipe, 3, mesh)
    assert forms(given) == forms(arguments) and static == method
    assert given[0].images.shape == (6, 16, 16, 3)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_training_state_is_that_of_a_training(explainer, sharded):
    pretrain = dataclasses.replace(LTX.pretrain, sharded=sharded)
    settings, mesh = tiny(pretrain=pretrain), slot_mesh(4)
    alike = explainee_of(settings)
    state, batch, _, _, optimizer = _training_shapes(
        settings, alike, drawer_of(settings, alike), 8, mesh
    )
    real = create_train_state(explainer.trained, {}, optimizer, mesh, sharded)
    assert forms(state) == forms(real)
    placed = jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), state, real)
    assert all(jax.tree.leaves(placed))
    assert batch["images"].shape == (8, 16, 16, 3)


def test_devices_share_the_operations_of_a_training_step():
    one, four = (pretraining(tiny(), slot_mesh(devices)).operations(8) for devices in (1, 4))
    assert one == 4 * four > 0


@pytest.mark.parametrize(
    ("fixed", "each", "known_to", "begin", "found", "asked"),
    [
        (10, 5, 99, 4, (18, 5.0), 4),  # 10 + 5 · 18 = 100, and no compilation more than that
        (10, 5, 99, 16, (18, 5.0), 4),
        (10, 5, 99, 64, (18, 5.0), 6),
        (10, 5, 6, 4, (5, 5.0), 7),  # beyond 6 nobody tells: halfway back from 18, 11 and 7
        (97, 5, 99, 4, (0, None), 3),
        (10, 50, 1, 1, (1, None), 2),
    ],
)
def test_the_largest_that_fits(fixed, each, known_to, begin, found, asked):
    sizes = []

    def needed(size):
        sizes.append(size)
        return None if size > known_to else fixed + each * size

    assert fitting.largest(needed, begin, 100) == found
    assert len(set(sizes)) <= asked


def test_bytes_that_grow_unevenly():
    sizes = []

    def needed(size):
        sizes.append(size)
        return 10 + (5 if size <= 10 else 10) * size

    # 18 on the line of 5 each does not fit; on that from 2 to 18, of 170 / 16 each, 2 + 7 do.
    assert fitting.largest(needed, 2, 100) == (9, 170 / 16)
    assert set(sizes) == {2, 4, 18, 9}


def test_what_cannot_be_compiled(monkeypatch):
    mesh = slot_mesh(2)
    for task in ("evaluate", "train_words"):
        with pytest.raises(InputError, match=f"is {task}, whose steps are not counted: set it"):
            fitting.step_of(tiny(task=task), mesh)
    pretrain = dataclasses.replace(LTX.pretrain, batch_size=6, accumulate=2)
    with pytest.raises(InputError, match="batch_size is 6: give a multiple of 4"):
        fitting.step_of(tiny(task="pretrain", pretrain=pretrain), mesh)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r'is missing: pip install "jax\[tpu\]"'):
        fitting.devices_of("v5e:2x2")


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:3x5", "v9:2x2", "tpu"])
def test_topologies_that_there_are_not(topology):
    with pytest.raises(InputError, match=f"no topology '{topology}'.*give one like v5e:2x2"):
        fitting.devices_of(topology)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("task", ["explain", "pretrain"])
def test_a_tiny_network_is_compiled(task):
    devices = fitting.devices_of("v5e:2x2")
    assert devices.mesh.size == 4 and 15e9 < devices.memory < 17.2e9
    settings = tiny(task=task)
    step = fitting.step_of(settings, devices.mesh)
    made = fitting.compile_step(step, step.asked)
    told = fitting.report(step, made, devices).splitlines()
    assert "fits into 16.9 GB" in told[1]
    trained = drawer_of(settings, explainee_of(settings)).trained
    leaves = sum(4 * np.prod(leaf.shape) for leaf in trained.values())
    if task == "explain":
        assert told[2] == "collectives: none"
        assert made.bytes > 4 * 3 * leaves  # weights and both moments of four slots
    else:
        exchanged = hlo.collectives(hlo.parse(made.program.as_text()))
        told = sum(one.times * one.bytes for one in exchanged)
        assert leaves <= told < 1.1 * leaves  # each gradient, and the losses
