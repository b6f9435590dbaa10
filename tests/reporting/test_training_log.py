"""The log of a training: lines that are told once, and its table."""

import json

import pytest

from ltx_jax.errors import InputError
from ltx_jax.reporting.training_log import TrainingLog


def steps(directory):
    text = (directory / "metrics.jsonl").read_text()
    return [json.loads(line)["step"] for line in text.splitlines()]


def test_what_is_told_again_is_told_once(tmp_path):
    log = TrainingLog(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3):
        log.add(step, {"loss": {"total": step / 2}})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed here
    again = TrainingLog(tmp_path, 2, tensorboard=False)
    assert steps(tmp_path) == [1, 2]
    again.add(3, {"epoch": 1, "scores": {"pos": 3.0}})
    again.tabulate()
    assert steps(tmp_path) == [1, 2, 3]
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,loss.total,epoch,scores.pos",
        *("1,0.5,,", "2,1.0,,", "3,,1,3.0"),
    ]


@pytest.mark.parametrize(
    "line", [b"{", b"7", b"null", b'{"stop": 1}', b'{"step": "1"}', b'{"a\xff": 1}']
)
def test_a_damaged_log_is_told(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(line + b"\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged .*: take it away"):
        TrainingLog(tmp_path, 0, tensorboard=False)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TrainingLog(tmp_path, 0, tensorboard=True)
    log.add(5, {"loss": {"total": 1.5}})
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss/total" in events.read_bytes()
