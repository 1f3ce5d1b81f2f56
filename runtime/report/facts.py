"""What a report says in one breath: the headline, before -> after, as numbers and as words.

The page, the terminal, Markdown, and comparisons all take their words from here, so that they agree.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from edgec.runtime.report import words
from edgec.runtime.report.accuracy import Accuracy, Change, accuracy_change, accuracy_of, measure_text
from edgec.runtime.report.gpu import kind_of_time, unmeasured
from edgec.runtime.report.schema import (
    IDENTICAL_DB,
    Artifact,
    Gate,
    Latency,
    Metric,
    PassRun,
    Quality,
    Ratio,
    Report,
)

NAMED = 3
"""Layers that a line names before it counts the others."""
_PRECISIONS = ("int8", "mixed", "fp16", "fp32")
_STAGE = {"int8": "int8", "mixed": "int8", "fp16": "fp16", "fp32": "float"}


def measure_of(report: Report) -> Accuracy | None:
    """The measure of quality that this report speaks in."""
    return accuracy_of([*report.quality.values(), *(artifact.quality for artifact in report.artifacts)])


def headline_artifact(report: Report) -> Artifact | None:
    """The artifact of the headline: the one named, else the fastest of the smallest precision."""
    for artifact in report.artifacts:
        if artifact.path == report.headline:
            return artifact
    return fastest(report.artifacts)


def fastest(artifacts: Sequence[Artifact], prefer: str = "onnx") -> Artifact | None:
    """The fastest of the smallest precision; where no times are known, the one of the format to ``prefer``."""

    def rank(artifact: Artifact) -> tuple[int, float, bool]:
        latency = artifact.latency
        usable = latency is not None and latency.valid and not latency.emulated
        median = latency.median_ms if latency is not None and usable else math.inf
        return _PRECISIONS.index(artifact.precision), median, artifact.format != prefer

    return min(artifacts, key=rank, default=None)


def quality_of(report: Report, artifact: Artifact) -> Quality | None:
    """The artifact's own quality, else that of its precision."""
    if artifact.quality is not None:
        return artifact.quality
    stage = _STAGE[artifact.precision]
    return next((quality for key, quality in report.quality.items() if key == stage), None)


def ratio_of(report: Report, artifact: Artifact) -> Ratio | None:
    """The interleaved ratio of ``artifact`` to the source model, where one was measured."""
    section = report.latency
    if section is None or section.comparison is None or section.comparison.baseline != "source":
        return None
    return next((ratio for ratio in section.comparison.ratios if ratio.path == artifact.path), None)


def changes(report: Report) -> list[Change]:
    """The tiles of the headline: size, MACs, latency, accuracy, as far as the run has them."""
    artifact = headline_artifact(report)
    judged = quality_of(report, artifact) if artifact is not None else report.quality.get("float")
    accuracy = None if judged is None else accuracy_change(judged, report.quality.get("teacher"))
    if accuracy is not None and report.doubts:
        accuracy = replace(accuracy, verdict=words.IN_DOUBT, good=False, phrase=words.ACCURACY_IN_DOUBT)
    found = [_size(report, artifact), _input(report), _macs(report), _latency(report, artifact), accuracy]
    return [change for change in found if change is not None]


def _size(report: Report, artifact: Artifact | None) -> Change | None:
    if artifact is None:
        return None
    before, after = report.model.bytes, artifact.bytes
    text, good = times(before, after, "smaller", "larger")
    basis = f"{artifact.path} on disk"
    share = _share(before, after)
    return Change("Size", size(before), size(after), text, good, share, basis, phrase=_changed(text))


def _input(report: Report) -> Change | None:
    """The picture's size, where it is another one."""
    found = report.resolution
    if found is None or found.size == found.source:
        return None
    share = found.size[0] * found.size[1] / (found.source[0] * found.source[1])
    word = f"{abs(1 - share):.0%} {'fewer' if share < 1 else 'more'} pixels"
    basis = "the same pictures; the source is judged at its own size"
    return Change("Input", pixels(found.source), f"{pixels(found.size)} px", word, None, share, basis)


