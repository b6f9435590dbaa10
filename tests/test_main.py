"""The command line: every complaint is one line, and the exit code says that it is one."""

import signal
import subprocess
import sys

import pytest

FILES = {
    "syntax": ("def get_config(:", "SyntaxError: invalid syntax, line 1"),
    "import": ("import nothing_there", "No module named 'nothing_there', line 1"),
    "raises": (
        "def get_config():\n    return 1 / 0",
        "ZeroDivisionError: division by zero, line 2",
    ),
    "empty": ("x = 1", "has no get_config: give one of configs/"),
    "strange": ("def get_config():\n    return {}", "gives dict, not our settings: begin with"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_faulty_configuration_file_is_one_line(tmp_path, fault):
    content, message = FILES[fault]
    (tmp_path / "mine.py").write_text(content)
    command = [sys.executable, "-m", "ltx_jax.main", f"--config={tmp_path / 'mine.py'}"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 2
    assert message in found.stderr and found.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_end_says_so(tmp_path, sent, code):
    command = [sys.executable, "-m", "ltx_jax.main", "--config=configs/demo.py"]
    settings = [f"--workdir={tmp_path / 'out'}", "--config.finetune.steps=100000"]
    run = subprocess.Popen([*command, *settings], stderr=subprocess.PIPE, text=True)
    while " slots on each of " not in run.stderr.readline():
        assert run.poll() is None
    run.send_signal(sent)
    try:
        told = run.communicate(timeout=120)[1].splitlines()
    finally:  # one that does not end must not go on for ever
        run.kill()
    assert run.returncode == code
    assert told[-1].startswith("ltx_jax: ") and told[-1].endswith("the same command goes on")
    assert not [line for line in told if line.startswith("Traceback")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/demo.py", "--config.finetune.stepz=3"],
            "unknown setting 'stepz': Did you mean \"steps\"",
        ),
        (
            ["--config=configs/demo.py", "--config.finetune.steps=abc"],
            "--config.finetune.steps=abc",
        ),
        (
            ["--config=configs/demo.py", "--config.rivals=('lift_cam',)"],
            "has no backward rule 'rescaled': choose a method that needs none",
        ),
        (["--config=configs/demo.py", "--config.seed.x=3"], "unknown setting 'seed.x': what is"),
        # What may be left out can be taken back, a number too, and what there is alone.
        (["--config=configs/demo.py", "--config.images=None"], "nothing to explain: set config"),
        (["--config=configs/demo.py", "--config.finetune.steps=None"], "steps is None: expected"),
        (
            ["--config=configs/demo.py", "--config.finetune.stepz=None"],
            "unknown setting 'stepz': Did you mean \"steps\"",
        ),
        (
            ["--config=configs/demo.py", "--config.limit=None", "--config.images=nowhere"],
            "no images at nowhere",
        ),
        # Of several the last one holds.
        (
            ["--config=configs/demo.py", "--config.images=None", "--config.images=nowhere"],
            "no images at nowhere",
        ),
        (
            ["--config=configs/demo.py", "--config.images=nowhere", "--config.images=None"],
            "nothing to explain: set config",
        ),
        (["--config=configs/nope.py"], "configs/nope.py is no configuration file"),
        (["--config=configs/demo.py", "--config.seed=9999999999"], "seed is 9999999999: it must"),
        (["--config=configs/demo.py", "--config.x'y=1"], "cannot read the setting"),
        (
            ["--config=configs/demo.py", "--share=0/2", "--distributed=auto"],
            "--share and --distributed are two ways to share a run: leave one out",
        ),
        (
            ["--config=configs/demo_ltx.py", "--config.task=pretrain", "--share=0/2"],
            "config.task=pretrain cannot be shared by --share: give --distributed instead",
        ),
        (["--config=configs/demo.py", "--share=4/4"], "--share=4/4: expected INDEX/ALL with an"),
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
