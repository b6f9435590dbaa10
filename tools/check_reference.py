"""Compare ltx_jax with numbers that the original PyTorch code computed.

python tools/check_reference.py DIR

DIR holds, for each of two small networks, weights and what the original computes with them:
logits, masks, losses, both finetuning schedules with their perturbation scores, ADP and PIC; a
Lightning checkpoint with one resumed step; maps with their segmentation scores; the maps of rival
methods on the ViT; NN-Explainer's losses and scores; and LaViSE's loss and what stands for one of
its filters. Prints a row a quantity with its worst error and limit; exits with 1 if any is beyond
its limit, with 2 where DIR cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import convert_ltx_checkpoint
import jax
import jax.numpy as jnp
import numpy as np
from check_lavise import check_lavise
from reference_rows import Arrays, Row, arrays_of, file_of, worst
from safetensors.numpy import save_file

import ltx_jax
from ltx_jax.attribution import RIVALS
from ltx_jax.engine.finetune import (
    Slots,
    Start,
    advance,
    empty_slots,
    refill,
    start_fresh,
)
from ltx_jax.engine.recipe import SELECTED, make_recipe
from ltx_jax.engine.scoring import Masked, score
from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading.checkpoints import load_optimizer
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.masks.spanning import spanning
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics import SCORES, mask_overlap, saliency
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.multi_label import multi_label_scores
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.links import cross_entropy
from ltx_jax.objectives import class_masks, losses
from ltx_jax.runtime import add_in_one_order
from ltx_jax.settings.sections import LTX
from ltx_jax.weights.torch_archive import read_archive

# Small multiples of what is seen: untouched masks and logits, losses, POS and NEG (share of entries
# that differ), DEL and INS in points, ADP and PIC in points.
_UNTOUCHED, _LOSS, _DIFFERENT, _POINTS, _CONFIDENCE = 5e-6, 2e-4, 0.03, 1.0, 1e-3
# Segmentation scores, relative: last digits tell whether a value of the one channel, 1 − mask, ties
# with another's.
_RELATIVE = 2e-4
# Masks that were finetuned: a ReLU or the sign of a gradient may fall the other way.
_MASK = 1e-4
# Maps of rivals, relative to each image's norm; the original has some of them of a network whose
# layer norms have another epsilon.
_MAP, _MAP_OF_OTHER_NORMS = 1e-3, 1e-2
_RIVALS = {
    "lrp_last_layer_attn": ("raw_attention", _MAP),
    "lrp_last_layer": ("partial_lrp", _MAP),
    "lrp_rollout": ("lrp_rollout", _MAP),
    "lrp_transformer_attribution": ("transformer_attribution", _MAP),
    "attention_rollout": ("attention_rollout", _MAP_OF_OTHER_NORMS),
    "generic_attention": ("generic_attention", _MAP_OF_OTHER_NORMS),
    "grad_cam": ("attention_grad_cam", _MAP_OF_OTHER_NORMS),
}
# NN-Explainer's losses and scores, relative.
_LOSS_OF_CLASSES = 1e-4
_STEPS, _PEAK = 12, 1e-3
_SCHEDULES = {
    "finetune_constant": [_PEAK] * _STEPS,
    # Linear over 3 steps from 0, then linear to 0 at step 12.
    "finetune_warmup": [
        _PEAK * (k / 3 if k < 3 else (_STEPS - k) / (_STEPS - 3)) for k in range(_STEPS)
    ],
}
_OBJECTIVES = {
    "predicted_bce": LTX.objective,
    "target_bce": LTX.objective,
    "predicted_l1": replace(LTX.objective, mask_weight=30.0, mask_loss="l1"),
    "predicted_logits_only": replace(LTX.objective, logits_only=True),
}


class Network(NamedTuple):
    """A reference network of ours and what the original's gave."""

    name: str
    explainee: Explainee
    explainer: Explainer
    images: np.ndarray
    outputs: Arrays


def main() -> int:
    """Check one folder; 0 when all is within its limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    add_in_one_order()
    try:
        rows = list(check(folder))
    except InputError as error:
        print(f"check_reference: {error}", file=sys.stderr)
        return 2
    print(f"{'quantity':50}  {'worst error':>12}  {'limit':>8}  verdict")
    for row in rows:
        verdict = "pass" if row.passed else "FAIL"
        print(f"{row.quantity:50}  {row.error:12.3g}  {row.limit:8.3g}  {verdict}")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} within their limits")
    return 1 if failed else 0


def check(folder: Path) -> Iterator[Row]:
    """All rows of a reference folder.

    Raises:
      InputError: where a file is missing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        networks = [load(folder, name, Path(scratch)) for name in ("vit", "densenet")]
        for network in networks:
            yield from check_network(network)
            yield from check_losses(network)
            for schedule, rates in _SCHEDULES.items():
                yield from check_finetuning(network, schedule, rates)
            yield from check_confidence(network)
        yield from check_checkpoint(folder, networks[0], Path(scratch))
        yield from check_segmentation(folder, networks[0].explainee)
        yield from check_attributions(folder, networks[0])
        yield from check_class_masks(folder, networks[0].explainee)
        yield from check_lavise(folder)


