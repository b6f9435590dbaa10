"""The pretrain task: what is trained on, what is kept, and a restart after a stop at any moment."""

import csv
import json
import logging
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import UNFINISHED
from training_pictures import Pictures, without_labels

import ltx_jax
from ltx_jax.engine.recipe import make_goal
from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Moments
from ltx_jax.loading.checkpoints import SavedOptimizer, load_optimizer, load_trained
from ltx_jax.runtime import Terminated, termination_held
from ltx_jax.settings.sections import LTX, Pretrain
from ltx_jax.tasks import pretrain as task
from ltx_jax.tasks import training
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.pretrain import BEST, MasksOnData
from ltx_jax.tasks.training import learning_rates
from ltx_jax.tasks.training_files import (
    MASKS,
    Snapshot,
    TrainingFiles,
    best_of,
    falls,
    since_better,
)
from ltx_jax.tasks.training_images import Split
from ltx_jax.weights.files import read_safetensors

pytest.importorskip("grain")
pytestmark = [UNFINISHED, pytest.mark.usefixtures("orbax_gives_up")]
GOAL = make_goal(LTX.objective)
# Of 12 images 3 are held out; 9 make two batches of 4 an epoch.
SETTINGS = Pretrain(
    epochs=4, batch_size=4, validation=0.25, test=0.0, learning_rate=0.03, log_every=3, pictures=2
)
CURVES = "pretraining.json"
TIMES = ("images_per_second", "waiting")


@pytest.fixture
def run(explainee, explainer):
    """A pretraining of the tiny explainer."""

    def run(workdir=None, source=None, settings=SETTINGS, target="predicted", **more):
        course = Course(source or Pictures(), settings, workdir=workdir, **more)
        return task.pretrain(explainee, explainer, course, goal=GOAL, target=target, chunk=9)

    return run


@pytest.fixture(scope="module")
def whole(explainee, explainer, tmp_path_factory):
    """One that nothing stopped: what it returned, and its directory."""
    directory = tmp_path_factory.mktemp("pretraining") / "whole"
    course = Course(Pictures(), SETTINGS, workdir=directory, fingerprint={"seed": 0})
    return task.pretrain(explainee, explainer, course, goal=GOAL, chunk=9), directory


def lines(directory):
    told = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in told]


def files(directory):
    """What a restart must not change."""
    names = (BEST, CURVES, MASKS, "settings.json", "split.json", "pretraining.html")
    return {name: (directory / name).read_bytes() for name in names}


def same(first, second):
    for path, leaf in first.explainer.trained.items():
        np.testing.assert_array_equal(leaf, second.explainer.trained[path])
    assert first.curves == second.curves


def stop_after(*steps):
    return lambda step: step in steps


def test_rates_rise_and_fall_to_the_last_step():
    # Two steps an epoch, eight in all; a quarter of them warm-up.
    rates = learning_rates(replace(SETTINGS, warmup=0.25, learning_rate=0.6), 9)
    expected = [0, 0.3, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0]
    np.testing.assert_allclose(rates, expected, atol=1e-7)
    longer = learning_rates(replace(SETTINGS, warmup=0.5, schedule_steps=40), 9)
    np.testing.assert_allclose(longer, 0.03 * np.arange(9) / 20, rtol=1e-6)


def test_the_best_epoch_is_kept(whole, explainer):
    pretrained, directory = whole
    curves = json.loads((directory / CURVES).read_text())
    assert curves == {"settings": {"seed": 0}, "epochs": pretrained.curves}
    scores = [epoch["scores"]["pos"] for epoch in pretrained.curves]
    best = best_of(pretrained.curves, "pos")
    assert len(scores) == 4 and best["scores"]["pos"] == min(scores)
    assert best["epoch"] not in (0, 3), "choose a seed for which something is to be kept"
    saved = load_optimizer(directory / BEST, explainer)
    assert saved.step == 2 * (best["epoch"] + 1) == best["step"]
    assert saved.learning_rate == learning_rates(SETTINGS, 9)[saved.step]
    for path, leaf in load_trained(directory / BEST, explainer).items():
        np.testing.assert_array_equal(leaf, pretrained.explainer.trained[path])
        assert (leaf != explainer.trained[path]).any()


