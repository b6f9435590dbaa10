"""The pretrain task: what is drawn, what is kept, and a restart after a kill at any moment."""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from ltx_jax.data.examples import Example, UnreadableImage
from ltx_jax.engine.recipe import make_goal
from ltx_jax.errors import InputError
from ltx_jax.loading.checkpoints import load_optimizer, load_trained, save_explainer
from ltx_jax.settings.sections import LTX, Pretrain
from ltx_jax.tasks import pretrain as task
from ltx_jax.tasks.pretrain import BEST, CURVES, LAST, best_of, draw_images, learning_rates

GOAL = make_goal(LTX.objective)
# Of 12 images 3 are held out; 9 make two batches of 4 an epoch.
SETTINGS = Pretrain(epochs=4, batch_size=4, validation=0.25, learning_rate=0.03)


@dataclass(frozen=True)
class Pictures:
    """Twelve images of which each has its number in its first pixel, and i % 3 as its label."""

    labels: tuple[tuple[int, ...], ...] = tuple((i % 3,) for i in range(12))
    names: tuple[str, ...] = tuple(f"picture {i}" for i in range(12))
    has_masks = False
    unreadable: tuple[int, ...] = ()
    images: np.ndarray = field(
        default_factory=lambda: np.random.default_rng(1).integers(
            0, 256, (12, 16, 16, 3), dtype=np.uint8
        )
    )

    def __len__(self):
        return len(self.names)

    def digest(self):
        return ""

    def load(self, index, how):
        if index in self.unreadable:
            raise UnreadableImage("it is cut off")
        image = self.images[index].copy()
        image[0, 0] = index
        return Example(image, self.labels[index])


@pytest.fixture
def run(explainee, explainer):
    """A pretraining of the tiny explainer."""

    def run(workdir=None, source=None, settings=SETTINGS, **more):
        given = {"goal": GOAL, "chunk": 9, "workdir": workdir} | more
        return task.pretrain(explainee, explainer, source or Pictures(), settings, **given)

    return run


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def without_labels(*numbers):
    known = Pictures().labels
    return Pictures(tuple(() if i in numbers else label for i, label in enumerate(known)))


# NumPy's permutation of 12 by seed 0 is 9 2 7 | 4 5 11 0 3 6 10 8 1.
def test_the_images_held_out_are_drawn_by_the_seed(explainee):
    images = draw_images(Pictures(), SETTINGS, explainee, "predicted", "squash", 0)
    assert images.validation == [9, 2, 7]
    assert images.training == [4, 5, 11, 0, 3, 6, 10, 8, 1]
    assert images.targets.tolist() == [-1] * 12


def test_the_first_of_each_class_are_drawn(explainee):
    limited = replace(SETTINGS, images_per_class=2)
    images = draw_images(Pictures(), limited, explainee, "label", "squash", 0)
    # Labels: 1 2 2 0 0 (0) 1 (2) (1).
    assert images.training == [4, 5, 11, 0, 3, 10]
    assert images.targets.tolist() == [0, -1, -1, 0, 1, 2, -1, -1, -1, -1, 1, 2]
    assert not set(images.training) & set(images.validation)


def test_of_several_labels_the_first_counts(explainee):
    several = Pictures(tuple((i % 3, 4) for i in range(12)))
    limited = replace(SETTINGS, images_per_class=2)
    images = draw_images(several, limited, explainee, "label", "squash", 0)
    assert images.training == [4, 5, 11, 0, 3, 10]
    assert images.targets[images.training].tolist() == [1, 2, 2, 0, 0, 1]


def test_rates_rise_and_fall_to_the_last_step():
    # Two steps an epoch, eight in all; a quarter of them warm-up.
    rates = learning_rates(replace(SETTINGS, warmup=0.25, learning_rate=0.6), 9)
    expected = [0, 0.3, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0]
    np.testing.assert_allclose(rates, expected, atol=1e-7)
    longer = learning_rates(replace(SETTINGS, warmup=0.5, schedule_steps=40), 9)
    np.testing.assert_allclose(longer, 0.03 * np.arange(9) / 20, rtol=1e-6)


def test_each_epoch_has_its_own_order(run, monkeypatch):
    seen = []

    def watched(state, batch, *others):
        numbers = np.round(batch["images"][:, 0, 0, 0] * 255).astype(int)
        seen.append((numbers.tolist(), batch["targets"].tolist()))
        return train_step(state, batch, *others)

    train_step = task.train_step
    monkeypatch.setattr(task, "train_step", watched)
    run(settings=replace(SETTINGS, epochs=2), target="label", seed=0)
    orders = [np.random.default_rng([0, epoch]).permutation(9)[:8] for epoch in range(2)]
    training = np.array([4, 5, 11, 0, 3, 6, 10, 8, 1])
    numbers = [number for batch, _ in seen for number in batch]
    assert numbers == [*training[orders[0]], *training[orders[1]]]
    assert [target for _, targets in seen for target in targets] == [n % 3 for n in numbers]