def pixels(size: tuple[int, int]) -> str:
    """``160``, or ``160x192`` (height x width)."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _macs(report: Report) -> Change:
    before, after = report.model.macs, report.compressed.macs
    saved = 1 - after / before if before else 0.0
    word = f"{abs(saved):.0%} {'fewer' if saved > 0 else 'more'}" if abs(saved) >= 0.005 else "unchanged"
    good = True if saved >= 0.005 else False if saved <= -0.005 else None
    basis = f"{count(report.model.params)} → {count(report.compressed.params)} parameters"
    return Change("Multiply-adds", count(before), count(after), word, good, _share(before, after), basis)


def _latency(report: Report, artifact: Artifact | None) -> Change | None:
    after = artifact.latency if artifact is not None else None
    before = report.model.latency
    if artifact is None or after is None:
        return None
    if before is not None and kind_of_time(before) != kind_of_time(after):
        before = None  # a measured time over an estimated one is no speed-up, nor is the GPU's over the CPU's
    estimated = not after.measured
    basis = latency_basis(after)
    if before is None:
        return Change("Latency", "", milliseconds(after.median_ms), "", None, None, basis, estimated)
    ratio = ratio_of(report, artifact)
    if ratio is not None:
        share = ratio.ratio
        basis += ", sides interleaved"
    else:
        share = after.median_ms / before.median_ms if before.median_ms else 0.0
    text, good = times(1.0, share, "faster", "slower")
    old, new = milliseconds(before.median_ms), milliseconds(after.median_ms)
    phrase = f"estimated {_changed(text)}" if estimated and _changed(text) else _changed(text)
    if after.emulated or not after.valid:
        phrase = ""
    return Change("Latency", old, new, text, good, share, basis, estimated, phrase)


def _changed(verdict: str) -> str:
    return "" if verdict == "unchanged" else verdict


def _share(before: float, after: float) -> float | None:
    return after / before if before else None


def times(before: float, after: float, better: str, worse: str) -> tuple[str, bool | None]:
    """``(8, 2, 'smaller', …) -> ('4.0× smaller', True)``; within half a percent it is 'unchanged'."""
    if not before or not after or abs(after / before - 1) < 0.005:
        return "unchanged", None
    ratio, word = (before / after, better) if after < before else (after / before, worse)
    digits = 0 if ratio >= 20 else 1 if ratio >= 1.95 else 2
    return f"{ratio:.{digits}f}× {word}", after < before


def latency_basis(latency: Latency) -> str:
    """Where a latency comes from, never without the error of an estimate."""
    where = f"{latency.device}, {latency.threads} thread{'s' if latency.threads != 1 else ''}"
    where = f"{latency.runtime}, {where}" if latency.runtime else where
    if not latency.measured:
        error = f"±{latency.error_pct:.0f}%" if latency.error_pct is not None else "error unknown"
        return f"estimated ({error}): {where}"
    if latency.emulated:
        return f"emulated, not a latency: {where}"
    return f"measured: {where}" if latency.valid else f"INVALID: {where}"


def phrases(report: Report) -> list[str]:
    """The headline in phrases: '4.1× smaller', '2.9× faster', '0.4 points less accurate'."""
    said = [change.phrase for change in changes(report) if change.phrase]
    return said or [words.NOTHING_CHANGED if _is_exact(report) else words.SIZE_UNCHANGED]


def _is_exact(report: Report) -> bool:
    """Whether the outputs were judged, and are those of the original to the last bit."""
    artifact = headline_artifact(report)
    quality = None if artifact is None else quality_of(report, artifact)
    return quality is not None and quality.sqnr_db is not None and quality.sqnr_db >= IDENTICAL_DB


def sentence(report: Report) -> str:
    """The headline in one line."""
    return ", ".join(phrases(report))


def problems(report: Report) -> list[str]:
    """What a reader must see first: noise as data, failed gates, invalid or emulated times."""
    failed = [f"Gate failed: {gate_text(gate)}" for gate in report.gates if not gate.passed]
    return [*_noise(report), *report.doubts, *failed, *_bad_times(report)]


def doubts(report: Report) -> list[str]:
    """The problems that are no gates, for where the gates are listed anyway."""
    return [*_noise(report), *report.doubts, *_bad_times(report)]


def remarks(report: Report) -> list[str]:
    """What was noticed although the times are valid, such as a busy host, with the files that it is about; what is unmeasured."""
    timed = [("the original", report.model.latency)]
    timed += [(artifact.path, artifact.latency) for artifact in report.artifacts]
    timed += [(f"{a.path} on {other.device}", other) for a in report.artifacts for other in a.others]
    found: dict[str, list[str]] = {}
    for name, latency in timed:
        for notice in latency.notices if latency is not None and not latency.emulated else ():
            found.setdefault(notice, []).append(name)
    measured = sum(latency is not None and latency.measured for _, latency in timed)
    noticed = [
        f"{'All measured times' if len(names) == measured > 1 else ', '.join(names)}: {notice}"
        for notice, names in found.items()
    ]
    return [*noticed, *unmeasured(report)]


def _noise(report: Report) -> list[str]:
    if report.data is None or not report.data.random:
        return []
    return [words.NOISE]


def _bad_times(report: Report) -> list[str]:
    latencies = [artifact.latency for artifact in report.artifacts if artifact.latency is not None]
    reasons = {reason for latency in latencies if not latency.valid for reason in latency.invalid}
    said = [f"Invalid measurement: {reason}" for reason in sorted(reasons)]
    if any(latency.emulated for latency in latencies):
        said.append("Times are from an emulated board: not a latency.")
    return said


def undone(report: Report) -> list[str]:
    """What passes tried and took back, one line for each reason: of the whole network, or of the layers that it names."""
    return [
        f"{run.name}{_where(run, nodes)}: {text}"
        for run in report.passes
        for text, nodes in _taken_back(run).items()
    ]


def _taken_back(run: PassRun) -> dict[str, list[str]]:
    """The nodes behind each reason; none where it is that of the whole network."""
    found: dict[str, list[str]] = {}
    for note in run.notes:
        if note.level == "reverted":
            found.setdefault(note.text, []).extend([note.node] if note.node else [])
    return found


def _where(run: PassRun, nodes: Sequence[str]) -> str:
    if not nodes:
        return ""
    if not run.layers:
        return f" at {', '.join(nodes)}"
    named = ", ".join(nodes[:NAMED]) + (f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else "")
    return f", {len(nodes)} of {len(run.layers)} layers ({named})"


def gate_text(gate: Gate) -> str:
    """A gate in one line."""
    value = "" if gate.value is None else f" {gate_figure(gate.value, gate.name)}"
    limit = "" if gate.limit is None else f" (limit {gate_figure(gate.limit, gate.name)})"
    return f"{gate.name}{value}{limit}{f': {gate.why}' if gate.why else ''}"


def details(report: Report) -> list[str]:
    """What else the headline's artifact was judged by, each in a line: the measures behind the first."""
    artifact = headline_artifact(report)
    quality = None if artifact is None else quality_of(report, artifact)
    return [] if quality is None else [measure_text(one) for one in quality.measures[1:]]


