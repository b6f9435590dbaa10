"""Measure the finetuning engine or a pretraining, alone or against the original's loop in PyTorch.

python tools/benchmark.py --config=configs/cifar_vit.py --config.images=… [--against-pytorch]

Runs the images of the configuration through the engine, compilation apart, and prints images and
image-steps a second. With --against-pytorch the same images also go through the original's loop:
eager PyTorch in float32 on timm's or torchvision's network, one image at a time, one step at a time
(explainer forward and backward through the explainee, AdamW, ten forwards for the score); and
through the best that PyTorch makes of it, with those ten forwards in one, in the configuration's
compute type, eager and through `torch.compile` (which is warmed up and not timed). Where the mask
itself is optimised it is the same recipe in PyTorch, an image at a time and in batches. They take
turns on the images, so that a machine whose speed drifts is unfair to none; the ratios are of the
sums.
With --parts the engine also runs without stopping early, and a table says where the time of a step
goes on one device, what the network's shape asks for, what the machine can do at best, and what
memory a slot takes.
With --config.task=pretrain it is the first stage that is measured, beside PyTorch: the steps of a
training, and judging the masks of a batch (all six scores; the original has POS alone).
The figures are also written as JSON with --json=FILE.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import parts
from absl import app, flags
from abstract import refuse_task
from jax.sharding import Mesh
from ml_collections import config_flags

from ltx_jax.data.examples import UnreadableImage, iterate
from ltx_jax.engine.finetune import Finetuned, Start, Task, finetune
from ltx_jax.engine.memory import lay_out
from ltx_jax.engine.recipe import SELECTED, Recipe
from ltx_jax.engine.scoring import in_groups
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.mask_itself import MaskItself
from ltx_jax.files import write_json
from ltx_jax.masks.covering import filling
from ltx_jax.progress import compile_clock
from ltx_jax.runtime import prepare
from ltx_jax.settings.configuration import read
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.explain import Job, open_job
from ltx_jax.tasks.inputs import Work

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
_AGAINST = flags.DEFINE_bool("against-pytorch", False, "Run the original's loop as well.")
_TURNS = flags.DEFINE_integer("turns", 2, "How often each goes through the images.", lower_bound=1)
_PARTS = flags.DEFINE_bool("parts", False, "Time the parts of a step, and the machine's ceilings.")
_JSON = flags.DEFINE_string("json", None, "Where the figures go.")


class Measured(NamedTuple):
    """Seconds, images, and steps of all images together; the selected score of each image."""

    seconds: float
    images: int
    steps: int
    scores: list[float]


# Images of PyTorch's batches.
_BATCH = 20
Method = Callable[[Sequence[Task]], Measured]


def main(argv: Sequence[str]) -> int:
    """Measure and print; 2 where the configuration cannot be used."""
    del argv
    prepare()
    try:
        if _CONFIG.value is None:
            raise InputError("no configuration: give one of configs/")
        settings = read(_CONFIG.value)
        refuse_task(settings)
        if settings.task == "pretrain":
            import pytorch_pretraining

            _write(pytorch_pretraining.measure(settings, _TURNS.value))
        else:
            measure(settings)
    except InputError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0


def measure(settings: Settings) -> None:
    """Measure what was asked for, and print and write it.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    job = open_job(settings)
    tasks = load_tasks(job.work)
    if not tasks:
        raise InputError(f"none of the images of {settings.images} can be read")
    models = parts.Models(job.work.explainee, job.explainer)
    with compile_clock() as clock:
        given = models.explainee, models.explainer, job.recipe
        recipe, slots, mesh = lay_out(*given, len(tasks), settings.finetune.slots)
        engine = engine_method(models, recipe, job.start, slots, mesh)
        engine(tasks[:1])
    peak = peak_bytes(mesh)
    methods: dict[str, Method] = {"engine": engine}
    whole = parts.without_stopping(recipe)
    if _PARTS.value:
        methods["engine, not stopping"] = engine_method(models, whole, job.start, slots, mesh)
    if _AGAINST.value:
        methods |= pytorch_methods(job, settings)
    for name in list(methods)[1:]:
        methods[name](tasks[:1])
    figures = report(take_turns(methods, tasks, _TURNS.value), clock.seconds)
    figures["measured"] = {
        "settings": parts.priced(settings),
        "device": jax.local_devices()[0].device_kind,
        "devices": mesh.size,
    }
    figures["peak_bytes"] = peak
    print(f"peak memory: {peak / 2**20:.0f} MiB of {_whose(mesh)}")
    _write(figures)
    if _PARTS.value:
        figures["step"] = parts.measure(models, recipe, job.start, slots)
        _write(figures)


