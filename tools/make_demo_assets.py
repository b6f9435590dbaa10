"""Make the bundled demo from nothing: train its explainee on scenes and pretrain its explainer.

    python tools/make_demo_assets.py [--out DIR]

Takes about a quarter of an hour on two CPU cores. Writes `demo_explainee.safetensors`,
`demo_explainer.safetensors` and `demo.json` (the settings, and what was measured on scenes that
neither network has seen). The explainee learns the classes that are to be seen in a picture, alike
for all of them; the explainer learns from the explainee alone, by the LTX objective.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from demo_training import ahead, rates_of, trained, unseen
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, UInt8
from safetensors.numpy import save

from ltx_jax import (
    LTX,
    Explainee,
    Explainer,
    evaluate,
    load_explainee,
    load_explainer,
    save_explainer,
)
from ltx_jax.data.scenes import CLASSES, scenes
from ltx_jax.engine.pretraining import ltx_loss
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate
from ltx_jax.engine.training import data_mesh, warmup_then_decay
from ltx_jax.masks.tokens import interpolation_matrix, upsample
from ltx_jax.models.architecture import HALF
from ltx_jax.models.layers import as_input, normalised
from ltx_jax.models.vit import VisionTransformer
from ltx_jax.weights.state_dict import Variables, to_state_dict
from ltx_jax.weights.tables import vision_transformer

EXPLAINEE, EXPLAINER, FACTS = (
    "demo_explainee.safetensors",
    "demo_explainer.safetensors",
    "demo.json",
)
# Scenes by their seed; the demo itself explains those of seed 0.
CLOSE_UP_SEED, EXPLAINEE_SEED, EXPLAINER_SEED, TEST_SEED = 1, 2, 3, 4
SIZES: dict[str, Any] = {
    "image_size": 96,
    "patch_size": 8,
    "width": 96,
    "depth": 4,
    "num_heads": 4,
    "num_classes": len(CLASSES),
}


@dataclass(frozen=True)
class Recipe:
    """How the two networks are trained.

    Attributes:
      close_up_batches: of 48×48 windows around single objects, which the explainee starts with:
        they cost a quarter of a whole scene.
      scene_batches: of whole scenes, with the position embedding enlarged to them.
      explainer_batches: of whole scenes, for the explainer.
      batch_size: images each.
      learning_rate: the peak for close-ups, and the one that training on scenes starts from.
      explainer_learning_rate: the peak.
      head_bias: of the explainer's fresh mask head: its first masks show nearly all.
      mask_weight: λ of the LTX objective.
      test_scenes: unseen ones that the figures are measured on.
    """

    close_up_batches: int = 3000
    scene_batches: int = 1000
    explainer_batches: int = 300
    batch_size: int = 32
    learning_rate: float = 1e-3
    explainer_learning_rate: float = 1e-3
    head_bias: float = 2.0
    mask_weight: float = 6.0
    test_scenes: int = 1000


class Batch(NamedTuple):
    """Images, and what share of the answer each class should get (rows sum to 1)."""

    images: UInt8[np.ndarray, "n size size 3"]
    shares: Float[np.ndarray, "n classes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    assets = Path(__file__).resolve().parent.parent / "ltx_jax" / "assets"
    parser.add_argument("--out", type=Path, default=assets, help="folder to write to")
    make_assets(parser.parse_args().out, Recipe())


def make_assets(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train both networks, write them and the measured facts, and return the facts."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    explainee = make_explainee(out / EXPLAINEE, recipe)
    seconds = {"explainee": round(time.monotonic() - began)}
    figures = {"accuracy": accuracy(explainee, recipe.test_scenes)}
    print(f"explainee: {figures['accuracy']}, {seconds['explainee']} s", flush=True)
    began = time.monotonic()
    explainer = make_explainer(out / EXPLAINER, explainee, recipe)
    seconds["explainer"] = round(time.monotonic() - began)
    figures["pretrained_masks"] = mask_figures(explainee, explainer, recipe.test_scenes // 4)
    print(f"explainer: {figures['pretrained_masks']}, {seconds['explainer']} s", flush=True)
    facts = {
        "classes": list(CLASSES),
        "explainee": {"name": "vit", "sizes": SIZES},
        "recipe": asdict(recipe),
        "measured_on_unseen_scenes": figures,
        "training_seconds": seconds,
    }
    (out / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return facts


# --- The explainee --------------------------------------------------------------------------------


def make_explainee(path: Path, recipe: Recipe) -> Explainee:
    """Train the classifier, first on close-ups and then on scenes, and write it."""
    module = VisionTransformer(**SIZES)
    close_up = module.clone(image_size=SIZES["image_size"] // 2)
    blank = jnp.zeros((1, close_up.image_size, close_up.image_size, 3))
    params = dict(close_up.init(jax.random.key(0), blank))
    steps, rate = recipe.close_up_batches, recipe.learning_rate
    rising = optax.linear_schedule(0.0, rate, max(steps // 10, 1))
    draw = partial(close_ups, CLOSE_UP_SEED)
    params = train(close_up, params, ahead(draw, recipe.batch_size, steps), rising)
    params = enlarge_positions(params, close_up.grid[0], module.grid[0])
    falling = optax.cosine_decay_schedule(rate, recipe.scene_batches)
    draw = partial(whole_scenes, EXPLAINEE_SEED)
    params = train(module, params, ahead(draw, recipe.batch_size, recipe.scene_batches), falling)
    path.write_bytes(save(to_state_dict(params, vision_transformer(module))))
    return load_explainee("vit", path, class_names=CLASSES, **SIZES)


def train(
    module: VisionTransformer, params: Variables, batches: Iterator[Batch], schedule: optax.Schedule
) -> Variables:
    """AdamW on the cross-entropy with each batch's shares."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.05)
    )
    state = optimizer.init(params)

    @jax.jit
    def step(params: Variables, state: Any, images: Array, shares: Array) -> tuple[Any, Any, Array]:
        def loss(params: Variables) -> Array:
            inputs = normalised(images / 255.0, HALF, HALF)
            return optax.softmax_cross_entropy(module.apply(params, inputs)[0], shares).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for number, batch in enumerate(batches, start=1):
        params, state, value = step(params, state, batch.images, batch.shares)
        losses.append(value)
        if number % 100 == 0:
            print(f"explainee: batch {number}, loss {np.mean(losses[-100:]):.3f}", flush=True)
    return params


