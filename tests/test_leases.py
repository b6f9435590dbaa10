"""Leases go from the dead to the living, by each one's own clock, and to one of several."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from disk import names

from ltx_jax.errors import InputError
from ltx_jax.leases import Leases, clear


class Clock:
    """Seconds as they are told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def process(workdir: Path, clock: Clock, index: int, count: int = 3) -> Leases:
    """One that is given up after 60 seconds."""
    return Leases(workdir, index, count, 60.0, clock)


def entered(workdir: Path, clock: Clock, *indices: int) -> list[Leases]:
    found = [process(workdir, clock, index) for index in indices]
    assert all(one.enter() for one in found)
    return found


def test_a_lease_is_anothers_once_no_sign_has_come_for_so_long(tmp_path, clock):
    ours, theirs = entered(tmp_path, clock, 0, 1)
    assert ours.take("x.0") and ours.take("x.0") and not theirs.take("x.0")
    clock.now = 50
    ours.sign()
    assert not theirs.take("x.0")  # seen at 50
    clock.now = 109
    assert not theirs.take("x.0")
    clock.now = 110
    assert theirs.take("x.0")
    assert theirs.has("x.0") and not ours.has("x.0")
    # One that was only thought dead does not get it back, and may take others.
    assert not ours.take("x.0") and ours.take("x.1")


def test_clocks_need_not_agree(tmp_path):
    early, late = Clock(-1e6), Clock(1e9)
    (ours,), (theirs,) = entered(tmp_path, early, 0), entered(tmp_path, late, 1)
    assert ours.take("x") and not theirs.take("x")
    early.now += 1000
    assert not theirs.take("x")
    late.now += 60
    assert theirs.take("x")


def test_what_a_process_leaves_or_gives_back_is_free(tmp_path, clock):
    ours, theirs = entered(tmp_path, clock, 0, 1)
    assert ours.take("x") and ours.take("y")
    theirs.release("x")  # is not its own
    assert not theirs.take("x")
    ours.release("x")
    assert theirs.take("x") and not theirs.take("y")
    ours.leave()
    assert theirs.take("y") and theirs.others() == []


def test_of_two_that_find_an_owner_dead_one_has_its_lease(tmp_path, clock, monkeypatch):
    dead, first, second = entered(tmp_path, clock, 0, 1, 2)
    assert dead.take("x") and not first.take("x") and not second.take("x")
    clock.now = 60
    make = first._make

    def made_a_moment_late(file: str, content: bytes) -> bool:
        assert second.take("x")
        return make(file, content)

    monkeypatch.setattr(first, "_make", made_a_moment_late)
    assert not first.take("x")
    assert second.has("x") and not first.has("x")


def test_an_index_belongs_to_one_living_process(tmp_path, clock):
    (ours,) = entered(tmp_path, clock, 1)
    again = process(tmp_path, clock, 1)
    assert not again.enter()  # whether the other is alive is not known yet
    ours.sign()
    told = rf"process 1 of 3 \(process {os.getpid()} of .*\) is at work in .*: wait for it, or give"
    with pytest.raises(InputError, match=told) as caught:
        again.enter()
    assert "\n" not in str(caught.value)
    clock.now = 60
    assert again.enter()
    # Its files are others than those of the life before.
    assert (ours.number, again.number) == (1, 4)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_processes_waits_for_the_last_to_die(tmp_path, clock, count):
    entered(tmp_path, clock, 0, 2)
    other = process(tmp_path, clock, 1, count)
    assert not other.enter()
    clock.now = 59
    assert not other.enter()
    clock.now = 60
    assert other.enter()


def test_two_that_enter_at_the_same_moment_and_exclude_one_another(tmp_path, clock, monkeypatch):
    ours, theirs = process(tmp_path, clock, 0, 2), process(tmp_path, clock, 0, 3)
    make = ours._make

    def both(file: str, content: bytes) -> bool:
        theirs.enter()
        return make(file, content)

    monkeypatch.setattr(ours, "_make", both)
    assert not ours.enter()
    theirs.sign()
    with pytest.raises(InputError, match=r"process 0 of 3 .* is at work"):
        ours.enter()
    assert names(tmp_path / ".leases") == ["0-of-3.0"]


def test_what_was_cleared_under_a_process_stays_so(tmp_path, clock):
    ours, theirs = entered(tmp_path, clock, 0, 1)
    assert ours.take("x")
    clear(tmp_path)
    ours.sign()
    ours.leave()
    assert not (tmp_path / ".leases").exists()
    assert theirs.take("x")


def test_signs_are_given_while_the_work_goes_on(tmp_path):
    ours, theirs = (Leases(tmp_path, index, 2, 0.5) for index in (0, 1))
    with ours.signing():
        assert ours.enter() and theirs.enter()
        (life,) = theirs.others()
        while not theirs.alive(life):
            time.sleep(0.01)
        time.sleep(0.6)
        assert theirs.alive(life)
    time.sleep(0.6)
    theirs.lost(life)
    time.sleep(0.6)
    assert theirs.lost(life)
