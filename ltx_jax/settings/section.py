"""What a section of the settings is: fields with a default, a line of help and a range, and the
checks of their values."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from ltx_jax.errors import InputError


def setting(
    default: Any, told: str, *, least: float | int | None = None, most: float | int | None = None
) -> Any:
    """A field of a section: its default, one line of help, and the range of its number."""
    how = {"told": told, "least": least, "most": most}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=how)
    return field(default=default, metadata=how)


class Section:
    """Settings that belong together."""

    def check_together(self, prefix: str) -> None:
        """Refuse values that exclude one another.

        Raises:
          InputError: naming them, with the prefix of their names.
        """


class Field(NamedTuple):
    """One setting: its dotted name, type, default, help, and the range of its number."""

    name: str
    kind: Any
    default: Any
    told: str
    least: float | None
    most: float | None


def fields_of(section: type) -> Iterator[Field]:
    """The settings of a section and of those inside it, by dotted name."""
    hints = get_type_hints(section)
    for f in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[f.name]):
            inner = hints[f.name]
            yield from (i._replace(name=f"{f.name}.{i.name}") for i in fields_of(inner))
        else:
            default: Any = f.default
            if f.default_factory is not dataclasses.MISSING:
                default = f.default_factory()
            yield Field(f.name, hints[f.name], default, **f.metadata)


def by_dotted_name(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values in mappings within mappings, by all their names: `finetune.steps`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= by_dotted_name(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def setting_names(section: type) -> tuple[str, ...]:
    """Names of a section's own settings."""
    return tuple(f.name for f in dataclasses.fields(section))


def checked(section: Any, prefix: str = "") -> Any:
    """The section, once each of its values is of its type, one of its choices and in its range;
    NumPy's numbers are Python's in it.

    Args:
      section: a section, or settings with sections inside.
      prefix: of the names in messages, e.g. `config.`.

    Raises:
      InputError: naming the first setting that is not, and what it may be.
    """
    section = _of_python(section)
    for f in fields_of(type(section)):
        value = section
        for name in f.name.split("."):
            value = getattr(value, name)
        _check(f, value, prefix + f.name)
    section.check_together(prefix)
    for part in dataclasses.fields(section):
        if isinstance(inner := getattr(section, part.name), Section):
            inner.check_together(f"{prefix}{part.name}.")
    return section


def _of_python(value: Any) -> Any:
    if isinstance(value, Section):
        own = {name: _of_python(getattr(value, name)) for name in setting_names(type(value))}
        return dataclasses.replace(cast(Any, value), **own)
    if isinstance(value, Mapping):
        return {name: _of_python(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_of_python, value))
    return value.item() if isinstance(value, np.generic) else value


def _check(f: Field, value: Any, name: str) -> None:
    kinds = get_args(f.kind) if get_origin(f.kind) in (Union, types.UnionType) else (f.kind,)
    if value is None and type(None) in kinds:
        return
    kind = kinds[0]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices:
            near = difflib.get_close_matches(str(value), choices, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"{name} is {value!r}{hint}: it is one of {', '.join(choices)}")
        return
    plain = get_origin(kind) or kind
    fitting = (int, float) if plain is float else plain
    if not isinstance(value, fitting) or (isinstance(value, bool) and plain is not bool):
        raise InputError(f"{name} is {value!r}: expected {_spoken(kind)}")
    if plain is tuple:
        each: Any = value
        if wrong := [one for one in each if type(one) not in _members(kind)]:
            raise InputError(f"{name} has {wrong[0]!r}: expected {_spoken(kind)}")
    if value == "":
        raise InputError(f"{name} is empty: give it a value, or leave it out")
    numbers = value.values() if isinstance(value, Mapping) else (value,)
    for number in numbers:
        if get_args(kind) == (str, float) and type(number) not in (int, float):
            raise InputError(f"{name} has {number!r}: expected numbers by name")
        if isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"{name} is {number}: expected a finite number")
    if f.least is not None and value < f.least:
        raise InputError(f"{name} is {value}: it must be at least {f.least:g}")
    if f.most is not None and value > f.most:
        raise InputError(f"{name} is {value}: it must be at most {f.most}")


def _members(kind: Any) -> tuple[Any, ...]:
    """What may stand in a tuple of a kind."""
    of = get_args(kind)[0]
    return get_args(of) or (of,)


def _spoken(kind: Any) -> str:
    if get_origin(kind) is tuple and str not in _members(kind):
        return 'several whole numbers, e.g. "(1,2)"'
    return {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "a text",
        tuple: "several names, e.g. \"('first','second')\"",
    }.get(get_origin(kind) or kind, "names with their values")
