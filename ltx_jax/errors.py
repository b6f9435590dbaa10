"""Errors a user can cause, told in one line."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to the program cannot be used.

    The message is one line: what was wrong, what was expected, what to do. The command line
    prints it without a traceback; from Python it is an ordinary `ValueError`.
    """
