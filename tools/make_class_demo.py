"""Make the demo of classes: a small multi-label CNN for scenes, and its explainer.

    python tools/make_class_demo.py OUT [--explainer-steps=500]

Takes half an hour on two CPU cores. The CNN tells which of ten objects a scene has, the explainer
draws a mask for each. Writes what `configs/demo_classes.py` takes, and `demo_classes.json` (the
settings, and what was measured on scenes that neither network has seen). A network that OUT already
has is taken as it is. The explainer begins as the classifier, the mask of a class as its class
activation map, and learns by NN-Explainer's objective of a random part of each scene's classes
(`engine.class_masks`), since no scene shows an object alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from demo_training import ahead, rates_of, trained, unseen
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, UInt8
from make_demo_assets import veils

from ltx_jax import Explainee, Explainer, load_explainee, load_explainer, save_explainer
from ltx_jax.data.scenes import CLASSES, scenes
from ltx_jax.engine.class_masks import class_loss
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate
from ltx_jax.engine.training import adamw, data_mesh
from ltx_jax.loading.classifiers import FRESH, classifier_from, save_classifier
from ltx_jax.metrics.multi_label import multi_label_scores
from ltx_jax.models.classifier import Classifier
from ltx_jax.models.layers import as_input
from ltx_jax.objectives.class_masks import merged
from ltx_jax.settings.sections import ClassMasks, Network, Objective
from ltx_jax.tasks.pretrain_classes import class_goal

EXPLAINEE, EXPLAINER, FACTS = (
    "demo_classes_explainee.safetensors",
    "demo_classes_explainer.safetensors",
    "demo_classes.json",
)
NETWORK, SIZES = "cifar_resnet20", {"image_size": 96, "depth": 14, "num_classes": len(CLASSES)}
OBJECTS = (2, 4)
# Images of a batch.
_SIZE = 32
# Steps in which the learning rate rises.
_WARMUP = 50
# Scenes by their seed.
EXPLAINEE_SEED, EXPLAINER_SEED, TEST_SEED = 5, 6, 7


@dataclass(frozen=True)
class Recipe:
    """How the two networks are trained.

    Attributes:
      explainee_steps, explainer_steps: batches of scenes.
      explainee_rate, explainer_rate: greatest learning rates; each falls to 0 by a cosine.
      edge_radius: of the filter by which masks follow a scene's edges, in pixels.
      objective: of the explainer, its weights. `least` and `most` are about the shares of a scene
        that the smallest and the largest object have.
      test_scenes: unseen ones that the figures are measured on.
    """

    explainee_steps: int = 1100
    explainee_rate: float = 3e-3
    explainer_steps: int = 500
    explainer_rate: float = 1e-3
    edge_radius: int = 6
    objective: ClassMasks = field(
        default_factory=lambda: ClassMasks(objective="some_classes", least=0.03, most=0.12)
    )
    test_scenes: int = 500


class Batch(NamedTuple):
    """Images, and how much of each class is to be seen, 1 for half of an object or more."""

    images: UInt8[np.ndarray, "n size size 3"]
    seen: Float[np.ndarray, "n classes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--explainer-steps",
        type=int,
        default=Recipe.explainer_steps,
        help="batches that it learns from; 0 for the explainer as it begins",
    )
    given = parser.parse_args()
    make_assets(given.out, Recipe(explainer_steps=given.explainer_steps))


def make_assets(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train both networks, write them and the measured facts, and return the facts."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / EXPLAINEE).exists():
        make_explainee(out / EXPLAINEE, recipe)
    how: dict[str, Any] = {"class_names": CLASSES, "link": "sigmoid", **SIZES}
    explainee = load_explainee(NETWORK, out / EXPLAINEE, **how)
    figures = {"explainee": answers(explainee, recipe.test_scenes)}
    print(f"explainee: {figures['explainee']}", flush=True)
    if not (out / EXPLAINER).exists():
        make_explainer(out / EXPLAINER, explainee, recipe)
    explainer = load_explainer(explainee, checkpoint=out / EXPLAINER)
    figures["explainer"] = overlaps(explainee, explainer, recipe.test_scenes)
    print(f"explainer: {figures['explainer']}", flush=True)
    facts = {
        "classes": list(CLASSES),
        "objects": OBJECTS,
        "explainee": {"name": NETWORK, "link": "sigmoid", "sizes": SIZES},
        "recipe": asdict(recipe),
        "measured_on_unseen_scenes": figures,
    }
    (out / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return facts


# --- The classifier -------------------------------------------------------------------------------


def make_explainee(path: Path, recipe: Recipe) -> None:
    """Train the classifier from nothing, each class by itself, and write it."""
    given = Network(NETWORK, FRESH, SIZES, link="sigmoid")
    how: dict[str, Any] = {"class_names": CLASSES, "seed": 0}
    how |= {"compute_dtype": "float32", "attention": "xla"}
    classifier, _ = classifier_from(given, **how)
    mesh = data_mesh(_SIZE)
    loss = Partial(seen_loss, replicate(without_leaves(classifier), mesh))
    begin = classifier.trained, classifier.statistics
    how_long = recipe.explainee_steps, recipe.explainee_rate
    leaves, statistics = with_adamw(begin, hidden_in_part, loss, *how_long, mesh)
    frozen = classifier.frozen | statistics
    save_classifier(path, replace(classifier, trained=leaves, frozen=frozen), {})


def without_leaves(classifier: Classifier) -> Classifier:
    """The network without what is trained."""
    return replace(classifier, trained={})


def hidden_in_part(size: int, number: int) -> dict[str, np.ndarray]:
    """The `number`th batch for the classifier: of every three scenes one is hidden in part behind
    grey, the mean colour of its inputs, or behind black.

    A classifier that has never met a hidden part guesses there.
    """
    drawn = scenes(EXPLAINEE_SEED, size, OBJECTS, first=number * size)
    rng = np.random.default_rng([EXPLAINEE_SEED, number])
    batch = hidden(drawn.image, drawn.masks, veils(rng, size, drawn.image.shape[1]), rng)
    return batch._asdict()


def hidden(
    images: UInt8[np.ndarray, "n h w 3"],
    masks: Bool[np.ndarray, "n classes h w"],
    shown: Float[np.ndarray, "n h w"],
    rng: np.random.Generator,
) -> Batch:
    """Scenes through masks, and how much of each class is seen.

    Args:
      images, masks: of the scenes.
      shown: share of each pixel that is seen.
      rng: of what hides the rest of each, grey or black.
    """
    fill = 127.5 * rng.integers(0, 2, (len(images), 1, 1, 1))
    seen = np.einsum("nchw,nhw->nc", masks, shown) / np.maximum(masks.sum((2, 3)), 1)
    through = images * shown[..., None] + fill * (1 - shown[..., None])
    return Batch(through.astype(np.uint8), np.minimum(2 * seen, 1).astype(np.float32))


def seen_loss(
    classifier: Classifier, params: Any, model_state: Any, batch: dict[str, Array], rng: Array
) -> tuple[Array, tuple[dict[str, Array], Any]]:
    """Binary cross-entropy with how much of each class is seen, for `train_step`."""
    images = as_input(batch["images"])
    logits, model_state = classifier.logits_in_training(params, model_state, images, rng)
    total = optax.sigmoid_binary_cross_entropy(logits, batch["seen"]).mean()
    return total, ({"total": total}, model_state)


# --- The explainer --------------------------------------------------------------------------------


def make_explainer(path: Path, explainee: Explainee, recipe: Recipe) -> None:
    """Train an explainer of every class that begins as the classifier, and write it."""
    fresh = load_explainer(explainee, classes=len(CLASSES), edge_radius=recipe.edge_radius)
    explainer = fresh.with_leaves(fresh.trained | activation_maps(explainee), fresh.statistics)
    mesh = data_mesh(_SIZE)
    goal = class_goal(recipe.objective, make_goal(Objective()), explainee)
    loss = Partial(class_loss, *replicate((explainee, explainer.without_trained(), goal), mesh))
    begin = explainer.trained, explainer.statistics
    how_long = recipe.explainer_steps, recipe.explainer_rate
    leaves, statistics = with_adamw(begin, whole, loss, *how_long, mesh)
    save_explainer(path, explainer.with_leaves(leaves, statistics))


def activation_maps(explainee: Explainee) -> dict[str, Array]:
    """A mask head whose raw masks are class activation maps: their means are the logits."""
    last = explainee.params["params"]["linear"]
    return {f"params/head/mask/{name}": last[name] for name in ("kernel", "bias")}


def whole(size: int, number: int) -> dict[str, np.ndarray]:
    """The `number`th batch for the explainer: scenes and their classes."""
    drawn = scenes(EXPLAINER_SEED, size, OBJECTS, first=number * size)
    return {"images": drawn.image, "targets": drawn.labels > 0}


def with_adamw(
    begin: tuple[Any, Any],
    draw: Callable[[int, int], dict[str, np.ndarray]],
    loss: Partial,
    steps: int,
    rate: float,
    mesh: Mesh,
) -> tuple[Any, Any]:
    """Parameters and statistics after AdamW, gradients no longer than 1, on the batches that `draw`
    gives."""
    if not steps:
        return begin
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, _WARMUP, steps)

    def optimizer(rate: np.float32) -> Partial:
        return Partial(adamw, float(rate), 1e-4, 1.0)

    batches = ahead(draw, _SIZE, steps)
    return trained(begin, batches, loss, rates_of(schedule, steps), optimizer, mesh)


# --- What came of it ------------------------------------------------------------------------------


def answers(explainee: Explainee, count: int) -> dict[str, float]:
    """How often the classifier is right on unseen scenes, percent."""
    predict = jax.jit(lambda images: explainee(as_input(images)))
    logits, labels = [], []
    for drawn in unseen(TEST_SEED, count, OBJECTS):
        logits.append(np.asarray(predict(drawn.image)))
        labels.append(drawn.labels > 0)
    found = multi_label_scores(np.concatenate(logits), np.concatenate(labels), threshold=0.0)
    return {name: round(value, 2) for name, value in found.items()}


def overlaps(explainee: Explainee, explainer: Explainer, count: int) -> dict[str, float]:
    """Continuous IoU on unseen scenes, percent: of target masks with all objects, and of each
    class's mask with its object."""

    @jax.jit
    def draw(images: Array, labels: Array) -> tuple[Array, Array]:
        prefix = explainer.prefix(as_input(images))
        pixels = explainer.at_pixels(explainer.draw(explainer.trained, prefix), prefix)
        return merged(pixels, labels)[0], jax.nn.sigmoid(pixels)

    together, alone = [], []
    for drawn in unseen(TEST_SEED, count, OBJECTS):
        target, every = map(np.asarray, draw(drawn.image, drawn.labels > 0))
        together.append(continuous_iou(target, drawn.masks.any(1)))
        alone.append(continuous_iou(every[drawn.labels > 0], drawn.masks[drawn.labels > 0]))
    parts = {"target_masks": together, "class_masks": alone}
    return {name: round(float(100 * np.concatenate(x).mean()), 2) for name, x in parts.items()}


def continuous_iou(masks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Sum of the lesser of mask and truth over sum of the greater, of each of n."""
    return np.minimum(masks, truth).sum((1, 2)) / np.maximum(masks, truth).sum((1, 2))


if __name__ == "__main__":
    main()
