"""The main command's tasks on a configuration, without the command line."""

from __future__ import annotations

import json
from pathlib import Path

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import read
from ltx_jax.tasks import evaluate, explain, pretrain, train_classifier

TASKS = {
    "explain": explain.run,
    "pretrain": pretrain.run,
    "evaluate": evaluate.run,
    "train_classifier": train_classifier.run,
}


def run(config: ConfigDict, workdir: Path) -> str:
    """What the command prints."""
    settings = read(config)
    return TASKS[settings.task](settings, workdir)


def lines(workdir: Path, name: str = "results.jsonl") -> list[dict]:
    """The records of a work directory."""
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]
