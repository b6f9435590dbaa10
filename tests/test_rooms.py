"""The house: arrows run one way, few files at the top, a configuration is read in one room."""

from __future__ import annotations

import ast
from pathlib import Path

import ltx_jax

PACKAGE = Path(ltx_jax.__file__).parent
# What each room may import, itself and the ground floor aside.
ROOMS = {
    "settings": {"objectives"},
    "weights": set(),
    "data": set(),
    "models": {"data", "weights"},
    "masks": set(),
    "explainers": {"masks", "models", "weights"},
    "objectives": {"masks", "models"},
    "metrics": {"masks", "models"},
    "attribution": {"masks", "models"},
    "engine": {"data", "explainers", "masks", "metrics", "models", "objectives", "settings"},
    "loading": {"attribution", "explainers", "models", "settings", "weights"},
    "reporting": {"attribution", "engine", "masks", "metrics", "settings"},
    "assets": set(),
}
# Tasks put everything together but weights, which are loading's affair.
ROOMS["tasks"] = {*ROOMS, "tasks"} - {"assets", "weights"}
GROUND = {"errors", "files", "leases", "progress", "rooms", "runtime"}
FACE = {"__init__", "api", "main"}


def imports(path: Path) -> set[str]:
    """First part of every import from the package."""
    tree = ast.parse(path.read_text())
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    ]
    return {m.split(".")[1] for m in modules if m and m.startswith("ltx_jax.")}


def test_the_top_holds_the_face_and_the_ground_floor():
    assert {path.stem for path in PACKAGE.glob("*.py")} == FACE | GROUND
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


def test_no_import_runs_back_up():
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        if room in ROOMS:
            beyond = imports(path) - ROOMS[room] - GROUND - {room}
            assert not beyond, f"{path} imports {beyond}"
        elif path.stem in GROUND:
            assert imports(path) <= GROUND, path


def test_who_knows_flax_and_configurations():
    for path in PACKAGE.rglob("*.py"):
        room, text = path.relative_to(PACKAGE).parts[0], path.read_text()
        if room not in ("models", "explainers"):
            assert "import flax" not in text and "from flax" not in text, path
        if room not in ("settings", "main.py"):
            assert "ConfigDict" not in text and "ml_collections" not in text, path
