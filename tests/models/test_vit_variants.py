"""ViTs with other tokens, pools and norms against timm and torchvision, by their weights alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

pytestmark = pytest.mark.parity
parity = pytest.importorskip("parity_tools")

from ltx_jax.attribution.grad_cam import grad_cam_signed  # noqa: E402
from ltx_jax.explainers.leaves import join  # noqa: E402
from ltx_jax.loading.checkpoints import save_explainer  # noqa: E402
from ltx_jax.loading.explainees import load_explainee  # noqa: E402
from ltx_jax.loading.explainers import load_explainer  # noqa: E402
from ltx_jax.models.registry import ARCHITECTURES  # noqa: E402
from ltx_jax.weights.state_dict import shapes_of  # noqa: E402
from ltx_jax.weights.vision_transformers import vit_sizes, vit_structure  # noqa: E402

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
VARIANTS = {
    "registers": {"reg_tokens": 4},
    "registers without positions": {"reg_tokens": 4, "no_embed_class": True},
    "mean of all patches": {"class_token": False, "global_pool": "avg"},
    "normed before the mean": {
        **{"class_token": False, "global_pool": "avg", "fc_norm": False},
        **{"qkv_bias": False, "init_values": 1e-6},
    },
    "registers and a mean": {
        **{"class_token": False, "global_pool": "avg", "reg_tokens": 1},
        **{"no_embed_class": True, "init_values": 1e-5, "mlp_ratio": 5.6},
    },
    "mean beside a class token": {"global_pool": "avg"},
    "layer scale": {"init_values": 1e-6, "no_embed_class": True},
    "distilled": {"distilled": True},
    "two patches a side": {"patch_size": 16},
    "one patch": {"patch_size": 32},
}


def lively(network, seed=0):
    """All parameters random, so that a wrong place of any shows."""
    generator = parity.torch.Generator().manual_seed(seed)
    with parity.torch.no_grad():
        for name, parameter in network.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            noise = parity.torch.randn(parameter.shape, generator=generator)
            parameter.copy_(around + 0.2 * noise)
    return network.eval()


def theirs(variant):
    """timm's network with random weights."""
    from timm.models.deit import VisionTransformerDistilled

    how = SIZES | {"num_classes": 5} | VARIANTS[variant]
    kind = parity.timm.models.VisionTransformer
    if how.pop("distilled", False):
        kind = VisionTransformerDistilled
    return lively(kind(**how))


def saved(network, path):
    """Its weights in a file."""
    save_file(parity.state_dict(network), path)
    return path


def normalised(images):
    """As timm's ViTs want them."""
    return parity.channels_first((images - np.float32(0.5)) / np.float32(0.5))


def close(ours, expected, tolerance=1e-5):
    expected = expected.detach().numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(ours) / scale, expected / scale, atol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_tells_its_network(variant, tmp_path):
    network = theirs(variant)
    ours = load_explainee("vit", saved(network, tmp_path / "w.safetensors"), num_heads=2)
    assert (ours.image_size, ours.num_classes) == ((32, 32), 5)
    images = normalised(IMAGES)
    close(jax.jit(ours)(IMAGES), network(images))
    _, found = jax.jit(lambda x: ours.intermediates(x))(IMAGES)
    patches = network.forward_features(images)[:, network.num_prefix_tokens :]
    close(found["features"].reshape(patches.shape), patches)


@pytest.mark.parametrize(
    ("variant", "layer"),
    [
        ("registers", "blocks.0"),
        ("distilled", "blocks.0"),
        ("normed before the mean", "norm"),
        ("registers and a mean", "blocks.1"),
    ],
)
def test_grad_cam_reads_the_patches(variant, layer, tmp_path):
    network = theirs(variant)
    ours = load_explainee("vit", saved(network, tmp_path / "w.safetensors"), num_heads=2)
    targets = np.array([3, 1], np.int32)
    seen = []
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(out))
    logits = network(normalised(IMAGES))
    (slopes,) = parity.torch.autograd.grad(logits[range(2), targets].sum(), seen)
    patches, slopes = (x[:, network.num_prefix_tokens :] for x in (seen[0], slopes))
    expected = (patches * slopes.mean(1, keepdim=True)).sum(-1).reshape(2, 4, 4)
    assert expected.abs().max() > 0
    close(grad_cam_signed(ours, jnp.asarray(IMAGES), jnp.asarray(targets)), expected)