def _write(figures: dict[str, Any]) -> None:
    if _JSON.value:
        write_json(Path(_JSON.value), figures)


def peak_bytes(mesh: Mesh) -> int:
    """Most memory that was in use until now: of one accelerator, or of this process on a CPU."""
    stats = mesh.devices.flat[0].memory_stats() or {}
    resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(stats.get("peak_bytes_in_use", resident))


def _whose(mesh: Mesh) -> str:
    return "the process" if mesh.devices.flat[0].platform == "cpu" else "each device"


def load_tasks(work: Work) -> list[Task]:
    """The images with the predicted class to explain."""
    predict = jax.jit(lambda explainee, images: explainee(images))
    tasks = []
    for row, example in iterate(work.source, work.how, range(len(work.source))):
        if not isinstance(example, UnreadableImage):
            image = example.as_input()
            logits = np.asarray(predict(work.explainee, image[None]))[0]
            tasks.append(Task(row, image, np.repeat(logits.argmax(), 2).astype(np.int32), logits))
    return tasks


def take_turns(
    methods: dict[str, Method], tasks: Sequence[Task], turns: int
) -> dict[str, list[Measured]]:
    """The tasks through each method, so many times, in alternating order."""
    measured: dict[str, list[Measured]] = {name: [] for name in methods}
    for turn in range(turns):
        for name in list(methods) if turn % 2 == 0 else list(methods)[::-1]:
            measured[name].append(methods[name](tasks))
    return measured


def report(measured: dict[str, list[Measured]], compile_seconds: float) -> dict[str, Any]:
    """Print a table; returns its figures."""
    figures: dict[str, Any] = {"compile_seconds": round(compile_seconds, 2)}
    print(f"compilation: {compile_seconds:.1f} s")
    for name, turns in measured.items():
        seconds, images, steps = (sum(values) for values in list(zip(*turns, strict=True))[:3])
        pos = float(np.mean([score for turn in turns for score in turn.scores]))
        figures[name] = {
            "seconds_per_image": seconds / images,
            "milliseconds_per_image_step": 1e3 * seconds / steps,
            "images": images,
            "steps": steps,
            "selected_score": pos,
        }
        print(
            f"{name:26} {images} images, {steps} steps: {seconds / images:.4f} s an image, "
            f"{1e3 * seconds / steps:.2f} ms an image-step; selected score {pos:.2f}"
        )
    for name in list(measured)[1:]:
        pairs = zip(measured["engine"], measured[name], strict=True)
        ratios = ", ".join(f"{theirs.seconds / ours.seconds:.2f}" for ours, theirs in pairs)
        ratio = figures[name]["seconds_per_image"] / figures["engine"]["seconds_per_image"]
        figures[name]["times_slower"] = ratio
        print(f"engine : {name} = 1 : {ratio:.2f} an image (turn by turn {ratios})")
    return figures


