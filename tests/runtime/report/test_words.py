"""Every sentence about quality (`report.words`) is said where it is true, and not said in a case where it must not be."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgec.runtime.report as report_package
from edgec.runtime.report import compare, facts, summary_lines, words
from edgec.runtime.report.people import along, along_words, certainty, groups_of
from edgec.runtime.report.schema import (
    IDENTICAL_DB,
    Answered,
    DataInfo,
    Detection,
    Measure,
    PassRun,
    Quality,
    Report,
    Strip,
)

Make = Callable[[Report], Report]
SENTENCES = {name: text for name, text in vars(words).items() if name.isupper()}


def judged(teacher: Quality | None = None, **quality: Any) -> Make:
    """A run whose one artifact, as large and as fast as the source, is judged so."""

    def made(report: Report) -> Report:
        artifact = report.artifacts[0].model_copy(
            update={"quality": Quality(**quality), "bytes": report.model.bytes, "latency": None}
        )
        model = report.model.model_copy(update={"latency": None})
        stages = {} if teacher is None else {"teacher": teacher}
        return report.model_copy(update={"artifacts": (artifact,), "model": model, "quality": stages})

    return made


def boxes(lost: int) -> Make:
    return judged(images=100, detection=Detection(threshold=0.25, boxes=200, lost=lost, new=0))


def measured(value: float, samples: int = 500, **more: Any) -> Make:
    """Agreement with the source in the task's own terms."""
    name = more.pop("name", "Mean IoU with the original's masks")
    return judged(images=samples, measures=(Measure(name=name, value=value, samples=samples, **more),))


def other_output(decibels: float) -> Make:
    """A classifier with another output that no answer is read from."""
    return judged(images=100, agreement=1.0, beside="angles", outputs={"angles": decibels, "y": 40.0})


def labelled(before: float, after: float, samples: int = 500, **more: Any) -> Make:
    """A measure against labels, beside the source's."""
    of = {"name": more.pop("name", "Top-1 accuracy"), "samples": samples, "against": "labels", "unit": more.pop("unit", "%")}  # fmt: skip
    source = Quality(images=samples, top1=before, measures=(Measure(value=before, **of),))
    own = Measure(value=after, change=after - before, **of, **more)
    return judged(source, images=samples, top1=after, measures=(own,))


def changed(make: Make, **fields: Any) -> Make:
    return lambda report: make(report).model_copy(update=fields)


def passes(images: int, *top1: float) -> Make:
    """Two passes, behind each of which the network was judged."""

    def made(report: Report) -> Report:
        runs = [PassRun(name="fold", quality=Quality(images=images, top1=one)) for one in top1]
        return report.model_copy(update={"passes": tuple(runs)})

    return made


def strip(why: str, *, changed: bool = False) -> Make:
    def made(report: Report) -> Report:
        one = Answered(name="a.png", why=why, before={"class": 1}, after={"class": 2}, changed=changed)
        found = Strip(artifact="model.onnx", samples=1, changed=1, error="", inputs=(one,))
        return report.model_copy(update={"strip": found})

    return made


def data(**fields: Any) -> Make:
    return lambda report: report.model_copy(
        update={"data": DataInfo(name="calib", samples=64, fingerprint="ab", **fields)}
    )


RATE = {"name": "Same answer as the original", "interval": "wilson"}
SAME = judged(images=100, agreement=0.95)
RISE, FALL, EVEN = labelled(0.90, 0.91), labelled(0.90, 0.89), labelled(0.90, 0.90)
SURE = {"change_low": -0.02, "change_high": 0.0}

