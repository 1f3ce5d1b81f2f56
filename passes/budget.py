"""Budgets as people write them: ``macs=50%``, ``params=1.2M``, ``size=4MB``, ``latency=25ms``.

A percentage is of the network that came in. Everything else is absolute and has its unit; only multiplications and parameters
may be plain numbers, from 1000 on. What lacks its ``%`` or its unit would otherwise be a budget that no network can meet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from edgec.graph.errors import UsageError, did_you_mean
from edgec.passes.options import option

if TYPE_CHECKING:
    from edgec.graph.cost import ModelCost

UNITS = {
    "macs": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "params": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "size": {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9},
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
}
EXAMPLES = "macs=50%, params=1.2M, size=4MB, latency=25ms"
LEAST_PLAIN = 1000
"""Below it a number without unit is a percentage whose sign was forgotten, or a number of millions."""
LEAST_SHARE = 1e-3
"""Of the source: a budget below it is a number without its unit."""
_USUAL = {"macs": "M", "params": "M", "size": "MB", "latency": "ms"}
_FORM = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<suffix>%|[A-Za-z]*)")


@dataclass(frozen=True)
class Budget:
    """``amount`` is a fraction of the source where ``relative``, else MACs, parameters, bytes, or milliseconds."""

    unit: str
    amount: float
    relative: bool
    text: str

    def limit(self, source: float) -> float:
        """The most that the result may cost, given what the source costs."""
        return self.amount * source if self.relative else self.amount

    @property
    def option(self) -> tuple[str, str]:
        """(option, value) as the pruning passes take it: ``macs=50%``."""
        return self.unit, self.text.partition("=")[2]


def has_latency(one: object) -> bool:
    """Whether the pass ``one`` narrows until a latency is met."""
    return bool(getattr(one, "latency", ""))


def budget_option(unit: str, help: str) -> str:  # noqa: A002  (as in `option`)
    """A pass option that holds the amount of a budget, ``50%``; empty: none."""
    return option("", help, reads=partial(_amount_or_none, unit))


def budgets_in(one: Any) -> dict[str, str]:
    """Unit -> amount, of the budget options of a pass; empty where it is left open."""
    options = {item.name: item.metadata.get("reads") for item in fields(one)}
    return {
        name: getattr(one, name)
        for name, reads in options.items()
        if isinstance(reads, partial) and reads.func is _amount_or_none
    }


def parse_budget(text: str) -> Budget:
    """Raises UsageError for an unknown unit or an amount that makes no sense."""
    unit, sign, amount = (part.strip() for part in text.partition("="))
    known = {name.lower(): name for name in UNITS}
    if not sign:
        raise UsageError(f"not a budget: {text!r}", hint=f"Write one of {EXAMPLES}.")
    if unit.lower() not in known:
        hint = f"{did_you_mean(unit.lower(), UNITS)} Write one of {EXAMPLES}."
        raise UsageError(f"unknown budget unit {unit!r}", hint=hint)
    return _budget(known[unit.lower()], amount)


def check_amounts(passes: Iterable[object], budget: str | None, spent: ModelCost) -> None:
    """Raise UsageError for an absolute amount that is a typing error: less than a thousandth of what the model costs.

    It may stand in ``budget``, or in an option of a pass.
    """
    whole = {"macs": spent.macs, "params": spent.params, "size": spent.weight_bytes}
    given = [f"{unit}={text}" for one in passes for unit, text in budgets_in(one).items() if text]
    for one in map(parse_budget, (*given, *([budget] if budget else []))):
        source = whole.get(one.unit, 0)
        if not one.relative and one.amount < LEAST_SHARE * source:
            share = f"{100 * one.amount / source:.2g}% of the model's {source:,}"
            hint = f"A share is written {one.unit}=50%; units are k, M and G (bytes: kB, MB, GB)."
            raise UsageError(f"the budget {one.text} makes no sense here", why=f"it is {share}", hint=hint)


def sole_budget(name: str, given: Mapping[str, str]) -> Budget:
    """The one budget among the options (unit -> text) of pass ``name``. Raises UsageError for none or several."""
    filled = {unit: text for unit, text in given.items() if text}
    if len(filled) != 1:
        why = "no budget is given" if not filled else f"{', '.join(filled)} are given together"
        raise UsageError(f"{name} needs one budget", why=why, hint=f"Write {name}{{macs=50%}}.")
    unit, text = next(iter(filled.items()))
    return _budget(unit, text)


def _amount_or_none(unit: str, text: str) -> str:
    return _budget(unit, text).option[1] if text.strip() else ""


def _budget(unit: str, amount: str) -> Budget:
    """The budget ``unit=amount``. Raises UsageError."""
    amount = amount.strip()
    given = f"{unit}={amount}"
    if not amount:
        raise UsageError(f"{given} has no amount", hint=f"Write one of {EXAMPLES}.")
    if re.search(r"[,;\s]\s*[A-Za-z]+\s*=", amount):
        raise UsageError(f"{given!r} holds several budgets", why="a run has one", hint="Choose one of them.")
    match = _FORM.fullmatch(amount)
    if match is None:
        raise UsageError(f"not a budget: {given!r}", hint=f"Write one of {EXAMPLES}.")
    number, suffix = float(match["number"]), match["suffix"]
    text = f"{unit}={match['number']}{suffix}"
    if not math.isfinite(number):
        raise UsageError(f"{given!r} is not a finite amount")
    if suffix == "%":
        if not 0 < number <= 100:
            raise UsageError(f"{given!r} is not between 0% and 100%", why="percentages are of the source")
        return Budget(unit, number / 100, relative=True, text=text)
    if number <= 0:
        raise UsageError(f"{given!r} is not above 0")
    plain = suffix == "" and number < LEAST_PLAIN
    if suffix not in UNITS[unit] or plain:
        what = f"unknown suffix {suffix!r} in {given!r}" if suffix else f"{given!r} has no unit"
        known = ", ".join(one or f"plain numbers from {LEAST_PLAIN}" for one in UNITS[unit])
        hint = f"Known for {unit}: %, {known}."
        raise UsageError(what, why=_meant(unit, number, suffix), hint=hint)
    return Budget(unit, number * UNITS[unit][suffix], relative=False, text=text)


def _meant(unit: str, number: float, suffix: str) -> str | None:
    """What a person may have meant who wrote ``number`` with ``suffix``."""
    folded = {one.lower(): one for one in reversed(UNITS[unit])}
    share, amount = f"{number:g}%", f"{number:g}{_USUAL[unit]}"
    if suffix:
        if suffix.lower() not in folded:
            return None
        guesses = [f"{number:g}{folded[suffix.lower()]}"]
    elif number < 1:
        guesses = [f"{100 * number:g}%"]
    elif number > 100:
        guesses = [amount]
    else:  # a time or a size is more often an amount than a share
        guesses = [amount, share] if unit in ("size", "latency") else [share, amount]
    return f"did you mean {' or '.join(guesses)}?"
