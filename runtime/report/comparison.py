"""Several runs side by side: a page with a Pareto plot, Markdown for a pull request, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from markupsafe import Markup

from edgec.graph.errors import UsageError
from edgec.graph.text import markdown, markdown_code, visible
from edgec.runtime.report import accuracy, facts, plots, words
from edgec.runtime.report.html import render
from edgec.runtime.report.schema import Artifact, Latency, Report

_COLUMNS = (
    "run",
    "model",
    "target",
    "artifact",
    "format",
    "precision",
    "bytes",
    "macs",
    "params",
    "top1",
    "agreement",
    "sqnr_db",
    "kl",
    "images",
    "latency_ms",
    "latency_p10_ms",
    "latency_p90_ms",
    "measured",
    "valid",
    "emulated",
    "error_pct",
    "runtime",
    "threads",
    "gates_failed",
)


@dataclass(frozen=True)
class Row:
    """The headline artifact of one run."""

    name: str
    report: Report
    artifact: Artifact | None
    latency: Latency | None
    value: float | None
    """The common measure of quality; None where this run lacks it."""
    best: bool
    """On the Pareto front."""

    @property
    def bytes(self) -> int:
        """Bytes of the artifact; of the source model where a run made none."""
        return self.artifact.bytes if self.artifact is not None else self.report.model.bytes


@dataclass(frozen=True)
class RunComparison:
    """Runs ready to be written out; made by `compare`."""

    rows: tuple[Row, ...]
    measure: accuracy.Accuracy | None
    cost: str
    """What the front trades against quality: 'latency', or 'macs' where latencies do not compare."""
    cautions: tuple[str, ...]

    def html(self) -> str:
        """The page: plot, table, and every artifact of every run."""
        figure = self._figure()
        return render("compare.html.j2", comparison=self, figure=figure, plots_missing=not plots.available())

    def markdown(self) -> str:
        """A table for a pull request, with the original first, and what a reader must know below it."""
        label = self.measure.label if self.measure is not None else "quality"
        lines = [
            f"| run | file | size | multiply-adds | {label} | latency | against the original |",
            "|---|---|---:|---:|---:|---:|---|",
        ]
        for report in _originals(self.rows):
            value = self.measure.value(report.quality.get("teacher")) if self.measure else None
            latency = report.model.latency
            cells = [
                "original",
                markdown_code(report.model.name),
                facts.size(report.model.bytes),
                facts.count(report.model.macs),
                self._text(value),
                latency_text(latency),
                "",
            ]
            lines.append(_line(cells))
        for row in self.rows:
            cells = [
                f"**{markdown(row.name)}**" if row.best and len(self.rows) > 1 else markdown(row.name),
                markdown_code(row.artifact.path) if row.artifact is not None else "",
                facts.size(row.bytes),
                facts.count(row.report.compressed.macs),
                self._text(row.value),
                latency_text(row.latency),
                facts.sentence(row.report),
            ]
            lines.append(_line(cells))
        if len(self.rows) > 1:
            lines += ["", "Bold: no other run is both better and cheaper."]
        said = [
            f"{row.name}: {text}"
            for row in self.rows
            for text in (*facts.problems(row.report), *facts.remarks(row.report))
        ]
        if said or self.cautions:
            lines += ["", *(f"- {markdown(text)}" for text in (*said, *self.cautions))]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """One line per artifact of every run; figures plain, fractions as fractions."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerows(_csv_row(row, artifact) for artifact in row.report.artifacts)
        return text.getvalue()

    def _text(self, value: float | None) -> str:
        return self.measure.text(value) if self.measure is not None else "–"

    def _figure(self) -> Markup | None:
        if self.measure is None or not plots.available():
            return None
        scale = 100 if self.measure.percent else 1
        points = [
            plots.Point(
                cost_of(row, self.cost), scale * row.value, row.name, "main" if row.best else "other", i
            )
            for i, row in enumerate(self.rows)
            if row.value is not None
        ]
        if len(points) < 2:
            return None
        xlabel = "latency, ms" if self.cost == "latency" else "million multiply-adds"
        ylabel = f"{self.measure.label.lower()}{', %' if self.measure.percent else ', dB'}"
        return Markup(plots.scatter("pareto", points, xlabel, ylabel, front=True))  # matplotlib escapes texts


