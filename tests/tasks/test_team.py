"""What falls to which process, whoever dies, without any network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ltx_jax.errors import InputError
from ltx_jax.leases import Leases
from ltx_jax.tasks import team as teams
from ltx_jax.tasks import waiting
from ltx_jax.tasks.team import ALONE, Sharing, groups_of, read_share


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes while one waits."""
    clock = SimpleNamespace(now=0.0, passed=[])

    def sleep(seconds: float) -> None:
        clock.now += seconds
        for happens in clock.passed:
            happens()

    fake = SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr(waiting, "time", fake)
    monkeypatch.setattr(teams, "time", fake)
    return clock


def member(workdir: Path, clock: SimpleNamespace, index: int, count: int = 2) -> Sharing:
    leases = Leases(workdir, index, count, 60.0, lambda: clock.now)
    assert leases.enter()
    return Sharing(leases)


def work(lots: Iterator, done: set[int]) -> list[list[int]]:
    """Do whatever a process is dealt."""
    found = []
    for lot in lots:
        found.append(list(lot))
        done.update(found[-1])
    return found


@pytest.mark.parametrize(("rows", "count"), [(0, 2), (1, 3), (7, 2), (200, 3), (1000, 2)])
def test_groups_are_the_shares_cut(rows, count):
    wanted = list(range(100, 100 + rows))
    groups = groups_of(wanted, count)
    for i in range(count):
        assert [row for group in groups[i::count] for row in group] == wanted[i::count]
    assert len(groups) <= 32 * count
    found = groups_of(list(range(130)), 2)
    assert found[1:5] == [[1, 3, 5], [6, 8, 10], [7, 9, 11], [12, 14, 16]]


def test_a_process_does_its_share_and_what_no_other_has_begun(tmp_path, clock):
    first, second = (member(tmp_path, clock, index) for index in (0, 1))
    done: set[int] = set()
    begun = iter(next(second.shares("images", range(8), lambda: done)))
    assert next(begun) == 1  # and a lease on no other
    clock.passed.append(lambda: done.update({1, *begun}))
    assert work(first.shares("images", range(8), lambda: done), done) == [[0, 2, 4, 6], [7, 5, 3]]
    assert done == set(range(8)) and clock.now == waiting.POLL


def test_what_the_dead_have_begun_is_done_by_the_living(tmp_path, clock):
    dead, living = (member(tmp_path, clock, index) for index in (0, 1))
    done: set[int] = set()
    begun = iter(next(dead.shares("images", range(6), lambda: done)))
    assert [next(begun), next(begun)] == [0, 2]
    done.add(0)
    assert work(living.shares("images", range(6), lambda: done), done) == [[1, 3, 5], [4], [2]]
    assert 60 <= clock.now < 70


def test_a_living_process_is_waited_for(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(waiting, "_PATIENCE", 10)
    slow, quick = (member(tmp_path, clock, index) for index in (0, 1))
    done: set[int] = set()
    begun = next(slow.shares("images", range(2), lambda: done))
    assert next(iter(begun)) == 0

    def goes_on() -> None:
        slow._leases.sign()
        if clock.now > 100:
            done.add(0)

    clock.passed.append(goes_on)
    assert work(quick.shares("images", range(2), lambda: done), done) == [[1]]
    assert 100 < clock.now < 110


def test_rows_done_before_a_lease_changed_hands_are_not_done_again(tmp_path, clock):
    first, second = (member(tmp_path, clock, index) for index in (0, 1))
    done: set[int] = set()
    lot = next(first.shares("images", range(4), lambda: done))
    done.update({2, 3})  # by a third, which was thought dead
    assert list(lot) == [0]
    done.add(0)
    assert work(second.shares("images", range(4), lambda: done), done) == [[1]]


def test_one_reports_and_the_others_say_who(tmp_path, clock):
    first, second = (member(tmp_path, clock, index) for index in (0, 1))
    assert second.farewell() is None
    clock.passed.append(second._leases.sign)
    told = first.farewell()
    assert told.startswith("process 0 of 2 has done its share; process 1 of 2 (process ")
    assert told.endswith(" reports") and clock.now == waiting.POLL


def test_where_one_died_over_the_report_another_makes_it(tmp_path, clock):
    first, second = (member(tmp_path, clock, index) for index in (0, 1))
    assert second.farewell() is None
    assert first.farewell() is None
    assert 60 <= clock.now < 70


def test_leases_are_taken_away_by_the_last(tmp_path, clock, monkeypatch):
    leases = tmp_path / ".leases"
    with teams.sharing(0, 2, tmp_path, 60.0) as first:
        with teams.sharing(1, 2, tmp_path, 60.0) as second, second.noting() as ours:
            assert ours
        assert first.farewell() is None
        clock.passed.append(second._leases.leave)
    assert not leases.exists()
    with pytest.raises(KeyError), teams.sharing(0, 2, tmp_path, 60.0):
        raise KeyError
    assert list(leases.iterdir()) == []


def test_one_process_does_all_that_is_not_done():
    assert list(ALONE.shares("images", [1, 4, 5], lambda: {4})) == [[1, 5]]
    assert list(ALONE.shares("images", [1, 4], lambda: {1, 4})) == []
    assert ALONE.farewell() is None and ALONE.number is None


@pytest.mark.parametrize(
    "told", ["3", "4/4", "-1/2", "a/b", "1/0", "", "1/2/3", "0/123456", "1.0/2", "²/3"]
)
def test_a_share_that_is_none_is_one_line(told):
    with pytest.raises(InputError, match=r"expected INDEX/ALL with an index from 0 to ALL less 1"):
        read_share(told)
    assert read_share("3/16") == (3, 16)
