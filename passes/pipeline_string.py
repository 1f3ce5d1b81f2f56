"""Pipelines as text: ``prune-channels{macs=50% multiple=8} recover-lsq fold-pointwise``.

A pass prints back to the string that it was parsed from (its non-default options, in the order of its fields), so a recipe
is reproducible by copy and paste. All unknown names and options of a string are reported at once. The form follows xDSL's.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from edgec.graph.errors import UsageError, did_you_mean
from edgec.passes.base import Pass
from edgec.passes.table import PASSES, pass_class

_ITEM = re.compile(r"\s*(?P<name>[A-Za-z0-9_.\-]+)\s*(?:\{(?P<options>[^{}]*)\})?\s*,?")
_OPTION = re.compile(r"\s*(?P<key>[A-Za-z0-9_\-]+)\s*=\s*(?P<value>\"[^\"]*\"|[^\s{}]+)\s*,?")


def parse_pipeline(text: str) -> tuple[Pass, ...]:
    """The passes that ``text`` names. Raises UsageError listing everything that is wrong with it."""
    passes: list[Pass] = []
    problems: list[str] = []
    position = 0
    while position < len(text) and text[position:].strip(" ,\n\t"):
        match = _ITEM.match(text, position)
        if match is None or match.end() == position:
            problems.append(f"cannot read {text[position:].strip()[:40]!r}")
            break
        position = match.end()
        try:
            passes.append(make_pass(match["name"], _options(match["name"], match["options"] or "")))
        except UsageError as error:
            problems.append(str(error).replace("\n", " "))
    if problems:
        hint = "See `edgec passes list`."
        raise UsageError("the pipeline cannot be read", why="; ".join(problems), hint=hint)
    return tuple(passes)


def print_pipeline(passes: Sequence[Pass]) -> str:
    """The inverse of `parse_pipeline`."""
    return " ".join(print_pass(one) for one in passes)


def print_pass(one: Pass) -> str:
    """``name{option=value ...}`` with the options that differ from their defaults."""
    shown = [
        f"{_kebab(item.name)}={_print(getattr(one, item.name))}"
        for item in dataclasses.fields(one)
        if getattr(one, item.name) != _default(item)
    ]
    return f"{one.name}{{{' '.join(shown)}}}" if shown else one.name


def make_pass(name: str, options: dict[str, Any]) -> Pass:
    """A pass from its name and options (text or plain values, keys in kebab or snake case). Raises UsageError."""
    if name not in PASSES:
        raise UsageError(f"unknown pass {name!r}", hint=did_you_mean(name, PASSES))
    cls = pass_class(name)
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    problems, values = [], {}
    for key, raw in options.items():
        field_name = key.replace("-", "_")
        if field_name not in fields:
            known = [_kebab(known_name) for known_name in fields]
            hint = did_you_mean(_kebab(key), known) if known else "It takes no options."
            problems.append(f"{name} has no option {key!r}. {hint}")
            continue
        try:
            values[field_name] = _convert(raw, hints[field_name])
        except ValueError:
            wanted = type_name(hints[field_name])
            problems.append(f"{name}: {key}={raw} is not {wanted}")
    missing = [_kebab(i.name) for i in fields.values() if not _has_default(i) and i.name not in values]
    if missing and not problems:
        problems.append(f"{name} needs {', '.join(missing)}")
    if problems:
        raise UsageError("; ".join(problems))
    return cls(**values)


def options_of(one: Pass) -> dict[str, Any]:
    """All options with their values, keys in kebab case, for recipes and reports."""
    return {_kebab(item.name): _plain(getattr(one, item.name)) for item in dataclasses.fields(one)}


def option_table(cls: type[Pass]) -> list[tuple[str, str, str, str]]:
    """(name, type, default, help) of each option of a pass."""
    hints = typing.get_type_hints(cls)
    return [
        (
            _kebab(item.name),
            type_name(hints[item.name]),
            _print(_default(item)) if _has_default(item) else "required",
            str(item.metadata.get("help", "")),
        )
        for item in dataclasses.fields(cls)
    ]


def type_name(hint: Any) -> str:
    """A type as a person would say it."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "|".join(str(arg) for arg in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in typing.get_args(hint) if arg is not type(None))
    if origin is tuple:
        return f"a list of {type_name(typing.get_args(hint)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


def _options(name: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    position = 0
    while text[position:].strip(" ,"):
        match = _OPTION.match(text, position)
        if match is None:
            raise UsageError(
                f"{name}: cannot read the option at {text[position:].strip()[:30]!r}; write key=value"
            )
        if match["key"] in options:
            raise UsageError(f"{name}: option {match['key']!r} is given twice")
        value = match["value"].rstrip(",") if not match["value"].startswith('"') else match["value"][1:-1]
        options[match["key"]] = value
        position = match.end()
    return options


def _convert(raw: Any, hint: Any) -> Any:
    """``raw`` (text or a plain value) as the type ``hint``. Raises ValueError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None or (isinstance(raw, str) and raw in ("none", "") and type(None) in args):
            return None
        for arg in (a for a in args if a is not type(None)):
            try:
                return _convert(raw, arg)
            except ValueError:
                continue
        raise ValueError(raw)
    if origin is typing.Literal:
        match = [arg for arg in args if str(arg) == str(raw)]
        if not match:
            raise ValueError(raw)
        return match[0]
    if origin is tuple:
        items = raw if isinstance(raw, (list, tuple)) else [part for part in str(raw).split(",") if part]
        return tuple(_convert(item, args[0]) for item in items)
    if hint is bool:
        return _boolean(raw)
    if hint in (int, float, str):
        if isinstance(raw, bool) or (hint is int and isinstance(raw, float) and not raw.is_integer()):
            raise ValueError(raw)
        return hint(raw)
    raise ValueError(raw)


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(raw).lower() not in words:
        raise ValueError(raw)
    return words[str(raw).lower()]


def _print(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(_print(item) for item in value)
    if value is None:
        return "none"
    text = repr(value) if isinstance(value, float) else str(value)
    return f'"{text}"' if re.search(r"[\s{},]", text) or not text else text


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _has_default(item: dataclasses.Field[Any]) -> bool:
    return item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default is not dataclasses.MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else dataclasses.MISSING
