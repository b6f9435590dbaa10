"""Words as vectors: each kind of file, names of several words, and what is wrong with a file."""

import json
import logging

import numpy as np
import pytest

from ltx_jax.data.words import read_words
from ltx_jax.errors import InputError

VECTORS = {
    "cat": [1.0, 2.0, -0.5],
    "hot": [0.0, 4.0, 1.0],
    "dog": [2.0, 0.0, 0.0],
    "of": [0.0, 0.0, 0.0],
    "naïve": [0.25, 0.5, 1.0],
}
NAMES = ["hot dog", "Cat", "naïve"]
EXPECTED = [[1.0, 2.0, 0.5], VECTORS["cat"], VECTORS["naïve"]]


def as_text(path, vectors, header=""):
    lines = [" ".join([word, *map(str, numbers)]) for word, numbers in vectors.items()]
    path.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def as_binary(path, vectors, newline=b"\n"):
    content = f"{len(vectors)} {len(vectors['cat'])}\n".encode()
    for word, numbers in vectors.items():
        content += word.encode() + b" " + np.asarray(numbers, "<f4").tobytes() + newline
    path.write_bytes(content)
    return path


def as_arrays(path, vectors):
    np.savez(path, words=list(vectors), vectors=np.asarray([*vectors.values()], np.float16))
    return path


def as_json(path, vectors):
    path.write_text(json.dumps(vectors))
    return path


