"""Feed damaged and made-up files to what reads them.

python tools/fuzz.py [--seed=0] [--pictures=10000] [--exif=10000] [--safetensors=1000]
    [--workdirs=1000]

A file must be read rightly or be refused in one line, whatever is in it. Case i of a run with
seed s is case 0 of one with seed s + i, so that a failure, told with its seed, can be repeated by
itself: `--seed=1234 --pictures=1 --exif=0 --safetensors=0 --workdirs=0`. The exit code is 1 where
anything failed.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from PIL import Image

import ltx_jax
from ltx_jax.data.examples import UnreadableImage
from ltx_jax.data.image_files import FileSource
from ltx_jax.data.preprocessing import Preprocessing, read_rgb
from ltx_jax.errors import InputError
from ltx_jax.files import write_json
from ltx_jax.reporting.publish import _with_earlier
from ltx_jax.reporting.store import ResultStore
from ltx_jax.tasks.explain import _layouts
from ltx_jax.weights.files import read_safetensors, to_safetensors

READ, REFUSED = "read", "refused"
# Makes a case's file in a folder, reads it, and says which of the two happened; raises where
# neither is right.
Case = Callable[[np.random.Generator, Path], str]


class WrongError(Exception):
    """What was read is not what the file holds, or a refusal is no line for a user."""


def one_line(error: Exception) -> str:
    """The outcome of a refusal, which must be one line."""
    if not str(error).strip() or "\n" in str(error):
        raise WrongError(f"the refusal is not one line: {str(error)!r}")
    return REFUSED


def must(holds: bool, told: str) -> None:
    """What is required of a result."""
    if not holds:
        raise WrongError(told)


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes changed, cut off, taken out, put in, or made zero; one to three times."""
    for _ in range(rng.integers(1, 4)):
        start, end = sorted(rng.integers(len(content) + 1, size=2).tolist())
        end = min(end, start + int(2 ** rng.uniform(0, 10)))
        part = rng.bytes(end - start)
        match rng.integers(6):
            case 0:
                content = content[:start]
            case 1:
                content = content[:start] + content[end:]
            case 2:
                content = content[:start] + part + content[start:]
            case 3:
                content = content[:start] + bytes(end - start) + content[end:]
            case 4:
                content = content[:start] + part + content[end:]
            case _:
                few = bytearray(content)
                for at in rng.integers(max(len(few), 1), size=4 if few else 0):
                    few[at] ^= 1 << int(rng.integers(8))
                content = bytes(few)
    return content


# --- Pictures -------------------------------------------------------------------------------------

_SIZE = (16, 12)  # height and width of a network's input
# Format, and the modes that it has.
_FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("JPEG", ("RGB", "L", "CMYK")),
    ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ("WEBP", ("RGB", "RGBA")),
    ("TIFF", ("RGB", "RGBA", "L", "CMYK", "F", "I;16", "I", "LAB")),
    ("GIF", ("P", "L")),
    ("BMP", ("RGB", "L", "P", "1")),
    ("PPM", ("RGB", "L", "1")),
    ("TGA", ("RGB", "RGBA", "L", "P")),
    ("JPEG2000", ("RGB", "RGBA", "L", "I;16")),
    ("AVIF", ("RGB", "RGBA")),
)


def pictures(rng: np.random.Generator, folder: Path) -> str:
    """A picture of some format, damaged nine times out of ten, as a network's input."""
    path = folder / "picture.png"  # its format is told by its bytes, not by its name
    whole = rng.random() < 0.1
    content = encoded(rng)
    path.write_bytes(content if whole else damaged(rng, content))
    source = FileSource((path.name,), ((),), (str(path),))
    how = Preprocessing(_SIZE, resize=str(rng.choice(["squash", "crop"])))
    try:
        image = source.load(0, how).image
    except UnreadableImage as error:
        must(not whole, f"a whole picture is refused: {error}")
        return one_line(error)
    must(image.shape == (*_SIZE, 3) and image.dtype == np.uint8, f"{image.dtype} {image.shape}")
    return READ


