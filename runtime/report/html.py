"""``report.html``: one self-contained page, without scripts and without a single network request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgec.graph.text import visible
from edgec.graph.yaml_file import write_yaml
from edgec.runtime.report import accuracy, compared, facts, people, plots
from edgec.runtime.report.drawings import Scene
from edgec.runtime.report.schema import IDENTICAL_DB, Artifact, Latency, Layer, PassRun, Report

_TEMPLATES = Path(__file__).parent / "templates"
SHOWN_LAYERS = 16
"""Layers shown at once; the rest is behind a fold."""


@dataclass(frozen=True)
class LayerRow:
    """Bars of one layer, as percentages of the longest; None leaves the bar out."""

    layer: Layer
    macs_before: float
    macs_after: float
    share: float | None
    share_bar: float
    error: float | None
    """Root of the relative squared error: 0.1 is 10%."""
    error_bar: float


@dataclass(frozen=True)
class ArtifactGroup:
    """Artifacts that one runtime runs, side by side."""

    runtime: str
    artifacts: tuple[tuple[Artifact, str], ...]
    """Each with its time relative to the source model, in words."""


def page(report: Report, run_name: str = "") -> str:
    """The whole page as text."""
    artifact = facts.headline_artifact(report)
    return render(
        "report.html.j2",
        report=report,
        run_name=run_name,
        headline=artifact,
        sentence=facts.sentence(report),
        phrases=facts.phrases(report),
        changes=facts.changes(report),
        problems=facts.problems(report),
        remarks=facts.remarks(report),
        details=facts.details(report),
        groups=_groups(report),
        measure=facts.measure_of(report),
        quality_of=lambda item: facts.quality_of(report, item),
        figures=_figures(report),
        strip=people.groups_of(report),
        compared=compared.tables(report),
        along=people.along(report),
        along_words=people.along_words(report),
        classes=(classes := people.ranked_classes(report)),
        shown_classes=people.shown_classes(classes),
        class_name=Scene(1, 1, report.model.labels).name,
        certainty=people.certainty(None if artifact is None else facts.quality_of(report, artifact)),
        following=people.following(report, run_name),
        plots_missing=not plots.available(),
        layers=_layer_rows(report),
        shown_layers=SHOWN_LAYERS,
        passes=report.passes,
        pass_seconds=max((run.seconds for run in report.passes), default=0.0),
        command=facts.command(report),
        recipe=write_yaml(report.recipe, width=80) if report.recipe else "",
        environment=_once(_flat(report.environment)),
    )


def render(template: str, **values: Any) -> str:
    """A template of this package, with every value escaped, steering characters written out, and every unknown name an error."""
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=_words,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=facts.size,
        count=facts.count,
        ms=facts.milliseconds,
        seconds=facts.seconds,
        percent=_percent,
        db=accuracy.SQNR.text,
        gate=facts.gate_figure,
        format_name=facts.format_name,
        metric_text=facts.metric_text,
        option=_option,
        link=_link,
    )
    environment.globals.update(
        tally=_tally,
        scalars=_scalars,
        problems_of=facts.problems,
        remarks_of=facts.remarks,
        quality_in=facts.quality_of,
        sentence_of=facts.sentence,
    )
    css = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(css=Markup(css), **values)


def _words(value: Any) -> Any:
    return visible(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _link(path: str) -> str:
    """A file of the run folder as the page, which lies there too, links to it."""
    return "./" + quote(path)


def _percent(value: float | None) -> str:
    if value is None:
        return "–"
    shown = 100 * value
    if not shown:
        return "0%"
    return f"{shown:.{0 if abs(shown) >= 99.95 else 1 if abs(shown) >= 1 else 2}f}%"


def _option(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(_option(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tally(run: PassRun) -> str:
    """How many fits of a pass were kept."""
    if not run.layers:
        return ""
    back = sum(not layer.kept for layer in run.layers)
    total = f"{len(run.layers)} layer{'s' if len(run.layers) != 1 else ''} fitted"
    return f"{total}, {back} undone" if back else f"{total}, all kept"


def _scalars(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The single figures among a pass's data; tables stay in report.json."""
    return [(key, _option(value)) for key, value in data.items() if isinstance(value, (str, int, float))]


