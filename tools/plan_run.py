"""Plan a run on paper: its memory, time and cost, before anything is rented.

python tools/plan_run.py --config=configs/vit_base.py --images=50000 --device=h200 --devices=1 \
    [--milliseconds=MEASURED | --reached=0.5] [--price=DOLLARS_AN_HOUR]

Counts the operations of one image-step from the networks' shapes (explainer forward and backward,
masked explainee and its gradient, nine forwards for the score) and the bytes that the optimizer
moves, and divides them by what the device can do. That is the least a step can take; with
--reached, the share of that speed which a run really reaches, it becomes an estimate. With
--milliseconds, an image-step as `tools/benchmark.py` measured it on one such device, the estimate
rests on that figure instead. No weights are read and no network is run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from counting import operations
from ml_collections import config_flags

from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import MaskNetwork
from ltx_jax.metrics.perturbation import FRACTIONS
from ltx_jax.models.registry import architecture
from ltx_jax.weights.state_dict import shapes_of

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
_IMAGES = flags.DEFINE_integer("images", 50_000, "Images to explain.", lower_bound=1)
_DEVICE = flags.DEFINE_string("device", "h200", "Kind of device.")
_DEVICES = flags.DEFINE_integer("devices", 1, "How many of them, over all hosts.", lower_bound=1)
_STEPS = flags.DEFINE_float("steps", None, "Mean steps an image; the most where not given.")
_MILLISECONDS = flags.DEFINE_float("milliseconds", None, "Measured, an image-step on one device.")
_REACHED = flags.DEFINE_float("reached", 1.0, "Share of the device's speed that is reached.")
_PRICE = flags.DEFINE_float("price", None, "Of one device for an hour.")


class Device(NamedTuple):
    """What a data sheet promises: operations a second by compute type, bytes a second, bytes."""

    bfloat16: float
    float32: float
    bandwidth: float
    memory: float


# NVIDIA's and Google's data sheets. float32 is full precision: six bfloat16 passes on a TPU.
DEVICES = {
    "h200": Device(989e12, 67e12, 4.8e12, 141e9),
    "h100": Device(989e12, 67e12, 3.35e12, 80e9),
    "a100": Device(312e12, 19.5e12, 2.0e12, 80e9),
    "tpu-v4": Device(275e12, 275e12 / 6, 1.2e12, 32e9),
    "tpu-v5e": Device(197e12, 197e12 / 6, 0.82e12, 16e9),
}


class Step(NamedTuple):
    """One image-step: operations, bytes that the optimizer moves; and bytes that a slot keeps."""

    operations: int
    bytes: int
    slot_bytes: int


def main(argv: Sequence[str]) -> int:
    """Print the plan; 2 where the configuration cannot be used."""
    del argv
    config = _CONFIG.value
    try:
        if config is None:
            raise InputError("no configuration: give one of configs/")
        if _DEVICE.value not in DEVICES:
            raise InputError(f"unknown device {_DEVICE.value!r}: there are {', '.join(DEVICES)}")
        step = count_step(config)
    except InputError as error:
        print(f"plan_run: {error}", file=sys.stderr)
        return 2
    device = DEVICES[_DEVICE.value]
    speed = device.bfloat16 if config.compute_dtype == "bfloat16" else device.float32
    at_best = step.operations / speed + step.bytes / device.bandwidth
    seconds, basis = at_best / _REACHED.value, f"at {_REACHED.value:.0%} of the data sheet's speed"
    if _MILLISECONDS.value is not None:
        seconds, basis = 1e-3 * _MILLISECONDS.value, "measured"
    steps = _STEPS.value or config.finetune.steps
    hours = _IMAGES.value * steps * seconds / _DEVICES.value / 3600
    print(
        f"{config.explainee.name} in {config.compute_dtype} on {_DEVICES.value} × {_DEVICE.value}\n"
        f"an image-step: {step.operations / 1e9:.0f} GFLOP, {step.bytes / 1e9:.2f} GB; at best "
        f"{1e3 * at_best:.2f} ms, {basis} {1e3 * seconds:.2f} ms\n"
        f"memory: {step.slot_bytes / 1e9:.2f} GB a slot besides activations; fewer than "
        f"{int(device.memory / step.slot_bytes)} slots on a device\n"
        f"{_IMAGES.value} images of {steps:g} steps: {hours:.2f} hours, "
        f"{_IMAGES.value / hours / 3600:.1f} images a second"
    )
    if _PRICE.value is not None:
        print(f"cost: {hours * _DEVICES.value * _PRICE.value:.2f}")
    return 0


def count_step(config: Any) -> Step:
    """Count one image-step of a configuration from shapes alone.

    Raises:
      InputError: for an unknown network.
    """
    sizes = {name: size for name, size in config.explainee.sizes.items() if size is not None}
    explainee = architecture(config.explainee.name, **sizes)
    if config.explainer.name is not None:
        sizes = dict(config.explainer.sizes)
    backbone = architecture(config.explainer.name or config.explainee.name, **sizes)
    backbone = backbone.with_module(num_classes=0)
    network, masks = explainee.module, MaskNetwork(backbone.module, backbone.mask_head)
    image = jax.ShapeDtypeStruct((1, *explainee.size, 3), jnp.float32)
    weights, trained = shapes_of(network, explainee.size), shapes_of(masks, backbone.size)

    def classify(image: jax.Array, weights: Any) -> jax.Array:
        logits, _ = network.apply(weights, image)
        return jnp.sum(logits)

    def draw(weights: Any, image: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray(masks.apply(weights, image)))

    parameters = 4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained["params"]))
    return Step(
        operations=len(FRACTIONS) * operations(classify, image, weights)
        + operations(jax.grad(classify), image, weights)
        + operations(jax.grad(draw), trained, image),
        # Read forward and backward, gradient written; AdamW reads four and writes three.
        bytes=10 * parameters,
        slot_bytes=4 * parameters,  # weights, gradient, two moments
    )


if __name__ == "__main__":
    app.run(main)