def encoded(rng: np.random.Generator) -> bytes:
    """A small picture of some format and mode, an animation at times."""
    kind, modes = _FORMATS[rng.integers(len(_FORMATS))]
    mode = modes[rng.integers(len(modes))]
    height, width = rng.integers(1, 40, size=2)
    frames = [_picture(rng, mode, height, width) for _ in range(rng.integers(1, 3))]
    options: dict[str, Any] = {}
    if kind in ("PNG", "WEBP", "GIF", "TIFF") and mode in ("RGB", "RGBA", "L", "P"):
        options = {"save_all": True, "append_images": frames[1:]}
    if kind == "TIFF" and mode not in ("F", "I", "I;16"):
        options["compression"] = str(rng.choice(["raw", "tiff_lzw", "tiff_deflate", "packbits"]))
    if kind == "JPEG":
        options = {"progressive": bool(rng.integers(2)), "quality": int(rng.integers(20, 96))}
    stream = io.BytesIO()
    frames[0].save(stream, kind, **options)
    return stream.getvalue()


def _picture(rng: np.random.Generator, mode: str, height: int, width: int) -> Image.Image:
    if mode == "F":
        return Image.fromarray(rng.random((height, width), np.float32))
    if mode in ("I", "I;16"):
        values = rng.integers(0, 65536, (height, width))
        return Image.fromarray(values.astype(np.int32 if mode == "I" else np.uint16))
    bands = len(Image.new(mode, (1, 1)).getbands())
    content = rng.bytes(height * width * bands)
    if mode == "1":
        return Image.frombytes("L", (width, height), content).convert("1")
    return Image.frombytes(mode, (width, height), content)


# --- EXIF -----------------------------------------------------------------------------------------

_ORIENTATION = 0x0112
# Bytes of a value of each type of an entry.
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


class Entry(NamedTuple):
    """An entry of a directory of EXIF data."""

    tag: int
    kind: int
    values: int
    field: bytes  # four bytes: the value, or where it lies