def test_the_best_epoch_is_kept(run, explainer, tmp_path):
    pretrained = run(tmp_path)
    curves = json.loads((tmp_path / CURVES).read_text())
    assert curves == {"settings": {}, "epochs": pretrained.curves}
    scores = [epoch["pos"] for epoch in pretrained.curves]
    best = best_of(pretrained.curves)
    assert len(scores) == 4 and best["pos"] == min(scores)
    assert best["epoch"] not in (0, 3), "choose a seed for which something is to be kept"
    saved = load_optimizer(tmp_path / BEST, explainer)
    assert saved.step == 2 * (best["epoch"] + 1)
    assert saved.learning_rate == learning_rates(SETTINGS, 9)[saved.step]
    for path, leaf in load_trained(tmp_path / BEST, explainer).items():
        np.testing.assert_array_equal(leaf, pretrained.explainer.trained[path])
        assert (leaf != explainer.trained[path]).any()


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(run, tmp_path):
    run(tmp_path, settings=replace(SETTINGS, epochs=1))
    before = files(tmp_path)
    with pytest.raises(InputError, match="loss of epoch 1 is no number: set pretrain"):
        run(tmp_path, settings=replace(SETTINGS, learning_rate=1e38, warmup=0.0))
    assert files(tmp_path) == before


def test_of_equal_epochs_the_last_is_the_best():
    curves = [{"epoch": i, "pos": pos} for i, pos in enumerate([3.0, 2.0, 2.0, 4.0])]
    assert best_of(curves)["epoch"] == 2


def test_without_a_directory_nothing_is_written(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrained, written = run(), run(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert pretrained.curves == written.curves
    for path, leaf in pretrained.explainer.trained.items():
        np.testing.assert_array_equal(leaf, written.explainer.trained[path])


def stop_at(monkeypatch, directory, number, renamed):
    """Stop the run at a write into the directory: before the file has its name, or after."""
    rename, seen = Path.replace, []

    def stopping(self, target):
        if Path(target).parent != directory:
            return rename(self, target)
        seen.append(target)
        if len(seen) != number:
            return rename(self, target)
        if renamed:
            rename(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopping)
    return seen


@pytest.mark.parametrize("renamed", [False, True])
def test_stopped_at_any_write_it_ends_the_same(run, tmp_path, monkeypatch, renamed):
    told = {"seed": 0, "sizes": (1, 2)}
    with monkeypatch.context() as patch:
        writes = stop_at(patch, tmp_path / "whole", None, renamed)
        whole = run(tmp_path / "whole", fingerprint=told)
    assert len(writes) > 8 and files(tmp_path / "whole").keys() == {BEST, LAST, CURVES}
    for number in range(1, len(writes) + 1):
        parts = tmp_path / f"stopped at {number}"
        with monkeypatch.context() as patch:
            stop_at(patch, parts, number, renamed)
            with pytest.raises(KeyboardInterrupt):
                run(parts, fingerprint=told)
        again = run(parts, fingerprint=told)
        assert files(parts) == files(tmp_path / "whole"), writes[number - 1]
        assert again.curves == whole.curves
        for path, leaf in again.explainer.trained.items():
            np.testing.assert_array_equal(leaf, whole.explainer.trained[path])


def test_what_is_done_is_not_done_again(run, tmp_path, monkeypatch):
    first, before = run(tmp_path), files(tmp_path)
    monkeypatch.delattr(task, "train_step")
    assert run(tmp_path).curves == first.curves
    assert files(tmp_path) == before


def test_a_directory_of_other_settings_is_refused(run, tmp_path):
    run(tmp_path, fingerprint={"seed": 0, "images": "cats", "same": [1]})
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"with other settings \(batch_size, images, seed\): use"):
        run(tmp_path, fingerprint={"seed": 1, "batch_size": 4, "same": (1,)})
    assert files(tmp_path) == before


def test_another_explainer_is_not_taken_for_a_pretraining(run, explainer, tmp_path):
    save_explainer(tmp_path / LAST, explainer)
    with pytest.raises(InputError, match=r"last\.safetensors is of no pretraining that can go on"):
        run(tmp_path)


def test_images_that_cannot_be_read_are_left_out(run, caplog):
    with caplog.at_level(logging.INFO):
        run(settings=replace(SETTINGS, epochs=1), source=Pictures(unreadable=(0, 9)))
    assert caplog.messages.count("skipped picture 0: it is cut off") == 1
    assert caplog.messages.count("skipped picture 9: it is cut off") == 1
    assert any(message.startswith("epoch 0: loss ") for message in caplog.messages)


@pytest.mark.parametrize(
    ("source", "changed", "more", "message"),
    [
        (Pictures(), {"batch_size": 10}, {}, "9 images to train on do not fill a batch of 10"),
        (
            Pictures(unreadable=(4, 5, 11, 0, 3, 6)),
            {},
            {},
            "that can be read do not fill a batch of 4",
        ),
        (Pictures(unreadable=(9, 2, 7)), {}, {}, "held out for validation can be read"),
        (
            without_labels(3),
            {},
            {"target": "label"},
            "picture 3 has no label, which target=label needs",
        ),
        (
            without_labels(11),
            {"images_per_class": 1},
            {},
            "picture 11 has no label, which pretrain.images_per_class needs",
        ),
        (
            Pictures(labels=((5,),) * 12),
            {},
            {"target": "label"},
            "picture 4 has the label 5: vit has classes 0 to 4",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(run, source, changed, more, message):
    with pytest.raises(InputError, match=message) as told:
        run(source=source, settings=replace(SETTINGS, **changed), **more)
    assert "\n" not in str(told.value)


def test_an_image_held_out_needs_no_label(run):
    run(settings=replace(SETTINGS, epochs=1), source=without_labels(9, 2, 7), target="label")
