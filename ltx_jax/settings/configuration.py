"""From a configuration to settings, once: the only place that knows a ConfigDict."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ltx_jax.errors import InputError
from ltx_jax.objectives import TERMS
from ltx_jax.settings.section import checked, fields_of
from ltx_jax.settings.sections import MASK_TERMS, PREDICTION_TERMS, Settings


def defaults(settings: Settings = Settings()) -> ConfigDict:  # noqa: B008 (it is frozen)
    """The settings that a configuration file starts from; `None` means not given.

    Args:
      settings: those it has: our recipe, or `LTX`, the paper's.
    """
    nested: dict[str, Any] = {}
    for found in fields_of(Settings):
        *sections, name = found.name.split(".")
        section, value = nested, settings
        for part in sections:
            section, value = section.setdefault(part, {}), getattr(value, part)
        section[name] = _held(found.kind, getattr(value, name))
    further = set(TERMS) - {*PREDICTION_TERMS.values(), *MASK_TERMS.values()}
    none = dict.fromkeys(sorted(further), 0.0)
    nested["objective"]["terms"] = none | dict(settings.objective.terms)
    return ConfigDict(nested)


def read(config: ConfigDict) -> Settings:
    """The settings of a configuration, each of its type, one of its choices and in its range.

    Raises:
      InputError: naming the first setting that cannot be used, and what it may be.
    """
    if "target" in (config.get("objective") or {}):
        raise InputError("config.objective.target is config.target now: set that")
    if config.get("task") == "finetune":
        raise InputError("config.task=finetune is called explain now: set config.task=explain")
    settings = checked(_section(Settings, config.to_dict()), "config.")
    _check_together(settings)
    return settings


def help_text() -> str:
    """Every setting with its default and one line of help."""
    lines = []
    for found in fields_of(Settings):
        choices = " | ".join(_choices(found.kind))
        told = f"{found.told} ({choices})" if choices else found.told
        lines.append(f"  --config.{found.name}={_shown(found.default)}\n      {told}")
    return "\n".join(lines)


def _check_together(settings: Settings) -> None:
    explainer = settings.explainer
    if explainer.checkpoint is not None and explainer.weights is not None:
        raise InputError(
            "config.explainer.checkpoint holds all weights: leave config.explainer.weights out"
        )
    if explainer.sizes and explainer.name is None:
        raise InputError(
            "config.explainer.sizes are those of a network of its own: give config.explainer.name"
        )
    if settings.images is None:
        raise InputError(
            "nothing to explain: set config.images to a folder, a text file of paths or an .npz"
        )


def _section(kind: type, values: Mapping[str, Any] | None) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(f"a section is {values!r}: take back what is in it, one by one")
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    if unknown := set(values) - known:
        raise InputError(f"unknown setting {min(unknown)!r}: there are {', '.join(sorted(known))}")
    return kind(
        **{
            name: _section(hints[name], value)
            if dataclasses.is_dataclass(hints[name])
            else _given(value)
            for name, value in values.items()
        }
    )


def _given(value: Any) -> Any:
    """A value as a section has it: sizes that were not given are none."""
    if isinstance(value, Mapping):
        return {key: inner for key, inner in value.items() if inner is not None}
    return tuple(value) if isinstance(value, list) else value


def _held(kind: Any, default: Any) -> Any:
    """A default as a ConfigDict holds it: a placeholder of its type where it is None."""
    if isinstance(default, Mapping):
        return {key: placeholder(int) if v is None else v for key, v in default.items()}
    if default is None:
        held = next(arg for arg in get_args(kind) if arg is not type(None))
        return placeholder(str if get_origin(held) is Literal else held)
    return default


def _choices(kind: Any) -> tuple[str, ...]:
    """Of a setting that is one of a few words."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return get_args(kinds[0]) if get_origin(kinds[0]) is Literal else ()


def _shown(default: Any) -> str:
    return "" if default is None or isinstance(default, Mapping) else str(default)
