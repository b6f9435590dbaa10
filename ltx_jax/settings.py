"""From a configuration to the objects it describes."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltx_jax.attribution.integrated_gradients import integrated_gradients
from ltx_jax.data.scenes import CLASSES, SceneSource
from ltx_jax.data.sources import Source, open_images, read_class_names
from ltx_jax.engine.adamw import AdamW
from ltx_jax.engine.finetune import FinetuneSettings, Start, start_fresh
from ltx_jax.engine.pretrain import PretrainSettings, warmup_then_decay
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import TRAINED, Explainer
from ltx_jax.loading import SavedOptimizer, load_explainee, load_explainer, load_optimizer
from ltx_jax.objectives.ltx import MASK_LOSSES, Objective

# What `config.images` may be beside a path: scenes made on the spot.
SCENES = "scenes"
# Settings that change how fast results come, and no more of them than rounding does.
_WITHOUT_EFFECT = ("finetune.slots", "finetune.chunk")
# Methods to compare with, by the name they have in a configuration.
RIVALS: dict[str, Callable[[Explainee, np.ndarray, np.ndarray], Any]] = {
    "integrated_gradients": integrated_gradients
}
_CHOICES = {
    "task": ("pretrain", "finetune", "evaluate"),
    "resize": ("squash", "crop"),
    "objective.target": ("predicted", "label"),
    "objective.mask_loss": MASK_LOSSES,
    "finetune.optimize": ("pos", "neg"),
    "finetune.first_moment": ("float32", "bfloat16"),
    "finetune.second_moment": ("full", "factored"),
    "explainer.trained": TRAINED,
}


class Models(NamedTuple):
    """The two networks of a run."""

    explainee: Explainee
    explainer: Explainer


def check(config: ConfigDict) -> None:
    """Refuse values that no task could use.

    Raises:
      InputError: naming the setting and what it may be.
    """
    flat = _flat(config.to_dict())
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            near = difflib.get_close_matches(str(flat[key]), choices, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(
                f"config.{key} is {flat[key]!r}{hint}: it is one of {', '.join(choices)}"
            )
    positive = ("finetune.steps", "finetune.slots", "finetune.chunk", "pretrain.batch_size")
    for key in positive:
        if flat[key] is not None and flat[key] < 1:
            raise InputError(f"config.{key} is {flat[key]}: it must be at least 1")
    if config.explainer.checkpoint is not None and config.explainer.weights is not None:
        raise InputError(
            "config.explainer.checkpoint holds all weights: leave config.explainer.weights out"
        )
    if config.explainer.sizes and config.explainer.name is None:
        raise InputError(
            "config.explainer.sizes are those of a network of its own: give config.explainer.name"
        )
    unknown = set(config.rivals) - set(RIVALS)
    if unknown:
        raise InputError(f"unknown rival {min(unknown)!r}: there are {', '.join(RIVALS)}")
    if config.images is None:
        raise InputError(
            "nothing to explain: set config.images to a folder, a text file of paths or an .npz"
        )


def load_source(config: ConfigDict) -> Source:
    """The images of a run, cut to `indices` and `limit`.

    Raises:
      InputError: as `data.sources.open_images`.
    """
    indices = _slice(config.indices)
    if config.images == SCENES:
        return SceneSource(config.seed, range(10**6)[indices or slice(None)][: config.limit])
    return open_images(config.images, config.labels, indices, config.limit)


def load_models(config: ConfigDict) -> Models:
    """The explainee and the explainer.

    Raises:
      InputError: as `load_explainee` and `load_explainer`.
    """
    names: Sequence[str] = CLASSES if config.images == SCENES else ()
    if config.class_names is not None:
        names = read_class_names(config.class_names)
    explainee = load_explainee(
        config.explainee.name,
        config.explainee.weights,
        compute_dtype=config.compute_dtype,
        attention=config.attention,
        class_names=names,
        **{name: size for name, size in config.explainee.sizes.items() if size is not None},
    )
    explainer = load_explainer(
        explainee,
        config.explainer.name,
        config.explainer.checkpoint,
        config.explainer.weights,
        activation=config.explainer.activation,
        head_bias=config.explainer.head_bias,
        trained=config.explainer.trained,
        frozen_blocks=config.explainer.frozen_blocks,
        lora_rank=config.explainer.lora_rank,
        compute_dtype=config.compute_dtype,
        attention=config.attention,
        seed=config.seed,
        **config.explainer.sizes,
    )
    return Models(explainee, explainer)


def objective(config: ConfigDict) -> Objective:
    """The objective of either stage."""
    chosen = config.objective
    return Objective(
        chosen.mask_weight, chosen.mask_loss, chosen.logits_only, chosen.counterfactual
    )


def finetune_settings(config: ConfigDict, explainer: Explainer) -> tuple[FinetuneSettings, Start]:
    """How each image is finetuned, and the optimizer state it starts from.

    Raises:
      InputError: where a checkpoint is to be resumed that holds no optimizer state.
    """
    chosen = config.finetune
    start, saved = start_fresh(explainer), None
    if chosen.resume:
        if config.explainer.checkpoint is None:
            raise InputError(
                "config.finetune.resume needs an optimizer state: give config.explainer.checkpoint"
            )
        saved = load_optimizer(config.explainer.checkpoint, explainer)
        start = Start(explainer.trained, saved.moments, jnp.int32(saved.step))
    evaluate_only = config.task == "evaluate"  # one mask, drawn by the explainer as it is
    settings = FinetuneSettings(
        objective=objective(config),
        learning_rates=(0.0,) if evaluate_only else learning_rates(chosen, saved),
        optimize=chosen.optimize,
        stop_below=chosen.stop_below,
        stop_above=chosen.stop_above,
        adamw=AdamW(
            weight_decay=chosen.weight_decay,
            first_moment=chosen.first_moment,
            second_moment=chosen.second_moment,
        ),
        chunk=chosen.chunk,
        lazy=chosen.lazy_scoring,
    )
    return settings, start


def learning_rates(chosen: ConfigDict, saved: SavedOptimizer | None) -> tuple[float, ...]:
    """The learning rate of each step's update.

    Constant; or, where a checkpoint is resumed, the checkpoint's own for the first step and then
    the original's schedule from the checkpoint's step on.
    """
    if saved is None:
        return (float(chosen.learning_rate),) * chosen.steps
    length = chosen.schedule_steps
    schedule = warmup_then_decay(chosen.learning_rate, length // 5, length)
    later = [float(schedule(saved.step + step)) for step in range(1, chosen.steps)]
    return (saved.learning_rate, *later)


def pretrain_settings(config: ConfigDict, steps: int) -> PretrainSettings:
    """How the explainer is pretrained in a run of so many steps."""
    chosen = config.pretrain
    return PretrainSettings(
        objective=objective(config),
        learning_rate=chosen.learning_rate,
        schedule_steps=chosen.schedule_steps or steps,
        warmup=chosen.warmup,
        weight_decay=chosen.weight_decay,
    )


def fingerprint(config: ConfigDict, names: Sequence[str]) -> dict[str, Any]:
    """What determines an explaining run's results: settings, weight files and images.

    Two runs with the same fingerprint may share a work directory.
    """
    return _fingerprint(config, names, without=("report.", "pretrain."))


def pretrain_fingerprint(config: ConfigDict, names: Sequence[str]) -> dict[str, Any]:
    """The same for a pretraining run."""
    return _fingerprint(config, names, without=("report.", "finetune.", "rivals"))


def _fingerprint(
    config: ConfigDict, names: Sequence[str], without: tuple[str, ...]
) -> dict[str, Any]:
    ignored = (*_WITHOUT_EFFECT, *without)
    flat = _flat(config.to_dict())
    kept = {key: value for key, value in flat.items() if not key.startswith(ignored)}
    for key in ("explainee.weights", "explainer.weights", "explainer.checkpoint"):
        if kept[key] is not None:
            content = Path(kept[key]).read_bytes()
            kept[f"{key} (sha256)"] = hashlib.sha256(content).hexdigest()[:16]
    kept["images (number)"] = len(names)
    kept["images (sha256 of names)"] = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return kept


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, dict):
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _slice(text: str | None) -> slice | None:
    if text is None:
        return None
    parts = text.split(":")
    try:
        start, stop = (int(part) if part else None for part in parts)
    except ValueError as error:
        raise InputError(
            f"config.indices is {text!r}: expected start:stop, e.g. 100:200"
        ) from error
    return slice(start, stop)
