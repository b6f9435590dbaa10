"""See whether masks depend on what a network has learnt (Adebayo et al., NeurIPS 2018).

python tools/randomise.py --config=configs/cifar_vit_direct.py --config.limit=20 \
    --config.rivals="('gradient_x_input','transformer_attribution')" --config.images=… [--stages=4]
python tools/randomise.py --config=… --shuffled-labels=OTHER.safetensors

The first shuffles parameters, each tensor in itself, from the last layer on: of the classifier
alone, then of more and more layers, to all of them. The second takes the same network trained on
shuffled labels (`tools/finetune_classifier.py --shuffle-labels`) in place of the one that was
shuffled. For each way and method, ours and the rivals, the table gives the rank correlation of the
pixels' order with that of the network as it is, for the class that this one predicts: the mean over
the images with its standard error. Beside it stands what masks of another image have: a method that
shows what a picture holds, and not what the network makes of it, stays far above that.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jaxtyping import Float, Int
from ml_collections import config_flags
from scipy.stats import spearmanr

import ltx_jax
from ltx_jax.data.examples import UnreadableImage
from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.configuration import read
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.inputs import examples, open_explainee, open_explainer, open_work
from ltx_jax.tasks.rivals import check_rivals
from ltx_jax.weights.state_dict import Entry, from_state_dict, to_state_dict

OURS = "ours"


def define_flags() -> None:
    """The command's, defined as it is run: other programs have some of the same name."""
    config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
    flags.DEFINE_integer("stages", 4, "Into how many parts the layers are cut.", lower_bound=1)
    told = "The network's weights after training on shuffled labels."
    flags.DEFINE_string("shuffled-labels", None, told)


def main(argv: Sequence[str]) -> int:
    """Print the table as it grows; 2 where the configuration cannot be used."""
    del argv
    given = flags.FLAGS
    ltx_jax.prepare()
    try:
        if given.config is None:
            raise InputError("no configuration: give one of configs/")
        report(read(given.config), given.stages, given["shuffled-labels"].value)
    except InputError as error:
        print(f"randomise: {error}", file=sys.stderr)
        return 2
    return 0


def report(settings: Settings, stages: int, shuffled_labels: str | None) -> None:
    """Print a line for each way to randomise the network.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    work = open_work(settings)
    explainee = work.explainee
    check_rivals(settings.rivals, explainee)
    found = examples(work, range(len(work.rows)), 64)
    images = np.stack([e.as_input() for e in found if not isinstance(e, UnreadableImage)])
    if len(images) < 2:
        raise InputError(f"{len(images)} images that can be read: expected at least 2")
    targets = explainee.predicted(jax.jit(explainee)(images)).astype(np.int32)
    methods = (OURS, *settings.rivals)
    drawer = open_explainer(settings, explainee)

    def masks_of(network: Explainee, method: str) -> Float[np.ndarray, "n H W"]:
        return pixel_masks(settings, network, drawer, method, images, targets)

    known = {method: masks_of(explainee, method) for method in methods}
    print(" " * 28 + "".join(f"{method:>26}" for method in methods))
    another = {method: np.roll(masks, 1, 0) for method, masks in known.items()}
    print(line("masks of another image", known, another), flush=True)
    for what, network in networks(settings, explainee, stages, shuffled_labels):
        other = {method: masks_of(network, method) for method in methods}
        print(line(what, known, other), flush=True)


def networks(
    settings: Settings, explainee: Explainee, stages: int, shuffled_labels: str | None
) -> Iterator[tuple[str, Explainee]]:
    """Each network to compare with, and what it is."""
    if shuffled_labels is not None:
        learnt = dataclasses.replace(settings.explainee, weights=shuffled_labels)
        yield (
            "trained on shuffled labels",
            open_explainee(dataclasses.replace(settings, explainee=learnt)),
        )
        return
    assert explainee.architecture is not None
    layers = layers_of(explainee.architecture.table(explainee.architecture.module))
    counts = {max(round(len(layers) * stage / stages), 1) for stage in range(stages + 1)}
    for count in sorted(counts):
        yield f"last {count} of {len(layers)} layers", shuffled(explainee, layers[-count:])


def layers_of(table: Sequence[Entry]) -> list[list[str]]:
    """The tensors of each layer by name, in the network's order."""
    stack = [entry for entry in table if entry.stacked]
    blocks = [
        name for block in zip(*(entry.names for entry in stack), strict=True) for name in block
    ]
    layers: dict[str, list[str]] = {}
    for entry in table:
        of_stack = blocks if stack and entry is stack[0] else ()
        for name in of_stack if entry.stacked else entry.names:
            layers.setdefault(name.rpartition(".")[0], []).append(name)
    return list(layers.values())


def shuffled(explainee: Explainee, layers: Sequence[Sequence[str]]) -> Explainee:
    """The network with the values of each tensor of some layers shuffled."""
    network, rng = explainee.architecture, np.random.default_rng(0)
    assert network is not None
    table = network.table(network.module)
    state = to_state_dict(explainee.params, table)
    for name in (name for layer in layers for name in layer):
        state[name] = rng.permutation(state[name].ravel()).reshape(state[name].shape)
    params = from_state_dict(state, table, explainee.params, explainee.name)
    return dataclasses.replace(explainee, params=jax.tree.map(jnp.asarray, params))


def pixel_masks(
    settings: Settings,
    explainee: Explainee,
    drawer: Drawer,
    method: str,
    images: Float[np.ndarray, "n H W C"],
    targets: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "n H W"]:
    """A method's masks, ours with the configuration's settings."""
    if method != OURS:
        masks = ltx_jax.attribute(explainee, images, method, targets)
        return np.asarray(upsample(masks, explainee.image_size))
    options = dataclasses.asdict(settings.finetune)
    del options["resume"], options["schedule_steps"]
    recipe = {"objective": settings.objective, "seed": settings.seed, **options}
    return ltx_jax.explain(explainee, images, targets, drawer, **recipe).pixel_masks()


def line(what: str, known: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> str:
    """Rank correlations of each method's masks with others of its own."""
    cells = []
    for method, masks in known.items():
        each = [rank_correlation(a, b) for a, b in zip(masks, other[method], strict=True)]
        error = np.std(each, ddof=1) / np.sqrt(len(each))
        cells.append(f"{np.mean(each):>17.2f} ± {error:.2f}  ")
    return f"{what:28}" + "".join(cells)


def rank_correlation(a: Float[np.ndarray, "H W"], b: Float[np.ndarray, "H W"]) -> float:
    """Spearman's, of the pixels' order; 0 where one mask is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a.ravel(), b.ravel()).statistic)


if __name__ == "__main__":
    define_flags()
    app.run(main)
