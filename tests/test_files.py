"""Files are whole or not there, whatever the disk says."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from disk import names, no_more_than

from ltx_jax.errors import InputError
from ltx_jax.files import (
    changing,
    claimed,
    is_there,
    make_directory,
    temporary_name,
    write_bytes,
    write_json,
)

# Locks a file, says so, and changes it once it is told to.
HOLDER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.readline()
    file.write(b"theirs")
"""


def test_a_file_is_written_with_its_directory(tmp_path):
    write_bytes(tmp_path / "a" / "b", b"one")
    write_bytes(tmp_path / "a" / "b", b"two")
    assert (tmp_path / "a" / "b").read_bytes() == b"two"
    assert names(tmp_path / "a") == ["b"]


def test_a_full_disk_is_one_line_and_leaves_the_file_as_it_was(tmp_path):
    write_bytes(tmp_path / "x", b"before")
    with (
        no_more_than(10),
        pytest.raises(InputError, match=r"cannot write .*x .*: choose") as caught,
    ):
        write_bytes(tmp_path / "x", bytes(1000))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "x").read_bytes() == b"before"
    assert names(tmp_path) == ["x"]


def test_synced_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda f: (done.append(os.fstat(f).st_ino), fsync(f))[1])
    monkeypatch.setattr(Path, "replace", lambda *paths: (done.append("name"), replace(*paths))[1])
    write_bytes(tmp_path / "x", b"content", sync=True)
    assert done == [(tmp_path / "x").stat().st_ino, "name", tmp_path.stat().st_ino]
    done.clear()
    write_bytes(tmp_path / "x", b"content")
    assert done == ["name"]


def test_a_disk_that_does_not_sync_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_bytes(tmp_path / "x", b"before")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match="Input/output error"):
        write_bytes(tmp_path / "x", b"after", sync=True)
    assert (tmp_path / "x").read_bytes() == b"before"


def test_a_place_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/in \(Not a directory\): choose"):
        make_directory(tmp_path / "file" / "in")


def test_a_name_that_no_file_system_takes_is_one_line(tmp_path):
    place = tmp_path / ("x" * 300)
    told = r"cannot write .*xxx \(File name too long\): choose"
    with pytest.raises(InputError, match=told), claimed(place):
        raise AssertionError("it cannot be made")
    assert not is_there(place) and not is_there(place, Path.is_dir)
    assert is_there(tmp_path) and not is_there(tmp_path, Path.is_file)


def test_json_may_name_what_is_no_text(tmp_path):
    write_json(tmp_path / "x.json", {"a": "ä\udcff"})
    content = (tmp_path / "x.json").read_text()
    assert json.loads(content) == {"a": "ä\udcff"}
    assert "ä" in content


def test_a_shared_file_is_changed_by_one_process_at_a_time(tmp_path):
    path, seen = tmp_path / "x", []
    path.write_bytes(b"nobody")
    given = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == b"locked\n"

        def change() -> None:
            with changing(path, shared=True) as file:
                seen.append(file.read())

        waiting = threading.Thread(target=change)
        waiting.start()
        waiting.join(0.2)
        assert seen == []
        other.stdin.close()
        waiting.join(60)
    assert seen == [b"theirs"]


def test_a_file_that_is_not_shared_needs_no_lock(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    (tmp_path / "x").write_bytes(b"abc")
    with changing(tmp_path / "x", shared=False) as file:
        file.seek(1)
        file.write(b"x")
    assert (tmp_path / "x").read_bytes() == b"axc"


_HOLD = """
import sys, time
from pathlib import Path
from ltx_jax.files import claimed
with claimed(Path(sys.argv[1]), shared=sys.argv[2:] == ["shared"]):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_directory_belongs_to_one_run_at_a_time(tmp_path, monkeypatch):
    place = tmp_path / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(place)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "mine\n"
    told = rf"process {holder.pid} of \S+ is at work in .*out: wait for it"
    with pytest.raises(InputError, match=told), claimed(place):
        raise AssertionError("it is another's")
    # Whoever comes before it is there, and finds it taken, takes nothing away.
    with monkeypatch.context() as early:
        early.setattr("ltx_jax.files.is_there", lambda path: False)
        with pytest.raises(InputError, match=told), claimed(place):
            raise AssertionError("it is another's")
    assert place.is_dir()
    holder.kill()
    holder.communicate()
    with claimed(place):  # a lock goes with the process that held it
        pass


def test_processes_may_share_a_directory_and_no_other_comes_in(tmp_path):
    place = tmp_path / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(place), "shared"], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "mine\n"
    with claimed(place, shared=True):
        pass
    told = r"a run in several processes is at work in .*out: wait for it"
    with pytest.raises(InputError, match=told), claimed(place):
        raise AssertionError("it is theirs")
    holder.kill()
    holder.communicate()
    with claimed(place):
        pass


def test_of_several_that_make_a_file_the_first_does(tmp_path):
    write_bytes(tmp_path / "x", b"one", over=False)
    write_bytes(tmp_path / "x", b"two", over=False)
    assert (tmp_path / "x").read_bytes() == b"one"
    assert names(tmp_path) == ["x"]


def test_a_claim_leaves_no_directory_behind_of_which_nothing_came(tmp_path):
    with pytest.raises(KeyError), claimed(tmp_path / "none"):
        raise KeyError
    assert not (tmp_path / "none").exists()
    with claimed(tmp_path / "some"):
        (tmp_path / "some" / "file").touch()
    assert (tmp_path / "some" / "file").exists()


def test_a_claim_takes_away_what_the_killed_left(tmp_path):
    for place in ("masks", "another run"):
        (tmp_path / place).mkdir()
    (tmp_path / "another run" / ".lock").touch()
    left = [temporary_name(tmp_path / name) for name in ("a", "masks/m.npy")]
    kept = [tmp_path / name for name in (".mine.tmp", "masks/m.npy", "b.tmp")]
    kept.append(temporary_name(tmp_path / "another run" / "c"))
    for path in [*left, *kept]:
        path.touch()
    with claimed(tmp_path, shared=True):
        assert all(path.exists() for path in left)  # they may be of others
    with claimed(tmp_path):
        assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_a_disk_error_of_the_work_is_not_the_claims(tmp_path):
    with pytest.raises(BrokenPipeError), claimed(tmp_path / "out"):
        raise BrokenPipeError