CASES: dict[str, tuple[Make, Make]] = {
    # name: (a case where it is said, one where it must not be)
    "TENTH_IS_ERROR": (judged(images=50, sqnr_db=19.0), judged(images=50, sqnr_db=20.5)),
    "FAR_OFF": (judged(images=50, sqnr_db=3.0), judged(images=50, sqnr_db=43.0)),
    "OUTPUT_RUINED": (other_output(12.0), other_output(25.0)),
    "AGAINST_ORIGINAL": (judged(images=50, sqnr_db=43.0), RISE),
    "WORST_PART": (
        judged(images=50, sqnr_db=30.0, outputs={"scores": 30.0, "boxes": 50.0}),
        judged(images=50, sqnr_db=30.0),
    ),
    "SAME_ANSWER": (SAME, judged(images=12, agreement=1.0)),
    "LOST": (boxes(3), judged(images=100, sqnr_db=43.0)),
    "KEPT": (
        measured(0.97, of="boxes", count=400, lost=12, low=0.95, high=0.98),
        measured(0.97, of="boxes", count=400, lost=12),
    ),
    "ONLY_LOST": (
        lambda r: measured(0.9, of="boxes", count=250, lost=25)(with_second(r)),
        measured(0.9),
    ),
    "LOST_AND_WON": (labelled(0.9, 0.89, lost=7, won=2), labelled(0.9, 0.89)),
    "NOTHING_CHANGED": (judged(images=100, sqnr_db=IDENTICAL_DB), judged(images=100, sqnr_db=90.0)),
    "SIZE_UNCHANGED": (judged(images=100, sqnr_db=43.0), judged(images=100, sqnr_db=IDENTICAL_DB)),
    "AGAINST_ITS": (
        lambda r: labelled(0.9, 0.89, **SURE)(with_second(r)),
        labelled(0.9, 0.89, **SURE),
    ),
    "NO_LOSS": (EVEN, FALL),
    "NO_ACCURACY_LOST": (EVEN, labelled(0.90, 0.90, samples=20)),
    "MORE_ACCURATE": (RISE, labelled(0.90, 0.906, change_low=-0.004, change_high=0.016)),
    "LESS_ACCURATE": (FALL, EVEN),
    "UNCHANGED": (passes(500, 0.9, 0.9), passes(500, 0.9, 0.8)),
    "MEASURE_UNCHANGED": (
        labelled(3.0, 3.0, name="RMS error", unit="m"),
        labelled(3.0, 3.1, name="RMS error", unit="m"),
    ),
    "INTERVAL": (measured(0.95, low=0.93, high=0.97, **RATE), measured(0.95, name="PSNR")),
    "TOO_FEW_TO_JUDGE": (judged(images=12, agreement=1.0), SAME),
    "TOO_FEW_INPUTS": (labelled(0.9, 0.9, samples=29), labelled(0.9, 0.9, samples=30)),
    "TOO_FEW_TO_TELL": (
        measured(1.0, of="boxes", count=4, lost=0),
        measured(0.97, of="boxes", count=400, lost=12),
    ),
    "TOO_FEW_FOR_SMALL_CHANGES": (passes(100, 0.9, 0.89), passes(500, 0.9, 0.89)),
    "TOO_FEW_TO_SAY": (judged(images=29, top1=0.9), judged(images=30, top1=0.9)),
    "NOTHING_KNOWN": (lambda r: r.model_copy(update={"quality": {}}), SAME),
    "IN_DOUBT": (changed(SAME, doubts=("blue seems to come first",)), SAME),
    "ACCURACY_IN_DOUBT": (changed(EVEN, doubts=("blue seems to come first",)), EVEN),
    "NOISE": (data(random=True), data(random=False)),
    "OTHER_DATA": (data(eval_fingerprint="other"), data(eval_fingerprint="first")),
    "OTHER_ANSWERS": (strip("changed"), strip("largest")),
    "SAME_BUT_FURTHEST": (strip("largest"), strip("largest", changed=True)),
    "NEXT_FURTHEST": (strip("largest", changed=True), strip("largest")),
    "FROM_THE_MIDDLE": (strip("typical"), strip("changed")),
}


def with_second(report: Report) -> Report:
    """Marks a report whose measures are said behind another one, as those behind the first are."""
    return report.model_copy(update={"command": "second"})


