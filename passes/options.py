"""The options of a pass: declared by `option` in a dataclass, read when the dataclass is made.

A field's type says what kind of value it has (a `Literal` lists its words), ``within`` which numbers are admitted. Text and
plain values are read alike, so that the command line, a recipe, and Python take and refuse the same.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import cache
from typing import Any, Literal, TypeVar

from edgec.graph import values
from edgec.graph.errors import UsageError
from edgec.graph.values import ANY, NotAdmitted, Range

T = TypeVar("T")

SAMPLES = values.COUNT
RIDGE = Range(0, 1e6)
"""Of ridges and penalties, relative to a mean energy: above it nothing would move."""
ROWS = Range(1, 1e6)
"""Per unknown."""
FORMER_NAMES = {"lam": "ridge", "flips": "hflip", "blend": "mixup", "damage": "sensitivity"}
"""What options were called in 0.1: accepted for one release, with a `RenamedOptionWarning`."""

HELD_OUT = Range(0, 1, below=True)
MULTIPLE = Range(0, 4096)
ROUNDS = Range(0, 10_000)
BYTES = Range(0, 16, above=True)
"""Of one weight."""

KEEP, AUTO = "keep", "auto"
"""Of the input's resolution, beside sizes: the model's own, and whichever meets the budget with the least loss."""

Switch = Literal["auto", "yes", "no"]
"""A switch that may be left to the pass. Every spelling of true and false is read as yes and no."""


def option(
    default: T,
    help: str,  # noqa: A002  (the word that every option table uses)
    within: Range = ANY,
    reads: Callable[[str], Any] | None = None,
) -> T:
    """A dataclass field with a default and one line of help, which the command line prints.

    ``within``: the numbers that are admitted. ``reads``: for text with a form of its own (of a list, of each part); it gives the
    text as it is kept, and raises UsageError.
    """
    return field(default=default, metadata={"help": help, "within": within, "reads": reads})


def path_option(help: str) -> str:  # noqa: A002  (as in `option`)
    """A dataclass field that names a file, empty for none: recipes keep it relative to themselves."""
    return field(default="", metadata={"help": help, "within": ANY, "path": True})


def paths_of(one: Any) -> dict[str, str]:
    """The files that the options of a pass name, by field."""
    named = [item.name for item in dataclasses.fields(one) if item.metadata.get("path")]
    return {name: text for name in named if (text := str(getattr(one, name)))}


def read_fields(one: Any) -> dict[str, Any]:
    """The fields of a dataclass that is being made, read. Raises UsageError that names every option that is not admitted."""
    types_of = kinds(one.__class__)
    found, problems = {}, []
    for item in dataclasses.fields(one):
        raw = getattr(one, item.name)
        try:
            found[item.name] = read(raw, types_of[item.name], item.metadata)
        except NotAdmitted as error:
            hint = f" ({error.hint})" if error.hint else ""
            given = raw if isinstance(raw, str) and raw else values.shown(raw)
            problems.append(f"{kebab(item.name)}={given} is not {error.admitted}{hint}")
        except UsageError as error:
            problems.append(f"{kebab(item.name)}: {values.one_line(error)}")
    if problems:
        raise UsageError(f"{one.name}: {'; '.join(problems)}")
    return found


def read(raw: Any, kind: Any, metadata: Mapping[str, Any]) -> Any:
    """``raw``, text or a plain value, as the type ``kind``. Raises NotAdmitted; UsageError from a reader of the option's own."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    within: Range = metadata.get("within", ANY)
    if origin in (typing.Union, types.UnionType):
        return _either(raw, kind, metadata)
    if origin is Literal:
        return values.word(raw, args)
    if origin is tuple:
        parts = raw if not isinstance(raw, str) else [part for part in raw.split(",") if part]
        return values.several(parts, lambda part: read(part, args[0], metadata))
    if kind is bool:
        return values.switch(raw)
    if kind is int:
        return values.whole(raw, within)
    if kind is float:
        return values.number(raw, within)
    own: Callable[[str], Any] | None = metadata.get("reads")
    return values.text(raw) if own is None else own(values.text(raw))


def type_name(kind: Any, metadata: Mapping[str, Any]) -> str:
    """A type as a person would say it, with the numbers that it admits."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "|".join(args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(arg, metadata) for arg in args if arg is not type(None))
    if origin is tuple:
        return f"a list of {type_name(args[0], metadata)}"
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        kind, str(kind)
    )
    return f"{named} {metadata.get('within', ANY)}".rstrip()


@cache
def kinds(cls: type) -> Mapping[str, Any]:
    """The type of each field of a dataclass."""
    return typing.get_type_hints(cls)


def kebab(name: str) -> str:
    """A field's name as options are written."""
    return name.replace("_", "-")


def _either(raw: Any, kind: Any, metadata: Mapping[str, Any]) -> Any:
    args = typing.get_args(kind)
    if type(None) in args and (raw is None or raw in ("none", "")):
        return None
    for arg in args:
        if arg is not type(None):
            try:
                return read(raw, arg, metadata)
            except NotAdmitted:
                continue
    raise NotAdmitted(raw, type_name(kind, metadata))
