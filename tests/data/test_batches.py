"""Batches of a training: their order, shares of processes, and images that cannot be read."""

from dataclasses import replace

import numpy as np
import pytest
from training_pictures import Pictures

from ltx_jax.data.batches import Order, load
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError

pytest.importorskip("grain")
TRAINED = np.array([4, 5, 11, 0, 3, 6, 10, 8, 1], np.int32)
ORDER = Order(
    source=Pictures(),
    how=Preprocessing((16, 16)),
    images=TRAINED,
    targets=np.arange(100, 112, dtype=np.int32),
    seed=7,
    batch_size=4,
    epochs=3,
)


def numbers(batches):
    """Of the images of each batch."""
    return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


def expected(epoch):
    return TRAINED[np.random.default_rng([7, epoch]).permutation(9)[:8]].reshape(2, 4).tolist()


def test_each_epoch_has_its_own_order():
    batches = list(load(ORDER, 0, 0))
    assert numbers(batches) == expected(0) + expected(1) + expected(2)
    assert expected(0) != expected(1)
    for batch in batches:
        assert batch.targets.tolist() == [100 + n for n in batch.images[:, 0, 0, 0]]
        assert not batch.skipped
    assert [ORDER.numbers(step) for step in range(2, 4)] == expected(1)


def test_it_begins_at_any_step():
    assert numbers(load(ORDER, 3, 0)) == (expected(0) + expected(1) + expected(2))[3:]


@pytest.mark.slow
def test_worker_processes_load_the_same():
    assert numbers(load(ORDER, 1, 2)) == numbers(load(ORDER, 1, 0))


def test_processes_share_each_batch():
    shares = [numbers(load(replace(ORDER, share=(p, 2)), 0, 0)) for p in range(2)]
    whole = [first + second for first, second in zip(*shares, strict=True)]
    assert whole == numbers(load(ORDER, 0, 0))


@pytest.mark.parametrize("share", [(0, 1), (1, 2)])
def test_the_next_image_stands_in_for_one_that_cannot_be_read(share):
    first, second = np.random.default_rng([7, 0]).permutation(TRAINED)[[3, 4]]
    broken = replace(ORDER, source=Pictures(unreadable=(int(first),)), share=share)
    batch = next(iter(load(broken, 0, 0)))
    assert batch.images[-1, 0, 0, 0] == second
    assert batch.targets[-1] == 100 + second
    assert batch.skipped == ((f"picture {first}", "it is cut off"),)


def test_without_any_image_there_is_no_training():
    broken = replace(ORDER, source=Pictures(unreadable=tuple(range(12))))
    with pytest.raises(InputError, match="none of the 9 images to train on can be read, picture"):
        next(iter(load(broken, 0, 0)))
