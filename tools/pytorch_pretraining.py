"""An epoch of pretraining, ours and PyTorch's, taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from ltx_jax.data.batches import Order, load
from ltx_jax.engine.memory import default_chunk
from ltx_jax.engine.pretraining import ltx_loss, validate
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate
from ltx_jax.engine.training import adamw, create_train_state, data_mesh, train_step
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.inputs import open_explainee, open_network, open_source

# Steps that are timed.
_STEPS = 12
# Seconds of the steps, and of judging a batch.
Epoch = Callable[[Sequence[np.ndarray]], tuple[float, float]]


def measure(settings: Settings, turns: int) -> dict[str, Any]:
    """Time the steps of a pretraining on batches in memory, and judging a batch; print and return
    milliseconds an image.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    explainee = open_explainee(settings)
    explainer, source = open_network(settings, explainee), open_source(settings)
    size = settings.pretrain.batch_size
    every, none = np.arange(len(source), dtype=np.int32), np.full(len(source), -1, np.int32)
    order = Order(source, explainee.preprocessing(settings.resize), every, none, 0, size, 1)
    batches = [batch.images for batch, _ in zip(load(order, 0, 0), range(_STEPS), strict=False)]
    methods = {"ours": _ours(explainee, explainer, settings)}
    methods |= _pytorch(explainee, explainer, settings)
    for epoch in methods.values():
        epoch(batches[:2])
    found = {name: np.zeros(2) for name in methods}
    for turn in range(turns):
        for name in list(methods) if turn % 2 == 0 else list(methods)[::-1]:
            found[name] += methods[name](batches)
    figures = {}
    for name, (training, judging) in found.items():
        step, score = 1e3 * training / turns / len(batches) / size, 1e3 * judging / turns / size
        ratios = found[name] / found["ours"]
        figures[name] = {"training": step, "judging": score}
        print(
            f"{name:18} training {step:.2f} ms an image, {ratios[0]:.2f} of ours; judging "
            f"{score:.2f}, {ratios[1]:.2f}"
        )
    return figures


def _ours(explainee: Explainee, explainer: Explainer, settings: Settings) -> Epoch:
    mesh = data_mesh(settings.pretrain.batch_size)
    given = replicate((explainee, explainer.without_trained(), make_goal(settings.objective)), mesh)
    loss, targets = Partial(ltx_loss, *given), np.full(settings.pretrain.batch_size, -1, np.int32)
    optimizer = Partial(adamw, settings.pretrain.learning_rate, settings.pretrain.weight_decay)
    key = jax.random.key(0)

    def epoch(batches: Sequence[np.ndarray]) -> tuple[float, float]:
        state = create_train_state(explainer.trained, {}, optimizer, mesh)
        began = time.perf_counter()
        for images in batches:
            batch = {"images": images, "targets": targets}
            state, _ = train_step(state, batch, key, loss, optimizer, mesh)
        jax.block_until_ready(state)
        between = time.perf_counter()
        jax.block_until_ready(validate(*given[:2], state.params, batches[0], mesh, default_chunk()))
        return between - began, time.perf_counter() - between

    return epoch


def _pytorch(explainee: Explainee, explainer: Explainer, settings: Settings) -> dict[str, Epoch]:
    """The original's stage: a batch a step, and POS an image at a time; and both networks
    compiled, with the ten images of a score in one forward."""
    import pytorch_loop
    import torch
    import torch.nn.functional as functional
    from pytorch_networks import channels_first, load_classifier

    def of(how: pytorch_loop.How) -> Epoch:
        classifier = load_classifier(explainee, how.dtype)
        network = pytorch_loop.load_masks(explainee, explainer, how.dtype)
        classify, draw = classifier, network
        if how.compiled:
            classify, draw = torch.compile(classifier), torch.compile(network)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        weight = settings.objective.mask_weight

        def epoch(batches: Sequence[np.ndarray]) -> tuple[float, float]:
            chosen = settings.pretrain
            optimizer = torch.optim.AdamW(
                trained, lr=chosen.learning_rate, weight_decay=chosen.weight_decay
            )
            began = time.perf_counter()
            for images in batches:
                x = channels_first(images, classifier.mean.device)
                with torch.no_grad():
                    target = classify(x).argmax(-1)
                mask = draw(x)
                pixels = functional.interpolate(mask, x.shape[2:], mode="bilinear")
                fit = functional.cross_entropy(classify(x * pixels), target)
                area = functional.binary_cross_entropy_with_logits(mask, torch.zeros_like(mask))
                optimizer.zero_grad()
                (fit + weight * area).backward()
                optimizer.step()
            fit.item()  # until now a GPU may be busy
            between = time.perf_counter()
            pytorch_loop.judge(classify, draw, x, how.batched)
            return between - began, time.perf_counter() - between

        return epoch

    return {name: of(how) for name, how in pytorch_loop.ways(explainee).items()}