def exif(rng: np.random.Generator, folder: Path) -> str:
    """A picture with a made-up EXIF block is turned as that says, or not at all."""
    kind = str(rng.choice(["JPEG", "PNG", "WEBP"]))
    image = _picture(rng, "RGB", 5, 8)
    plain, told = folder / "plain", folder / "told"
    orientation = int(rng.integers(10))
    sound = rng.random() < 0.3
    image.save(plain, kind, **({"lossless": True} if kind == "WEBP" else {}))
    block = exif_block(rng, orientation, sound)
    image.save(told, kind, exif=block, **({"lossless": True} if kind == "WEBP" else {}))
    before, after = read_rgb(plain), read_rgb(told)
    if sound:
        must(np.array_equal(after, turned(before, orientation)), f"not turned as {orientation}")
    known = any(np.array_equal(after, turned(before, way)) for way in range(1, 9))
    must(known, "other pixels than the picture's")
    return READ


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An image as its orientation says that it is to be shown; 1 to 8, itself for any other."""
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return pixels.swapaxes(0, 1)
        case 6:
            return pixels[::-1].swapaxes(0, 1)
        case 7:
            return pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return pixels[:, ::-1].swapaxes(0, 1)
    return pixels


def exif_block(rng: np.random.Generator, orientation: int, sound: bool) -> bytes:
    """EXIF data with an orientation and whatever else.

    Args:
      rng: what is drawn is drawn from it.
      orientation: any number.
      sound: whether the block is as the standard has it.
    """
    order = str(rng.choice(["<", ">"]))
    entries = [_oriented(rng, order, orientation, 3 if sound else int(rng.integers(15)), sound)]
    entries += [_entry(rng, order, sound) for _ in range(rng.integers(6))]
    if sound:
        entries.sort()
    else:
        entries += entries[:1] * int(rng.integers(2))
    count = len(entries) if sound or rng.random() < 0.7 else int(rng.integers(65536))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    body = b"".join(struct.pack(f"{order}HHI", *e[:3]) + e.field for e in entries)
    follows = 0 if sound else int(rng.choice([0, 8, 14, 1 << 31]))
    block = head + struct.pack(f"{order}H", count) + body + struct.pack(f"{order}I", follows)
    if not sound and rng.random() < 0.3:
        block = damaged(rng, block)
    return b"Exif\0\0" + block


def _oriented(
    rng: np.random.Generator, order: str, orientation: int, kind: int, sound: bool
) -> Entry:
    """The orientation as an entry of any type, which the standard has as one of 16 bits."""
    pack = {3: "H", 8: "h", 4: "I", 9: "i", 13: "I", 11: "f"}.get(kind, "B")
    field = struct.pack(order + pack, orientation).ljust(4, b"\0")
    count = 1 if sound or rng.random() < 0.5 else int(rng.choice([0, 2, 5, 1 << 20, 2**32 - 1]))
    return Entry(_ORIENTATION, kind, count, field)


def _entry(rng: np.random.Generator, order: str, sound: bool) -> Entry:
    """Any other entry: where the block is sound, one whose value fits its four bytes."""
    if sound:
        return Entry(int(rng.integers(0x010E, 0x0112)), 3, 1, struct.pack(f"{order}H", 7) + b"\0\0")
    any_tag = int(rng.integers(65536))
    tag = int(rng.choice([0x010F, 0x0132, 0x8769, 0x8825, 0xA005, 0x9286, any_tag]))
    kind = int(rng.choice([*_WIDTHS, 0, 14, 129, 65535]))
    count = int(rng.choice([0, 1, 2, 9, 1000, 1 << 28, 2**32 - 1]))
    offset = int(rng.choice([0, 8, 20, 60, 5000, 1 << 31, 2**32 - 1]))
    return Entry(tag, kind, count, struct.pack(f"{order}I", offset))


# --- Weights --------------------------------------------------------------------------------------

_STORED = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NUMBERS: list[Any] = [-1, 0, 1, 2, 4, 7, 1 << 40, 2**63, 2**64 - 1, 0.5, "x", None]
# What a tensor's description says in jest.
_ODD: dict[str, list[Any]] = {
    "dtype": [*_STORED, "F8_E4M3", "F8_E5M2", "F8_E8M0", "C64", "F4", "F6_E2M3", "f32", 7, None],
    "shape": [*_NUMBERS, [], [0], [1 << 40] * 9, *([a, b] for a in _NUMBERS for b in _NUMBERS)],
    "data_offsets": [*_NUMBERS, [], [0, 4, 8], *([a, b] for a in _NUMBERS for b in _NUMBERS)],
}
# Where an index says in jest that its tensors are.
_ODD_MAPS: list[Any] = [
    *({}, [], None, "a", {"a": None}, {"a": 7}, {"a": []}, {"a": ""}, {"a": "."}, {"a": ".."}),
    *({"a": "/"}, {"a": "no\nfile"}, {"a": "no\0file"}, {"a": "\ud800"}, {"a": "x" * 5000}),
]


def safetensors(rng: np.random.Generator, folder: Path) -> str:
    """Tensors of every type, in a file or two shards, damaged mostly at what describes them."""
    index = folder / "model.safetensors.index.json"
    shards = [folder / f"model-{i}.safetensors" for i in range(rng.integers(1, 3))]
    contents = [_tensor_file(rng, name) for name in "ab"[: len(shards)]]
    places = {name: path.name for path, name in zip(shards, "ab", strict=False)}
    told = json.dumps({"weight_map": places}).encode()
    whole = rng.random() < 0.1
    if not whole:
        hurt = int(rng.integers(len(shards) + 1))
        if hurt == len(shards):
            odd = json.dumps({"weight_map": _ODD_MAPS[rng.integers(len(_ODD_MAPS))]}).encode()
            told = odd if rng.random() < 0.3 else damaged(rng, told)
        else:
            contents[hurt] = _hurt(rng, contents[hurt])
    index.write_bytes(told)
    for path, content in zip(shards, contents, strict=True):
        path.write_bytes(content)
    try:
        found, _ = read_safetensors(index)
    except InputError as error:
        must(not whole, f"a whole file is refused: {error}")
        return one_line(error)
    named = set(json.loads(told)["weight_map"].values())
    expected: dict[str, np.ndarray] = {}
    for path, content in zip(shards, contents, strict=True):
        expected |= described(content) if path.name in named else {}
    must(found.keys() == expected.keys(), f"{sorted(found)} instead of {sorted(expected)}")
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)
    return READ


def _tensor_file(rng: np.random.Generator, prefix: str) -> bytes:
    tensors = {}
    for i, (_, dtype) in enumerate(rng.permutation(list(_STORED.items()))[:4]):
        shape = tuple(rng.integers(0, 4, size=rng.integers(3)))
        tensors[f"{prefix}.{i}"] = rng.integers(0, 255, shape).astype(dtype)
    return to_safetensors(tensors, {"format": "pt"})


def _hurt(rng: np.random.Generator, content: bytes) -> bytes:
    """Damaged anywhere, in the header, or in the values; or with a tensor described otherwise."""
    begin = 8 + int.from_bytes(content[:8], "little")
    match rng.integers(4):
        case 0:
            return damaged(rng, content)
        case 1:
            return damaged(rng, content[:begin]) + content[begin:]
        case 2:
            return content[:begin] + rng.bytes(len(content) - begin)
    header = json.loads(content[8:begin])
    entry = header[str(rng.choice([name for name in header if name != "__metadata__"]))]
    key = str(rng.choice(list(_ODD)))
    entry[key] = _ODD[key][rng.integers(len(_ODD[key]))]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[begin:]


def described(content: bytes) -> dict[str, np.ndarray]:
    """The tensors that a safetensors file describes, by the format's own definition."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            values = np.frombuffer(content[begin + start : begin + end], _STORED[entry["dtype"]])
            whole = values.dtype.kind in "iub"
            tensors[name] = (values if whole else values.astype(np.float32)).reshape(entry["shape"])
    return tensors


