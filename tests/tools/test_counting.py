"""Operation counts against formulas, and plans against arithmetic by hand."""

import json

import counting
import jax
import jax.numpy as jnp
import numpy as np
import parts
import plan_run
import pytest
from counting import operations
from jax import ShapeDtypeStruct

from ltx_jax.errors import InputError
from ltx_jax.loading.checkpoints import save_explainer
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.registry import architecture
from ltx_jax.settings.configuration import read
from ltx_jax.weights.state_dict import shapes_of


def array(*shape):
    return ShapeDtypeStruct(shape, jnp.float32)


def test_products_convolutions_and_loops():
    assert operations(jnp.matmul, array(3, 4), array(4, 5)) == 2 * 3 * 4 * 5
    assert operations(jax.vmap(jnp.matmul), array(7, 3, 4), array(7, 4, 5)) == 7 * 2 * 3 * 4 * 5

    def seven(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=7)[0]

    assert operations(jax.jit(seven), array(3, 4), array(4, 4)) == 7 * 2 * 3 * 4 * 4

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    # 5×5 positions, 8 features, each over a window of 3×3×4.
    assert operations(convolve, array(1, 10, 10, 4), array(3, 3, 4, 8)) == 2 * 25 * 8 * 36


def test_of_branches_the_longest_counts():
    def one_or_two(several, x):
        return jax.lax.cond(several, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert operations(one_or_two, ShapeDtypeStruct((), jnp.bool_), array(4, 4)) == 2 * 2 * 64
    # A platform has its own code for a convolution's gradient, of the same products.
    module, kernel = Convolution(4, padding=((1, 1), (1, 1)), use_bias=False), array(3, 3, 3, 4)

    def gradient(x, kernel):
        return jax.grad(lambda x: module.apply({"params": {"kernel": kernel}}, x).sum())(x)

    assert operations(gradient, array(1, 8, 8, 3), kernel) == 2 * 64 * 3 * 36


def test_a_gradient_costs_what_it_recomputes():
    def remembered(w, x):
        return jnp.sin(x @ w).sum()

    def recomputed(w, x):
        return jax.checkpoint(remembered)(w, x)

    # Forward and the gradient of w; with a checkpoint the forward twice.
    once = 2 * 3 * 4 * 5
    assert operations(jax.value_and_grad(remembered), array(4, 5), array(3, 4)) == 2 * once
    assert operations(jax.value_and_grad(recomputed), array(4, 5), array(3, 4)) == 3 * once


@pytest.mark.parametrize(
    ("name", "giga"), [("vit_base_patch16_224", 35.13), ("resnet50", 8.18), ("squeezenet1_1", 0.70)]
)
def test_published_costs_of_networks(name, giga):
    network = architecture(name)

    def forward(weights, image):
        return network.module.apply(weights, image)  # all it gives, not the logits alone

    counted = operations(forward, shapes_of(network.module, network.size), array(1, 224, 224, 3))
    assert counted / 1e9 == pytest.approx(giga, abs=0.01)


def settings(config):
    """Of a configuration for any images."""
    config.images = "any"
    return read(config)


# Operations of a block, and of a forward, of the ViT of configs/cifar_vit.py; its last block is for
# the class token alone, but for its keys and values.
TOKENS, WIDTH = 65, 64
BLOCK = 2 * TOKENS * WIDTH * (3 * WIDTH + WIDTH + 2 * 4 * WIDTH) + 2 * 2 * TOKENS * TOKENS * WIDTH
LAST = 2 * TOKENS * WIDTH * 3 * WIDTH + 4 * TOKENS * WIDTH + 2 * WIDTH * 9 * WIDTH
FORWARD = 3 * BLOCK + LAST + 2 * 64 * 48 * WIDTH + 2 * WIDTH * 10
# Its numbers; of an explainer the embedding is not trained.
BLOCKS, EMBEDDING = 4 * (12 * 64 * 64 + 13 * 64) + 128, 48 * 64 + 64 + 64 + 65 * 64
MASK_HEAD, HEAD = 64 * 65 + 65, 64 * 10 + 10


def test_a_plan_counts_a_step():
    from configs import cifar_vit

    step = plan_run.count_step(settings(cifar_vit.get_config()))
    assert step.operations > 9 * FORWARD
    # Masked explainee with its gradient, explainer with both gradients; the attention scores of
    # three blocks once more for each.
    extra = step.operations - 9 * FORWARD - 2 * 3 * 2 * TOKENS * TOKENS * WIDTH
    assert extra == pytest.approx(2 * FORWARD + 3 * 4 * BLOCK, rel=0.05)
    assert step.slot_bytes == 4 * 4 * (BLOCKS + MASK_HEAD)
    assert step.bytes == 10 * 4 * (BLOCKS + MASK_HEAD)


def test_a_plan_counts_a_training():
    from configs import cifar_vit

    step = plan_run.count_training(settings(cifar_vit.get_config()))
    # The prediction as well.
    extra = step.operations - 2 * 3 * 2 * TOKENS * TOKENS * WIDTH
    assert extra == pytest.approx(3 * FORWARD + 3 * 4 * BLOCK, rel=0.05)
    explainee, trained = EMBEDDING + BLOCKS + HEAD, BLOCKS + MASK_HEAD
    assert step.kept_bytes == 4 * (explainee + EMBEDDING + 4 * trained)
    assert step.bytes == 10 * 4 * trained


def test_a_plan_counts_every_view_of_the_objective():
    from configs import cifar_vit

    config = cifar_vit.get_config()
    one = plan_run.count_step(settings(config)).operations
    config.objective.counterfactual = True  # what is kept, and what is left
    two = plan_run.count_step(settings(config)).operations
    config.objective.terms.budget = 1.0
    assert plan_run.count_step(settings(config)).operations > two
    assert two - one == pytest.approx(2 * FORWARD, rel=0.1)


def test_a_mask_is_not_planned_to_be_trained():
    from configs import cifar_vit_direct

    config = cifar_vit_direct.get_config()
    config.task = "pretrain"
    with pytest.raises(InputError, match=r"config\.explainer\.trained is mask"):
        plan_run.count_training(settings(config))


def test_a_plan_knows_what_is_trained():
    from configs import cifar_vit

    config = cifar_vit.get_config()
    config.explainer.trained = "head"
    config.finetune.first_moment = "bfloat16"
    step = plan_run.count_step(settings(config))
    head = 64 * 65 + 65
    assert step.slot_bytes == (4 + 4 + 2 + 4) * head
    assert step.operations < plan_run.count_step(settings(cifar_vit.get_config())).operations
    config.explainer.trained = "lora"
    config.explainer.frozen_blocks = 4
    with pytest.raises(InputError, match="frozen_blocks 4 of 4"):
        plan_run.count_step(settings(config))


def test_a_plan_counts_the_network_of_a_checkpoint(explainee, tmp_path):
    from configs import cifar_vit

    path = tmp_path / "e.safetensors"
    save_explainer(path, load_explainer(explainee, frozen_blocks=1))
    config = cifar_vit.get_config()
    config.explainer.checkpoint = str(path)
    trained = 2 * (12 * 16 * 16 + 13 * 16) + 2 * 16 + 16 * 17 + 17
    assert plan_run.count_step(settings(config)).slot_bytes == 4 * 4 * trained
    assert parts.priced(settings(config))["trained"] == ["all", 1, 4]


def test_a_plan_rests_on_what_was_measured(tmp_path):
    from configs import cifar_vit

    path = tmp_path / "figures.json"
    config = cifar_vit.get_config()
    measured = {"settings": parts.priced(settings(config)), "device": "NVIDIA H200", "devices": 2}
    engine = {"milliseconds_per_image_step": 4.0, "images": 10, "steps": 80}
    figures = {"measured": measured, "engine": engine, "step": {"bytes_a_slot": 5e6}}
    path.write_text(json.dumps(figures))
    h200 = plan_run.DEVICES["h200"]
    assert plan_run.read_measured(str(path), settings(config), h200) == (0.008, 8.0, 5e6)
    with pytest.raises(InputError, match="measured on NVIDIA H200, the plan is for A100"):
        plan_run.read_measured(str(path), settings(config), plan_run.DEVICES["a100"])
    config.explainer.trained = "head"
    with pytest.raises(InputError, match=r"trained \['all', 0, 4\], the plan is for \['head'"):
        plan_run.read_measured(str(path), settings(config), h200)
    config = cifar_vit.get_config()
    config.compute_dtype = "bfloat16"
    with pytest.raises(InputError, match="compute_dtype float32, the plan is for bfloat16"):
        plan_run.read_measured(str(path), settings(config), h200)
    path.write_text("{}")
    with pytest.raises(InputError, match="no figures in"):
        plan_run.read_measured(str(path), settings(config), h200)


def test_unknown_lengths_count_once():
    def until(x):
        return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ c, x)

    assert counting.operations(until, np.ones((2, 2), np.float32)) == 16
