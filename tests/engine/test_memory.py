"""What is free, where a container is given less than the host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_jax.engine.memory import _container_bytes_free as bytes_free


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("inside", "limit", "usage", "cache"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_what_a_control_group_leaves(tmp_path, inside, limit, usage, cache):
    assert bytes_free(tmp_path) == []
    files = {limit: "1000", usage: "700", "memory.stat": f"anon 500\n{cache} 150"}
    group(tmp_path / inside, files)
    assert bytes_free(tmp_path) == [450]  # what files hold is given back
    group(tmp_path / inside, {usage: "1200"})
    assert bytes_free(tmp_path) == [0]
    group(tmp_path / inside, {limit: "max"})
    assert bytes_free(tmp_path) == []