def test_the_explainer_says_what_it_was_trained_for(explainee, explainer, tmp_path):
    told = {"objective.mask_weight": 5.0, "target": "label", "images": "/home/cats", "seed": 0}
    how, drawn = explainee.preprocessing("squash"), Split([0, 1], [2], [])
    trainee = MasksOnData(explainee, explainer, explainer, GOAL, 9, "pos")
    files = TrainingFiles(tmp_path, trainee, Pictures(), how, drawn, SETTINGS, told)
    trained = explainer.trained
    files.keep_best(Snapshot(trained, {}, SavedOptimizer(Moments(trained, trained), 3, 0.1)))
    _, metadata = read_safetensors(tmp_path / BEST)
    purpose = {"objective.mask_weight": 5.0, "target": "label"}
    assert json.loads(metadata["trained_for"]) == purpose
    assert json.loads(metadata["configuration"])["name"] == "vit" and metadata["step"] == "3"


def test_of_equal_epochs_the_last_is_the_best():
    scores = [(3.0, 5.0), (2.0, 9.0), (2.0, 4.0), (4.0, 8.0)]
    told = [{"pos": pos, "neg": neg} for pos, neg in scores]
    curves = [{"epoch": i, "scores": of} for i, of in enumerate(told)]
    assert [best_of(curves, by)["epoch"] for by in ("pos", "neg", "last")] == [2, 1, 3]


def test_it_tells_of_steps_and_epochs(whole):
    pretrained, directory = whole
    told = lines(directory)
    assert [line["step"] for line in told] == [2, 3, 4, 6, 6, 8]
    rates = learning_rates(SETTINGS, 9)
    assert told[1]["rate"] == pytest.approx(float(rates[2])) and told[1]["epoch"] == 1
    assert told[0]["validation"] == pretrained.curves[0]["scores"]
    with (directory / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["validation.pos"] for row in table] == [
        str(line["validation"]["pos"]) if "validation" in line else "" for line in told
    ]
    assert float(table[1]["loss.total"]) == told[1]["loss"]["total"]
    assert 0 <= float(table[1]["waiting"]) <= 1
    assert np.load(directory / MASKS).shape == (4, 2, 4, 4)
    page = (directory / "pretraining.html").read_text()
    assert page.count("<img") == 2 * (1 + 4) and "picture 9" in page


def test_an_epochs_loss_is_the_mean_of_its_steps(run, whole, tmp_path):
    run(tmp_path, settings=replace(SETTINGS, epochs=1, log_every=1, schedule_steps=8))
    found = [line["loss"]["total"] for line in lines(tmp_path) if "loss" in line]
    assert whole[0].curves[0]["losses"]["total"] == pytest.approx(np.mean(found), abs=1e-5)


