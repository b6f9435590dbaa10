"""TFDS: a stand-in that answers as TFDS does, and, where it is installed, TFDS itself.

The stand-in has what is read of it: `data_source` with its keywords, the records' features, the
files of a split, and `decode.SkipDecoding`.
"""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ltx_jax.data import tfds as module
from ltx_jax.data.examples import Source, UnreadableImage
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import open_images
from ltx_jax.data.tfds import TfdsSource
from ltx_jax.errors import InputError

HOW = Preprocessing((4, 6))
LABELS = (7, 0, 999, 7, -1)


def encoded(level: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (6, 4), (level, 20, 30)).save(content, "PNG")
    return content.getvalue()


# What ImageNet has of five images, the last of them without a label; what VOC has of two.
IMAGENET = [
    {"image": encoded(50 * i), "label": label, "file_name": f"{i}.JPEG"}
    for i, label in enumerate(LABELS)
]
VOC = [
    {"image": encoded(9), "labels": [14, 3], "objects": {"label": [14, 3, 14]}},
    {"image": encoded(8), "labels": [], "objects": {"label": []}},
]
# COCO has no labels of the image.
COCO = [{"image": one["image"], "objects": one["objects"]} for one in VOC]


@dataclass
class Records(Sequence):
    """Records with the files of their split."""

    each: list[dict[str, object]]
    files: list[str]

    def __post_init__(self) -> None:
        splits = {"validation": SimpleNamespace(filepaths=self.files)}
        self.dataset_info = SimpleNamespace(splits=splits)

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, row: int) -> dict[str, object]:
        return self.each[row]


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """TFDS with some prepared data sets, by name and version."""
    prepared = {"imagenet2012": IMAGENET, "voc/2007": VOC, "coco/2017": COCO}
    (tmp_path / "file").write_bytes(b"bytes")

    def data_source(name, *, split, download, decoders):
        name, version = name.split(":")
        assert version == "*.*.*" and not download and set(decoders) == {"image"}
        if name not in prepared:
            raise ValueError(f"Dataset {name} not found.\nAvailable datasets:\n\t- abc")
        if split != "validation":
            raise KeyError(f"Unknown split {split!r}.")
        return Records(prepared[name], [str(tmp_path / "file")])

    fake = ModuleType("tensorflow_datasets")
    fake.data_source, fake.decode = data_source, SimpleNamespace(SkipDecoding=object)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    return prepared


@pytest.fixture
def itself(monkeypatch, tmp_path):
    """The same data sets, prepared by TFDS."""
    tfds = pytest.importorskip("tensorflow_datasets")
    if importlib.util.find_spec("array_record") is None:
        pytest.skip("array_record is not installed")
    features = tfds.features
    kind = features.ClassLabel(num_classes=1000)
    several = features.Sequence(kind)
    known = {
        "imagenet2012": {"label": kind, "file_name": features.Text()},
        "voc/2007": {"labels": several, "objects": features.Sequence({"label": kind})},
        "coco/2017": {"objects": features.Sequence({"label": kind})},
    }
    # TFDS_DATA_DIR, as it was read when TFDS was imported.
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    for name, examples in {"imagenet2012": IMAGENET, "voc/2007": VOC, "coco/2017": COCO}.items():
        whole = features.FeaturesDict({"image": features.Image()} | known[name])
        prepare(tfds, tmp_path, name, whole, examples)


def prepare(tfds, folder, called, features, examples):
    """As ArrayRecord files, without TensorFlow."""
    called, _, config = called.partition("/")

    class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = called
        VERSION = tfds.core.Version("1.2.3")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"validation": self._generate_examples()}

        def _generate_examples(self):
            for key, one in enumerate(examples):
                told = one | {"image": io.BytesIO(one["image"])}
                if "objects" in one:
                    told["objects"] = [{"label": label} for label in one["objects"]["label"]]
                yield key, told

    Prepared(data_dir=folder, file_format="array_record").download_and_prepare()


@pytest.fixture(params=["stand_in", "itself"])
def tfds(request):
    return request.getfixturevalue(request.param)


def opened(name: str, **chosen) -> TfdsSource:
    source = open_images(name, dataset="tfds", **chosen)
    assert isinstance(source, TfdsSource)
    return source


