"""Make a demo of classes from the bundled one: a multi-label classifier of scenes, its explainer.

    python tools/make_class_demo.py OUT

Takes half an hour on two CPU cores. Writes `demo_classes_explainee.safetensors`,
`demo_classes_explainer.safetensors` and `demo_classes.json` (the settings, and what was measured on
scenes that neither network has seen). The classifier begins as the demo's, whose scenes have fewer
objects and one answer; the explainer begins as the classifier, with a mask for every class, and
learns by NN-Explainer's objective (`engine.class_masks`), that of one class beside it. In so short
a training only a few classes' masks come to show their own object alone; the others show all of an
image's objects.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, UInt8
from make_demo_assets import EXPLAINEE as DEMO
from make_demo_assets import SIZES, ahead, unit, veils

from ltx_jax import Explainee, Explainer, load_explainee, load_explainer, save_explainer
from ltx_jax.data.scenes import CLASSES, scenes
from ltx_jax.engine.class_masks import class_loss, in_pixels
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate
from ltx_jax.engine.training import adamw, create_train_state, data_mesh, train_step
from ltx_jax.loading.classifiers import classifier_from, save_classifier
from ltx_jax.metrics.multi_label import multi_label_scores
from ltx_jax.models.classifier import Classifier
from ltx_jax.objectives.class_masks import merged
from ltx_jax.settings.sections import ClassMasks, Network, Objective
from ltx_jax.tasks.pretrain_classes import class_goal

EXPLAINEE, EXPLAINER, FACTS = (
    "demo_classes_explainee.safetensors",
    "demo_classes_explainer.safetensors",
    "demo_classes.json",
)
ASSETS = Path(__file__).resolve().parent.parent / "ltx_jax" / "assets"
OBJECTS = (2, 4)
# Images of a batch.
_SIZE = 32
# Scenes by their seed.
EXPLAINEE_SEED, EXPLAINER_SEED, TEST_SEED = 5, 6, 7


@dataclass(frozen=True)
class Recipe:
    """How the two networks are trained.

    Attributes:
      explainee_passes, explainer_passes: one after another, of so many batches of scenes; each with
        a rate to begin with, which falls to 0 by a cosine.
      objective: of the explainer, its weights; that of one class is among them from the first step
        on, since masks that have learnt to show all objects of an image never part again.
      of_one_class: that objective.
      test_scenes: unseen ones that the figures are measured on.
    """

    explainee_passes: tuple[tuple[int, float], ...] = ((900, 5e-4), (500, 3e-4))
    explainer_passes: tuple[tuple[int, float], ...] = ((200, 1e-3),)
    objective: ClassMasks = field(default_factory=lambda: ClassMasks(one_class=1.0))
    of_one_class: Objective = field(
        default_factory=lambda: Objective(
            mask_weight=10.0, terms={"budget": 2.0}, fills=("mean", "black")
        )
    )
    test_scenes: int = 500


class Batch(NamedTuple):
    """Images, and how much of each class is to be seen, 1 for half of an object or more."""

    images: UInt8[np.ndarray, "n size size 3"]
    seen: Float[np.ndarray, "n classes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    make_assets(parser.parse_args().out, Recipe())


def make_assets(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train both networks, write them and the measured facts, and return the facts."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    explainee = make_explainee(out / EXPLAINEE, recipe)
    seconds = {"explainee": round(time.monotonic() - began)}
    figures = {"explainee": answers(explainee, recipe.test_scenes)}
    print(f"explainee: {figures['explainee']}, {seconds['explainee']} s", flush=True)
    began = time.monotonic()
    explainer = make_explainer(out / EXPLAINER, explainee, recipe)
    seconds["explainer"] = round(time.monotonic() - began)
    figures["explainer"] = overlaps(explainee, explainer, recipe.test_scenes)
    print(f"explainer: {figures['explainer']}, {seconds['explainer']} s", flush=True)
    facts = {
        "classes": list(CLASSES),
        "objects": OBJECTS,
        "explainee": {"name": "vit", "link": "sigmoid", "sizes": SIZES},
        "recipe": asdict(recipe),
        "measured_on_unseen_scenes": figures,
        "training_seconds": seconds,
    }
    (out / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return facts


# --- The classifier -------------------------------------------------------------------------------


def make_explainee(path: Path, recipe: Recipe) -> Explainee:
    """Train the demo's classifier on, each class by itself, and write it."""
    given = Network("vit", str(ASSETS / DEMO), SIZES, link="sigmoid")
    how: dict[str, Any] = {"class_names": CLASSES, "seed": 0}
    how |= {"compute_dtype": "float32", "attention": "xla"}
    classifier, _ = classifier_from(given, **how)
    mesh = data_mesh(_SIZE)
    loss = Partial(seen_loss, replicate(without_leaves(classifier), mesh))
    leaves = trained(classifier.trained, hidden_in_part, loss, recipe.explainee_passes, mesh)
    changed = Classifier(classifier.architecture, "sigmoid", leaves, classifier.frozen)
    save_classifier(path, changed, {})
    return load_explainee("vit", path, class_names=CLASSES, link="sigmoid", **SIZES)


