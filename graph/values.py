"""Values as people write them, and which of them are admitted: one reader for each kind.

Pass options, recipes, the command line, and Python arguments are all read here, so that a value means the same everywhere and
is refused in the same words. A reader takes text or a plain value; what it does not admit is a `NotAdmitted`, which says
what was given and what is admitted. Its callers say where it stood.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edgec.graph.errors import EdgecError, did_you_mean

T = TypeVar("T")

LARGEST = 2**31 - 1
"""Of whole numbers: more is a typing error, and would not fit where C code reads it."""

_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}  # fmt: skip
_SECONDS = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(?P<unit>[A-Za-z]*)")


class NotAdmitted(ValueError):  # noqa: N818  (it is what the value is)
    """``raw`` is not ``admitted`` ("a number of at least 0"); ``hint`` says what may have been meant."""

    def __init__(self, raw: Any, admitted: str, hint: str = "") -> None:
        super().__init__(f"{shown(raw)} is not {admitted}" + (f". {hint}" if hint else ""))
        self.admitted: str = admitted
        self.hint: str = hint


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; ``above`` and ``below``: without ``low``, without ``high``. None: no bound."""

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        high_enough = self.low is None or (value > self.low if self.above else value >= self.low)
        low_enough = self.high is None or (value < self.high if self.below else value <= self.high)
        return high_enough and low_enough

    def __str__(self) -> str:
        low, high = (None if bound is None else f"{bound:.10g}" for bound in (self.low, self.high))
        if low is None or high is None:
            bound = f"{'above' if self.above else 'of at least'} {low}" if low is not None else ""
            return bound or (f"{'below' if self.below else 'of at most'} {high}" if high is not None else "")
        if self.above or self.below:
            return f"{'above' if self.above else 'of at least'} {low} and {'below' if self.below else 'at most'} {high}"
        return f"from {low} to {high}"


COUNT = Range(1, LARGEST)
COUNT_OR_NONE = Range(0, LARGEST)
SEED = Range(0, 2**32 - 1)
THREADS = Range(1, 1024)
"""Not a matter of this machine's cores: a recipe comes from another one. More threads than any has is a typing error."""
OFFSET = Range(-1_000_000, 1_000_000)
"""Of labels."""
BATCH = Range(1, 65536)
SHARE = Range(0, 1)
PART = Range(0, 1, above=True, below=True)
SIZE = Range(1, 8192)
"""Of a side of a picture, in pixels."""
TIME = Range(1, 7 * 86400)
"""Of learning, in seconds."""
ANY = Range()


def shown(raw: Any) -> str:
    """``raw`` as a message quotes it, one short line: text in quotes, everything else as Python writes it."""
    try:
        text = repr(raw)
    except ValueError:  # a whole number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(error: EdgecError) -> str:
    """The message of ``error`` with its hint, to stand within another message."""
    head, _, hint = str(error).partition("\n")
    return " ".join(f"{head}{'' if head.endswith(('.', '?')) or not hint else '.'} {hint}".split())


def whole(raw: Any, within: Range = ANY) -> int:
    """A whole number; text and numbers such as 3.0 are read, true and false are not."""
    admitted = f"a whole number {within}".rstrip()
    if isinstance(raw, bool):
        raise NotAdmitted(raw, admitted)
    try:
        value = int(raw.strip().replace("_", "x")) if isinstance(raw, str) else _exact(raw)
    except (ValueError, OverflowError, TypeError):
        raise NotAdmitted(raw, admitted) from None
    if value not in within:
        raise NotAdmitted(raw, admitted)
    return value


def number(raw: Any, within: Range = ANY) -> float:
    """A finite number; a fraction such as ``1/255`` is one too."""
    admitted = f"a number {within}".rstrip()
    try:
        value = _float(raw)
    except (ValueError, OverflowError, TypeError, ZeroDivisionError):
        raise NotAdmitted(raw, admitted) from None
    if not math.isfinite(value):
        raise NotAdmitted(raw, f"a finite number {within}".rstrip())
    if value not in within:
        raise NotAdmitted(raw, admitted)
    return value + 0.0  # -0.0 is 0.0


def switch(raw: Any) -> bool:
    """true, yes, on, 1, or false, no, off, 0, in any case."""
    known = _SWITCH.get(_folded(raw))
    if known is None:
        raise NotAdmitted(raw, "true or false (nor yes or no)")
    return known


def word(raw: Any, words: Sequence[str]) -> str:
    """One of ``words``, in any case. Where yes and no are among them, every spelling of `switch` is read as one of the two."""
    folded = {one.lower(): one for one in words}
    text = _folded(raw)
    if text in folded:
        return folded[text]
    if {"yes", "no"} <= set(words) and text in _SWITCH:
        return "yes" if _SWITCH[text] else "no"
    near = did_you_mean(text, words)
    raise NotAdmitted(raw, f"one of {', '.join(words)}", near if near.startswith("Did") else "")


