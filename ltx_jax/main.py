"""The main command: python -m ltx_jax.main --config=configs/demo.py --workdir=results."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from traceback import extract_tb
from typing import Any

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from ltx_jax.data.sources import refuse_address
from ltx_jax.errors import InputError
from ltx_jax.files import claimed
from ltx_jax.leases import clear as clear_leases
from ltx_jax.runtime import Terminated, join_processes, leave_processes, prepare, together
from ltx_jax.settings.configuration import help_text, read
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks import (
    evaluate,
    explain,
    explain_filters,
    pretrain,
    train_classifier,
    train_words,
)
from ltx_jax.tasks.team import read_share, sharing

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; results/CONFIG if not given.")
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    None,
    "Share the run with other processes: auto (TPU pod, SLURM), or ADDRESS:PORT,INDEX/ALL.",
)
_SHARE = flags.DEFINE_string(
    "share",
    None,
    "Share the run with processes that know nothing but the work directory: INDEX/ALL, from 0.",
)
_QUOTES = "' \""
# A setting of the command line, and its value.
_SETTING = re.compile(r"--?config\.([^\s=]+)=(.*)", re.DOTALL)
TASKS: dict[str, Callable[[Settings, Path], str]] = {
    "explain": explain.run,
    "pretrain": pretrain.run,
    "evaluate": evaluate.run,
    "train_classifier": train_classifier.run,
    "train_words": train_words.run,
    "explain_filters": explain_filters.run,
}
_TRAINING = {"pretrain", "train_classifier", "train_words"}
_SHARED = {"explain": explain.run, "evaluate": evaluate.run}
_INTERRUPTED = 130, 143  # by Ctrl-C, by SIGTERM
_USAGE = "python -m ltx_jax.main --config=configs/demo.py [--workdir=DIR] [--config.SETTING=VALUE]"


def main(argv: Sequence[str]) -> int:
    """Run the configured task; 0 when it is done, 2 where the input cannot be used."""
    back = _taken_back(argv[1:])
    if unexpected := [a for a in argv[1:] if a not in back.values()]:
        return _complain(
            f"unexpected argument {unexpected[0]!r}: settings are given as --config.KEY=VALUE"
        )
    config = _CONFIG.value
    if config is None and not flags.FLAGS["config"].present:
        return _complain("no configuration: give one of configs/, e.g. --config=configs/demo.py")
    try:
        ours = hasattr(config, "task") and isinstance(config, ConfigDict)
    except OSError:  # a file that did not load complains when it is first used
        return _complain(f"{_filename()} is no configuration file: give one of configs/")
    if not ours:
        return _complain(
            f"get_config of {_filename()} gives {type(config).__name__}, not our settings: begin "
            "with ltx_jax.settings.configuration.defaults()"
        )
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    for library in ("jax", "absl"):
        logging.getLogger(library).setLevel(logging.WARNING)
    _write_any_name()
    signal.signal(signal.SIGTERM, _terminate)
    prepare()
    try:
        for name in back:
            _take_back(config, name)
        settings = read(config)
        workdir = Path(_WORKDIR.value or Path("results") / Path(_filename()).stem)
        refuse_address("--workdir", workdir)
        if _SHARE.value is None:
            _run(settings, workdir)
        else:
            _run_shared(settings, workdir, _SHARE.value)
    except InputError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted: what is done is kept, and the same command goes on")
        return _INTERRUPTED[0]
    except Terminated:
        _complain("terminated: what is done is kept, and the same command goes on")
        return _INTERRUPTED[1]
    except BrokenPipeError:  # whoever reads the table has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        leave_processes()
    return 0


def _run(settings: Settings, workdir: Path) -> None:
    """The task, alone or with others under `jax.distributed`."""
    if _DISTRIBUTED.value and settings.task not in {*_TRAINING, *_SHARED}:
        raise InputError(
            f"config.task={settings.task} runs in one process, on all of its devices: leave "
            "--distributed out"
        )
    if _DISTRIBUTED.value:
        join_processes(_DISTRIBUTED.value, settings.task in _TRAINING)
    with ExitStack() as held:
        with together():
            if jax.process_index() == 0:
                held.enter_context(claimed(workdir))
                clear_leases(workdir)  # of processes that shared the run, and died
        print(TASKS[settings.task](settings, workdir), flush=True)


def _run_shared(settings: Settings, workdir: Path, told: str) -> None:
    """The task with others that know each other by the work directory alone."""
    if _DISTRIBUTED.value:
        raise InputError("--share and --distributed are two ways to share a run: leave one out")
    if settings.task not in _SHARED:
        instead = "give --distributed instead" if settings.task in _TRAINING else "leave it out"
        raise InputError(f"config.task={settings.task} cannot be shared by --share: {instead}")
    index, count = read_share(told)
    with claimed(workdir, shared=True), sharing(index, count, workdir, settings.lost_after) as team:
        print(_SHARED[settings.task](settings, workdir, team), flush=True)


def _command(argv: Sequence[str]) -> int:
    """`main`, which leaves at once where it was interrupted: what JAX tidies up at the end breaks
    down over computations that are still under way."""
    code = main(argv)
    if code in _INTERRUPTED:
        sys.stdout.flush()
        os._exit(code)
    return code


def _terminate(*_: object) -> None:
    raise Terminated


def _write_any_name() -> None:
    """Let a terminal without Unicode show names all the same."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parse(argv: list[str]) -> list[str]:
    """Flags, with every complaint about them in one line; the settings in place of absl's help."""
    if any(argument in ("--help", "-h", "-help") for argument in argv[1:]):
        print(f"{_USAGE}\n\nSettings and their defaults:\n{help_text()}")
        sys.exit(0)
    # A number's flag would not read None, so that these are left to `main`.
    back = [a for a in argv if (found := _SETTING.fullmatch(a)) and found[2] == "None"]
    try:
        return flags.FLAGS([a for a in argv if a not in back]) + list(_taken_back(argv).values())
    except flags.Error as error:
        sys.exit(_complain(str(error)))
    except Exception as error:
        sys.exit(_complain(_about_file(error, argv) or _about_setting(error)))