def whole_scenes(seed: int, size: int, number: int) -> Batch:
    """The `number`th batch of whole scenes; every third one is veiled."""
    drawn = scenes(seed, size, first=number * size)
    shown = veils(np.random.default_rng([seed, number]), size, drawn.image.shape[1])
    return veiled(drawn.image, drawn.masks, shown, drawn.masks.sum((2, 3)))


def close_ups(seed: int, size: int, number: int) -> Batch:
    """The `number`th batch of windows, half a scene wide, each around an object.

    Two windows a scene; every third window is veiled.
    """
    drawn = scenes(seed, size // 2, objects=(2, 2), first=number * size)
    rng = np.random.default_rng([seed, number])
    half = drawn.image.shape[1] // 2
    images, masks = [], []
    for image, labels, objects in zip(*drawn, strict=True):
        for label in np.flatnonzero(labels):
            rows, columns = (window(objects[label].any(axis), half, rng) for axis in (1, 0))
            images.append(image[rows, columns])
            masks.append(objects[:, rows, columns])
    shown = veils(rng, size, half)
    areas = drawn.masks.sum((2, 3)).repeat(2, axis=0)
    return veiled(np.stack(images), np.stack(masks), shown, areas)


def veils(rng: np.random.Generator, count: int, size: int) -> Float[np.ndarray, "n size size"]:
    """Every third a random soft pattern in [0,1], the others 1 all over."""
    smooth = interpolation_matrix(7, size)
    noise = smooth @ rng.random((count, 7, 7)) @ smooth.T
    threshold, steepness = rng.uniform([[0.2], [2.0]], [[0.65], [20.0]], (2, count))
    patterns = 0.5 + (noise - threshold[:, None, None]) * steepness[:, None, None]
    third = np.arange(count)[:, None, None] % 3 == 2
    return np.where(third, np.clip(patterns, 0.0, 1.0), 1.0)


def veiled(
    images: UInt8[np.ndarray, "n h w 3"],
    masks: Bool[np.ndarray, "n classes h w"],
    shown: Float[np.ndarray, "n h w"],
    areas: Int[np.ndarray, "n classes"],
) -> Batch:
    """Images darkened where they are not shown, and the answers that fit what is left.

    Explaining hides parts of a picture in black. A classifier that has never met black guesses
    wildly there, so this one learns to know an object by its rest and to be undecided without.

    Args:
      images, masks: of the scenes, or of windows.
      shown: share of each pixel's brightness to keep.
      areas: pixels of each object in its whole scene.

    Returns:
      The images; and shares in proportion to how much of each object is seen, mixed with equal
      shares for all classes where less than half of any is seen.
    """
    seen = np.einsum("nchw,nhw->nc", masks, shown) / np.maximum(areas, 1)
    surest = np.minimum(2.0 * seen.max(-1, keepdims=True), 1.0)
    shares = surest * seen / np.maximum(seen.sum(-1, keepdims=True), 1e-6)
    shares += (1.0 - surest) / seen.shape[-1]
    return Batch((images * shown[..., None]).astype(np.uint8), shares.astype(np.float32))


def window(covered: np.ndarray, width: int, rng: np.random.Generator) -> slice:
    """A random place for a window that holds all that is covered along one axis."""
    places = np.flatnonzero(covered)
    low = max(int(places[-1]) + 1 - width, 0)
    high = min(int(places[0]), len(covered) - width)
    start = int(rng.integers(low, high + 1))
    return slice(start, start + width)


def enlarge_positions(params: Variables, small: int, large: int) -> Variables:
    """Interpolate the position embedding to a larger grid (Dosovitskiy et al. 2021, 3.2)."""
    embedding = params["params"]["pos_embed"]
    matrix = interpolation_matrix(small, large)
    grid = embedding[0, 1:].reshape(small, small, -1)
    grown = jnp.einsum("ri,cj,ijd->rcd", matrix, matrix, grid).reshape(large * large, -1)
    enlarged = jnp.concatenate([embedding[:, :1], grown[None]], axis=1)
    return {"params": params["params"] | {"pos_embed": enlarged}}


# --- The explainer --------------------------------------------------------------------------------


def make_explainer(path: Path, explainee: Explainee, recipe: Recipe) -> Explainer:
    """Pretrain the explainer on the classes that the explainee predicts, and write it."""
    explainer = load_explainer(explainee, head_bias=recipe.head_bias)
    mesh, steps = data_mesh(recipe.batch_size), recipe.explainer_batches
    goal = make_goal(replace(LTX.objective, mask_weight=recipe.mask_weight))
    given = replicate((explainee, explainer.without_trained(), goal), mesh)
    schedule = warmup_then_decay(recipe.explainer_learning_rate, steps // 5, steps)
    targets = np.full(recipe.batch_size, -1, np.int32)

    def draw(size: int, number: int) -> dict[str, np.ndarray]:
        drawn = scenes(EXPLAINER_SEED, size, first=number * size)
        return {"images": np.asarray(as_input(jnp.asarray(drawn.image))), "targets": targets}

    def optimizer(rate: np.float32) -> Partial:
        return Partial(optax.adamw, rate, weight_decay=0.01)

    batches = ahead(draw, recipe.batch_size, steps)
    loss, rates = Partial(ltx_loss, *given), rates_of(schedule, steps)
    params, _ = trained((explainer.trained, {}), batches, loss, rates, optimizer, mesh)
    save_explainer(path, explainer, params)
    return load_explainer(explainee, checkpoint=path)


# --- What came of it ------------------------------------------------------------------------------


def accuracy(explainee: Explainee, count: int) -> dict[str, float]:
    """Share of unseen scenes whose most likely class is there, by the number of their objects."""
    predict = jax.jit(lambda images: explainee(as_input(images)).argmax(-1))
    found = {}
    for name, objects in {"single_object": (1, 1), "one_to_three_objects": (1, 3)}.items():
        hits = [
            drawn.labels[np.arange(len(drawn.labels)), np.asarray(predict(drawn.image))]
            for drawn in unseen(TEST_SEED, count, objects)
        ]
        found[name] = round(float(np.concatenate(hits).mean()), 4)
    return found


def mask_figures(explainee: Explainee, explainer: Explainer, count: int) -> dict[str, float]:
    """The pretrained masks on unseen single objects: their scores, and the mean of the mask."""
    columns: dict[str, list[np.ndarray]] = {}
    draw = jax.jit(lambda images: explainer.masks(explainer.trained, as_input(images)))
    for drawn in unseen(TEST_SEED, count, (1, 1)):
        labels, masks = drawn.labels.argmax(-1), np.asarray(draw(drawn.image))
        truth = drawn.masks[np.arange(len(labels)), labels]
        found = evaluate(explainee, drawn.image, masks, labels, truth=truth, chunk=72)
        pixels = upsample(masks, explainee.image_size)
        for name, column in {**found.scores, "mean": pixels.mean((1, 2))}.items():
            columns.setdefault(name, []).append(np.asarray(column))
    return {name: round(float(np.concatenate(parts).mean()), 4) for name, parts in columns.items()}


if __name__ == "__main__":
    main()
