"""Budgets as people write them: ``macs=50%``, ``params=1.2M``, ``size=4MB``, ``latency=25ms``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgec.graph.errors import UsageError, did_you_mean

UNITS = {
    "macs": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "params": {"": 1.0, "k": 1e3, "M": 1e6},
    "size": {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6},
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
}
EXAMPLES = "macs=50%, params=40%, size=4MB, latency=25ms"
_FORM = re.compile(r"^(?P<unit>[A-Za-z]+)\s*=\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<suffix>[A-Za-z%]*)$")


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
        return self.unit, self.text.partition("=")[2].strip()


def parse_budget(text: str) -> Budget:
    """Raises UsageError for an unknown unit or a number that makes no sense."""
    match = _FORM.match(text.strip())
    if match is None:
        raise UsageError(f"not a budget: {text!r}", hint=f"Write one of {EXAMPLES}.")
    unit, number, suffix = match["unit"], float(match["number"]), match["suffix"]
    if unit not in UNITS:
        hint = f"{did_you_mean(unit, UNITS)} Write one of {EXAMPLES}."
        raise UsageError(f"unknown budget unit {unit!r}", hint=hint)
    if suffix == "%":
        if not 0 < number <= 100:
            raise UsageError(f"{text!r} is not between 0% and 100%")
        return Budget(unit, number / 100, relative=True, text=text.strip())
    if suffix not in UNITS[unit]:
        known = ", ".join(s or "plain numbers" for s in UNITS[unit])
        raise UsageError(f"unknown suffix {suffix!r} in {text!r}", hint=f"Known for {unit}: %, {known}.")
    if number <= 0:
        raise UsageError(f"{text!r} is not above 0")
    return Budget(unit, number * UNITS[unit][suffix], relative=False, text=text.strip())


def sole_budget(name: str, given: Mapping[str, str]) -> Budget:
    """The one budget among the options (unit -> text) of pass ``name``. Raises UsageError for none or several."""
    filled = {unit: text for unit, text in given.items() if text}
    if len(filled) != 1:
        why = "no budget is given" if not filled else f"{', '.join(filled)} are given together"
        raise UsageError(f"{name} needs one budget", why=why, hint=f"Write {name}{{macs=50%}}.")
    unit, text = next(iter(filled.items()))
    return parse_budget(f"{unit}={text}")