def text(raw: Any) -> str:
    """Text; a number is read as what is written, true and false are not."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, float) or (isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) < 1 << 63):
        return repr(raw)
    raise NotAdmitted(raw, "text")


def seconds(raw: Any, within: Range) -> float:
    """A time in seconds: ``500ms``, ``90s``, ``30m``, ``1h``; a number alone is seconds."""
    admitted = f"a time {within} seconds"
    hint = "Write 500ms, 90s, 30m or 1h; a number alone is seconds."
    if not isinstance(raw, str):
        try:
            return number(raw, within)
        except NotAdmitted:
            raise NotAdmitted(raw, admitted, hint) from None
    match = _DURATION.fullmatch(raw.strip())
    if match is None or match["unit"] not in _SECONDS:
        raise NotAdmitted(raw, admitted, hint)
    try:
        found = number(match["number"]) * _SECONDS[match["unit"]]
    except NotAdmitted:
        raise NotAdmitted(raw, admitted, hint) from None
    if found not in within:
        raise NotAdmitted(raw, admitted)
    return found


def share(raw: Any) -> float:
    """A share from 0 to 1: ``1%`` or ``0.01``."""
    admitted = "a share from 0% to 100% (0 to 1)"
    percent = isinstance(raw, str) and raw.rstrip().endswith("%")
    try:
        value = number(raw.rstrip()[:-1] if percent else raw) / (100 if percent else 1)
    except NotAdmitted:
        raise NotAdmitted(raw, admitted, "Write 1% or 0.01.") from None
    if value not in SHARE:
        hint = f"Did you mean {value:g}%?" if not percent and 1 < value <= 100 else ""
        raise NotAdmitted(raw, admitted, hint)
    return value


def several(raw: Any, one: Callable[[Any], T], separators: str = ",") -> tuple[T, ...]:
    """A list of values that ``one`` reads: a list, or text with one of ``separators`` between them. A single value is a list."""
    if isinstance(raw, str):
        return tuple(one(part.strip()) for part in re.split(f"[{separators}]", raw))
    return tuple(one(part) for part in raw) if isinstance(raw, (list, tuple)) else (one(raw),)


def sizes(raw: Any) -> tuple[int, ...]:
    """``224`` or ``224x320`` (height x width), in pixels."""
    admitted = f"one or two sizes {SIZE}, such as 224 or 224x320"
    try:
        found = several(raw.lower() if isinstance(raw, str) else raw, lambda part: whole(part, SIZE), "x")
    except NotAdmitted:
        raise NotAdmitted(raw, admitted) from None
    if not 1 <= len(found) <= 2:
        raise NotAdmitted(raw, admitted)
    return found


def shape(raw: Any) -> tuple[int, ...]:
    """The shape of one input without the batch, ``3,224,224`` or ``3x224x224``."""
    admitted = "a shape of up to 8 sizes from 1 to 65536, such as 3,224,224"
    try:
        found = several(
            raw.lower() if isinstance(raw, str) else raw, lambda part: whole(part, Range(1, 65536)), ",x"
        )
    except NotAdmitted:
        raise NotAdmitted(raw, admitted) from None
    if not 1 <= len(found) <= 8:
        raise NotAdmitted(raw, admitted)
    if math.prod(found) > 2**28:
        raise NotAdmitted(raw, f"{admitted}; it has {math.prod(found)} elements, 2^28 are the most")
    return found


def input_shape(raw: Any) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """``3,224,224``: the first input without its batch; ``name:1x3x224x224``, or a mapping of such: inputs by name, batch too.

    Several of the latter, in a list, go together.
    """
    parts = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    named = [one for one in parts if isinstance(one, Mapping) or (isinstance(one, str) and ":" in one)]
    if not named:
        return shape(raw)
    if len(named) < len(parts):
        raise NotAdmitted(raw, "one shape, or several of the form name:1x3x224x224")
    found: dict[str, tuple[int, ...]] = {}
    for one in named:
        pairs = one.items() if isinstance(one, Mapping) else [one.rpartition(":")[::2]]
        found |= {str(name): shape(sizes) for name, sizes in pairs}
    return found


def _folded(raw: Any) -> str:
    """A word as it is compared; empty for what is no word."""
    if isinstance(raw, str):
        return raw.strip().lower()
    if type(raw).__name__ in ("bool", "bool_"):  # Python's, and numpy's of either age
        return str(raw).lower()
    return str(int(raw)) if isinstance(raw, int) and raw in (0, 1) else ""


def _exact(raw: Any) -> int:
    """A number that is whole, of whatever type. Raises ValueError, TypeError, OverflowError."""
    if isinstance(raw, numbers.Integral):
        return int(raw)
    if isinstance(raw, numbers.Real) and float(raw).is_integer():
        return int(float(raw))
    raise ValueError


def _float(raw: Any) -> float:
    if isinstance(raw, str):
        top, slash, bottom = raw.replace("_", "x").partition("/")
        return float(top) / float(bottom) if slash else float(top)
    if isinstance(raw, bool) or not isinstance(raw, numbers.Real):
        raise ValueError
    return float(raw)