def load(folder: Path, name: str, scratch: Path) -> Network:
    """A reference network with both sets of weights, loaded as a user's files are."""
    sizes = json.loads(file_of(folder, "meta.json").read_text())[name]
    weights = arrays_of(folder, f"{name}_weights.npz")
    for part in ("explainee", "explainer"):
        tensors = {
            key.removeprefix(f"{part}/"): value
            for key, value in weights.items()
            if key.startswith(f"{part}/")
        }
        if part == "explainer":
            tensors = {
                key.replace("encoder.0.", "features.").replace(
                    "bottleneck.0.", "bottleneck."
                ): value
                for key, value in tensors.items()
            }
        save_file(tensors, scratch / f"{name}_{part}.safetensors")
    if name == "vit":
        sizes = {
            "width": sizes["embed_dim"],
            "image_size": sizes["img_size"],
            "epsilon": sizes["layer_norm_eps"],
        } | {k: sizes[k] for k in ("depth", "num_heads", "mlp_ratio", "patch_size", "num_classes")}
    else:
        sizes |= {"block_config": tuple(sizes["block_config"])}
    explainee = load_explainee(
        "vit" if name == "vit" else "densenet121",
        scratch / f"{name}_explainee.safetensors",
        **sizes,
    )
    explainer = load_explainer(explainee, checkpoint=scratch / f"{name}_explainer.safetensors")
    images = arrays_of(folder, "images.npz")["images"].astype(np.float32) / 255
    return Network(name, explainee, explainer, images, arrays_of(folder, f"{name}_outputs.npz"))


def check_network(network: Network) -> Iterator[Row]:
    """Logits and masks of the untouched networks."""
    logits = jax.jit(network.explainee)(network.images)
    masks = network.explainer.masks(network.explainer.trained, network.images)
    pixels = upsample(masks, network.explainee.image_size)[:, ::8, ::8]
    for key, ours, limit in (
        ("explainee_logits", logits, _UNTOUCHED),
        ("token_mask", masks[:, None], _UNTOUCHED),
        ("pixel_mask", pixels[:, None], _UNTOUCHED),
    ):
        yield Row(f"{network.name} {key}", worst(ours, network.outputs[key]), limit)


def check_losses(network: Network) -> Iterator[Row]:
    """Batch losses of each variant: total, prediction term, mask term."""
    masks = network.explainer.masks(network.explainer.trained, network.images)
    for name, objective in _OBJECTIVES.items():
        targets = network.outputs["labels" if name.startswith("target") else "predicted"]
        weights = objective.weights()
        total, terms = losses(weights, network.explainee, network.images, masks, targets)
        means = [float(term.mean()) for term in (total, *(terms[name] for name in weights))]
        yield Row(
            f"{network.name} loss {name}", worst(means, network.outputs[f"loss/{name}"]), _LOSS
        )


def check_finetuning(network: Network, schedule: str, rates: list[float]) -> Iterator[Row]:
    """Each image finetuned alone: masks, losses and the four perturbation scores at every step."""
    expected = {
        key.removeprefix(f"{schedule}/"): value
        for key, value in network.outputs.items()
        if key.startswith(f"{schedule}/")
    }
    state, masks = finetuned(network, rates)
    label = f"{network.name} {schedule}"
    yield Row(f"{label} masks", worst(masks[:, :, None], expected["token_mask"]), _MASK)
    yield Row(f"{label} total loss", worst(state.loss, expected["loss"][..., 0]), _LOSS)
    remaining = [scores(network, masks[:, step]) for step in range(len(rates))]
    ours = {
        "pos": state.agreement[..., 0],
        "neg": np.stack([values["neg"] for values in remaining], 1),
        "del": state.probability[..., 0],
        "ins": np.stack([values["ins"] for values in remaining], 1),
    }
    for name, values in ours.items():
        if name in ("pos", "neg"):
            different = np.abs(np.asarray(values) - expected[name]) > 0.01
            yield Row(f"{label} {name.upper()} (share that differs)", different.mean(), _DIFFERENT)
        else:
            yield Row(f"{label} {name.upper()} (points)", worst(values, expected[name]), _POINTS)