def _taken_back(argv: Sequence[str]) -> dict[str, str]:
    """Of settings whose last value is None, which takes back what a configuration gives: the
    argument, by the setting's dotted name."""
    last = {found[1]: found for a in argv if (found := _SETTING.fullmatch(a))}
    return {name: found[0] for name, found in last.items() if found[2] == "None"}


def _take_back(config: ConfigDict, name: str) -> None:
    """Make a setting, by its dotted name, one that is not given; that there is one the flags have
    seen."""
    *sections, last = name.split(".")
    for section in sections:
        config = config[section]
    config[last] = None


def _about_file(error: Exception, argv: Sequence[str]) -> str | None:
    """What is wrong in the configuration file itself; None where nothing is."""
    told = f"{type(error).__name__}: {error.args[0] if error.args else ''}"
    for file in (Path(argument.partition("=")[2] or argument) for argument in argv[1:]):
        lines = [f.lineno for f in extract_tb(error.__traceback__) if Path(f.filename) == file]
        if isinstance(error, SyntaxError) and error.filename in (str(file), None):
            lines.append(error.lineno)
        if lines:
            where = f", line {lines[-1]}" if lines[-1] else ""
            return f"{file} is no configuration ({told}{where}): mend it, or give one of configs/"
    if "has no attribute 'get_config'" in told:
        return "the file given as --config has no get_config: give one of configs/"
    return None


def _about_setting(error: Exception) -> str:
    """The configuration's own complaint about a setting of the command line, with the nearest known
    ones, in quotes that come in pairs."""
    told = str(error.args[0] if error.args else error).replace("\\n", " ").replace("\\'", "'")
    if parsed := re.match(r"Could not parse (.*?): ", told):
        return f"cannot read the setting {parsed[1]}: expected --config.KEY=VALUE"
    if inside := re.search(r"Attempting to lookup: (\S+)", told):
        return f"unknown setting {inside[1]!r}: what is before the last dot is no section"
    name, _, nearest = told.strip(_QUOTES).partition("'")
    return f"unknown setting {name!r}" + (f": {nearest.strip(_QUOTES)}" if nearest else "")


def _filename() -> str:
    flag: Any = flags.FLAGS["config"]
    return str(flag.config_filename)


def _complain(message: str) -> int:
    print(f"ltx_jax: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    app.run(_command, flags_parser=_parse)