COSTS = ("  Size ", "  Multiply-adds ")
"""Lines and tiles that may be 'unchanged' too, and are about no quality."""


def said(report: Report) -> str:
    """All that terminal, page and comparison say of quality."""
    artifact = facts.headline_artifact(report)
    quality = None if artifact is None else facts.quality_of(report, artifact)
    told = [line for line in summary_lines(report) if not line.startswith(COSTS)]
    lines = [facts.sentence(report), *told, *facts.problems(report), certainty(quality)]
    tiles = [one for one in facts.changes(report) if one.label not in ("Size", "Multiply-adds")]
    lines += [text for one in tiles for text in (one.verdict, one.phrase, one.basis)]
    lines += [along_words(report), *(one.change for one in along(report))]
    lines += [group.words for group in groups_of(report)]
    other = data(eval_fingerprint="first")(report)
    lines += compare([("a", other), ("b", report if report.data is not None else other)]).cautions
    return "\n".join(lines)


def seconded(report: Report) -> Report:
    """The artifact's measure behind another one."""
    if report.command != "second":
        return report
    artifact = report.artifacts[0]
    assert artifact.quality is not None
    first = Measure(name="Another", value=1.0, samples=500)
    quality = artifact.quality.model_copy(update={"measures": (first, *artifact.quality.measures)})
    return report.model_copy(update={"artifacts": (artifact.model_copy(update={"quality": quality}),)})


def is_said(name: str, report: Report) -> bool:
    """The sentence with any figures in it, not as a part of a longer word or sentence of the list."""
    texts = sorted(SENTENCES.values(), key=len, reverse=True)
    text = said(seconded(report))
    for other in texts:
        start = "(?m)^" if other.startswith("{") else ""
        pattern = re.sub(r"\\\{\w+\\\}", ".+?", re.escape(other)) + (r"(?![\w%])" if other[-1] != "}" else "")
        pattern = start + pattern
        if other == SENTENCES[name]:
            return re.search(pattern, text) is not None
        if SENTENCES[name] in other:
            text = re.sub(pattern, "", text)
    raise AssertionError(name)


def test_every_sentence_has_its_cases() -> None:
    assert set(CASES) == set(SENTENCES)


@pytest.mark.parametrize("name", SENTENCES)
def test_it_is_said_and_it_is_not(name: str, minimal: Report) -> None:
    yes, no = CASES[name]
    assert is_said(name, yes(minimal))
    assert not is_said(name, no(minimal)), said(no(minimal))


NAMES_OF_FIGURES = frozenset({
    "Top-1 accuracy", "Boxes of the original still found", "Same answer as the original", "Signal to error (SQNR)",
    "Answer changed", "Largest error", "Which layer the error comes from", "predicted error, relative", "error unknown",
    "the original", "offset points", " (lower is better)", " | latency | against the original |",
    "the same pictures; the source is judged at its own size", "Bold: no other run is both better and cheaper.",
})  # fmt: skip
"""Labels of figures, axes and columns, and what is said of times and sizes: no claim about quality."""
ABOUT_QUALITY = re.compile(
    r"accura|answer|judge|\blost\b|\bwon\b|\bloss|error|doubt|exact|unchanged|original|interval|too few|right|wrong|same|better"
    r"|worse|quality|points|identical|perfect|\bgood\b|reliable|\bsafe\b|\bsure\b",
    re.IGNORECASE,
)


def test_no_sentence_about_quality_stands_anywhere_else() -> None:
    """A new one belongs into `words`, with its two cases here."""
    found = []
    for path in sorted(Path(report_package.__path__[0]).glob("*.py")):
        if path.name == "words.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        found += [
            f"{path.name}:{node.lineno} {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
            if " " in node.value.strip() and ABOUT_QUALITY.search(node.value)
            if node.value not in NAMES_OF_FIGURES
        ]
    assert not found
