"""Checkpoints of a training: whole, damaged, on other devices."""

import logging
import shutil

import jax
import numpy as np
import optax
import pytest
from conftest import UNFINISHED
from jax.tree_util import Partial

from ltx_jax.engine.checkpoints import Checkpoints, newest
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.engine.training import create_train_state
from ltx_jax.errors import InputError

pytestmark = [UNFINISHED, pytest.mark.usefixtures("orbax_gives_up")]
ONE, FOUR = slot_mesh(1), slot_mesh(4)
PARAMS = {"params/a": np.arange(800, dtype=np.float32).reshape(8, 100), "b": np.ones(3, np.float32)}


def state(step, mesh=ONE, sharded=False):
    """One whose every number depends on the step."""
    start = create_train_state(PARAMS, {}, Partial(optax.adamw, 0.1), mesh, sharded)
    moved = jax.tree.map(lambda x: x + np.asarray(step, x.dtype), start)
    return jax.device_put(moved, jax.tree.map(lambda x: x.sharding, start))


def equal(found, expected):
    return jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == np.asarray(b)).all()), found, expected)
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Five checkpoints, of which the second has the best score; the newest two are kept."""
    directory = tmp_path_factory.mktemp("checkpoints") / "of"
    checkpoints = Checkpoints(directory, 2)
    for step, score in {0: None, 1: 5.0, 2: 3.0, 3: None, 4: None, 5: 6.0}.items():
        checkpoints.save(step, state(step), {"seen": [0.1 * step]}, score)
    checkpoints.close()
    return directory


@pytest.fixture
def directory(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def test_what_is_donated_afterwards_is_kept_as_it_was(tmp_path):
    """Large enough for the writing to take longer than the next step."""
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, 8)
    large = jax.device_put(np.full((1000, 1000), 7, np.float32), jax.devices()[0])
    for step in range(1, 6):
        checkpoints.save(step, {"large": large}, {})
        large = overwrite(large)
        large = large * 0 + 7
    checkpoints.close()
    for step in range(5, 0, -1):
        found, _ = newest(tmp_path, {"large": large}, ONE)
        assert (found["large"] == 7).all()
        shutil.rmtree(tmp_path / str(step))


def steps(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != "metadata")


def test_the_newest_and_the_best_are_kept(written):
    assert steps(written) == ["2", "4", "5"]
    found, notes = newest(written, state(0), ONE)
    assert equal(found, state(5)) and notes == {"seen": [0.5]}
    assert found.step.dtype == np.int32


def test_there_may_be_none(tmp_path):
    assert newest(tmp_path / "nowhere", state(0), ONE) is None


@pytest.mark.parametrize("sharded", [False, True])
def test_it_goes_on_on_other_devices(written, sharded):
    template = state(0, FOUR, sharded)
    found, _ = newest(written, template, FOUR)
    assert equal(found, state(5))
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, found, template))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(path):
    """The file with the numbers."""
    return max(path.glob("state/ocdbt*/d/*"), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: cut(largest(path)),
        lambda path: flip(largest(path)),
        lambda path: (path / "commit_success.txt").unlink(),
        lambda path: (path / "_CHECKPOINT_METADATA").unlink(),
        lambda path: cut(path / "_CHECKPOINT_METADATA"),
        lambda path: shutil.rmtree(path / "state"),
    ],
)
def test_a_damaged_one_is_put_aside_and_the_one_before_taken(directory, damage, caplog):
    damage(directory / "5")
    with caplog.at_level(logging.WARNING):
        found, notes = newest(directory, state(0), ONE)
    assert equal(found, state(4)) and notes == {"seen": [0.4]}
    assert steps(directory) == ["2", "4", "damaged-5"]
    assert f"checkpoint {directory / '5'} cannot be read" in caplog.text
    again = Checkpoints(directory, 2)
    again.save(5, state(5), {})
    again.close()
    assert steps(directory) == ["2", "4", "5", "damaged-5"]
    # So may be the one that was written in its place.
    (directory / "5" / "commit_success.txt").unlink()
    assert equal(newest(directory, state(0), ONE)[0], state(4))
    assert steps(directory) == ["2", "4", "damaged-5", "damaged-5-1"]


def test_a_note_that_was_changed_is_noticed(directory):
    path = directory / "5" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    assert newest(directory, state(0), ONE)[1] == {"seen": [0.4]}


def test_none_that_can_be_read_is_said(directory):
    for step in (2, 4, 5):
        cut(largest(directory / str(step)))
    for _ in range(2):  # a training that begins anew would write over what is left
        with pytest.raises(InputError, match=r"none of the checkpoints in .* can be read: put bac"):
            newest(directory, state(0), ONE)
    assert steps(directory) == ["damaged-2", "damaged-4", "damaged-5"]


def test_what_was_not_finished_is_as_if_it_had_not_begun(directory):
    (directory / "5").rename(directory / "5.orbax-checkpoint-tmp")
    assert newest(directory, state(0), ONE)[1] == {"seen": [0.4]}


def test_a_file_called_as_a_step_is_no_checkpoint(directory):
    (directory / "7").write_text("mine")
    assert equal(newest(directory, state(0), ONE)[0], state(5))
    again = Checkpoints(directory, 2)
    again.save(6, state(6), {})
    again.close()
    assert steps(directory) == ["2", "5", "6", "7"] and (directory / "7").read_text() == "mine"
