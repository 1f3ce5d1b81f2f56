"""What a finished run says on the terminal: a few plain lines, or the same as a table in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.graph.text import visible
from edgec.runtime.report import accuracy, facts
from edgec.runtime.report.schema import Artifact, Latency, Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def summary_lines(report: Report) -> list[str]:
    """The run in plain lines: headline, before -> after, artifacts, problems."""
    lines = [f"{report.model.name} for {report.target}: {facts.sentence(report)}"]
    for change in facts.changes(report):
        arrow = f"{change.before_text} → {change.after_text}" if change.before_text else change.after_text
        verdict = f"  {change.verdict}" if change.verdict else ""
        lines.append(f"  {change.label:<28} {arrow}{verdict}  ({change.basis})")
    measure = facts.measure_of(report)
    for artifact in report.artifacts:
        words = [facts.size(artifact.bytes)]
        if measure is not None:
            words.append(measure.text(measure.value(facts.quality_of(report, artifact))))
        if artifact.latency is not None:
            words.append(_latency(artifact.latency))
        lines.append(f"  {artifact.path:<28} {', '.join(words)}")
        lines += [f"  {'':<28} {_elsewhere(other)}" for other in artifact.others]
    lines += [f"  {facts.metric_text(metric)}" for metric in report.metrics]
    lines += [f"  {text}" for text in facts.details(report)]
    lines += [f"  ! {text}" for text in (*facts.problems(report), *report.warnings, *facts.remarks(report))]
    return [visible(line) for line in lines]


def render_terminal(report: Report, console: Console) -> None:
    """Print the run in colour: headline, table of artifacts, what was undone, gates, and problems."""
    from rich.table import Table

    console.print(_text(facts.sentence(report), style="bold"))
    console.print(_text(f"{report.model.name} for {report.target_title or report.target}", style="dim"))
    changes = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for change in facts.changes(report):
        arrow = f"{change.before_text} → {change.after_text}" if change.before_text else change.after_text
        style = {True: "green", False: "red", None: ""}[change.good]
        basis = _text(change.basis, style="dim")
        changes.add_row(_text(change.label), _text(arrow), _text(change.verdict, style=style), basis)
    console.print(changes)
    if report.artifacts:
        console.print(_artifacts(report))
    for artifact in report.artifacts:
        for other in artifact.others:
            console.print(_text(f"{artifact.path}: {_elsewhere(other)}"))
    for metric in report.metrics:
        console.print(_text(facts.metric_text(metric)))
    for text in facts.details(report):
        console.print(_text(text))
    for line in facts.undone(report):
        console.print(_text(f"undone  {line}", style="yellow"))
    for gate in report.gates:
        style = "green" if gate.passed else "bold red"
        verdict = _text("ok    " if gate.passed else "FAILED", style)
        console.print(verdict.append_text(_text(f"  {facts.gate_text(gate)}")))
    for text in facts.doubts(report):
        console.print(_text(text, style="bold red"))
    for text in (*report.warnings, *facts.remarks(report)):
        console.print(_text(text, style="yellow"))


def render_layers(report: Report, console: Console) -> None:
    """Print the table of layers: what each cost and costs, and where it comes from."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("layer", "op", "made by", "multiply-adds", "parameters", "share of latency", "SQNR"):
        table.add_column(name, justify="left" if name in ("layer", "op", "made by") else "right")
    for layer in report.layers:
        table.add_row(
            _text(layer.name),
            _text(layer.op),
            _text(layer.origin),
            _text(_moved(layer.macs_before, layer.macs_after)),
            _text(_moved(layer.params_before, layer.params_after)),
            _text("" if layer.latency_share is None else f"{100 * layer.latency_share:.1f}%"),
            _text("" if layer.sqnr_db is None else accuracy.SQNR.text(layer.sqnr_db)),
        )
    console.print(table)


def _moved(before: int, after: int) -> str:
    return facts.count(after) if before == after else f"{facts.count(before)} → {facts.count(after)}"


def _text(words: str, style: str = "") -> Text:
    """Words of one line, which names cannot break."""
    from rich.text import Text

    return Text(visible(words), style)


def _artifacts(report: Report) -> object:
    from rich.table import Table

    measure = facts.measure_of(report)
    main = facts.headline_artifact(report)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("file", "precision", "size", *([measure.label] if measure else []), "latency"):
        table.add_column(name, justify="left" if name in ("file", "precision") else "right")
    for artifact in report.artifacts:
        row = [artifact.path, artifact.precision, facts.size(artifact.bytes)]
        if measure is not None:
            row.append(measure.text(measure.value(facts.quality_of(report, artifact))))
        row.append(_artifact_latency(artifact))
        table.add_row(*(_text(cell) for cell in row), style="bold" if artifact is main else "")
    return table


def _elsewhere(latency: Latency) -> str:
    threads = f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"
    return f"{_latency(latency)}, {latency.device}, {latency.runtime}, {threads}"


def _artifact_latency(artifact: Artifact) -> str:
    return _latency(artifact.latency) if artifact.latency is not None else "–"


def _latency(latency: Latency) -> str:
    text = facts.milliseconds(latency.median_ms)
    if not latency.measured:
        error = f"±{latency.error_pct:.0f}%" if latency.error_pct is not None else "error unknown"
        return f"{text} estimated, {error}"
    if latency.emulated:
        return f"{text} emulated: not a latency"
    return f"{text} measured" if latency.valid else f"{text} INVALID"
