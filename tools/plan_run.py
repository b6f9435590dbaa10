"""Plan a run on paper: its memory, time and cost, before anything is rented.

python tools/plan_run.py --config=configs/vit_base.py --images=50000 --device=h200 --devices=1 \
    [--measured=FIGURES.json | --reached=0.5] [--price=DOLLARS_AN_HOUR]

Counts the operations of one image-step from the networks' shapes (explainer forward and backward,
masked explainee and its gradient, nine forwards for the score) and the bytes that the optimizer
moves, and divides them by what the device can do. That is the least a step can take; with
--reached, the share of that speed which a run really reaches, it becomes an estimate. With
--measured, what `tools/benchmark.py --config=… --parts --json=FIGURES.json` wrote on such devices,
time, steps and memory rest on those figures instead. No weights are read and no network is run.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from counting import operations
from ml_collections import config_flags
from parts import priced

from ltx_jax.engine import adamw
from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Leaves, Moments, join, split
from ltx_jax.explainers.mask_itself import cells_for
from ltx_jax.loading.explainers import completed, mask_network
from ltx_jax.metrics.perturbation import FRACTIONS
from ltx_jax.models.registry import Architecture, architecture
from ltx_jax.objectives import views_of
from ltx_jax.settings.configuration import read
from ltx_jax.settings.sections import Settings
from ltx_jax.weights.state_dict import shapes_of

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
_IMAGES = flags.DEFINE_integer("images", 50_000, "Images to explain.", lower_bound=1)
_DEVICE = flags.DEFINE_string("device", "h200", "Kind of device.")
_DEVICES = flags.DEFINE_integer("devices", 1, "How many of them, over all hosts.", lower_bound=1)
_STEPS = flags.DEFINE_float("steps", None, "Mean steps an image; as measured, or the most.")
_MEASURED = flags.DEFINE_string("measured", None, "Figures of tools/benchmark.py.")
_REACHED = flags.DEFINE_float("reached", 1.0, "Share of the device's speed that is reached.")
_PRICE = flags.DEFINE_float("price", None, "Of one device for an hour.")


class Device(NamedTuple):
    """What a data sheet promises: operations a second by compute type, bytes a second, bytes."""

    bfloat16: float
    float32: float
    bandwidth: float
    memory: float
    kind: str  # part of what JAX calls it


# NVIDIA's and Google's data sheets. float32 is full precision: six bfloat16 passes on a TPU.
DEVICES = {
    "h200": Device(989e12, 67e12, 4.8e12, 141e9, "H200"),
    "h100": Device(989e12, 67e12, 3.35e12, 80e9, "H100"),
    "a100": Device(312e12, 19.5e12, 2.0e12, 80e9, "A100"),
    "tpu-v4": Device(275e12, 275e12 / 6, 1.2e12, 32e9, "TPU v4"),
    "tpu-v5e": Device(197e12, 197e12 / 6, 0.82e12, 16e9, "TPU v5 lite"),
}


class Step(NamedTuple):
    """One image-step: operations, bytes that the optimizer moves; and bytes that a slot keeps."""

    operations: int
    bytes: int
    slot_bytes: int


class Measured(NamedTuple):
    """Seconds of an image-step on one device, mean steps an image, bytes of a slot (or None)."""

    seconds: float
    steps: float
    slot_bytes: float | None


def main(argv: Sequence[str]) -> int:
    """Print the plan; 2 where the configuration cannot be used."""
    del argv
    try:
        if _CONFIG.value is None:
            raise InputError("no configuration: give one of configs/")
        config = _CONFIG.value
        # No image is read: whatever they are, the step is the same.
        config.images = config.images or "any"
        settings = read(config)
        if _DEVICE.value not in DEVICES:
            raise InputError(f"unknown device {_DEVICE.value!r}: there are {', '.join(DEVICES)}")
        step = count_step(settings)
        measured = None
        if _MEASURED.value is not None:
            measured = read_measured(_MEASURED.value, settings, DEVICES[_DEVICE.value])
    except InputError as error:
        print(f"plan_run: {error}", file=sys.stderr)
        return 2
    print(plan(settings, step, measured, DEVICES[_DEVICE.value]))
    return 0


def plan(settings: Settings, step: Step, measured: Measured | None, device: Device) -> str:
    """The plan in words."""
    speed = device.bfloat16 if settings.compute_dtype == "bfloat16" else device.float32
    at_best = step.operations / speed + step.bytes / device.bandwidth
    basis = f"at {_REACHED.value:.0%} of the data sheet's speed"
    if measured is None:
        measured = Measured(at_best / _REACHED.value, settings.finetune.steps, None)
    else:
        basis = "measured"
    slot_bytes = measured.slot_bytes or step.slot_bytes
    besides = "" if measured.slot_bytes else " besides activations"
    steps = _STEPS.value or measured.steps
    hours = _IMAGES.value * steps * measured.seconds / _DEVICES.value / 3600
    lines = [
        f"{settings.explainee.name} in {settings.compute_dtype} on {_DEVICES.value} × "
        f"{_DEVICE.value}",
        f"an image-step: {step.operations / 1e9:.3g} GFLOP, {step.bytes / 1e9:.3g} GB; at best "
        f"{1e3 * at_best:.3g} ms, {basis} {1e3 * measured.seconds:.3g} ms",
        f"memory: {slot_bytes / 1e9:.3g} GB a slot{besides}; fewer than "
        f"{int(device.memory / slot_bytes)} slots on a device",
        f"{_IMAGES.value} images of {steps:.3g} steps: {hours:.2f} hours, "
        f"{_IMAGES.value / hours / 3600:.1f} images a second",
    ]
    if _PRICE.value is not None:
        lines.append(f"cost: {hours * _DEVICES.value * _PRICE.value:.2f}")
    return "\n".join(lines)


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
    chosen = settings.explainer
    explainee = architecture(settings.explainee.name, **settings.explainee.sizes)
    if chosen.trained == "mask":
        return _count_mask_step(settings, explainee)
    chosen = completed(chosen, explainee.size)
    backbone = explainee if chosen.name is None else architecture(chosen.name, **chosen.sizes)
    backbone, masks = mask_network(backbone.with_module(num_classes=0), chosen)
    classify, weights, image = _classifier(explainee)
    variables = shapes_of(masks, backbone.size, backbone.channels)
    prefix = jax.eval_shape(lambda v, x: masks.apply(v, x, method="prefix"), variables, image)
    trained, frozen = jax.eval_shape(lambda v: split(v, chosen.trained), variables)

    def draw(trained: Leaves, frozen: Leaves, prefix: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray(masks.apply(join(trained, frozen), prefix, method="draw")))

    optimizer = adamw.AdamW(settings.finetune.first_moment, settings.finetune.second_moment)
    kept = jax.eval_shape(lambda t: adamw.kept(optimizer, Moments(t, t)), trained)
    parameters, moments = _bytes(trained), _bytes(kept)
    return Step(
        operations=len(FRACTIONS) * operations(classify, image, weights)
        + operations(jax.grad(classify), image, weights)
        + operations(jax.grad(draw), trained, frozen, prefix),
        # Read forward and backward, gradient written; AdamW reads weights, gradient and moments
        # and writes all but the gradient.
        bytes=6 * parameters + 2 * moments,
        slot_bytes=2 * parameters + moments,  # weights, gradient, moments
    )


def _classifier(explainee: Architecture) -> tuple[Callable[..., jax.Array], Any, Any]:
    """The sum of a classifier's logits as a function of an image and weights, and their shapes."""
    image = jax.ShapeDtypeStruct((1, *explainee.size, explainee.channels), jnp.float32)
    weights = shapes_of(explainee.module, explainee.size, explainee.channels)

    def classify(image: jax.Array, weights: Any) -> jax.Array:
        logits, _ = explainee.module.apply(weights, image)
        return jnp.sum(logits)

    return classify, weights, image


def _count_mask_step(settings: Settings, explainee: Architecture) -> Step:
    """Of a mask of its own: forwards and gradients of the explainee; it scores nothing, and there
    are no weights to move."""
    classify, weights, image = _classifier(explainee)
    views = len(views_of(settings.objective.weights()))
    cells = math.prod(cells_for(explainee.size, settings.explainer.grid))
    return Step(
        operations=views * operations(jax.grad(classify), image, weights),
        bytes=8 * 4 * cells,
        slot_bytes=4 * (4 * cells + math.prod(image.shape)),  # raw, gradient, moments; the image
    )


def _bytes(leaves: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(leaves))


if __name__ == "__main__":
    app.run(main)