def _groups(report: Report) -> list[ArtifactGroup]:
    found: dict[str, list[tuple[Artifact, str]]] = {}
    for artifact in report.artifacts:
        runtime = artifact.latency.runtime if artifact.latency is not None else ""
        ratio = facts.ratio_of(report, artifact)
        words = "" if ratio is None else facts.times(1.0, ratio.ratio, "faster", "slower")[0]
        found.setdefault(runtime or artifact.format, []).append((artifact, words))
    return [ArtifactGroup(runtime, tuple(members)) for runtime, members in found.items()]


def _figures(report: Report) -> dict[str, Markup]:
    """The plots by name; empty where the run has no figures for one, or matplotlib is missing."""
    found = dict.fromkeys(("accuracy", "sqnr", "sustained"), "")
    if plots.available():
        _draw(report, found)
    return {name: Markup(svg) for name, svg in found.items()}  # matplotlib escapes texts


def _draw(report: Report, found: dict[str, str]) -> None:
    points, xlabel = _accuracy_points(report)
    measure = facts.measure_of(report)
    if measure is not None and len(points) >= 2:
        found["accuracy"] = plots.scatter("accuracy", points, xlabel, measure.axis)
    if any(layer.sqnr_db is not None for layer in report.layers):
        found["sqnr"] = plots.sqnr("sqnr", report.layers)
    latencies = [a.latency for a in report.artifacts if a.latency is not None and len(a.latency.samples) >= 2]
    if latencies:
        found["sustained"] = plots.sustained("sustained", latencies[0].samples)


def _accuracy_points(report: Report) -> tuple[list[plots.Point], str]:
    """Accuracy of source and artifacts, as measured, against measured latency, or against size where that is missing."""
    measure = facts.measure_of(report)
    if measure is None:
        return [], ""
    timed = [a for a in report.artifacts if a.latency is not None and _is_measured(a.latency)]
    by_latency = len(timed) == len(report.artifacts) and bool(timed)
    main = facts.headline_artifact(report)
    points: list[plots.Point] = []
    before = report.model.latency
    source = before.median_ms if before is not None and _is_measured(before) else None
    teacher = measure.value(report.quality.get("teacher"))
    teacher = measure.best if teacher is None else teacher
    if teacher is not None and measure.percent and (source is not None or not by_latency):
        x = source if by_latency and source is not None else report.model.bytes / 1e6
        points.append(plots.Point(x, 100 * teacher, "original", "before"))
    for artifact in report.artifacts:
        value = measure.value(facts.quality_of(report, artifact))
        if value is None:
            continue
        latency: Latency | None = artifact.latency
        x = latency.median_ms if by_latency and latency is not None else artifact.bytes / 1e6
        kind = "main" if artifact is main else "other"
        label = (
            f"{artifact.precision} {facts.format_name(artifact.format)}"
            if len(report.artifacts) > 3
            else artifact.precision
        )
        points.append(plots.Point(x, 100 * value if measure.percent else value, label, kind))
    return points, "latency, ms, measured" if by_latency else "file size, MB"


def _is_measured(latency: Latency) -> bool:
    return latency.measured and latency.valid and not latency.emulated


def _layer_rows(report: Report) -> list[LayerRow]:
    layers = [x for x in report.layers if x.macs_before or x.macs_after or x.latency_share]
    errors = [_layer_error(layer) for layer in layers]
    macs = max((max(layer.macs_before, layer.macs_after) for layer in layers), default=0)
    share = max((layer.latency_share or 0.0 for layer in layers), default=0.0)
    error = max((value or 0.0 for value in errors), default=0.0)
    return [
        LayerRow(
            layer,
            _part(layer.macs_before, macs),
            _part(layer.macs_after, macs),
            layer.latency_share,
            _part(layer.latency_share, share),
            value,
            _part(value, error),
        )
        for layer, value in zip(layers, errors, strict=True)
    ]


def _part(value: float | None, longest: float) -> float:
    return 100 * (value or 0.0) / longest if longest else 0.0


def _layer_error(layer: Layer) -> float | None:
    """The fitted network's error where known, else what quantisation adds; as a root: 0.1 reads as 10%."""
    if layer.error is not None:
        return math.sqrt(max(layer.error, 0.0))
    if layer.sqnr_db is None:
        return None
    return 0.0 if layer.sqnr_db >= IDENTICAL_DB else math.sqrt(10 ** (-layer.sqnr_db / 10))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as lines 'key.inner, value'."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", _option(value)))
    return lines


def _once(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without inner lines that an outer one says: the versions of the run are also those of the machine that ran it."""
    said = set(lines)
    return [
        (key, value) for key, value in lines if "." not in key or (key.rpartition(".")[2], value) not in said
    ]
