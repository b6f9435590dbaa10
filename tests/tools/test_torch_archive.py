"""PyTorch files read without PyTorch, and without trusting them."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import convert_ltx_checkpoint
import convert_weights
import numpy as np
import pytest
from safetensors.numpy import load_file
from torch_archive import Placeholder, read_archive

from ltx_jax.errors import InputError

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
    assert isinstance(read_archive(path)["x"], Placeholder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip", "damaged, or older"),
        (b"", "damaged, or older"),
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


@pytest.mark.parity
def test_a_file_that_torch_wrote(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {
        "a": torch.arange(12.0).reshape(3, 4).t(),
        "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "c": torch.nn.Parameter(torch.ones(2, dtype=torch.float16)),
        "d": torch.tensor(3),
    }
    torch.save(tensors, tmp_path / "t.pth")
    found = read_archive(tmp_path / "t.pth")
    for name, tensor in tensors.items():
        expected = tensor.detach().float().numpy()
        np.testing.assert_array_equal(np.asarray(found[name], np.float32), expected)
    buffer = io.BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pth").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="older than PyTorch"):
        read_archive(tmp_path / "old.pth")
