"""Labels in columns, and numbers that are no class indices."""

from __future__ import annotations

import pytest

from ltx_jax.data.labels import read_labels, read_lines, read_rows
from ltx_jax.errors import InputError

NAMES = ("a.png", "deep/b.png")


@pytest.mark.parametrize(
    "content",
    [
        "img_name,label\na.png,3\nb.png,0\n",
        ",img_name,label,certain\n0,deep/b.png,0,yes\n1,a.png,3,no\n2,other.png,9,no\n",
        '\ufefflabel,img_name\r\n0,"b.png"\r\n3,a.png\r\n',
    ],
)
def test_columns_by_their_names(tmp_path, content):
    (tmp_path / "l.csv").write_text(content)
    assert read_labels(tmp_path / "l.csv", NAMES) == (3, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has the columns of an empty file: expected img_name and label"),
        ("a.png,3\nb.png,0\n", "has the columns a.png, 3: expected img_name and label"),
        ("img_name,class\na.png,3\n", "has the columns img_name, class: expected"),
        ("img_name,label\na.png,3\n", r"has no label for 1 of 2 images \(deep/b.png\)"),
        ("img_name,label\na.png,3\nb.png,cat\n", "has a line whose label is no number"),
        ("img_name,label\na.png,3\nb.png\n", "has a line whose label is no number"),
        ("img_name,label\na.png,3\nb.png,-1\n", "gives deep/b.png the label -1"),
        ("img_name,label\na.png,3\na.png,4\n", "gives 'a.png' the labels 3 and 4: give one"),
        ('img_name,label\n"a.png,3\nb.png,0\n', "is no .csv"),
    ],
)
def test_columns_that_are_none(tmp_path, content, message):
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_labels(tmp_path / "l.csv", NAMES)
    assert "\n" not in str(caught.value)


def test_the_devkits_numbers_are_no_class_indices(tmp_path):
    path = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    path.write_text("490\n361\n")
    with pytest.raises(InputError, match=r"in an order of its own: .* imagenet"):
        read_labels(path, NAMES)


def test_lines_and_rows(tmp_path):
    (tmp_path / "a.txt").write_text("\n  one two \n\nthree\n")
    assert read_lines(tmp_path / "a.txt") == ["one two", "three"]
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,3\n4\n")
    assert read_rows(tmp_path / "a.csv", ("z", "x")) == [("3", "1"), ("", "4")]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_lines(tmp_path / "b.txt")
