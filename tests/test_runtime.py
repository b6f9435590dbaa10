"""What a program sets before it first uses JAX."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from ltx_jax.runtime import keep_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_is_kept_unless_the_environment_says_how_it_is_allocated(monkeypatch):
    told = []
    library = SimpleNamespace(mallopt=lambda *option: told.append(option))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    keep_memory()
    assert told == []
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    keep_memory()
    assert told == [(-3, 2**30), (-1, 2**31 - 1)]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_memory()  # no glibc