@pytest.mark.parametrize("variant", ["registers", "registers and a mean"])
def test_an_explainer_draws_from_the_patches(variant, tmp_path):
    file = saved(theirs(variant), tmp_path / "w.safetensors")
    explainee = load_explainee("vit", file, num_heads=2)
    explainer = load_explainer(explainee, seed=1)
    assert explainer.grid() == (4, 4)
    _, found = jax.jit(lambda x: explainee.intermediates(x))(IMAGES)
    head = {"params": join(explainer.trained)["params"]["head"]}
    raw = jax.jit(lambda x: explainer.draw(explainer.trained, explainer.prefix(x)))(IMAGES)
    expected = explainer.module.head.apply(head, found["features"])
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    tokens = ("cls_token", "dist_token", "reg_token")
    assert not any(path.endswith(tokens) for path in explainer.trained)
    # By name its checkpoint tells what tokens it has, as the classifier's weights do.
    save_explainer(tmp_path / "e.safetensors", explainer)
    masks = jax.jit(lambda explainer: explainer.masks(explainer.trained, IMAGES))
    expected = masks(explainer)
    for files in ({"checkpoint": tmp_path / "e.safetensors"}, {"weights": file, "seed": 1}):
        again = load_explainer(explainee, "vit", **files, num_heads=2, image_size=32)
        np.testing.assert_allclose(masks(again), expected, atol=1e-6)


@pytest.mark.parametrize("side", [16, 48])
@pytest.mark.parametrize("variant", ["registers", "registers and a mean"])
def test_positions_of_another_resolution(variant, side, tmp_path, caplog):
    from timm.models.vision_transformer import checkpoint_filter_fn

    network = theirs(variant)
    how = SIZES | {"num_classes": 5, "img_size": side} | VARIANTS[variant]
    resampled = parity.timm.models.VisionTransformer(**how).eval()
    resampled.load_state_dict(checkpoint_filter_fn(network.state_dict(), resampled))
    file = saved(network, tmp_path / "w.safetensors")
    with caplog.at_level("INFO"):
        ours = load_explainee("vit", file, num_heads=2, image_size=side)
    assert f"(4, 4) are resampled to ({side // 8}, {side // 8})" in caplog.text
    images = np.random.default_rng(1).random((2, side, side, 3), np.float32)
    close(jax.jit(ours)(images), resampled(normalised(images)))


@pytest.mark.parametrize("first_version", [True, False])
def test_torchvisions_names(first_version, tmp_path):
    network = lively(
        parity.torchvision.models.VisionTransformer(
            32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
        )
    )
    state = parity.state_dict(network)
    if first_version:
        names = (("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2."))
        for ours, older in names:
            state = {name.replace(ours, older): array for name, array in state.items()}
    save_file(state, tmp_path / "w.safetensors")
    ours = load_explainee("vit", tmp_path / "w.safetensors", num_heads=2)
    close(jax.jit(ours)(IMAGES), network(normalised(IMAGES)))


def test_torchvisions_own_names_have_its_sizes_and_preprocessing():
    models = parity.torchvision.models
    for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "squeezenet1_0"):
        found = ARCHITECTURES[name]
        weights = models.get_model_weights(name).IMAGENET1K_V1
        assert found.download == weights.url
        how = weights.transforms()
        assert found.preprocessing.mean == tuple(how.mean)
        assert found.preprocessing.std == tuple(how.std)
        assert found.preprocessing.interpolation == how.interpolation.value
        assert round(224 / found.preprocessing.crop_fraction) == how.resize_size[0]
        shapes = jax.tree.leaves(shapes_of(found.module, found.size)["params"])
        assert sum(np.prod(leaf.shape) for leaf in shapes) == weights.meta["num_params"]


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.told and a.hub])
def test_a_timm_name_has_what_its_weights_tell(name):
    with parity.torch.device("meta"):
        network = parity.timm.create_model(name, pretrained=False)
    module = ARCHITECTURES[name].module
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    told = vit_structure(state) | vit_sizes(state) | {"num_heads": network.blocks[0].attn.num_heads}
    ratio = told.pop("mlp_ratio")
    assert told == {attribute: getattr(module, attribute) for attribute in told}
    assert int(module.width * module.mlp_ratio) == round(module.width * ratio)
