"""Time DeepLabv3 with a mask for every class beside torchvision's: a pass, and a training step.

    python tools/time_deeplab.py [--batch=4] [--size=224] [--classes=20]

Both have the same weights, in float32 on the device that JAX runs on; torchvision's runs through
`torch.compile`. They take turns, and milliseconds are medians without the first run, which
compiles. A training step is the forward with batch norms that go by the batch and dropout, the mean
square of the raw masks as a loss, its gradient and Adam. Below them are the operations of ours by
part (counted from shapes), its milliseconds, and the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import torch
from counting import operations
from jax import Array
from jax.tree_util import Partial
from parts import ceilings, seconds_of
from pytorch_networks import channels_first, define_torchvision_operators, jax_device
from turns import in_turns

import ltx_jax
from ltx_jax.engine.training import create_train_state, data_mesh, train_step
from ltx_jax.explainers.deeplab import DeepLabHead
from ltx_jax.explainers.explainer import Explainer, MaskNetwork, explainer_from, weight_table
from ltx_jax.explainers.leaves import Leaves, join
from ltx_jax.models.registry import architecture
from ltx_jax.weights.state_dict import from_state_dict, shapes_of

_RATE = 1e-5
_TURNS = 4
Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="images at once")
    parser.add_argument("--size", type=int, default=224, help="pixels along a side")
    parser.add_argument("--classes", type=int, default=20, help="that have a mask each")
    arguments = parser.parse_args()
    ltx_jax.prepare()
    theirs = torchvision_network(arguments.classes)
    ours = same_weights(theirs, arguments.classes, arguments.size)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    images = np.random.default_rng(0).random(shape, np.float32)
    kinds = {
        "a pass": (our_pass(ours, images), torchvision_pass(theirs, images)),
        "a training step": (our_step(ours, images), torchvision_step(theirs, images)),
    }
    print(f"{'ms an image':18}{'ours':>10}{'torchvision':>13}{'ratio':>8}")
    for name, runs in kinds.items():
        mine, their = (1000 * turn.seconds / arguments.batch for turn in in_turns(runs, _TURNS))
        print(f"{name:18}{mine:10.1f}{their:13.1f}{their / mine:8.2f}", flush=True)
    print_parts(ours, images)


# --- torchvision's --------------------------------------------------------------------------------


def torchvision_network(classes: int) -> torch.nn.Module:
    """Without its last enlargement, which is ours to do."""
    define_torchvision_operators()
    import torchvision

    torch.manual_seed(0)
    models = torchvision.models.segmentation
    whole = models.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes)

    class Raw(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.classifier = whole.backbone, whole.classifier

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.backbone(x)["out"])

    return Raw().to(jax_device())


def torchvision_pass(network: torch.nn.Module, images: np.ndarray) -> Run:
    """Of the network in evaluation mode."""
    compiled, x = torch.compile(network), channels_first(images, jax_device()).contiguous()

    def run() -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return compiled(x).cpu().numpy()

    return run


def torchvision_step(network: torch.nn.Module, images: np.ndarray) -> Run:
    """Of the network in training mode; its loss is read."""
    compiled, x = torch.compile(network), channels_first(images, jax_device()).contiguous()
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)

    def run() -> float:
        network.train()
        optimizer.zero_grad()
        loss = (compiled(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


# --- Ours -----------------------------------------------------------------------------------------


def same_weights(network: torch.nn.Module, classes: int, size: int) -> Explainer:
    """Our explainer with torchvision's weights."""
    given = {name: x.cpu().numpy() for name, x in network.state_dict().items()}
    state = {name.removeprefix("backbone."): x for name, x in given.items()}
    own = architecture("resnet50", dilated=[False, True, True], image_size=size)
    own = own.with_module(num_classes=0)
    module = MaskNetwork(own.module, DeepLabHead(classes))
    shapes = shapes_of(module, own.size)
    variables = from_state_dict(state, weight_table(own, module.head), shapes, "torchvision's")
    return explainer_from(module, own, variables, "sigmoid")


def our_pass(explainer: Explainer, images: np.ndarray) -> Run:
    """Of the network in evaluation mode."""
    draw = jax.jit(_drawn)
    return lambda: np.asarray(draw(explainer, images))


def our_step(explainer: Explainer, images: np.ndarray) -> Run:
    """Of the network in training mode; its loss is read."""
    mesh, optimizer = data_mesh(len(images)), Partial(optax.adam, _RATE)
    loss = Partial(_mean_square, explainer.without_trained())
    state = create_train_state(explainer.trained, explainer.statistics, optimizer, mesh)

    def run() -> float:
        nonlocal state
        state, metrics = train_step(state, images, jax.random.key(0), loss, optimizer, mesh)
        return float(metrics)

    return run


def _drawn(explainer: Explainer, images: Array) -> Array:
    return explainer.draw(explainer.trained, explainer.prefix(images))


def _mean_square(
    explainer: Explainer, params: Leaves, statistics: Leaves, images: Array, rng: Array
) -> tuple[Array, tuple[Array, Leaves]]:
    raw, moved = explainer.draw_in_training(params, statistics, images, rng)
    total = (raw**2).mean()
    return total, (total, moved)


def print_parts(explainer: Explainer, images: np.ndarray) -> None:
    """Operations of the backbone and of the head, and how fast they are done."""
    variables, module = join(explainer.trained, explainer.frozen), explainer.module
    features = partial(module.apply, method="_features")
    head = partial(module.apply, method=lambda network, x: network.head(x))
    middle = jax.jit(features)(variables, images)
    product, _ = ceilings(None)
    print(f"\n{'of a pass':18}{'GFLOP':>10}{'ms':>13}{'GFLOP/s':>10}   (an image)")
    for name, run, given in [("backbone", features, images), ("head", head, middle)]:
        count = operations(run, variables, given) / len(images) / 1e9
        each = seconds_of(run, variables, given) / len(images)
        print(f"{name:18}{count:10.2f}{1000 * each:13.1f}{count / each:10.0f}")
    print(f"a large matrix product: {product / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