def finetuned(
    network: Network, rates: list[float], start: Start | None = None
) -> tuple[Slots, np.ndarray]:
    """All images side by side in the engine, never stopped early.

    Returns:
      The slots after the last step, and the mask of every step [images,steps,g,h].
    """
    finetune = replace(LTX.finetune, stop_below=-1.0, stop_above=101.0, chunk=9, lazy_scoring=False)
    method, numbers = make_recipe(finetune, LTX.objective)
    numbers = numbers._replace(learning_rates=jnp.asarray(rates, jnp.float32))
    explainer, explainee = network.explainer.for_slots(), network.explainee
    start = start or start_fresh(explainer.trained)
    mask_network = explainer.without_trained()
    classes = network.outputs["predicted"].astype(np.int32)[:, None]
    logits = np.asarray(jax.jit(explainee)(network.images))
    mesh = slot_mesh(1)
    state = empty_slots(explainee, explainer, numbers, method, len(classes), 1, mesh)
    for slot, task in enumerate(zip(network.images, classes, logits, strict=True)):
        asked = replicate((np.int32(slot), np.int32(slot), *task), mesh)
        state = refill(state, explainee, explainer, start, *asked, mesh)
    masks = []
    for _ in rates:
        state = advance(state, explainee, mask_network, start.step, numbers, method, mesh)
        masks.append(np.asarray(state.masks[:, SELECTED.index("last")]))
    return state, np.stack(masks, 1)