def without_leaves(classifier: Classifier) -> Classifier:
    """The network without what is trained."""
    return Classifier(classifier.architecture, classifier.link, {}, classifier.frozen)


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
    images = batch["images"].astype(jnp.float32) / 255
    logits, model_state = classifier.logits_in_training(params, model_state, images, rng)
    total = optax.sigmoid_binary_cross_entropy(logits, batch["seen"]).mean()
    return total, ({"total": total}, model_state)


# --- The explainer --------------------------------------------------------------------------------


def make_explainer(path: Path, explainee: Explainee, recipe: Recipe) -> Explainer:
    """Train an explainer of every class that begins as the classifier, and write it."""
    explainer = load_explainer(explainee, classes=len(CLASSES), head_bias=-1.0)
    mesh = data_mesh(_SIZE)
    goal = class_goal(recipe.objective, make_goal(recipe.of_one_class), explainee)
    loss = Partial(class_loss, *replicate((explainee, explainer.without_trained(), goal), mesh))
    leaves = trained(explainer.trained, whole, loss, recipe.explainer_passes, mesh)
    save_explainer(path, explainer, leaves)
    return load_explainer(explainee, checkpoint=path)


def whole(size: int, number: int) -> dict[str, np.ndarray]:
    """The `number`th batch for the explainer: scenes and their classes."""
    drawn = scenes(EXPLAINER_SEED, size, OBJECTS, first=number * size)
    return {"images": drawn.image, "targets": drawn.labels > 0}


def trained(
    params: Any,
    draw: Callable[[int, int], dict[str, np.ndarray]],
    loss: Partial,
    passes: Sequence[tuple[int, float]],
    mesh: Mesh,
) -> Any:
    """Parameters after passes of AdamW, gradients no longer than 1; `draw` gives the batches."""
    first = 0
    for steps, rate in passes:
        schedule = optax.cosine_decay_schedule(rate, steps)
        rates = np.asarray(jax.jit(schedule)(np.arange(steps, dtype=np.int32)), np.float32)
        state = create_train_state(params, {}, Partial(adamw, float(rate), 0.01, 1.0), mesh)
        losses: list[Any] = []
        later = partial(_later, draw, first)
        for step, batch in enumerate(ahead(later, _SIZE, steps)):
            optimizer = Partial(adamw, float(rates[step]), 0.01, 1.0)
            state, metrics = train_step(state, batch, jax.random.key(0), loss, optimizer, mesh)
            losses.append(metrics["total"])
            if len(losses) % 50 == 0:
                recent = np.mean(jax.device_get(losses[-50:]))
                print(f"batch {first + len(losses)}, loss {recent:.4f}", flush=True)
        params, first = state.params, first + steps
    return params


def _later(
    draw: Callable[[int, int], dict[str, np.ndarray]], first: int, size: int, number: int
) -> dict[str, np.ndarray]:
    return draw(size, first + number)


# --- What came of it ------------------------------------------------------------------------------


def answers(explainee: Explainee, count: int) -> dict[str, float]:
    """How often the classifier is right on unseen scenes, percent."""
    predict = jax.jit(lambda images: explainee(images))
    logits, labels = [], []
    for drawn in unseen(count):
        logits.append(np.asarray(predict(unit(drawn.image))))
        labels.append(drawn.labels > 0)
    found = multi_label_scores(np.concatenate(logits), np.concatenate(labels), threshold=0.0)
    return {name: round(value, 2) for name, value in found.items()}


def overlaps(explainee: Explainee, explainer: Explainer, count: int) -> dict[str, float]:
    """Continuous IoU on unseen scenes, percent: of target masks with all objects, and of each
    class's mask with its object."""

    @jax.jit
    def draw(images: Array, labels: Array) -> tuple[Array, Array]:
        raw = explainer.draw(explainer.trained, explainer.prefix(images))
        pixels = in_pixels(raw, explainee.image_size)
        return merged(pixels, labels)[0], jax.nn.sigmoid(pixels)

    together, alone = [], []
    for drawn in unseen(count):
        target, every = map(np.asarray, draw(unit(drawn.image), jnp.asarray(drawn.labels > 0)))
        together.append(continuous_iou(target, drawn.masks.any(1)))
        alone.append(continuous_iou(every[drawn.labels > 0], drawn.masks[drawn.labels > 0]))
    parts = {"target_masks": together, "class_masks": alone}
    return {name: round(float(100 * np.concatenate(x).mean()), 2) for name, x in parts.items()}


def continuous_iou(masks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Sum of the lesser of mask and truth over sum of the greater, of each of n."""
    return np.minimum(masks, truth).sum((1, 2)) / np.maximum(masks, truth).sum((1, 2))


def unseen(count: int) -> Iterator[Any]:
    """Test scenes in batches of 50 (the last may be smaller)."""
    for first in range(0, count, 50):
        yield scenes(TEST_SEED, min(50, count - first), OBJECTS, first=first)


if __name__ == "__main__":
    main()
