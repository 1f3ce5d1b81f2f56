"""Pipelines as text: ``prune-channels{macs=50% multiple=8} recover-lsq fold-pointwise``.

A pass prints back to the string that it was parsed from (its non-default options, in the order of its fields), so a recipe
is reproducible by copy and paste. All unknown names and options of a string are reported at once. The form follows xDSL's.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping
from typing import Any

from edgec.graph.errors import RenamedOptionWarning, UsageError, did_you_mean
from edgec.graph.plugins import blamed
from edgec.graph.values import one_line
from edgec.passes.base import Pass
from edgec.passes.options import FORMER_NAMES, kebab, kinds, type_name
from edgec.passes.table import pass_class

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ITEM = re.compile(
    rf"\s*(?P<name>[A-Za-z0-9_.\-]+)\s*(?:\{{(?P<options>(?:{_QUOTED}|[^{{}}\"])*)\}})?\s*,?", re.DOTALL
)
# A comma ends a value where an option follows; elsewhere it is a part of the value (a list).
_PLAIN = r'[^\s{}",]+(?:,(?!\s*[A-Za-z0-9_\-]+\s*=)[^\s{}",]+)*'
_OPTION = re.compile(
    rf"\s*(?P<key>[A-Za-z0-9_\-]+)\s*=\s*(?P<value>{_QUOTED}|{_PLAIN})(?=[\s,]|$)\s*,?", re.DOTALL
)

_SEPARATORS = ";|>+&"
"""What other tools put between steps."""


def parse_pipeline(text: str) -> tuple[Pass, ...]:
    """The passes that ``text`` names. Raises UsageError listing everything that is wrong with it."""
    passes: list[Pass] = []
    problems: list[str] = []
    position = 0
    while position < len(text) and text[position:].strip(" ,\n\t"):
        match = _ITEM.match(text, position)
        if match is None or match.end() == position:
            rest = text[position:].strip()
            between = " (between two passes stands a space)" if rest[0] in _SEPARATORS else ""
            problems.append(f"cannot read {rest[:40]!r}{between}")
            break
        position = match.end()
        try:
            passes.append(make_pass(match["name"], _options(match["name"], match["options"] or "")))
        except UsageError as error:
            problems.append(one_line(error))
    if problems:
        hint = "See `edgec passes list`."
        raise UsageError("the pipeline cannot be read", why="; ".join(problems), hint=hint)
    return tuple(passes)


def print_pass(one: Pass) -> str:
    """``name{option=value ...}`` with the options that differ from their defaults."""
    shown = [
        f"{kebab(item.name)}={_print(getattr(one, item.name))}"
        for item in dataclasses.fields(one)
        if getattr(one, item.name) != item.default
    ]
    return f"{one.name}{{{' '.join(shown)}}}" if shown else one.name


def make_pass(name: str, options: Mapping[str, Any]) -> Pass:
    """A pass from its name and options (text or plain values, keys in kebab or snake case). Raises UsageError."""
    cls = pass_class(name)
    known = {item.name: item for item in dataclasses.fields(cls)}
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, raw in options.items():
        field_name = _present_name(str(key).replace("-", "_"), known)
        if field_name in values:
            problems.append(f"{name}: option {kebab(field_name)!r} is given twice")
        elif field_name in known:
            values[field_name] = raw
        else:
            hint = did_you_mean(kebab(field_name), map(kebab, known)) if known else "It takes no options."
            problems.append(f"{name} has no option {str(key)!r}. {hint}")
    try:
        with blamed(cls.brought):
            made = cls(**values)
    except UsageError as error:
        problems.append(one_line(error))
    if problems:
        raise UsageError("; ".join(problems))
    return made


def _present_name(name: str, known: Mapping[str, Any]) -> str:
    """``name``, or what it is called now where a recipe of 0.1 says it."""
    present = FORMER_NAMES.get(name)
    if name in known or present not in known:
        return name
    what = f"the option {name}= is called {present}= now; the old name goes with the next release"
    warnings.warn(what, RenamedOptionWarning, stacklevel=2)
    return str(present)


def options_of(one: Pass) -> dict[str, Any]:
    """All options with their values, keys in kebab case, for recipes and reports."""
    return {kebab(item.name): _plain(getattr(one, item.name)) for item in dataclasses.fields(one)}


def option_table(cls: type[Pass]) -> list[tuple[str, str, str, str]]:
    """(name, type, default, help) of each option of a pass."""
    return [
        (
            kebab(item.name),
            type_name(kinds(cls)[item.name], item.metadata),
            _print(item.default),
            str(item.metadata.get("help", "")),
        )
        for item in dataclasses.fields(cls)
    ]


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
        value = match["value"]
        options[match["key"]] = (
            re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if value.startswith('"') else value
        )
        position = match.end()
    return options


def _print(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(_print(item) for item in value)
    if value is None:
        return "none"
    text = repr(value) if isinstance(value, float) else str(value)
    if text and not re.search(r'[\s{},"\\]', text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
