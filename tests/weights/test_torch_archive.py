"""PyTorch files read without PyTorch, and without trusting them."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import convert_ltx_checkpoint
import convert_weights
import numpy as np
import pytest
from safetensors.numpy import load_file

from ltx_jax.errors import InputError
from ltx_jax.weights.torch_archive import Placeholder, read_archive

REFERENCE = Path(__file__).parents[1] / "reference"


class Stored:
    """A tensor as torch pickles it: a rebuild function over a persistent storage."""

    def __init__(self, key: str, shape: tuple[int, ...]) -> None:
        self.key, self.shape = key, shape


class Named:
    """A global of some module, by name alone."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


def archive(path: Path, content: object, storages: dict[str, np.ndarray]) -> Path:
    """A zip as torch.save writes it, pickled by hand (protocol 2)."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + pickled(content, storages) + b".")
        for key, storage in storages.items():
            file.writestr(f"archive/data/{key}", storage.tobytes())
    return path


def pickled(value: object, storages: dict[str, np.ndarray]) -> bytes:
    if isinstance(value, dict):
        items = b"".join(pickled(k, storages) + pickled(v, storages) for k, v in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list | tuple):
        items = b"".join(pickled(item, storages) for item in value)
        return b"(" + items + (b"l" if isinstance(value, list) else b"t")
    if isinstance(value, Named):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Stored):
        count = int(np.prod(value.shape))
        kind = Named("torch", "FloatStorage")
        pid = pickled(("storage", kind, value.key, "cpu", count), storages) + b"Q"
        strides = tuple(int(np.prod(value.shape[i + 1 :])) for i in range(len(value.shape)))
        rest = [pickled(v, storages) for v in (0, value.shape, strides, False)]
        rebuild = pickled(Named("torch._utils", "_rebuild_tensor_v2"), storages)
        return rebuild + b"(" + pid + b"".join(rest) + b"}tR"
    return pickle.dumps(value, protocol=2)[2:-1]


VALUES = np.arange(6, dtype=np.float32)


def test_tensors_come_out(tmp_path):
    path = archive(tmp_path / "a.pth", {"w": Stored("0", (2, 3)), "n": 7}, {"0": VALUES})
    found = read_archive(path)
    assert found["n"] == 7
    np.testing.assert_array_equal(found["w"], VALUES.reshape(2, 3))


def test_nothing_a_file_says_is_run(tmp_path):
    marker = tmp_path / "pwned"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"x": Hostile()}, protocol=2))
    with pytest.raises(InputError, match=r"asks to run (posix|nt)\.system, which was not done"):
        read_archive(path)
    assert not marker.exists()


def test_objects_of_other_classes_stand_for_nothing(tmp_path):
    content = {"w": Stored("0", (2, 3)), "args": Named("argparse", "Namespace")}
    found = read_archive(archive(tmp_path / "a.pth", content, {"0": VALUES}))
    assert found["args"] is Placeholder and found["w"].shape == (2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip", "no PyTorch file, or is damaged"),
        (b"", "no PyTorch file, or is damaged"),
        (pickle.dumps({"a": 1}), "no PyTorch file, or is damaged"),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_archive(tmp_path / "a.pth")


def test_damaged_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.pth", "w") as file:
        file.writestr("readme", "x")
    with pytest.raises(InputError, match=r"no data\.pkl"):
        read_archive(tmp_path / "empty.pth")
    short = archive(tmp_path / "short.pth", {"w": Stored("0", (2, 3))}, {"0": VALUES[:4]})
    with pytest.raises(InputError, match="beyond its storage"):
        read_archive(short)
    with pytest.raises(InputError, match="no file at"):
        read_archive(tmp_path / "none.pth")


def test_wrappers_and_old_names(tmp_path):
    state = {
        "module.features.denseblock1.denselayer1.norm.1.weight": Stored("0", (6,)),
        "module.features.norm0.num_batches_tracked": Stored("0", (1,)),
    }
    path = archive(tmp_path / "a.pth", {"state_dict": state, "epoch": 3}, {"0": VALUES})
    found = convert_weights.state_dict(read_archive(path), path)
    assert list(found) == ["features.denseblock1.denselayer1.norm1.weight"]


def test_the_command_line(tmp_path):
    path = archive(tmp_path / "a.pth", {"w": Stored("0", (2, 3))}, {"0": VALUES})
    tool = Path(convert_weights.__file__)
    run = subprocess.run([sys.executable, tool, path, tmp_path / "a.safetensors"], check=True)
    assert run.returncode == 0
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")["w"], VALUES.reshape(2, 3))
    bad = subprocess.run(
        [sys.executable, tool, tmp_path / "no.pth", tmp_path / "b.safetensors"],
        capture_output=True,
        text=True,
    )
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1
    assert not (tmp_path / "b.safetensors").exists()


def checkpoint(moment_shape: tuple[int, ...] = (1, 2, 1, 1)) -> dict:
    """A CNN explainer as Lightning keeps it: explainee, explainer, AdamW by parameter number."""
    state = OrderedDict(
        {
            "explainee.fc.weight": np.ones((2, 2), np.float32),
            "explainer.encoder.0.weight": np.full((2, 3, 1, 1), 2.0, np.float32),
            "explainer.encoder.1.weight": np.full(2, 3.0, np.float32),
            "explainer.encoder.1.running_mean": np.full(2, 4.0, np.float32),
            "explainer.encoder.1.num_batches_tracked": np.array(5),
            "explainer.bottleneck.0.weight": np.full((1, 2, 1, 1), 6.0, np.float32),
        }
    )
    moments = {"step": 9, "exp_avg": np.ones(moment_shape), "exp_avg_sq": np.ones(moment_shape)}
    optimizer = {"state": {3: moments}, "param_groups": [{"lr": 0.5, "params": [0, 1, 2, 3]}]}
    return {"state_dict": state, "optimizer_states": [optimizer]}


def test_a_cnn_checkpoint():
    tensors, metadata = convert_ltx_checkpoint.convert(checkpoint(), "x.ckpt")
    assert set(tensors) == {
        "conv1.weight",
        "bn1.weight",
        "bn1.running_mean",
        "bottleneck.weight",
        "exp_avg/bottleneck.weight",
        "exp_avg_sq/bottleneck.weight",
    }
    assert tensors["bn1.running_mean"].tolist() == [4, 4]
    assert (metadata["step"], metadata["learning_rate"]) == ("9", "0.5")


def test_checkpoints_that_do_not_hold_together():
    with pytest.raises(InputError, match=r"exp_avg 3 of x\.ckpt has shape \(7,\)"):
        convert_ltx_checkpoint.convert(checkpoint((7,)), "x.ckpt")
    broken = checkpoint()
    broken["optimizer_states"][0]["param_groups"][0]["params"] = [0, 1]
    with pytest.raises(InputError, match="2 parameters, its state dict 4"):
        convert_ltx_checkpoint.convert(broken, "x.ckpt")
    with pytest.raises(InputError, match="no LTX explainer"):
        convert_ltx_checkpoint.convert({"state_dict": {"fc.weight": VALUES}}, "x.ckpt")


# --- Files that torch wrote -----------------------------------------------------------------------

FORMS = {"zip": True, "before 1.6": False}


def written(path: Path, content: object, form: str) -> Path:
    """A file as PyTorch writes it, today or before 1.6."""
    torch = pytest.importorskip("torch")
    torch.save(content, path, _use_new_zipfile_serialization=FORMS[form])
    return path


def one_line(path: Path) -> str | None:
    """What is said of a file that is refused; None of one that is read."""
    try:
        convert_weights.state_dict(read_archive(path), path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return str(error)
    return None


def tensors() -> dict:
    """Every type, and views of all kinds."""
    torch = pytest.importorskip("torch")
    shared = torch.arange(24.0)
    wide = {
        "conv.weight": torch.arange(24.0)
        .reshape(2, 3, 2, 2)
        .contiguous(memory_format=torch.channels_last),
        "turned": shared.reshape(4, 6).t(),
        "every other": shared[1::2],
        "part": shared[6:18].reshape(3, 4),
        "whole": shared,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    types = ("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    return wide | {name: torch.tensor([0, 1, 1]).to(getattr(torch, name)) for name in types}


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_every_kind(tmp_path, form):
    given = tensors()
    path = written(tmp_path / "t.pth", given, form)
    raw, found = read_archive(path), convert_weights.state_dict(read_archive(path), path)
    assert raw.keys() == found.keys() == given.keys()
    for name, tensor in given.items():
        expected = tensor.detach().float().numpy()
        assert raw[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(raw[name].astype(np.float32), expected, strict=True)
        np.testing.assert_array_equal(found[name], expected, strict=True)
        assert found[name].flags.c_contiguous


PLAIN = {"head.weight": 2.0, "blocks.0.bias": 3.0}


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("wrappers", "prefix"),
    [
        ((), ""),
        (("state_dict",), "module."),
        (("model",), "_orig_mod."),
        (("ema",), "backbone."),
        (("model_ema",), "module.model."),
        (("ema", "state_dict"), "model."),
        (("net",), "module._orig_mod."),
    ],
)
def test_checkpoints_as_trainers_write_them(tmp_path, form, wrappers, prefix):
    torch = pytest.importorskip("torch")
    weights = {prefix + name: torch.full((2,), value) for name, value in PLAIN.items()}
    content: dict = OrderedDict(weights) | {"module.bn.num_batches_tracked": torch.tensor(5)}
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    for wrapper in reversed(wrappers):
        content = {
            **{wrapper: content, "epoch": 7, "best": 0.5, "arch": "vit", "of": torch.Size((3,))},
            **{"optimizer": optimizer.state_dict(), "args": Path("a"), "device": parameter.device},
        }
    path = written(tmp_path / "c.pth", content, form)
    found = convert_weights.state_dict(read_archive(path), path)
    assert {name: value.tolist() for name, value in found.items()} == {
        name: [value] * 2 for name, value in PLAIN.items()
    }


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch: {"w": torch.ones(1).expand(1 << 40)}, "repeats the values"),
        (lambda torch: {"w": torch.eye(3).to_sparse()}, "_rebuild_sparse_tensor, not plain"),
        (lambda torch: {"w": torch.ones(2, dtype=torch.complex64)}, "a type that is no weights'"),
        (lambda torch: {"epoch": 3, "model": {}}, "holds no state dict"),
        (lambda torch: [torch.ones(2)], "holds no state dict"),
        (lambda torch: torch.ones(2), "holds no state dict"),
    ],
)
def test_what_is_no_state_dict(tmp_path, form, make, message):
    path = written(tmp_path / "a.pth", make(pytest.importorskip("torch")), form)
    assert message in (one_line(path) or "")


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
def test_files_cut_off_anywhere(tmp_path, form):
    content = written(tmp_path / "whole.pth", tensors(), form).read_bytes()
    path = tmp_path / "cut.pth"
    for end in range(0, len(content), max(1, len(content) // 150)):
        path.write_bytes(content[:end])
        assert one_line(path)


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
def test_damaged_bytes(tmp_path, form):
    content = written(tmp_path / "whole.pth", tensors(), form).read_bytes()
    path, rng = tmp_path / "damaged.pth", np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for at in rng.integers(len(content), size=4):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        one_line(path)


# --- Files that nobody wrote in good faith --------------------------------------------------------

MAGIC = b"".join(
    pickle.dumps(part, protocol=2)
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
GIANT = 1 << 45


def storage(count: int) -> bytes:
    """A persistent id."""
    return pickled(("storage", Named("torch", "FloatStorage"), "0", "cpu", count, None), {}) + b"Q"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (storage(GIANT), "storage 0 claims .* more than the file has"),
        (b"\x8e" + GIANT.to_bytes(8, "little") + b"a", "expected .* bytes"),
        (b"\x96" + GIANT.to_bytes(8, "little") + b"a", "expected .* bytes"),
        (b"Nr" + b"\xff" * 4, "memo 4294967295 in a file"),
        (b"Np4294967295\n", "memo 4294967295 in a file"),
        (b"cbuiltins\neval\n(U\x031+1tR", "asks to run builtins.eval"),
        (b"csubprocess\nPopen\n(U\x04lstR", "asks to run subprocess.Popen"),
        (b"cnumpy\nzeros\n(J\xff\xff\xff\x7ftR", "holds no state dict"),
        (b"(" * 100_000, "."),
    ],
)
def test_giants_and_traps(tmp_path, content, message):
    path = tmp_path / "a.pth"
    path.write_bytes(MAGIC + b"\x80\x04" + content + b"." + pickle.dumps([], protocol=2))
    tracemalloc.start()
    told = one_line(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told and re.search(message, told)
    assert most < 16 << 20


def test_an_empty_storage_at_the_end_is_cut_off(tmp_path):
    path = tmp_path / "a.pth"
    whole = MAGIC + b"\x80\x02" + storage(0) + b"." + pickle.dumps(["0"], protocol=2) + bytes(8)
    path.write_bytes(whole)
    assert read_archive(path).shape == (0,)
    for missing in (1, 4, 8):
        path.write_bytes(whole[:-missing])
        with pytest.raises(InputError, match="a storage of 0 values is cut off"):
            read_archive(path)


def test_a_part_that_is_larger_than_the_archive(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + storage(8) + b".")
        file.writestr("archive/data/0", bytes(1 << 22))
    assert "claims more bytes" in (one_line(path) or "")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + storage(8) + b".")
        file.writestr("archive/byteorder", b"big")
    assert "big-endian" in (one_line(path) or "")


def test_a_file_that_holds_itself(tmp_path):
    path = archive(tmp_path / "a.pth", {}, {})
    content: dict = {}
    content["model"] = content
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
    assert "holds no state dict" in (one_line(path) or "")