WRITERS = {
    "glove.txt": as_text,
    "fast.vec": lambda path, vectors: as_text(path, vectors, "5 3\n"),
    "word2vec.bin": as_binary,
    "bare.bin": lambda path, vectors: as_binary(path, vectors, b""),
    "some.npz": as_arrays,
    "some.json": as_json,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_holds_the_same(kind, tmp_path):
    words = read_words(WRITERS[kind](tmp_path / kind, VECTORS), NAMES, width=3)
    assert words.names == tuple(NAMES)
    np.testing.assert_array_equal(words.vectors, np.array(EXPECTED, np.float32))


def test_names_of_several_words(tmp_path):
    path = as_json(tmp_path / "words.json", VECTORS | {"hot_dog": [9.0, 9.0, 9.0], "Dog": [7] * 3})
    words = read_words(path, ["hot dog", "hot-cat", "cat_Dog", "dog"])
    # One word in the embedding before the mean of two; as it is written before lower case.
    expected = [[9, 9, 9], [0.5, 3, 0.25], [4, 4.5, 3.25], [2, 0, 0]]
    np.testing.assert_array_equal(words.vectors, expected)


def test_names_without_a_vector_are_left_out(tmp_path, caplog):
    path = as_text(tmp_path / "glove.txt", VECTORS)
    with caplog.at_level(logging.WARNING):
        words = read_words(path, ["unicorn", "cat", "hot unicorn", "of", ""])
    # Half a name is another thing, and a vector of 0 has no direction.
    assert words.names == ("cat",)
    told = "has no vector for 'unicorn', 'hot unicorn', 'of', '': left out"
    assert told in caplog.text


def test_arrays_without_words_are_of_the_names_in_alphabetical_order(tmp_path):
    np.savez(tmp_path / "two.npz", vectors=np.eye(2))
    words = read_words(tmp_path / "two.npz", ["zebra", "ant"])
    np.testing.assert_array_equal(words.vectors, [[0, 1], [1, 0]])
    with pytest.raises(InputError, match="2 vectors for 3 names, and no `words`"):
        read_words(tmp_path / "two.npz", ["zebra", "ant", "bee"])


def test_blank_lines_hold_nothing_and_bytes_are_texts(tmp_path):
    (tmp_path / "a.txt").write_text("\ncat 1 2\n\ndog 3 4\n\n")
    np.savez(
        tmp_path / "a.npz", vectors=[[1, 2], [3, 4]], words=np.array(["käse".encode(), b"dog"])
    )
    for name, word in (("a.txt", "cat"), ("a.npz", "käse")):
        found = read_words(tmp_path / name, ["dog", word])
        assert dict(zip(found.names, found.vectors.tolist(), strict=True)) == {
            "dog": [3, 4],
            word: [1, 2],
        }


def test_words_in_which_there_are_spaces_are_others(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("cat nap 1 2 3\ncat 4 5 6\n")
    with pytest.raises(InputError, match="is no word with 4 numbers"):
        read_words(path, ["cat"])  # the first line tells the width
    path.write_text("dog 1 1 1\ncat nap 1 2 3\ncat 4 5 6\n")
    np.testing.assert_array_equal(read_words(path, ["cat"]).vectors, [[4, 5, 6]])


def test_what_does_not_fit(tmp_path):
    path = as_text(tmp_path / "glove.txt", VECTORS)
    with pytest.raises(InputError, match="vectors of 3 numbers, expected 300: give the embedding"):
        read_words(path, ["cat"], width=300)
    with pytest.raises(InputError, match="a vector for none of 2 names: give"):
        read_words(path, ["Katze", "Hund"])
    with pytest.raises(InputError, match=r"no word embedding at .*none.txt: give one, in .txt, "):
        read_words(tmp_path / "none.txt", ["cat"])
    with pytest.raises(InputError, match=r"is no word embedding by its name: give one in .txt, "):
        read_words(path.rename(tmp_path / "glove.pt"), ["cat"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no words"),
        ("a.txt", b"dog 1 2\ncat 1 two\nhot 1 2\n", "line 2 of .* is no word with 2 numbers"),
        ("a.txt", b"dog 1 2\ncat 1 2\nhot 1", "line 3 of .* is no word with 2 numbers"),
        ("a.txt", b"\n \ndog 1 2\n\ncat 1 two\n\n", "line 5 of .* is no word with 2 numbers"),
        ("a.txt", b"title\ndog 1 2\n", "line 2 of .* is no word with its numbers"),
        ("a.txt", b"cat 1 nan\n", "no finite numbers for 'cat'"),
        ("a.bin", b"", "does not begin as word2vec's"),
        ("a.bin", b"1 x\ncat 1234", "does not begin as word2vec's"),
        ("a.bin", b"2 1\ncat 1234\ndog 12", "cut off after 1 of 2 words"),
        ("a.bin", b"2 1\ncat 1234\n", "cut off after 1 of 2 words"),
        ("a.json", b'{"cat": [1, 2', "is not JSON"),
        ("a.json", b"[1]", "is no word embedding: expected"),
        ("a.json", b'{"cat": [1], "cat": [2]}', "gives 'cat' more than one value: fetch it again"),
        ("a.json", b'{"cat": 3}', "words without numbers"),
        ("a.json", b'{"cat": ["x"]}', "words without numbers"),
        ("a.json", b'{"cat": [1e300]}', "no finite numbers for 'cat'"),
        ("a.json", b'{"cat": [1, 2], "dog": [1]}', "vectors of 1 and of 2 numbers"),
        ("a.npz", b"PK", "is not a whole .npz file"),
    ],
)
def test_damaged_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_words(tmp_path / name, ["cat", "dog"])
    assert "\n" not in str(caught.value) and ": " in str(caught.value)


def test_arrays_of_another_form(tmp_path):
    np.savez(tmp_path / "flat.npz", vectors=np.zeros(3), words=["a", "b", "c"])
    np.savez(tmp_path / "few.npz", vectors=np.zeros((3, 2)), words=["a", "b"])
    np.savez(tmp_path / "narrow.npz", vectors=np.zeros((2, 0)), words=["a", "b"])
    np.savez(tmp_path / "column.npz", vectors=np.eye(2), words=[["a"], ["b"]])
    np.savez(tmp_path / "one.npz", vectors=np.eye(2), words="ab")
    np.savez(tmp_path / "objects.npz", vectors=np.eye(1), words=np.array(["a"], object))
    for name, message in (
        ("flat", r"no `vectors` \[n,width\]"),
        ("narrow", r"no `vectors` \[n,width\]"),
        ("column", r"`words` <U1 \(2, 1\): expected texts \[n\]"),
        ("one", r"`words` <U2 \(\): expected texts"),
        ("few", "3 vectors for 2 `words`"),
        ("objects", "is not a whole .npz file"),
    ):
        with pytest.raises(InputError, match=message):
            read_words(tmp_path / f"{name}.npz", ["a"])
