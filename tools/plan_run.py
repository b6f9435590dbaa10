"""Plan a run on paper: its memory, time and cost, before anything is rented.

python tools/plan_run.py --config=configs/vit_base.py --images=50000 --device=h200 --devices=1 \
    [--measured=FIGURES.json | --reached=0.5] [--compile] [--price=DOLLARS_AN_HOUR]

Counts the operations of one image-step from the networks' shapes (explainer forward and backward,
masked explainee and its gradient, nine forwards for each order of removal that selects) and the
bytes that the optimizer moves, and divides them by what the device can do. That is the least a step
can take; with --reached, the share of that speed which a run really reaches, it becomes an
estimate. With --measured, what `tools/benchmark.py --config=… --parts --json=FIGURES.json` wrote on
such devices, time, steps and memory rest on those figures instead; with --compile, the memory of a
TPU on what its compiler says (`tools/compile_for.py`). With --config.task=pretrain it is the
training that is planned, of so many images in each epoch. No weights are read, and no network is
run.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from abstract import drawer_of, explainee_of, finetuning, pretraining, refuse_task
from counting import operations
from fitting import Largest, compile_step, devices_of, search
from ml_collections import config_flags
from parts import priced

from ltx_jax.engine import adamw
from ltx_jax.engine.recipe import make_recipe
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves, Moments
from ltx_jax.explainers.mask_itself import MaskItself
from ltx_jax.metrics.perturbation import FRACTIONS
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import views_of
from ltx_jax.settings.configuration import read
from ltx_jax.settings.sections import Settings

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
_IMAGES = flags.DEFINE_integer("images", 50_000, "Images to explain.", lower_bound=1)
_DEVICE = flags.DEFINE_string("device", "h200", "Kind of device.")
_DEVICES = flags.DEFINE_integer("devices", 1, "How many of them, over all hosts.", lower_bound=1)
_STEPS = flags.DEFINE_float(
    "steps", None, "Mean steps an image; as measured, or the most.", lower_bound=1
)
_MEASURED = flags.DEFINE_string("measured", None, "Figures of tools/benchmark.py.")
_REACHED = flags.DEFINE_float(
    "reached", 1.0, "Share of the device's speed that is reached.", lower_bound=1e-3
)
_COMPILE = flags.DEFINE_bool("compile", False, "Ask a TPU's compiler for the memory; minutes.")
_PRICE = flags.DEFINE_float("price", None, "Of one device for an hour.")


class Device(NamedTuple):
    """What a data sheet promises: operations a second by compute type, bytes a second, bytes."""

    bfloat16: float
    float32: float
    bandwidth: float
    memory: float
    kind: str  # part of what JAX calls it
    topology: str | None = None  # that it is compiled for, of a TPU


# NVIDIA's and Google's data sheets. float32 is full precision: six bfloat16 passes on a TPU.
DEVICES = {
    "h200": Device(989e12, 67e12, 4.8e12, 141e9, "H200"),
    "h100": Device(989e12, 67e12, 3.35e12, 80e9, "H100"),
    "a100": Device(312e12, 19.5e12, 2.0e12, 80e9, "A100"),
    "tpu-v4": Device(275e12, 275e12 / 6, 1.2e12, 32e9, "TPU v4", "v4:2x2x1"),
    "tpu-v5e": Device(197e12, 197e12 / 6, 0.82e12, 16e9, "TPU v5 lite", "v5e:2x2"),
}


class Step(NamedTuple):
    """One image-step: operations, bytes that the optimizer moves; and bytes that a slot keeps."""

    operations: int
    bytes: int
    slot_bytes: int


class TrainingStep(NamedTuple):
    """Operations of an image; bytes that the optimizer moves in a step, and that a device keeps."""

    operations: int
    bytes: int
    kept_bytes: int


class Measured(NamedTuple):
    """Seconds of an image-step on one device, mean steps an image, bytes of a slot (or None)."""

    seconds: float
    steps: float
    slot_bytes: float | None


def main(argv: Sequence[str]) -> int:
    """Print the plan; 2 where the configuration cannot be used."""
    del argv
    jax.config.update("jax_platforms", "cpu")  # nobody need look for a device
    try:
        if _CONFIG.value is None:
            raise InputError("no configuration: give one of configs/")
        config = _CONFIG.value
        # No image is read: whatever they are, the step is the same.
        config.images = config.images or "any"
        settings = read(config)
        if _DEVICE.value not in DEVICES:
            raise InputError(f"unknown device {_DEVICE.value!r}: there are {', '.join(DEVICES)}")
        device = DEVICES[_DEVICE.value]
        refuse_task(settings)
        if settings.task == "pretrain":
            print(plan_training(settings, device))
            return 0
        step, measured, fitting = count_step(settings), None, None
        if _MEASURED.value is not None:
            measured = read_measured(_MEASURED.value, settings, device)
        if _COMPILE.value:
            fitting = largest_compiled(settings, device)
    except InputError as error:
        print(f"plan_run: {error}", file=sys.stderr)
        return 2
    print(plan(settings, step, measured, fitting, device))
    return 0


def plan_training(settings: Settings, device: Device) -> str:
    """The plan of a pretraining in words; its batches are divided over the devices.

    Raises:
      InputError: as `count_training`, or for options of a run's plan.
    """
    if _MEASURED.value is not None or _COMPILE.value or _STEPS.value is not None:
        raise InputError("--measured, --compile and --steps are of config.task=explain: leave out")
    step, size = count_training(settings), settings.pretrain.batch_size
    each = step.operations * size / _DEVICES.value
    seconds = (each / _speed(settings, device) + step.bytes / device.bandwidth) / _REACHED.value
    hours = settings.pretrain.epochs * (_IMAGES.value / size) * seconds / 3600
    lines = [
        f"training an explainer of {settings.explainee.name} in {settings.compute_dtype} on "
        f"{_DEVICES.value} × {_DEVICE.value}",
        f"an image: {step.operations / 1e9:.3g} GFLOP; a batch of {size} at {_REACHED.value:.0%} "
        f"of the data sheet's speed: {1e3 * seconds:.3g} ms",
        f"memory: {step.kept_bytes / 1e9:.3g} GB on each device besides activations",
        f"{settings.pretrain.epochs} epochs of {_IMAGES.value} images: {hours:.2f} hours, and what "
        "judging those held out takes",
    ]
    return "\n".join([*lines, *_cost(hours)])


def _speed(settings: Settings, device: Device) -> float:
    return device.bfloat16 if settings.compute_dtype == "bfloat16" else device.float32


def _cost(hours: float) -> list[str]:
    """A line, where there is a price."""
    price = _PRICE.value
    return [] if price is None else [f"cost: {hours * _DEVICES.value * price:.2f}"]


def largest_compiled(settings: Settings, device: Device) -> Largest:
    """How many slots fit into a TPU, as its compiler plans a step.

    Raises:
      InputError: for another device, or without the compiler.
    """
    if device.topology is None:
        raise InputError(f"{device.kind} is no TPU, which --compile is for: leave it out")
    devices = devices_of(device.topology)
    step = finetuning(settings, devices.mesh)
    return search(step, devices, compile_step(step, step.asked))


def plan(
    settings: Settings,
    step: Step,
    measured: Measured | None,
    fitting: Largest | None,
    device: Device,
) -> str:
    """The plan in words."""
    at_best = step.operations / _speed(settings, device) + step.bytes / device.bandwidth
    basis = f"at {_REACHED.value:.0%} of the data sheet's speed"
    if measured is None:
        measured = Measured(at_best / _REACHED.value, settings.finetune.steps, None)
    else:
        basis = "measured"
    steps = _STEPS.value or measured.steps
    hours = _IMAGES.value * steps * measured.seconds / _DEVICES.value / 3600
    lines = [
        f"{settings.explainee.name} in {settings.compute_dtype} on {_DEVICES.value} × "
        f"{_DEVICE.value}",
        f"an image-step: {step.operations / 1e9:.3g} GFLOP, {step.bytes / 1e9:.3g} GB; at best "
        f"{1e3 * at_best:.3g} ms, {basis} {1e3 * measured.seconds:.3g} ms",
        f"memory: {_memory(step, measured, fitting, device)}",
        f"{_IMAGES.value} images of {steps:.3g} steps: {hours:.2f} hours, "
        f"{_IMAGES.value / hours / 3600:.1f} images a second",
    ]
    return "\n".join([*lines, *_cost(hours)])


def _memory(step: Step, measured: Measured, fitting: Largest | None, device: Device) -> str:
    """What a slot takes and how many fit, as it is compiled, was measured, or is counted."""
    if fitting is not None:
        return f"slots on a device, as compiled: {fitting}"
    slot_bytes = measured.slot_bytes or step.slot_bytes
    besides = "" if measured.slot_bytes else " besides activations"
    most = int(device.memory / slot_bytes)
    return f"{slot_bytes / 1e9:.3g} GB a slot{besides}; fewer than {most} slots on a device"


def read_measured(path: str, settings: Settings, device: Device) -> Measured:
    """Figures that `tools/benchmark.py` wrote.

    Raises:
      InputError: where there are none, or with other settings or devices.
    """
    try:
        figures = json.loads(Path(path).read_text())
        measured, engine = figures["measured"], figures["engine"]
        found, kind = measured["settings"], measured["device"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"no figures in {path} ({error!r}): make them with tools/benchmark.py --json={path}"
        ) from error
    for setting, wanted in priced(settings).items():
        if found.get(setting) != wanted:
            raise InputError(
                f"{path} was measured with {setting} {found.get(setting)}, the plan is for "
                f"{wanted}: give the configuration that was measured"
            )
    if device.kind not in kind:
        raise InputError(
            f"{path} was measured on {kind}, the plan is for {device.kind}: give the device that "
            "was measured"
        )
    return Measured(
        seconds=1e-3 * engine["milliseconds_per_image_step"] * measured["devices"],
        steps=engine["steps"] / engine["images"],
        slot_bytes=figures.get("step", {}).get("bytes_a_slot"),
    )


def count_step(settings: Settings) -> Step:
    """Count one image-step of a configuration from shapes alone.

    Raises:
      InputError: for an unknown network, or a part of it that cannot be trained.
    """
    explainee = explainee_of(settings)
    drawer = drawer_of(settings, explainee)
    image = jax.ShapeDtypeStruct((1, *explainee.image_shape), jnp.float32)
    if isinstance(drawer, MaskItself):
        return _count_mask_step(settings, explainee, drawer, image)

    def draw(trained: Leaves, drawer: Explainer, prefix: jax.Array) -> jax.Array:
        return jnp.sum(drawer.draw(trained, prefix))

    prefix = jax.eval_shape(lambda drawer, image: drawer.prefix(image), drawer, image)
    drawn = drawer.trained, drawer.without_trained(), prefix
    optimizer = adamw.AdamW(settings.finetune.first_moment, settings.finetune.second_moment)
    kept = jax.eval_shape(lambda t: adamw.kept(optimizer, Moments(t, t)), drawer.trained)
    parameters, moments = _bytes(drawer.trained), _bytes(kept)
    return Step(
        operations=_of_explainee(settings, explainee, image) + operations(jax.grad(draw), *drawn),
        # Read forward and backward, gradient written; AdamW reads weights, gradient and moments
        # and writes all but the gradient.
        bytes=6 * parameters + 2 * moments,
        slot_bytes=2 * parameters + moments,  # weights, gradient, moments
    )


def count_training(settings: Settings) -> TrainingStep:
    """Count a training step of a configuration from shapes alone, parameters whole on each device.

    Raises:
      InputError: as `abstract.pretraining`.
    """
    batch = settings.pretrain.batch_size
    step = pretraining(settings, slot_mesh(1))
    explainee = explainee_of(settings)
    explainer = drawer_of(settings, explainee)
    assert isinstance(explainer, Explainer)  # the settings say so
    parameters, frozen = (
        _bytes(leaves) for leaves in (explainer.trained, (explainer.frozen, explainee.params))
    )
    return TrainingStep(
        operations=step.operations(batch) // batch,
        # As in `count_step`, with two moments of the weights' size.
        bytes=10 * parameters,
        kept_bytes=4 * parameters + frozen,
    )


def _classify(image: jax.Array, explainee: Explainee) -> jax.Array:
    """The sum of a classifier's logits."""
    return jnp.sum(explainee(image))


def _count_mask_step(
    settings: Settings, explainee: Explainee, mask: MaskItself, image: jax.ShapeDtypeStruct
) -> Step:
    """Of a mask of its own: forwards and gradients of the explainee; no weights are moved."""
    cells = math.prod(mask.cells)
    return Step(
        operations=_of_explainee(settings, explainee, image),
        bytes=8 * 4 * cells,
        slot_bytes=4 * (4 * cells + math.prod(image.shape)),  # raw, gradient, moments; the image
    )


def _of_explainee(settings: Settings, explainee: Explainee, image: jax.ShapeDtypeStruct) -> int:
    """Operations of the views of an image that the objective takes, with their gradient, and of the
    score that selects, whichever orders of removal it takes."""
    views = len(views_of(settings.objective.weights()))
    orders = make_recipe(settings.finetune, settings.objective).method.orders
    forward = operations(_classify, image, explainee) if orders else 0
    gradient = operations(jax.grad(_classify), image, explainee)
    return views * gradient + len(orders) * len(FRACTIONS) * forward


def _bytes(leaves: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(leaves))


if __name__ == "__main__":
    app.run(main)
