"""Errors a user can cause, told in one line."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class InputError(ValueError):
    """Something given to the program cannot be used.

    The message is one line: what was wrong, what was expected, what to do. The command line
    prints it without a traceback; from Python it is an ordinary `ValueError`.
    """


def needed_package(name: str, what_for: str, extra: str) -> ModuleType:
    """An optional package.

    Args:
      name: of the module.
      what_for: what needs it, for the message.
      extra: of this package, that installs it.

    Raises:
      InputError: where it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{what_for} needs {name.split('.')[0]}: pip install 'ltx_jax[{extra}]'"
        ) from error
