"""What a room holds: rooms of scores, rivals and terms list themselves."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

Declared = TypeVar("Declared")


def declared(room: str, kind: type[Declared]) -> dict[str, Declared]:
    """Everything of a kind that the modules of a package declare, by its `name`.

    Args:
      room: the package.
      kind: a class with a `name`; its instances at the top of the room's modules are found.

    Raises:
      AssertionError: where two of them have one name.
    """
    package: ModuleType = import_module(room)
    found: dict[str, Declared] = {}
    for module in sorted(iter_modules(package.__path__), key=lambda module: module.name):
        for value in vars(import_module(f"{room}.{module.name}")).values():
            if isinstance(value, kind) and found.setdefault(value.name, value) is not value:  # type: ignore[attr-defined]
                raise AssertionError(f"{room} declares {value.name} twice")  # type: ignore[attr-defined]
    return found