def test_imagenet(tfds):
    source = opened("imagenet2012:validation")
    # TFDS has an order of its own.
    assert source.names == ("0", "1", "2", "3", "4") and not source.has_masks
    assert isinstance(source, Source)
    assert sorted(source.labels) == [(), (0,), (7,), (7,), (999,)]
    found = [source.load(i, HOW) for i in range(5)]
    assert [one.labels for one in found] == list(source.labels)
    levels = sorted((int(one.image[0, 0, 0]), one.labels) for one in found)
    assert levels == [(0, (7,)), (50, (0,)), (100, (999,)), (150, (7,)), (200, ())]
    part = opened("imagenet2012:validation", indices="1:4:2")
    assert part.names == ("1", "3") and part.labels == source.labels[1:4:2]
    np.testing.assert_array_equal(part.load(1, HOW).image, found[3].image)
    assert opened("imagenet2012:validation").digest() == source.digest() != part.digest()


@pytest.mark.parametrize("name", ["voc/2007", "coco/2017"])
def test_several_labels(tfds, name):
    assert sorted(opened(f"{name}:validation").labels) == [(), (3, 14)]


def test_what_is_not_there(tfds):
    for name, message in {
        "imagenet2012:train": "TFDS cannot read imagenet2012:train .*Unknown split 'train'",
        "imagenetx:validation": r"\(Dataset imagenetx not found.*\): prepare it with tfds.builder",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            opened(name)
        assert "\n" not in str(caught.value)


def test_a_source_goes_to_other_processes(itself):
    source = pickle.loads(pickle.dumps(opened("imagenet2012:validation")))
    assert source.load(4, HOW).image.shape == (4, 6, 3)


@pytest.mark.parametrize("name", ["imagenet2012", "../x:train", "imagenet2012:", "a b:train"])
def test_names_that_are_none(stand_in, name):
    with pytest.raises(
        InputError, match="expected a name and a split of TFDS, as imagenet2012:val"
    ):
        opened(name)


def test_a_version_may_be_given(monkeypatch, tmp_path):
    asked = []

    def data_source(name, **chosen):
        asked.append((name, chosen["split"]))
        raise FileNotFoundError

    fake = ModuleType("tensorflow_datasets")
    fake.data_source, fake.decode = data_source, SimpleNamespace(SkipDecoding=object)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    for name in ("coco/2017:1.1.0:train[:10%]", "mnist:3.*.*:test+train", "my_set:train"):
        with pytest.raises(InputError, match=r"\(FileNotFoundError\)"):
            opened(name)
    assert asked == [
        ("coco/2017:1.1.0", "train[:10%]"),
        ("mnist:3.*.*", "test+train"),
        ("my_set:*.*.*", "train"),
    ]


def test_records_that_are_damaged(stand_in):
    stand_in["imagenet2012"] = [IMAGENET[0], IMAGENET[1] | {"image": b"no picture"}]
    source = opened("imagenet2012:validation")
    with pytest.raises(UnreadableImage, match=r"^its record holds no image$"):
        source.load(1, HOW)
    stand_in["imagenet2012"] = [{"image": encoded(1), "label": "cat"}]
    with pytest.raises(InputError, match="a label is 'cat': expected class indices"):
        assert opened("imagenet2012:validation").labels
    stand_in["imagenet2012"] = [{"video": b"", "label": 3}]
    with pytest.raises(InputError, match="has no encoded `image`, but video, label"):
        opened("imagenet2012:validation")


def test_labels_are_read_of_the_part_that_is_kept_and_once(stand_in, monkeypatch):
    read, labels = [], module._labels

    def recorded(record):
        read.append(record["file_name"])
        return labels(record)

    monkeypatch.setattr(module, "_labels", recorded)
    monkeypatch.setattr(module, "_AT_A_TIME", 2)
    part = opened("imagenet2012:validation", indices="1:4")
    assert not read
    assert part.labels == ((0,), (999,), (7,)) == part.labels
    assert sorted(read) == ["1.JPEG", "2.JPEG", "3.JPEG"]


def test_without_tfds_or_with_labels_beside(stand_in, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="dataset=tfds have labels of their own"):
        opened("imagenet2012:validation", labels=tmp_path / "file")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    needed = r"tfds needs tensorflow_datasets: pip install 'ltx_jax\[tfds\]'"
    with pytest.raises(InputError, match=needed):
        opened("imagenet2012:validation")
    assert not Path("imagenet2012:validation").exists()
