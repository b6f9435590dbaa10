"""The command line: every complaint is one line, and the exit code says that it is one."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/demo.py", "--config.finetune.stepz=3"], 'Did you mean "steps"'),
        (
            ["--config=configs/demo.py", "--config.finetune.steps=abc"],
            "--config.finetune.steps=abc",
        ),
        (["--config=configs/nope.py"], "configs/nope.py is no configuration file"),
        (["--confog=x"], "Unknown command line flag 'confog'"),
        (["--config=configs/vit_base.py"], "nothing to explain: set config.images"),
        ([], "no configuration: give one of configs/"),
    ],
)
def test_complaints_are_one_line(arguments, message):
    found = subprocess.run(
        [sys.executable, "-m", "ltx_jax.main", *arguments], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert message in found.stderr and found.stderr.count("\n") == 1
    assert found.stdout == ""