def metric_text(metric: Metric) -> str:
    """A metric of the caller's, in one line: ``f1 on 500 samples: source 0.91, model.int8.onnx 0.905 ±0.003``."""
    found = [f"source {_figure(metric.teacher)}"]
    for path, value in metric.values.items():
        error = metric.errors.get(path)
        found.append(f"{path} {_figure(value)}" + (f" ±{error:.2g}" if error is not None else ""))
    lower = " (lower is better)" if metric.lower_is_better else ""
    return f"{metric.name} on {metric.samples} samples{lower}: {', '.join(found)}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def gate_figure(value: float | str, gate: str) -> str:
    """A gate's value or limit to four digits, in its unit: ``2.865 M``, ``63.15 kB``, ``24.1 ms``, ``1.2%``."""
    if isinstance(value, str):
        return value
    if gate == "max-drop":
        return f"{100 * value:.4g}%"
    if gate.startswith("budget latency="):
        return f"{value:.4g} ms"
    unit = "B" if gate.startswith("budget size=") else ""
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}".rstrip()


def command(report: Report) -> str:
    """The command that reproduces the run, to be pasted into a shell in the run folder's parent."""
    if report.command:
        return report.command
    name = PurePosixPath(report.model.name).name
    return f"edgec compile {shlex.quote(name)} --recipe recipe.yaml -o again/"


def size(number: float) -> str:
    """Bytes in decimal units, as disks and shops count them."""
    for unit, scale, digits in (("GB", 1e9, 2), ("MB", 1e6, 2), ("kB", 1e3, 1)):
        if number >= scale:
            value = number / scale
            return f"{value:.{digits if value < 100 else 0}f} {unit}"
    return f"{number:.0f} B"


def count(number: float) -> str:
    """A count to three digits: 325 M."""
    for unit, scale, least in (("G", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if number >= least:
            value = number / scale
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{number:.0f}"


def milliseconds(value: float) -> str:
    """A latency to three digits."""
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f} ms"


def format_name(name: str) -> str:
    """A file format as people write it."""
    return {"onnx": "ONNX", "tflite": "TFLite"}.get(name, name)


def seconds(value: float) -> str:
    """A duration: 0.42 s, 12.3 s, 2 min 05 s."""
    if value >= 60:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{value:.{2 if value < 1 else 1}f} s"
