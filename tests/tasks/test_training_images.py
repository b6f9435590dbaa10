"""Which images a training takes, which it is judged by, and which it leaves."""

from dataclasses import replace

import pytest
from training_pictures import Pictures, without_labels

from ltx_jax.data import joined
from ltx_jax.errors import InputError
from ltx_jax.settings.sections import Pretrain
from ltx_jax.tasks.training_images import Split, keep_split, split, targets_of, unseen

SETTINGS = Pretrain(batch_size=4, validation=0.25, test=0.0)


# NumPy's permutation of 12 by seed 0 is 9 2 7 | 4 5 11 0 3 6 10 8 1.
def test_the_images_held_out_are_drawn_by_the_seed():
    assert split(Pictures(), SETTINGS, 0) == Split([4, 5, 11, 0, 3, 6, 10, 8, 1], [9, 2, 7], [])


def test_what_is_kept_for_later_is_apart():
    found = split(Pictures(), replace(SETTINGS, test=0.17), 0)
    assert found == Split([11, 0, 3, 6, 10, 8, 1], [9, 2, 7], [4, 5])


def test_the_originals_overlap_is_a_setting():
    found = split(Pictures(), replace(SETTINGS, overlap=True, test=0.17), 0)
    assert found == Split([9, 2, 7, 4, 5, 11, 0, 3, 6, 10, 8, 1], [9, 2, 7], [])


def test_slices_choose_where_chance_is_not_to():
    sliced = replace(SETTINGS, train="0:8", validate="8:10")
    assert split(Pictures(), sliced, 0) == Split([*range(8)], [8, 9], [10, 11])
    both = replace(sliced, validate="6:10", overlap=True)
    assert split(Pictures(), both, 0) == Split([*range(8)], [6, 7, 8, 9], [10, 11])


def test_the_first_of_each_class_are_drawn(explainee):
    found = split(Pictures(), replace(SETTINGS, images_per_class=2), 0)
    # Labels: 1 2 2 0 0 (0) 1 (2) (1).
    assert found.training == [4, 5, 11, 0, 3, 10]
    targets = targets_of(Pictures(), found.training, "label", explainee)
    assert targets.tolist() == [0, -1, -1, 0, 1, 2, -1, -1, -1, -1, 1, 2]
    assert targets_of(Pictures(), [1], "predicted", explainee).tolist() == [-1] * 12


def test_of_several_labels_the_first_counts(explainee):
    several = Pictures(tuple((i % 3, 4) for i in range(12)))
    found = split(several, replace(SETTINGS, images_per_class=2), 0)
    assert found.training == [4, 5, 11, 0, 3, 10]
    targets = targets_of(several, found.training, "label", explainee)
    assert targets[found.training].tolist() == [1, 2, 2, 0, 0, 1]


def test_what_a_pretraining_did_not_see_is_told_by_names(tmp_path):
    keep_split(tmp_path, Pictures(), Split([0, 1, 2], [3], [4, 5]))
    assert unseen(Pictures(), tmp_path) == [*range(4, 12)]
    others = replace(Pictures(), names=tuple(f"picture {i}" for i in range(2, 14)))
    assert unseen(others, tmp_path) == [*range(2, 12)]
    keep_split(tmp_path, Pictures(), Split([*range(11)], [11], []))
    with pytest.raises(InputError, match="saw all of the 12 images: give others"):
        unseen(Pictures(), tmp_path)
    for damaged in ('{"training": null, "validation": []}', '{"training": [1], "validation": []}'):
        (tmp_path / "split.json").write_text(damaged)
        with pytest.raises(InputError, match=r"split\.json is damaged"):
            unseen(Pictures(), tmp_path)
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(InputError, match=r"split\.json is damaged"):
        unseen(Pictures(), tmp_path)
    with pytest.raises(InputError, match=r"holds no split\.json: give the work directory"):
        unseen(Pictures(), tmp_path / "nowhere")


def named(*names: str) -> Pictures:
    return replace(Pictures(), names=names)


def test_images_under_other_names_are_not_taken_for_unseen(tmp_path):
    keep_split(tmp_path, named("val/a.png", "val/b.png", "train/c.png"), Split([0], [1], [2]))
    for names in (("a.png", "d.png"), ("x.png", "./photos/val/b.png"), ("c.png",)):
        told = r"\.png may be (val|train)/\w\.png of the pretraining .* config\.images as it was"
        with pytest.raises(InputError, match=told):
            unseen(named(*names), tmp_path)
    assert unseen(named("train/c.png", "test/a.png"), tmp_path) == [0, 1]
    assert unseen(named("d.png", "e.png"), tmp_path) == [0, 1]


def test_images_held_out_by_themselves_were_seen(tmp_path):
    names = "a.png", "b.png", f"{joined.HELD_OUT}a.png", "c.png"
    keep_split(tmp_path, named(*names), Split([1], [2, 3], []))
    assert unseen(named("a.png", "b.png", "c.png", "d.png"), tmp_path) == [3]


@pytest.mark.parametrize(
    ("source", "changed", "message"),
    [
        (Pictures(), {"batch_size": 10}, "9 images to train on do not fill a batch of 10"),
        (Pictures(), {"train": "0:8", "validate": "7:10"}, "have 1 images in common: give slices"),
        (Pictures(), {"train": "0:8", "validate": "12:"}, "none of the 12 images"),
        (Pictures(), {"train": "0:8", "validate": "x"}, r"pretrain\.validate is 'x': expected"),
        (
            without_labels(11),
            {"images_per_class": 1},
            "picture 11 has no label, which pretrain.images_per_class needs",
        ),
    ],
)
def test_images_that_do_not_do_are_refused(source, changed, message):
    with pytest.raises(InputError, match=message):
        split(source, replace(SETTINGS, **changed), 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (without_labels(3), "picture 3 has no label, which target=label needs"),
        (Pictures(labels=((5,),) * 12), "picture 3 has the label 5: vit has classes 0 to 4"),
    ],
)
def test_labels_that_do_not_do_are_refused(explainee, source, message):
    with pytest.raises(InputError, match=message):
        targets_of(source, [3, 4], "label", explainee)