def scores(network: Network, masks: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of token masks for the predicted class."""
    targets = network.outputs["predicted"].tolist()
    return ltx_jax.evaluate(network.explainee, network.images, masks, targets, chunk=9).scores


def check_confidence(network: Network) -> Iterator[Row]:
    """ADP and PIC of the initial masks."""
    masks = network.explainer.masks(network.explainer.trained, network.images)
    found = scores(network, np.asarray(masks))
    for name in ("adp", "pic"):
        error = worst(found[name].mean(), network.outputs[name])
        yield Row(f"{network.name} {name.upper()} (points)", error, _CONFIDENCE)


def check_checkpoint(folder: Path, network: Network, scratch: Path) -> Iterator[Row]:
    """A published checkpoint: its masks, and one step that resumes its optimizer."""
    paths = sorted(folder.glob("*.ckpt"))
    if len(paths) != 1:
        raise InputError(f"{folder} holds {len(paths)} checkpoints (*.ckpt): expected one")
    expected = arrays_of(folder, "checkpoint_outputs.npz")
    tensors, metadata = convert_ltx_checkpoint.convert(read_archive(paths[0]), paths[0])
    save_file(tensors, scratch / "checkpoint.safetensors", metadata)
    explainer = load_explainer(network.explainee, checkpoint=scratch / "checkpoint.safetensors")
    saved = load_optimizer(scratch / "checkpoint.safetensors", explainer)
    masks = explainer.masks(explainer.trained, network.images)
    yield Row("checkpoint token_mask", worst(masks[:, None], expected["token_mask"]), _UNTOUCHED)
    start = Start(saved.moments, jnp.int32(saved.step))
    resumed = network._replace(explainer=explainer)
    # One step at the checkpoint's rate; the second mask shows what it did to the first image.
    state, after = finetuned(resumed, [saved.learning_rate, 0.0], start)
    expected_mask = expected["token_mask_after_resumed_step"][0, 0]
    yield Row("checkpoint resumed loss", worst(state.loss[0, 0], expected["resumed_loss"]), _LOSS)
    yield Row("checkpoint mask after the resumed step", worst(after[0, 1], expected_mask), _MASK)


def check_segmentation(folder: Path, explainee: Explainee) -> Iterator[Row]:
    """Segmentation scores of maps, relative to the original's: of all images, and of each."""
    given = arrays_of(folder, "segmentation.npz")
    expected = json.loads(file_of(folder, "meta.json").read_text())["segmentation"]
    masks = (given["maps"] / 65535).astype(np.float32)
    values = segmentation_values(explainee, masks, given["labels"])
    found = {name: SCORES[name].aggregate(of_image) / 100 for name, of_image in values.items()}
    both, over, missed, neither = values["mean_iou"].sum(0)
    overlaps = neither / (neither + over + missed), both / (both + over + missed)
    for quantity, ours, theirs in (
        ("pixel accuracy", found["pixel_accuracy"], expected["pixel_accuracy"]),
        ("IoU of background and foreground", overlaps, expected["iou"]),
        ("mIoU", found["mean_iou"], expected["miou"]),
        ("mAP", found["average_precision"], expected["map"]),
        ("AP of each image", values["average_precision"] / 100, expected["ap_per_image"]),
        ("F1 by rows", found["f1_by_rows"], expected["f1"]),
        ("F1 by rows of each image", values["f1_by_rows"] / 100, expected["f1_per_image"]),
    ):
        error = worst(np.divide(ours, theirs), np.ones_like(theirs))
        yield Row(f"segmentation {quantity} (relative)", error, _RELATIVE)


def segmentation_values(
    explainee: Explainee, masks: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """The values of each segmentation score, [n] or [n,c], as a run computes them.

    Args:
      explainee: anything; these scores do not ask it.
      masks: [n,H,W] in [0,1].
      labels: [n,H,W], 1 for the object, 0 for the background, -1 for what does not count.
    """
    names = ("pixel_accuracy", "mean_iou", "average_precision", "f1_by_rows")
    mesh = slot_mesh(1)
    image, logits = np.zeros(explainee.image_shape, np.float32), np.zeros(explainee.classes)
    given = [
        Masked(image, logits.astype(np.float32), np.zeros(1, np.int32), mask)._replace(
            truth=label == 1, counted=label >= 0, known_truth=np.bool_(True)
        )
        for mask, label in zip(masks, labels, strict=True)
    ]
    found = list(score(replicate(explainee, mesh), given, names, len(given), mesh, chunk=9))
    return {name: np.stack([one[name][0] for one in found]) for name in names}


def check_attributions(folder: Path, network: Network) -> Iterator[Row]:
    """Maps of rival methods; of the first images where the file holds fewer than there are."""
    theirs = arrays_of(folder, "vit_attributions.npz")
    targets = jnp.asarray(theirs["target"], jnp.int32)

    def maps(name: str) -> jax.Array:
        return RIVALS[name].maps(network.explainee, jnp.asarray(network.images), targets)

    for key, (name, limit) in _RIVALS.items():
        ours = spanning(maps(name)) if key == "grad_cam" else maps(name)
        yield Row(f"attribution {key}", _relative(ours, theirs[key]), limit)
    # Relevance is divided by sums that may cancel. Where they do, it depends on the last digit, the
    # original's as well: in twice as many digits, as many pixels differ.
    difference, largest = _differences(maps("full_lrp"), theirs["lrp_full"]), theirs["lrp_full"]
    largest = np.abs(largest).max((1, 2))[:, None]
    different = (difference > _MAP * largest).mean()
    yield Row("attribution lrp_full (share that differs)", float(different), _DIFFERENT)


def check_class_masks(folder: Path, explainee: Explainee) -> Iterator[Row]:
    """NN-Explainer's losses of given masks and logits, and scores of masks, relative."""
    expected = json.loads(file_of(folder, "nn_explainer_outputs.json").read_text())
    for name, ours in class_mask_losses(folder).items():
        yield Row(f"nn_explainer {name}", abs(float(ours) / expected[name] - 1), _LOSS_OF_CLASSES)
    masks = arrays_of(folder, "nn_explainer_masks.npz")
    merged = class_masks.merged(*_class_masks(folder, "segmentation_logits_28"))
    for name, mask in zip(("target_mask_28", "non_target_mask_28"), merged, strict=True):
        yield Row(f"nn_explainer {name}", worst(mask[:, ::8, ::8], masks[name]), _UNTOUCHED)
    found = class_mask_scores(folder, explainee, expected["categories"])
    for name, theirs in expected["mask_metrics"][0].items():
        theirs = np.array([of_mask[name] for of_mask in expected["mask_metrics"]])
        ours = np.asarray(found[name], np.float64).reshape(theirs.shape)
        error = np.abs(ours - theirs) / np.where(theirs == 0, 1, np.abs(theirs))
        yield Row(f"nn_explainer {name}", float(error.max()), _LOSS_OF_CLASSES)


def _class_masks(folder: Path, name: str) -> tuple[jax.Array, jax.Array]:
    """Raw masks, and the classes of each image."""
    given = arrays_of(folder, "nn_explainer_inputs.npz")
    raw = given[name].astype(np.float32).repeat(8, axis=2).repeat(8, axis=3)
    return jnp.asarray(raw), jnp.asarray(given["targets"] == 1)


def class_mask_losses(folder: Path) -> dict[str, Any]:
    """By the names of the reference."""
    given = arrays_of(folder, "nn_explainer_inputs.npz")
    raw, labels = _class_masks(folder, "segmentation_logits_28")
    student, _ = _class_masks(folder, "student_segmentation_logits_28")
    seen, hidden = (jnp.asarray(given[f"{name}_logits"]) for name in ("masked", "inverse_masked"))
    target, others = class_masks.merged(raw, labels)
    weights = class_masks.Weights()
    answers = multi_label_scores(given["masked_logits"], given["targets"] == 1, threshold=-1.0)
    return {
        "bce": cross_entropy(seen, labels, single=False).mean(),
        "ce_single_label": cross_entropy(seen, labels, single=True).mean(),
        "negative_entropy_of_inverse": class_masks.negative_entropy(hidden),
        "total_variation_target": class_masks.variation(target),
        "total_variation_non_target": class_masks.variation(others),
        "class_area_0.05_0.3": class_masks.class_area(raw, labels, 0.05, 0.3),
        "class_area_0.0_0.3": class_masks.class_area(raw, labels, 0.0, 0.3),
        "class_area_0.05_1.0": class_masks.class_area(raw, labels, 0.05, 1.0),
        "target_area": target.mean(),
        "non_target_area": others.mean(),
        "total_loss_default": class_masks.class_mask_loss(raw, labels, seen, hidden, weights)[0],
        "multilabel_Accuracy": answers["accuracy"] / 100,
        "multilabel_Precision": answers["precision"] / 100,
        "multilabel_Recall": answers["recall"] / 100,
        "multilabel_F-Score": answers["f1"] / 100,
        "rtsal_total_variation": class_masks.squared_variation(target),
        "rtsal_preserver": class_masks.preserved(seen, labels),
        "rtsal_destroyer": class_masks.destroyed(hidden, labels),
        "self_explainer_total": class_masks.self_explainer_loss(raw, student, labels, weights)[0],
    }


def class_mask_scores(
    folder: Path, explainee: Explainee, categories: list[list[int]]
) -> dict[str, Any]:
    """By the names of the reference, of each mask; what others here are percent of, as shares."""
    given = arrays_of(folder, "nn_explainer_inputs.npz")
    masks = jnp.asarray((given["masks"] / 65535).astype(np.float32))
    truth, known = jnp.asarray(given["segmentations"] == 1), jnp.ones(len(masks), bool)
    images, logits = jnp.zeros((*masks.shape, 3)), jnp.zeros((len(masks), 1))
    classes = jnp.zeros((len(masks), 1), jnp.int32)
    order = relevance = masks
    case = Case(
        explainee, images, logits, classes, masks, order, relevance, truth, known_truth=known
    )
    answers = jnp.asarray(given["masked_probabilities"])
    sums = jnp.stack(
        [answer[np.array(of)].sum() for answer, of in zip(answers, categories, strict=True)]
    )
    shares = {
        "d_f1_25": mask_overlap.f1_at(case, (0.25,)),
        "d_f1_50": mask_overlap.f1_at(case, (0.5,)),
        "d_f1_75": mask_overlap.f1_at(case, (0.75,)),
        "c_f1": mask_overlap.soft_f1(case),
        "f1s": mask_overlap.f1_at(case, mask_overlap.THRESHOLDS),
        "accuracy": mask_overlap.overlap(case),
        "auc": SCORES["pixel_auc"].values(case),
        "d_ious": mask_overlap.iou_at(case, mask_overlap.THRESHOLDS),
        "c_iou": mask_overlap.soft_iou(case),
        "overlap": mask_overlap.overlap(case),
        "background_coverage": mask_overlap.background_coverage(case),
        "mask_coverage": mask_overlap.object_coverage(case),
        "similarity_ratio": mask_overlap.similarity_ratio(case),
    }
    return {name: np.asarray(values) / 100 for name, values in shares.items()} | {
        "saliency": saliency.log_ratio(masks.mean((1, 2))[:, None], sums[:, None]),
        "probability_sparsity": saliency.sparsity(answers),
        "probability_entropy": saliency.entropy(answers),
    }


def _relative(ours: Any, theirs: np.ndarray) -> float:
    """The largest over images of the difference's norm by the norm of theirs."""
    norms = [np.linalg.norm(x, axis=1) for x in (_differences(ours, theirs), _flat(theirs))]
    return float((norms[0] / norms[1]).max())


def _differences(ours: Any, theirs: np.ndarray) -> np.ndarray:
    """Absolute ones of each image; infinite where the shapes differ."""
    ours, theirs = _flat(np.asarray(ours, np.float64)[: len(theirs)]), _flat(theirs)
    return np.abs(ours - theirs) if ours.shape == theirs.shape else np.full(theirs.shape, np.inf)


def _flat(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(len(maps), -1)


if __name__ == "__main__":
    sys.exit(main())