# --- Work directories -----------------------------------------------------------------------------

_SETTINGS = {"explainee.name": "vit", "seed": 0, "rows": ["a:1", "b:2"]}
_ROWS, _SHAPE, _METHODS = 4, (3, 3), ("final", "rival")
# JSON that is whole, and says nothing that a run has written.
_ODD_JSON = (
    *("", "\n", "null\n", "[]\n", "{}\n", "7\n", "NaN\n", '"a"\n', "[" * 100_000 + "\n"),
    *('{"row": -1}\n', '{"row": 99}\n', '{"row": "a"}\n', '{"row": 1e999}\n', '{"row": [1]}\n'),
    *('{"cpu": 7}\n', '{"cpu": null}\n', '{"cpu": {"slots": "a"}}\n', '{"device": []}\n'),
)


@cache
def small_run() -> dict[str, bytes]:
    """The files of a work directory by their paths in it."""
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore.open(Path(folder), _SETTINGS, _ROWS)
        for name in _METHODS:
            store.hold(name, _SHAPE, raw=_SHAPE)
        for row in range(_ROWS - 1):
            store.add(*_row(row))
        store.skip(_ROWS - 1, "ä.jpg", "it is cut off")
        lines = {row: {"row": row, "class": row, "neg": 50.0} for row in range(_ROWS - 1)}
        store.scored("rival").append(lines)
        store.finish()
        write_json(Path(folder, "layout.json"), {"cpu": {"slots": 4, "chunk": None}})
        write_json(Path(folder, "summary.json"), {"done": 3, "skipped": 1, "device": "cpu"})
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _row(row: int) -> tuple[dict[int, Any], dict[int, Any]]:
    mask = np.full(_SHAPE, row / _ROWS, np.float32)
    record = {"row": row, "image": f"ä{row}.jpg", "class": row, "final": {"neg": 50.0 + row}}
    return (
        {row: (record, dict.fromkeys(_METHODS, mask))},
        {row: dict.fromkeys(_METHODS, mask)},
    )


class Held(NamedTuple):
    """What a work directory gives: records, masks by method and by whether they are raw."""

    records: list[dict[str, Any]]
    masks: dict[tuple[str, bool], np.ndarray]


