"""What a search compared before the run took one of it: sizes of the input, forms of compression."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.runtime.report import facts
from edgec.runtime.report.schema import FormPoint, Portfolio, Report, Resolution, SizePoint


@dataclass(frozen=True)
class Row:
    """One candidate: its name, what it costs, its loss, and how that stands to the others."""

    name: str
    cost: str
    loss: str
    sub: str = ""
    bar: float = 0.0
    """Percent of the worst loss."""
    chosen: bool = False


@dataclass(frozen=True)
class Table:
    """One search."""

    title: str
    measure: str
    rows: tuple[Row, ...]


def tables(report: Report) -> tuple[Table, ...]:
    """One for each search that compared something."""
    found = []
    if report.resolution is not None and report.resolution.points:
        found.append(_sizes(report.resolution))
    if report.portfolio is not None:
        found.append(_forms(report.portfolio))
    return tuple(found)


def _sizes(found: Resolution) -> Table:
    losses = [_of_size(one) for one in found.points]
    worst = max((one for one in losses if one is not None), default=0.0)
    rows = tuple(
        Row(
            f"{facts.pixels(one.size)} px",
            f"{100 * one.share:.0f}% of the cost",
            _figure(loss),
            _size_words(one),
            _bar(loss, worst),
            one.size == found.size,
        )
        for one, loss in zip(found.points, losses, strict=True)
    )
    return Table("Sizes of the input", found.measure, rows)


def _of_size(one: SizePoint) -> float | None:
    return one.loss if one.loss is not None else one.alone


def _size_words(one: SizePoint) -> str:
    if one.why:
        return one.why
    if one.loss is None:
        return "its weights as they are; not tried under the budget"
    return f"under the budget{_spread(one.error)}"


def _forms(found: Portfolio) -> Table:
    worst = max((one.loss for one in found.points if one.loss is not None), default=0.0)
    rows = tuple(
        Row(
            one.title,
            _form_cost(one),
            _figure(one.loss),
            _form_words(one),
            _bar(one.loss, worst),
            one.title == found.chosen,
        )
        for one in found.points
    )
    return Table("Forms of compression", found.measure, rows)


def _form_cost(one: FormPoint) -> str:
    if one.macs is None or one.params is None:
        return "–"
    time = "" if one.latency_ms is None else f", {facts.milliseconds(one.latency_ms)} estimated"
    return f"{facts.count(one.macs)} multiply-adds, {facts.count(one.params)} parameters{time}"


def _form_words(one: FormPoint) -> str:
    if one.why:
        return one.why
    missed = "" if one.met else "; misses the budget"
    return f"{one.passes}{_spread(one.error)}{missed}"


def _spread(error: float | None) -> str:
    return f", ±{error:.2g} against the first" if error else ""


def _figure(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3g}"


def _bar(loss: float | None, worst: float) -> float:
    return 100 * loss / worst if loss and worst else 0.0
