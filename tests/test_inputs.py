"""What researchers have, used rightly; and what nobody can use, refused in one line."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file

import ltx_jax
from ltx_jax.data import given
from ltx_jax.data.given import as_array, as_batch
from ltx_jax.data.labels import read_labels
from ltx_jax.data.preprocessing import Preprocessing, read_rgb
from ltx_jax.data.sources import open_images, refuse_address
from ltx_jax.errors import InputError
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.models.explainee import Explainee
from ltx_jax.tasks.arrays import label_sets, targets_of
from ltx_jax.tasks.classes import chosen_classes
from ltx_jax.tasks.inputs import plan
from ltx_jax.weights.files import read_safetensors
from ltx_jax.weights.state_dict import unwrapped

from conftest import TINY_VIT  # isort: skip

GREY = np.array([[0, 51], [102, 255]])


# --- Photographs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored",
    [
        (GREY / 255).astype(np.float32),
        GREY.astype(np.float32),
        (GREY * 257).astype(np.float32),
        (GREY * 257).astype(np.uint16),
        (GREY * 257).astype(np.int32),
        np.round(GREY * (2**31 - 1) / 255).astype(np.int32),
    ],
)
def test_grey_of_any_depth(tmp_path, stored):
    Image.fromarray(stored).save(tmp_path / "grey.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.tif"), GREY[..., None].repeat(3, -1))


@pytest.mark.parametrize("value", [-0.5, 1e6, np.nan, np.inf])
def test_floats_that_are_no_grey_are_skipped(tmp_path, value):
    stored = np.array([[0.5, value]], np.float32)
    Image.fromarray(stored).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="expected 0 to 1, 0 to 255, 0 to 65535"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("error", [TypeError("odd"), KeyError(1), SyntaxError, OverflowError])
def test_broken_exif_costs_the_orientation_alone(tmp_path, monkeypatch, error):
    picture = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")

    def broken(image):
        raise error

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), picture)


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow says of such blocks
@pytest.mark.parametrize("kind", range(14))
@pytest.mark.parametrize("tag", [0x0112, 0x011A, 0x8769, 0x8825, 0xA005, 0x927C])
def test_an_oddly_typed_entry_beside_the_orientation(tmp_path, tag, kind):
    turned = struct.pack("<HHII", 0x0112, 3, 1, 6)
    odd = struct.pack("<HHI4s", tag, kind, 1, b"ab\xff\0")
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + turned + odd + b"\0\0\0\0"
    Image.new("RGB", (6, 4), (200, 10, 10)).save(tmp_path / "a.jpg", exif=block)
    assert read_rgb(tmp_path / "a.jpg").shape in {(4, 6, 3), (6, 4, 3)}


def test_what_pillow_says_in_several_lines_is_told_in_one(tmp_path, monkeypatch):
    def read(path, how):
        raise ValueError(f"{path}: broken\n  here")

    monkeypatch.setattr(given, "read_resized", read)
    with pytest.raises(
        InputError, match=r"a\.png cannot be read as an image: the file: broken here"
    ):
        as_batch(tmp_path / "a.png", Preprocessing((4, 4)))


def test_a_damaged_image_of_pillows_is_one_line(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) // 2] ^= 0x55
    (tmp_path / "a.png").write_bytes(content)
    with (
        Image.open(tmp_path / "a.png") as image,
        pytest.raises(InputError, match="cannot be read as an image: broken data stream"),
    ):
        as_batch(image, Preprocessing((4, 4)))


def test_heic_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(OSError, match=r"pip install 'ltx_jax\[heic\]'"):
        read_rgb(tmp_path / "a.heic")


# --- Folders and lists ----------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    return path


def test_one_photograph(picture):
    source = open_images(picture)
    assert source.names == ("a.png",) and len(source) == 1


def test_hidden_files_are_left_out_and_links_followed(tmp_path, caplog):
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (folder / "a.jfif", folder / ".b.png", folder / ".ipynb_checkpoints/a.png"):
        Image.new("RGB", (4, 4)).save(path, "PNG")
    Image.new("RGB", (4, 4)).save(elsewhere / "c.png")
    (folder / "notes.md").write_text("no picture")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)  # without end
    with caplog.at_level("INFO"):
        assert open_images(folder).names == ("a.jfif", "linked/c.png")
    assert "1 .md" in caplog.text


def test_a_name_that_is_not_utf8(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(os.fsencode(folder) + b"/caf\xe9.png")
    (name,) = open_images(folder).names
    assert name == "caf\\xe9.png" and name.encode()


@pytest.mark.parametrize("other", ["./a.png", "../{}/a.png", "{full}", "link.png"])
def test_one_photograph_under_two_spellings(picture, other):
    folder = picture.parent
    (folder / "link.png").symlink_to(picture)
    other = other.format(folder.name, full=picture)
    (folder / "list.txt").write_text(f"a.png\n{other}\n")
    with pytest.raises(InputError, match=r"more than once, as 'a.png' as well"):
        open_images(folder / "list.txt")


@pytest.mark.parametrize(
    ("given", "message"),
    [("", "is empty"), ("gs://bucket/x", "this machine"), ("s3:/x", "this machine")],
)
def test_addresses_are_no_paths(given, message):
    with pytest.raises(InputError, match=message):
        refuse_address("--workdir", given)
    with pytest.raises(InputError, match=message):
        open_images(given)


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        ("a.png 1\na.png 2\n", ("a.png",), "'a.png' the labels 1 and 2"),
        ("a.png 1\n", ("x/a.png", "y/a.png"), "a name that 2 images have"),
        ("a.png one\n", ("a.png",), "label is no number"),
        ("a.png -1\n", ("a.png",), "0 or more"),
    ],
)
def test_labels_that_are_not_clear(tmp_path, content, names, message):
    (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.txt", names)


def test_json_without_end(tmp_path):
    (tmp_path / "labels.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="mend it"):
        read_labels(tmp_path / "labels.json", ("a",))


def test_labels_that_count_from_one(tmp_path, explainee):
    np.savez(tmp_path / "i.npz", images=np.zeros((3, 16, 16, 3), np.uint8), labels=[1, 5, 2])
    with pytest.raises(InputError, match="seem to count from 1"):
        plan(open_images(tmp_path / "i.npz"), explainee)


# --- Weights --------------------------------------------------------------------------------------


@pytest.fixture
def tensors(vit_weights: Path) -> dict[str, np.ndarray]:
    return read_safetensors(vit_weights)[0]


def loads(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """As the network of these tensors."""
    params = load_explainee("vit", path, **TINY_VIT).params["params"]
    np.testing.assert_array_equal(params["head"]["kernel"], tensors["head.weight"].T)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module.model.", "state_dict.model.backbone."]
)
def test_names_that_a_wrapper_made(tmp_path, tensors, prefix):
    save_file(
        {prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "w.safetensors"
    )
    loads(tmp_path / "w.safetensors", tensors)


def test_a_name_inside_is_no_wrapper():
    state = {"model.a": np.zeros(1), "head.b": np.zeros(1)}
    assert unwrapped(state) == state and unwrapped({}) == {}


def test_weights_in_shards(tmp_path, tensors):
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    loads(tmp_path / "model.safetensors.index.json", tensors)
    loads(tmp_path, tensors)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"no weights at .*model-2"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"weight_map": 3}', "[" * 100_000])
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / "m.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match="no index of shards"):
        read_safetensors(tmp_path)


def test_a_folder_without_weights_or_with_several(tmp_path):
    with pytest.raises(InputError, match="holds none"):
        read_safetensors(tmp_path)
    for name in "ab":
        save_file({"x": np.zeros(1, np.float32)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=r"holds a.safetensors, b.safetensors"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(tmp_path, tensors, value):
    broken = {name: tensor.copy() for name, tensor in tensors.items()}
    broken["blocks.1.attn.qkv.weight"][0, 0] = value
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"no finite numbers, in blocks.1.attn.qkv.weight"):
        load_explainee("vit", tmp_path / "w.safetensors", **TINY_VIT)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32])
def test_quantised_weights(tmp_path, tensors, kind):
    quantised = tensors | {"head.weight": tensors["head.weight"].astype(kind)}
    save_file(quantised, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=f"quantised, with {np.dtype(kind)} in head.weight"):
        load_explainee("vit", tmp_path / "w.safetensors", **TINY_VIT)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 30}, "image_size of vit is 30: it must be a multiple of its patch_size, 4"),
        ({"width": 15}, "width of vit is 15: it must be a multiple of its num_heads, 2"),
        ({"depth": 0}, "depth of vit is 0: it must be at least 1"),
        ({"patch_size": -4}, "patch_size of vit is -4"),
        ({"num_classes": -1}, "num_classes of vit is -1: it must be at least 0"),
    ],
)
def test_sizes_that_fit_nothing(vit_weights, sizes, message):
    with pytest.raises(InputError, match=message):
        load_explainee("vit", vit_weights, **(TINY_VIT | sizes))


# --- Models of one's own, and what is asked of them -----------------------------------------------


IN_TRAINING = nnx.BatchNorm(3, rngs=nnx.Rngs(0))


def own(
    apply=lambda p, x: x.mean((1, 2)), params=None, size=(4, 4), classes=3, **more
) -> Explainee:
    return Explainee(apply, params, size, classes, **more)


@pytest.mark.parametrize(
    ("explainee", "message"),
    [
        (
            own(classes=4),
            r"gives float32 \(2, 3\) for two images: expected logits, floats \(2, 4\)",
        ),
        (own(lambda p, x: (x.mean((1, 2)), 0)), "gives a tuple for two images"),
        (own(lambda p, x: x.mean((1, 2))[..., None]), r"float32 \(2, 3, 1\)"),
        (own(lambda p, x: x.argmax(-1)), "gives int32"),
        (own(lambda p, x: x @ p, jnp.zeros((5, 3))), "cannot be applied to images"),
        (own(params={"name": "a string"}), "hold what is no array"),
        (own(size=(0, 4)), r"image_size of custom is \(0, 4\): expected"),
        (own(class_names=("a", "b")), "2 class names for 3 classes"),
        (own(link="sigmod"), "the link of custom is 'sigmod': it is one of softmax, sigmoid"),
        (own(lambda p, x: (x - x.mean(0)[None]).mean((1, 2))), "put it into evaluation mode"),
        (own(lambda p, x: IN_TRAINING(x).mean((1, 2))), "put it into evaluation mode"),
        (own(lambda p, x: np.asarray(x).mean((1, 2))), "explainee_of takes what is not JAX"),
        (own(lambda p, x: p["w"], {"v": 1.0}), r"cannot be applied .*\(KeyError: 'w'\): correct"),
    ],
)
def test_models_that_are_not_what_they_say(explainee, message):
    with pytest.raises(InputError, match=message) as caught:
        ltx_jax.explain(explainee, np.zeros((1, 4, 4, 3), np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.eye(3, dtype=int)[:2], "one-hot matrix"),
        (3, "targets for 1 of 2 images"),
        (3.5, "targets for 1 of 2 images"),
        (np.eye(3, dtype=int)[:2].tolist(), r"image 0 are \[1, 0, 0\]: .* the index of its 1"),
        ([0, [1, 1]], r"the targets of image 1 are \[1, 1\]: give each class once"),
        ([0, ["dog", 2]], r"the targets of image 1 are \[2, 2\]"),
        ({0: 1, 1: 2}, "targets are a dict: give a list in the order of the images"),
        ({0, 1}, "targets are a set: give a list"),
        ([{0}, 1], r"target \{0\} is a set: custom has"),
        ([0, 3], "target 3: custom has classes 0 to 2"),
        ([0.0, 1.0], "target 0.0 is a float: custom has classes 0 to 2, whole numbers"),
        ([True, 0], "target True is a bool"),
        ([None, 0], "target None is a NoneType"),
        (["cat", 0], "no class is called 'cat'"),
        (["crane", 0], "classes 0, 1 of custom are all called 'crane': give the number"),
    ],
)
def test_targets_that_are_none(targets, message):
    mine = own(class_names=("crane", "crane", "dog"))
    with pytest.raises(InputError, match=message):
        targets_of(targets, 2, mine)


def test_every_form_of_targets():
    mine = own(class_names=("crane", "crane", "dog"))
    assert targets_of(["dog", [0, 1]], 2, mine) == [[2], [0, 1]]
    assert targets_of((i for i in (1, 2)), 2, mine) == [[1], [2]]
    assert label_sets(2, 1, mine) == label_sets(np.array(2), 1, mine) == ((2,),)
    for labels in (np.array([2, 1]), [np.int64(2), 1], [["dog"], [1]]):
        assert label_sets(labels, 2, mine) == ((2,), (1,))
    # Of two classes a list of both is no one-hot row.
    assert targets_of([[1, 0], [0, 1]], 2, own(classes=2)) == [[1, 0], [0, 1]]
    for classes, message in ((("crane",), "are all called 'crane'"), (("cat",), "has 'cat'")):
        with pytest.raises(InputError, match=message):
            chosen_classes(classes, mine)
    assert chosen_classes(("dog", 1), mine) == (1, 2)


@pytest.mark.parametrize("labels", [{0: [1], 1: [2]}, {0, 1}])
def test_labels_without_an_order(labels):
    with pytest.raises(InputError, match="give a list in the order of the images"):
        label_sets(labels, 2, own())


@pytest.mark.parametrize("target", [2, np.int64(2), np.array(2), jnp.int32(2), "c"])
def test_a_single_target_of_any_kind(target):
    mine = replace(own(), class_names=("a", "b", "c"))
    image = np.random.default_rng(0).random((4, 4, 3), np.float32)
    found = ltx_jax.explain(mine, image, target, labels=target, steps=1)
    assert found.targets.tolist() == [2] and found.each[0].label == 2
    truth = np.eye(4, dtype=bool)[None]
    scored = ltx_jax.evaluate(mine, image, truth, targets=target, truth=truth)
    assert scored.targets.tolist() == [2] and scored.scores["iou"].tolist() == [100]


def test_a_tensor_of_a_type_that_numpy_has_not():
    class Tensor:
        def __array__(self, *_, **__):
            raise TypeError("Got unsupported ScalarType BFloat16")

    for one in (Tensor(), [Tensor()]):
        with pytest.raises(
            InputError, match=r"images are no array \(Got .*\): give them as float32"
        ):
            as_array(one, "images")


def test_a_map_that_is_not_finite_is_no_mask():
    root = own(params=None, apply=lambda _, x: jnp.sqrt(x).mean((1, 2)))
    images = np.full((2, 4, 4, 3), 0.5, np.float32)
    assert ltx_jax.attribute(root, images, "gradient_x_input", [0, 1]).shape == (2, 4, 4)
    images[1, 0, 0] = 0
    with pytest.raises(InputError, match="the map of image 1 by gradient_x_input is not finite"):
        ltx_jax.attribute(root, images, "gradient_x_input", [0, 1])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.zeros((4, 4, 3), np.float32), np.zeros((5, 4, 3), np.float32)], "several shapes"),
        (np.zeros((0, 4, 4, 3), np.float32), "images are none at all: expected an array"),
        (np.zeros((1, 3, 4, 4), np.float32), "channels last"),
        (np.full((1, 4, 4, 3), np.nan, np.float32), "from nan to nan"),
        (np.full((1, 4, 4, 3), 255, np.int64), "images are int64"),
        (np.zeros((4, 4), np.uint8), r"images of shape \(4, 4\)"),
        ([], "images are none at all: expected an array"),
        (None, "images are a NoneType: expected an array, a path or an image of Pillow's"),
        ((one for one in np.zeros((1, 4, 4, 3))), "images are a generator: expected"),
        ("nowhere.png", "nowhere.png cannot be read"),
        (".", r"^\. is a folder: give a list of the images in it"),
    ],
)
def test_images_that_are_none(images, message):
    with pytest.raises(InputError, match=message) as caught:
        ltx_jax.explain(own(), images)
    assert "\n" not in str(caught.value)


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flag", ["--workdir=gs://bucket/run", "--config.images=gs://bucket/images"]
)
def test_the_command_refuses_addresses(flag):
    command = [sys.executable, "-m", "ltx_jax.main", "--config=configs/demo.py", flag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "expected a path of this machine" in done.stderr