def held(directory: Path) -> Held:
    """All that is read of a work directory, by whoever goes on with it or looks at it."""
    ResultStore.open(directory, _SETTINGS, _ROWS)
    store = ResultStore.find(directory)
    for layout in _layouts(directory).values():
        must(layout["slots"] > 0 and (layout["chunk"] or 1) > 0, f"slots in {layout}")
    _with_earlier({"device": None}, directory / "summary.json")
    masks = {
        (name, raw): np.array(store.masks(name, raw).load())
        for name in store.names()
        for raw in (False, True)
        if not raw or store.has_raw(name)
    }
    return Held(store.joined(store.records(), ["rival"]), masks)


def workdirs(rng: np.random.Generator, folder: Path) -> str:
    """A work directory of which a file is damaged, or gone.

    A mask's values, and those of settings that nobody compares, have nothing to be checked
    against: another value of theirs is no failure.
    """
    files = dict(small_run())
    name = str(rng.choice(sorted(files)))
    how = rng.random()
    if how < 0.1:
        del files[name]
    elif how < 0.3 and not name.endswith(".npy"):
        files[name] = _ODD_JSON[rng.integers(len(_ODD_JSON))].encode()
    else:
        files[name] = damaged(rng, files[name])
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    try:
        found = held(folder)
    except InputError as error:
        return one_line(error)
    except Exception as error:
        error.add_note(f"in {name}")
        raise
    _check(found, name)
    return READ


def _check(found: Held, changed: str) -> None:
    """With what the run wrote."""
    for (method, raw), masks in found.masks.items():
        path = f"masks/{method}{'.raw' * raw}.npy"
        whole = np.load(io.BytesIO(small_run()[path]))
        must(masks.shape == whole.shape, f"masks {masks.shape} in {path}")
        if path != changed:
            np.testing.assert_array_equal(masks, whole, strict=True)
    for record in found.records:
        row = record["row"]
        must(type(row) is int and 0 <= row < _ROWS, f"row {row!r} in {changed}")
        image = f"ä{row}.jpg" if row < _ROWS - 1 else "ä.jpg"
        must(record["image"] == image, f"image {record['image']!r} in {changed}")


# --- The run --------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """What went wrong in a case."""

    seed: int
    kind: str
    told: str


def run(case: Case, seed: int, count: int) -> tuple[Counter[str], list[Failure]]:
    """Outcomes of so many cases, counted, and the failures among them."""
    outcomes: Counter[str] = Counter()
    failures = []
    for number in range(seed, seed + count):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of a file is not at issue
            try:
                outcomes[case(np.random.default_rng(number), Path(folder))] += 1
            except Exception as error:  # each is a finding
                failures.append(_failure(number, error, folder))
    return outcomes, failures


def _failure(seed: int, error: Exception, folder: str) -> Failure:
    """A case's exception, its kind being its type and where in this project it came from."""
    home = str(Path(ltx_jax.__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(home)]
    where = [f"at {Path(f.filename).name}:{f.lineno}" for f in frames[-1:]]
    kind = " ".join([type(error).__name__, *where, *getattr(error, "__notes__", ())])
    return Failure(seed, kind, " ".join(str(error).replace(folder, "…").split())[:160])


def memory() -> float:
    """The most that this process has held so far, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


CASES: dict[str, Case] = {
    "pictures": pictures,
    "exif": exif,
    "safetensors": safetensors,
    "workdirs": workdirs,
}


def main() -> int:
    """Run all parts; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each part")
    for name in CASES:
        count = 10_000 if name in ("pictures", "exif") else 1000
        parser.add_argument(f"--{name}", type=int, default=count, help="cases; default %(default)s")
    arguments = vars(parser.parse_args())
    failed = 0
    for name, case in CASES.items():
        began, before = time.monotonic(), memory()
        outcomes, failures = run(case, arguments["seed"], arguments[name])
        print(
            f"{name}: {outcomes[READ]} read, {outcomes[REFUSED]} refused, {len(failures)} failed "
            f"in {time.monotonic() - began:.0f} s; memory at most {memory():.0f} MiB, "
            f"{memory() - before:.0f} more than before"
        )
        first = {failure.kind: failure for failure in reversed(failures)}
        for kind, times in Counter(failure.kind for failure in failures).most_common():
            print(f"  {times} × {kind}: {first[kind].told} (--seed={first[kind].seed})")
        failed += len(failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