def engine_method(
    models: parts.Models, recipe: Recipe, start: Start | None, slots: int, mesh: Mesh
) -> Method:
    """The slot engine on a list of tasks."""
    selected = SELECTED.index("selected")

    def score(one: Finetuned) -> float:
        """Of the selected mask; where none is selected the loss of the last."""
        if recipe.method.optimize is None:
            return float(one.loss[-1])
        return float(recipe.method.selecting(one)[one.mask_steps[selected], 0])

    def run(tasks: Sequence[Task]) -> Measured:
        began = time.perf_counter()
        given = models.explainee, models.explainer, recipe
        done = list(finetune(*given, tasks, slots, mesh, start))
        seconds = time.perf_counter() - began
        return Measured(
            seconds, len(done), sum(one.steps for one in done), [score(o) for o in done]
        )

    return run


def pytorch_methods(job: Job, settings: Settings) -> dict[str, Method]:
    """The original's loop over single images, lean: nothing but its steps; and PyTorch's best."""
    import pytorch_loop

    if isinstance(job.explainer, MaskItself):
        return pytorch_mask_methods(job, settings)
    if not isinstance(job.explainer, Explainer):
        raise InputError("the PyTorch loop draws one mask: leave config.explainer.classes out")
    if settings.finetune.resume:
        raise InputError("the PyTorch loop does not resume: leave config.finetune.resume out")
    if settings.finetune.optimize not in ("pos", "neg"):
        raise InputError("the PyTorch loop selects by POS or NEG: set config.finetune.optimize so")
    explainee = job.work.explainee
    how = settings.objective, settings.finetune
    return {
        name: pytorch_loop.method(explainee, job.explainer, *how, Measured, way)
        for name, way in pytorch_loop.ways(explainee).items()
    }


def pytorch_mask_methods(job: Job, settings: Settings) -> dict[str, Method]:
    """The same recipe in PyTorch: an image at a time, and in batches, eager and compiled. What is
    drawn is drawn elsewhere, and the start is flat: neither changes the time."""
    from pytorch_masks import optimise
    from pytorch_networks import load_classifier

    objective, steps = settings.objective, settings.finetune.steps
    others = {name for name, w in objective.terms.items() if w} - {"budget", "total_variation"}
    unlike = objective.mask_loss != "bce" or objective.logits_only or objective.counterfactual
    if settings.finetune.optimize is not None or unlike or objective.shift or others:
        raise InputError(
            "masks of their own in PyTorch have λ, budgets and total variation alone: leave "
            "finetune.optimize and what else the objective has out"
        )
    classifier, cells = load_classifier(job.work.explainee), job.explainer.grid()
    budgets = objective.least_budget, objective.most_budget
    further = (objective.terms.get(name, 0.0) for name in ("budget", "total_variation"))
    how = steps, (objective.mask_weight, *further), settings.finetune.learning_rate

    def in_batches(size: int, compiled: bool) -> Method:
        def run(tasks: Sequence[Task]) -> Measured:
            rng, seconds = np.random.default_rng(settings.seed), 0.0
            for group in in_groups(tasks, size):
                filled = [*group, *[group[-1]] * (size - len(group))]
                images = np.stack([one.image for one in filled])
                blur = np.asarray(filling(jnp.asarray(images), "blur"))
                images, blur = (
                    np.ascontiguousarray(x.transpose(0, 3, 1, 2)) for x in (images, blur)
                )
                targets = np.stack([one.classes[0] for one in filled])
                ks = rng.uniform(*budgets, (steps, size)).astype(np.float32)
                fills = rng.integers(0, 3, (steps, size))
                start = np.zeros((size, *cells), np.float32)
                given = classifier, images, targets, start, ks, fills, blur
                seconds += optimise(*given, *how, compiled)[1]
            return Measured(seconds, len(tasks), steps * len(tasks), [np.nan])

        return run

    return {
        "pytorch": in_batches(1, False),
        "pytorch batched": in_batches(_BATCH, False),
        "pytorch compiled": in_batches(_BATCH, True),
    }


if __name__ == "__main__":
    app.run(main)
