"""What the page shows of a run beside its figures: inputs and answers, classes, accuracy pass by pass, what to type next."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from edgec.graph.errors import UsageError
from edgec.graph.preprocess import READERS, Preprocess
from edgec.runtime.report import accuracy, facts, words
from edgec.runtime.report.drawings import Scene, drawn, overlay
from edgec.runtime.report.schema import Answered, ClassRow, ModelInput, Quality, Report

_KINDS = (
    ("changed", "Answer changed", words.OTHER_ANSWERS),
    ("largest", "Largest error", words.SAME_BUT_FURTHEST),
    ("typical", "Typical", words.FROM_THE_MIDDLE),
)
SHOWN_CLASSES, FEWEST_CLASSES = 20, 5
"""Classes of the table, at most and at least; the rest are behind a fold."""
BISECTED = 32
"""Inputs that are enough to find a layer by."""


@dataclass(frozen=True)
class Shown:
    """One input of the strip, ready for the page."""

    one: Answered
    before: str
    after: str
    over_before: Markup
    over_after: Markup
    error: str
    is_drawn: bool = False
    """Answers lie over pictures in this group, so that each is shown twice."""


@dataclass(frozen=True)
class Group:
    """Inputs of one kind, and what is said of them."""

    title: str
    words: str
    inputs: tuple[Shown, ...]


@dataclass(frozen=True)
class Along:
    """The measured quality behind one pass, or of the source."""

    name: str
    text: str
    bar: float
    """Percent of the longest."""
    change: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Next:
    """A command to type, and what it is for."""

    words: str
    command: str


def groups_of(report: Report) -> tuple[Group, ...]:
    """The strip by kind, in the order in which a reader wants it; empty where no sample was looked at."""
    if report.strip is None:
        return ()
    scenes = (_scene(report, report.model.inputs), _scene(report, report.inputs))
    found = []
    for why, title, said in _KINDS:
        inputs = tuple(
            _shown(one, *scenes, shares=report.strip.shares) for one in report.strip.inputs if one.why == why
        )
        if why == "largest" and any(shown.one.changed for shown in inputs):
            said = words.NEXT_FURTHEST  # more changed than there is room for
        found += [Group(title, said, inputs)] if inputs else []
    if any(one.over_before or one.over_after for group in found for one in group.inputs):
        twice = [
            tuple(replace(one, is_drawn=bool(one.one.picture)) for one in group.inputs) for group in found
        ]
        found = [replace(group, inputs=inputs) for group, inputs in zip(found, twice, strict=True)]
    return tuple(found)


def _scene(report: Report, inputs: Sequence[ModelInput]) -> Scene:
    for one in inputs:
        if len(one.shape) == 3:
            height, width = one.shape[:2] if one.channels_last else one.shape[1:]
            return Scene(max(1, height), max(1, width), report.model.labels)
    return Scene(1, 1, report.model.labels)


def _shown(one: Answered, source: Scene, made: Scene, *, shares: bool) -> Shown:
    before, after = drawn(one.before, source), drawn(one.after, made)
    error = "" if one.error is None else f"{one.error:.3g}"
    if one.error is not None and shares:
        error = f"{one.error:.1%}" if one.error < 10 else "more than 1000%"
    return Shown(
        one, before.words, after.words, overlay(before.shapes, source), overlay(after.shapes, made), error
    )


def ranked_classes(report: Report) -> tuple[ClassRow, ...]:
    """Classes with labels: those that lost most first, then those that won, then the others, the rarest right ones first."""
    if report.classes is None:
        return ()

    def order(row: ClassRow) -> tuple[bool, int, float, int]:
        change = row.after - row.before
        return change == 0, change, row.after / max(1, row.count), row.label

    return tuple(sorted(report.classes.rows, key=order))


def shown_classes(rows: Sequence[ClassRow]) -> int:
    """So many of them are seen at first: all where they are few, else those whose answers changed."""
    if len(rows) <= SHOWN_CLASSES:
        return len(rows)
    return min(SHOWN_CLASSES, max(FEWEST_CLASSES, sum(row.after != row.before for row in rows)))


def along(report: Report) -> tuple[Along, ...]:
    """The measured quality behind each pass that changed the network; empty where fewer than two were measured."""
    measured = [(run.name, run.quality) for run in report.passes if run.quality is not None]
    measure = accuracy.accuracy_of([quality for _, quality in measured])
    if measure is None or len(measured) < 2:
        return ()
    values = [(name, quality, measure.value(quality)) for name, quality in measured]
    known = [value for _, _, value in values if value is not None]
    longest = 1.0 if measure.percent else max(min(max(known), 60.0), 1.0)
    rows, last = [], measure.best if measure.percent else None
    for name, _, value in values:
        if value is None:
            continue
        change, bad = _change(last, value) if measure.percent else ("", False)
        rows.append(Along(name, measure.text(value), 100 * min(max(value / longest, 0.0), 1.0), change, bad))
        last = value
    return tuple(rows)


def along_words(report: Report) -> str:
    """What the figures of `along` are, and on how many inputs."""
    qualities = [run.quality for run in report.passes if run.quality is not None]
    measure = accuracy.accuracy_of(qualities)
    if measure is None or not qualities:
        return ""
    few = min(quality.images for quality in qualities)
    judged = words.TOO_FEW_FOR_SMALL_CHANGES if few < 200 and measure.percent else ""
    return f"{measure.label}, measured behind each pass on {few} inputs" + (f" ({judged})" if judged else "")


def _change(last: float | None, value: float) -> tuple[str, bool]:
    if last is None:
        return "", False
    points = 100 * (value - last)
    if abs(points) < 0.05:
        return words.UNCHANGED, False
    sign = "+" if points > 0 else accuracy.MINUS
    return f"{sign}{abs(points):.1f} points", points < 0


def certainty(quality: Quality | None) -> str:
    """Of how many inputs the figures are, and what that allows to say."""
    if quality is None:
        return words.NOTHING_KNOWN
    if quality.images < accuracy.FEW_TO_JUDGE:
        return words.TOO_FEW_TO_SAY.format(count=f"{quality.images} input{'s' * (quality.images != 1)}")
    return ""


def following(report: Report, run: str) -> tuple[Next, ...]:
    """What to type next, from the folder in which the run folder lies."""
    artifact = facts.headline_artifact(report)
    if artifact is None or not run:
        return ()
    folder = run if not run.startswith("-") else f"./{run}"
    found = []
    model = _path(report, folder, "model")
    data = _path(report, folder, "eval") or _path(report, folder, "data")
    quality = facts.quality_of(report, artifact)
    off = quality is not None and quality.sqnr_db is not None and quality.sqnr_db < 60
    prepared = _preparation(report)
    comparable = artifact.format == "onnx" and not _resized(report) and prepared is not None
    if off and model and data and comparable:
        command = ["edgec", "verify", model, f"{folder}/{artifact.path}", "--data", data]
        command += [*(prepared or ()), "--samples", str(BISECTED), "--bisect"]
        found.append(Next("Which layer the error comes from", shlex.join(command)))
    bundle = f"{folder}-bundle"
    if report.target in ("host", "") or (artifact.latency is not None and artifact.latency.measured):
        found.append(
            Next(
                "Make a folder that installs and runs it",
                shlex.join(["edgec", "deploy", folder, "-o", bundle]),
            )
        )
    else:
        device = ["edgec", "deploy", folder, "-o", bundle, "--device", "ssh://user@board"]
        found.append(Next("Install it on the board and measure it there", shlex.join(device)))
    return tuple(found)


def _resized(report: Report) -> bool:
    """Whether the artifact takes inputs of another size than the source: those two cannot be given the same."""
    return any(run.name == "resize-input" for run in report.passes)


def _preparation(report: Report) -> list[str] | None:
    """The options by which the run prepared its inputs; None where a report from elsewhere holds what is none."""
    section: Any = report.recipe.get("preprocess", {})
    if not isinstance(section, dict) or not section.keys() <= READERS.keys():
        return None
    try:
        return Preprocess(**section).words()
    except UsageError:
        return None


def _path(report: Report, folder: str, key: str) -> str:
    """A path of the recipe, which is as seen from the run folder, as seen from the folder around it."""
    part = report.recipe.get(key)
    path = part.get("path") if isinstance(part, dict) else None
    if not isinstance(path, str) or not path or path == "random":
        return ""
    return path if posixpath.isabs(path) else posixpath.normpath(posixpath.join(folder, path))