def compare(runs: Sequence[tuple[str, Report]]) -> RunComparison:
    """Compare ``runs``, each under its name (its folder's). Raises UsageError when there are none."""
    if not runs:
        raise UsageError("nothing to compare", hint="Give one or more run folders: edgec report A B C")
    reports = [report for _, report in runs]
    artifacts = [facts.headline_artifact(report) for report in reports]
    qualities = [
        facts.quality_of(report, artifact) if artifact is not None else report.quality.get("float")
        for report, artifact in zip(reports, artifacts, strict=True)
    ]
    measure = accuracy.accuracy_of(qualities)
    cost = _common_cost([artifact.latency if artifact is not None else None for artifact in artifacts])
    rows = [
        Row(
            name,
            report,
            artifact,
            artifact.latency if artifact is not None else None,
            measure.value(quality) if measure is not None else None,
            best=False,
        )
        for (name, report), artifact, quality in zip(runs, artifacts, qualities, strict=True)
    ]
    front = plots.pareto([(cost_of(row, cost), row.value) for row in rows if row.value is not None])
    marked = tuple(
        Row(
            row.name,
            row.report,
            row.artifact,
            row.latency,
            row.value,
            (cost_of(row, cost), row.value) in front,
        )
        for row in rows
    )
    return RunComparison(marked, measure, cost, tuple(_cautions(reports, cost)))


def cost_of(row: Row, cost: str) -> float:
    """Latency in ms, or million multiply-adds."""
    if cost == "latency" and row.latency is not None:
        return row.latency.median_ms
    return row.report.compressed.macs / 1e6


def latency_text(latency: Latency | None) -> str:
    """A latency with what it is: measured, estimated with its error, emulated, or INVALID."""
    if latency is None:
        return "–"
    text = facts.milliseconds(latency.median_ms)
    if not latency.measured:
        return (
            f"{text} (est. ±{latency.error_pct:.0f}%)" if latency.error_pct is not None else f"{text} (est.)"
        )
    if latency.emulated:
        return f"{text} (emulated)"
    return text if latency.valid else f"{text} (INVALID)"


def _common_cost(latencies: Sequence[Latency | None]) -> str:
    """Latencies compare when all are there, valid, on one device with as many threads, and of one kind."""
    kinds = {
        (latency.device, latency.threads, latency.measured, latency.emulated or not latency.valid)
        if latency is not None
        else None
        for latency in latencies
    }
    only = next(iter(kinds)) if len(kinds) == 1 else None
    return "latency" if only is not None and not only[3] else "macs"


def _cautions(reports: Sequence[Report], cost: str) -> list[str]:
    said = []
    if len({report.model.sha256 for report in reports}) > 1:
        said.append("The runs start from different models.")
    if len({report.target for report in reports}) > 1:
        said.append("The runs are for different targets.")
    evals = {report.data.eval_fingerprint for report in reports if report.data is not None}
    if len(evals) > 1:
        said.append(words.OTHER_DATA)
    if cost == "macs" and any(artifact.latency for report in reports for artifact in report.artifacts):
        said.append(
            "Latencies are not all valid, of one kind, and from one device: runs are ranked by multiply-adds."
        )
    if cost == "latency" and len(reports) > 1:
        said.append(
            "Latencies are from separate sessions, which differ by a few percent; bench them together."
        )
    return said


def _originals(rows: Sequence[Row]) -> list[Report]:
    """One report for each different source model."""
    return list({row.report.model.sha256: row.report for row in reversed(rows)}.values())[::-1]


def _csv_row(row: Row, artifact: Artifact) -> dict[str, object]:
    quality, latency = facts.quality_of(row.report, artifact), artifact.latency
    cells: dict[str, object] = {
        "run": _cell(row.name),
        "model": _cell(PurePosixPath(row.report.model.name).name),
        "target": _cell(row.report.target),
        "artifact": _cell(artifact.path),
        "format": artifact.format,
        "precision": artifact.precision,
        "bytes": artifact.bytes,
        "macs": row.report.compressed.macs,
        "params": row.report.compressed.params,
        "gates_failed": sum(not gate.passed for gate in row.report.gates),
    }
    if quality is not None:
        cells |= {key: getattr(quality, key) for key in ("top1", "agreement", "sqnr_db", "kl", "images")}
    if latency is not None:
        cells |= {f"latency_{key}": getattr(latency, key) for key in ("p10_ms", "p90_ms")}
        cells |= {"latency_ms": latency.median_ms}
        cells |= {
            key: getattr(latency, key) for key in ("measured", "valid", "emulated", "error_pct", "threads")
        }
        cells |= {"runtime": _cell(latency.runtime)}
    return cells


def _cell(words: str) -> str:
    """Words that a spreadsheet does not take for a formula."""
    shown = visible(words)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
