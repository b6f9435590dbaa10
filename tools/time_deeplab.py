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
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from counting import operations
from jax import Array
from parts import ceilings
from pytorch_networks import define_torchvision_operators, jax_device

import ltx_jax
from ltx_jax.explainers.deeplab import DeepLabHead
from ltx_jax.explainers.explainer import Explainer, MaskNetwork, explainer_from, weight_table
from ltx_jax.explainers.leaves import join
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
        mine, their = (1000 * s / arguments.batch for s in in_turns(runs))
        print(f"{name:18}{mine:10.1f}{their:13.1f}{their / mine:8.2f}", flush=True)
    print_parts(ours, images)


def in_turns(runs: tuple[Run, ...]) -> list[float]:
    """Median seconds of each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(_TURNS):
        for run, own in zip(runs, seconds, strict=True):
            began = time.perf_counter()
            run()
            own.append(time.perf_counter() - began)
    return [float(np.median(own[1:])) for own in seconds]


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
    compiled, x = torch.compile(network), _channels_first(network, images)

    def run() -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return compiled(x).cpu().numpy()

    return run


def torchvision_step(network: torch.nn.Module, images: np.ndarray) -> Run:
    """Of the network in training mode; its loss is read."""
    compiled, x = torch.compile(network), _channels_first(network, images)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)

    def run() -> float:
        network.train()
        optimizer.zero_grad()
        loss = (compiled(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def _channels_first(network: torch.nn.Module, images: np.ndarray) -> torch.Tensor:
    device = next(network.parameters()).device
    return torch.tensor(images.transpose(0, 3, 1, 2)).contiguous().to(device)


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
    state: Any = explainer.trained, explainer.statistics, optax.adam(_RATE).init(explainer.trained)
    state = jax.tree.map(jnp.array, state)

    def run() -> float:
        nonlocal state
        loss, state = _stepped(state, explainer.without_trained(), images)
        return float(loss)

    return run


def _drawn(explainer: Explainer, images: Array) -> Array:
    return explainer.draw(explainer.trained, explainer.prefix(images))


@partial(jax.jit, donate_argnums=0)
def _stepped(state: Any, explainer: Explainer, images: Array) -> tuple[Array, Any]:
    params, statistics, optimizer_state = state

    def loss_of(params: Mapping[str, Array]) -> tuple[Array, Any]:
        rng = jax.random.key(0)
        raw, moved = explainer.draw_in_training(dict(params), statistics, images, rng)
        return (raw**2).mean(), moved

    (loss, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer_state = optax.adam(_RATE).update(gradient, optimizer_state)
    return loss, (optax.apply_updates(params, updates), statistics, optimizer_state)


def print_parts(explainer: Explainer, images: np.ndarray) -> None:
    """Operations of the backbone and of the head, and how fast they are done."""
    variables, module = join(explainer.trained, explainer.frozen), explainer.module
    features = jax.jit(partial(module.apply, method="_features"))
    head = jax.jit(partial(module.apply, method=lambda network, x: network.head(x)))
    middle = features(variables, images)
    product, _ = ceilings(None)
    print(f"\n{'of a pass':18}{'GFLOP':>10}{'ms':>13}{'GFLOP/s':>10}   (an image)")
    for name, run, given in [("backbone", features, images), ("head", head, middle)]:
        count = operations(run, variables, given) / len(images) / 1e9
        each = in_turns((partial(_finished, run, variables, given),))[0] / len(images)
        print(f"{name:18}{count:10.2f}{1000 * each:13.1f}{count / each:10.0f}")
    print(f"a large matrix product: {product / 1e9:.0f} GFLOP/s")


def _finished(run: Callable[..., Any], *given: Any) -> Any:
    return jax.block_until_ready(run(*given))


if __name__ == "__main__":
    main()