def test_without_a_directory_nothing_is_written(run, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same(run(), whole[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", [1, 2, 3, 8])
def test_left_after_any_step_it_ends_the_same(run, whole, tmp_path, step):
    with pytest.raises(Terminated):
        run(tmp_path, leave=stop_after(step), fingerprint={"seed": 0})
    assert str(step) in {path.name for path in (tmp_path / "checkpoints").iterdir()}
    same(run(tmp_path, fingerprint={"seed": 0}), whole[0])
    assert files(tmp_path) == files(whole[1]) and lines(tmp_path) == lines(whole[1])


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


@pytest.mark.slow
@pytest.mark.parametrize("renamed", [False, True])
def test_stopped_at_any_write_it_ends_the_same(run, tmp_path, monkeypatch, renamed):
    settings, told = replace(SETTINGS, epochs=2, save_every=1), {"seed": 0, "sizes": (1, 2)}
    with monkeypatch.context() as patch:
        writes = stop_at(patch, tmp_path / "whole", None, renamed)
        expected = run(tmp_path / "whole", settings=settings, fingerprint=told)
    assert len(writes) > 10
    for number in range(1, len(writes) + 1):
        parts = tmp_path / f"stopped at {number}"
        with monkeypatch.context() as patch:
            stop_at(patch, parts, number, renamed)
            with pytest.raises(KeyboardInterrupt):
                run(parts, settings=settings, fingerprint=told)
        same(run(parts, settings=settings, fingerprint=told), expected)
        assert files(parts) == files(tmp_path / "whole"), writes[number - 1]
        assert lines(parts) == lines(tmp_path / "whole")


def test_with_its_newest_checkpoint_damaged_it_ends_the_same(run, whole, tmp_path, caplog):
    with pytest.raises(Terminated):
        run(tmp_path, leave=stop_after(5), fingerprint={"seed": 0})
    (tmp_path / "checkpoints" / "5" / "_CHECKPOINT_METADATA").write_text("{")
    same(run(tmp_path, fingerprint={"seed": 0}), whole[0])
    assert "going by the one before" in caplog.text
    assert files(tmp_path) == files(whole[1]) and lines(tmp_path) == lines(whole[1])


def test_a_termination_waits_for_the_step(run, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with termination_held() as leave, pytest.raises(Terminated):

        def asked(step):
            if step == 3:
                signal.raise_signal(signal.SIGTERM)
            return leave(step)

        run(tmp_path, leave=asked)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "checkpoints" / "3").is_dir()


def test_what_is_done_is_not_done_again(run, whole, monkeypatch):
    pretrained, directory = whole
    before = files(directory)
    monkeypatch.delattr(training, "train_step")
    same(run(directory, fingerprint={"seed": 0}), pretrained)
    assert files(directory) == before


def test_the_best_network_is_made_anew_of_its_checkpoint(run, whole, tmp_path):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    (tmp_path / BEST).unlink()
    same(run(tmp_path, fingerprint={"seed": 0}), whole[0])
    assert files(tmp_path) == files(whole[1])
    (tmp_path / BEST).unlink()
    step = best_of(whole[0].curves, "pos")["step"]
    shutil.rmtree(tmp_path / "checkpoints" / str(step))
    told = rf"explainer\.safetensors is gone, and checkpoints/{step}, .*: put one of them back"
    with pytest.raises(InputError, match=told):
        run(tmp_path, fingerprint={"seed": 0})


def test_on_other_devices_it_goes_on(run, whole, tmp_path, monkeypatch):
    with pytest.raises(Terminated):
        run(tmp_path, leave=stop_after(3), fingerprint={"seed": 0})
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)
    sharded = replace(SETTINGS, sharded=True)
    found = run(tmp_path, settings=sharded, fingerprint={"seed": 0})
    for ours, theirs in zip(found.curves, whole[0].curves, strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)


def test_it_stops_where_nothing_becomes_better(run, whole):
    best = best_of(whole[0].curves, "pos")["epoch"]
    found = run(settings=replace(SETTINGS, patience=1))
    assert len(found.curves) < 4 and found.curves == whole[0].curves[: len(found.curves)]
    assert best_of(found.curves, "pos")["epoch"] == len(found.curves) - 2 <= best


def test_an_epoch_that_is_as_good_is_not_better():
    losses = [5.0, 4.0, 4.0, 3.9, 3.0, 3.0]
    curves = [{"scores": {"loss": loss, "neg": -loss}} for loss in losses]
    assert [since_better(curves[:k], "loss", 0.0) for k in range(7)] == [0, 0, 0, 1, 0, 0, 1]
    assert [since_better(curves[:k], "neg", 0.5) for k in range(7)] == [0, 0, 0, 1, 2, 0, 1]


def test_it_is_not_chosen_by_what_it_is_not_judged_by(run):
    with pytest.raises(InputError, match=r"select is loss, which .* judged by: set it to pos, neg"):
        run(settings=replace(SETTINGS, select="loss"))


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_other_images_may_be_watched_later(run, whole, tmp_path, pictures):
    with pytest.raises(Terminated):
        run(tmp_path, leave=stop_after(5), fingerprint={"seed": 0})
    made = run(tmp_path, settings=replace(SETTINGS, pictures=pictures), fingerprint={"seed": 0})
    same(made, whole[0])
    masks, before = np.load(tmp_path / MASKS), np.load(whole[1] / MASKS)
    assert masks.shape == (4, pictures, *before.shape[2:])
    shown = min(pictures, 2)
    np.testing.assert_array_equal(masks[:, :shown], before[:, :shown])
    assert not masks[:2, shown:].any() and (masks[2:, shown:] > 0).all()


def test_the_rate_falls_where_nothing_becomes_better(run, whole, tmp_path):
    losses = [5.0, 4.0, 4.5, 4.2, 4.1, 3.0, 3.0, 3.0]
    curves = [{"scores": {"loss": loss, "neg": -loss}} for loss in losses]
    found = [falls(curves[:k], "loss", 2) for k in range(9)]
    assert found == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert [falls(curves[:k], "neg", 2) for k in range(9)] == found
    settings = replace(SETTINGS, plateau=1, log_every=1)
    made = run(tmp_path, settings=settings, fingerprint={"seed": 0}).curves
    rates = learning_rates(settings, 9)
    expected = [
        rate * 0.1 ** falls(made[: step // 2], "pos", 1) for step, rate in enumerate(rates[:-1])
    ]
    told = [line["rate"] for line in lines(tmp_path) if "rate" in line]
    assert told == pytest.approx(expected)
    assert expected[-1] < 0.5 * rates[-2]
    # Which epoch was no better, a restart knows of the checkpoint.
    directory = tmp_path / "again"
    with pytest.raises(Terminated):
        run(directory, settings=settings, leave=stop_after(5), fingerprint={"seed": 0})
    assert run(directory, settings=settings, fingerprint={"seed": 0}).curves == made


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(run, tmp_path):
    # Rates are 0 and 5e37, so that the second step, the last of its epoch, breaks it.
    wild = replace(SETTINGS, learning_rate=1e38, warmup=0.25, save_every=1)
    told = r"a mask is no number after batch 1 of epoch 0 \(from picture \d+ on\): set pretrain"
    for _ in range(2):
        with pytest.raises(InputError, match=told):
            run(tmp_path, settings=wild)
        kept = [path.name for path in (tmp_path / "checkpoints").iterdir()]
        assert "1" in kept and "2" not in kept and not (tmp_path / BEST).exists()
    with pytest.raises(InputError, match="the loss is no number after batch 1 of epoch 0"):
        run(settings=replace(wild, warmup=0.0, save_every=None))


def test_a_directory_of_other_settings_is_refused(run, whole):
    _, directory = whole
    before = files(directory)
    with pytest.raises(InputError, match=r"with other settings \(batch was None, is 4; seed was 0"):
        run(directory, fingerprint={"seed": 1, "batch": 4})
    assert files(directory) == before


def test_a_directory_of_another_network_is_refused(explainee, explainer, tmp_path, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), np.uint8)
    how = {"batch_size": 4, "epochs": 1, "validation": 0.5, "test": 0.0, "workdir": tmp_path}
    held = []
    monkeypatch.setattr(ltx_jax.api, "claimed", lambda path: held.append(path) or nullcontext())
    ltx_jax.pretrain(explainee, pictures, explainer=explainer, **how)
    assert held == [tmp_path]
    other = replace(explainee, params=jax.tree.map(lambda x: 2 * x, explainee.params))
    for network, start in ((other, explainer), (explainee, explainer.replace(activation="relu"))):
        with pytest.raises(InputError, match="with other settings"):
            ltx_jax.pretrain(network, pictures, explainer=start, **how)
    with pytest.raises(InputError, match="no option 'held_out'"):
        ltx_jax.pretrain(explainee, pictures, explainer=explainer, held_out="there", **how)


def test_a_pretraining_of_an_older_version_is_refused(run, tmp_path):
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(InputError, match=r"older version \(last\.safetensors\): use another"):
        run(tmp_path)


def test_images_that_cannot_be_read_are_told(run, caplog):
    with caplog.at_level(logging.INFO):
        run(settings=replace(SETTINGS, epochs=1), source=Pictures(unreadable=(0, 9)))
    assert caplog.messages.count("skipped picture 0: it is cut off") == 1
    assert caplog.messages.count("skipped picture 9: it is cut off") == 1
    assert any(message.startswith("epoch 0: loss ") for message in caplog.messages)


def test_held_out_images_must_be_there(run):
    with pytest.raises(InputError, match="images held out can be read"):
        run(source=Pictures(unreadable=(9, 2, 7)))


def test_an_image_held_out_needs_no_label(run):
    run(settings=replace(SETTINGS, epochs=1), source=without_labels(9, 2, 7), target="label")
