"""The order of passes, as each of them declares it: checked before any work."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.graph.errors import UsageError
from edgec.passes.base import NUMBER_FORMATS, Pass


def check_order(passes: Sequence[Pass]) -> None:
    """Raise UsageError for the first pass that stands where it cannot work, with what has to change."""
    before: set[str] = set()
    changed: str | None = None
    lost: str | None = None
    for one in passes:
        where = f"pass {one.name}"
        if missing := sorted(one.requires_before - before):
            later = {other.name for other in passes} & set(missing)
            hint = (
                f"Move {missing[0]} in front of {one.name}." if later else f"Add {missing[0]} in front of it."
            )
            raise UsageError(f"it needs {' and '.join(missing)} before it", where=where, hint=hint)
        if wrong := sorted(one.never_after & before):
            hint = (
                "Name it once."
                if wrong[0] == one.name
                else f"Move {one.name} in front of {wrong[0]}, or leave one out."
            )
            raise UsageError(
                f"it cannot come after {wrong[0]}", where=where, why=_why(one, wrong[0]), hint=hint
            )
        if one.replaces_network and lost is not None:
            why = "it puts another network in the place of what comes in"
            hint = f"Move {one.name} in front of {lost}."
            raise UsageError(f"what {lost} does would be lost", where=where, why=why, hint=hint)
        if one.changes_input and changed is not None:
            why = f"{changed} works on the network at the size that it has"
            raise UsageError(
                f"it cannot come after {changed}",
                where=where,
                why=why,
                hint=f"Move {one.name} in front of {changed}.",
            )
        before.add(one.name)
        changed = changed or (one.name if one.changes_function else None)
        lost = lost or (one.name if one.changes_function and not one.changes_input else None)


def _why(one: Pass, earlier: str) -> str | None:
    """Where both store numbers, the second has nothing left to store; else the pass works on floats."""
    if earlier not in NUMBER_FORMATS:
        return None
    if one.name in NUMBER_FORMATS:
        return "the weights are stored in another number format by then"
    return "it works on float32 weights, and those are stored in another number format by then"
