"""The headline, the terminal, Markdown, and CSV."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgec.graph.errors import UsageError
from edgec.runtime.report import compare, facts, page, render_terminal, summary_lines
from edgec.runtime.report.accuracy import measure_text
from edgec.runtime.report.plots import pareto
from edgec.runtime.report.schema import FittedLayer, Gate, Measure, PassNote, PassRun, Quality, Report


def slower(report: Report, factor: float, top1: float) -> Report:
    """The same run with other times and another accuracy."""

    def changed(artifact):  # type: ignore[no-untyped-def]
        latency = artifact.latency.model_copy(update={"median_ms": factor * artifact.latency.median_ms})
        return artifact.model_copy(update={"latency": latency, "quality": Quality(images=1000, top1=top1)})

    return report.model_copy(update={"artifacts": tuple(map(changed, report.artifacts))})


def test_headline_of_a_measured_run(mobilenet: Report) -> None:
    assert facts.sentence(mobilenet) == "4.3× smaller, 3.2× faster, 1.8 points less accurate"
    size, macs, latency, accuracy = facts.changes(mobilenet)
    assert (size.before_text, size.after_text) == ("10.36 MB", "2.39 MB")
    assert macs.verdict == "20% fewer"
    assert latency.share == pytest.approx(0.309)  # the interleaved ratio, not the quotient of two sessions
    assert "interleaved" in latency.basis
    assert accuracy.verdict == "−1.8 points"


def test_headline_speaks_of_the_fastest_of_the_smallest(mobilenet: Report) -> None:
    def chosen(report: Report) -> str:
        artifact = facts.headline_artifact(report)
        assert artifact is not None
        return artifact.path

    assert chosen(mobilenet) == "model.int8.onnx"
    onnx = mobilenet.artifacts[1]
    assert onnx.latency is not None
    bad = onnx.model_copy(update={"latency": onnx.latency.model_copy(update={"valid": False})})
    report = mobilenet.model_copy(update={"artifacts": (bad, *mobilenet.artifacts[2:])})
    assert chosen(report) == "model.int8.tflite"
    assert chosen(report.model_copy(update={"headline": "model.tflite"})) == "model.tflite"


def test_an_estimate_is_never_without_its_error(estimated: Report) -> None:
    latency = facts.changes(estimated)[2]
    assert latency.estimated
    assert "estimated (±8%)" in latency.basis
    assert "estimated 3.9× faster" in facts.sentence(estimated)
    times = [line for line in summary_lines(estimated) if " ms" in line and "!" not in line]
    assert len(times) == 5
    assert all("±8%" in line for line in times)


def test_invalid_and_emulated_times_make_no_headline(mobilenet: Report) -> None:
    for update, word in (
        ({"valid": False, "invalid": ("swapped",)}, "swapped"),
        ({"emulated": True}, "emulated"),
    ):
        artifacts = tuple(
            a.model_copy(update={"latency": a.latency.model_copy(update=update) if a.latency else None})
            for a in mobilenet.artifacts
        )
        report = mobilenet.model_copy(update={"artifacts": artifacts})
        assert "faster" not in facts.sentence(report)
        assert any(word in problem for problem in facts.problems(report))


def test_without_labels_the_headline_speaks_of_agreement(mobilenet: Report) -> None:
    quality = {stage: Quality(images=64, agreement=0.95, sqnr_db=20.0) for stage in ("float", "int8")}
    report = mobilenet.model_copy(update={"quality": quality})
    assert facts.sentence(report).endswith("same answer on 95.0% (86.7 to 98.2%)")
    only_db = {stage: Quality(images=64, sqnr_db=20.0) for stage in ("float", "int8")}
    assert facts.changes(mobilenet.model_copy(update={"quality": only_db}))[3].after_text == "20.0 dB"


def test_the_least_report_still_says_something(minimal: Report) -> None:
    assert facts.sentence(minimal) == "1.07× smaller"
    assert summary_lines(minimal)[0] == "net.onnx for rpi4: 1.07× smaller"
    assert facts.command(minimal) == "edgec compile net.onnx --recipe recipe.yaml -o again/"


@pytest.mark.parametrize(
    ("before", "after", "text", "good"),
    [
        (100, 25, "4.0× smaller", True),
        (100, 80, "1.25× smaller", True),
        (100, 2, "50× smaller", True),
        (100, 120, "1.20× larger", False),
        (100, 100.2, "unchanged", None),
        (0, 5, "unchanged", None),
    ],
)
def test_ratios_in_words(before: float, after: float, text: str, good: bool | None) -> None:
    assert facts.times(before, after, "smaller", "larger") == (text, good)


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (facts.size, 999, "999 B"),
        (facts.size, 1_536, "1.5 kB"),
        (facts.size, 480_000, "480 kB"),
        (facts.size, 2_390_417, "2.39 MB"),
        (facts.count, 9_999, "9999"),
        (facts.count, 325_434_368, "325 M"),
        (facts.count, 4_120_000_000, "4.12 G"),
        (facts.milliseconds, 0.1234, "0.123 ms"),
        (facts.milliseconds, 14.92, "14.9 ms"),
        (facts.milliseconds, 2345, "2.35 s"),
        (facts.seconds, 125.2, "2 min 05 s"),
    ],
)
def test_figures_in_words(function, value: float, text: str) -> None:  # type: ignore[no-untyped-def]
    assert function(value) == text


def test_terminal_shows_what_went_back_and_every_gate(estimated: Report) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    render_terminal(estimated, console)
    text = console.export_text()
    assert "undone  equalise: output SQNR fell" in text
    assert text.count("ok    ") == 3
    assert "FAILED  latency 20 ms (limit 18 ms)" in text
    assert "random noise" in text


def test_what_went_back_names_its_layers(minimal: Report) -> None:
    """A pass that took one fit of many back still stands: the line says which layer it speaks of."""
    worse, old = "no better on held-out rows", "fewer rows than unknowns"
    layers = tuple(FittedLayer(node=name, rows=8, unknowns=2) for name in "abcdefg")
    notes = [PassNote(text=worse, level="reverted", node=name) for name in "abcde"]
    one = PassNote(text=old, level="reverted", node="f")
    kept = PassNote(text=worse, node="g")
    run = PassRun(name="recover-lsq", notes=(*notes, one, kept), layers=layers)
    report = minimal.model_copy(update={"passes": (run,)})
    assert facts.undone(report) == [
        "recover-lsq, 5 of 7 layers (a, b, c and 2 more): no better on held-out rows",
        "recover-lsq, 1 of 7 layers (f): fewer rows than unknowns",
    ]


def test_terminal_prints_names_as_they_are(minimal: Report) -> None:
    odd = minimal.model_copy(update={"model": minimal.model.model_copy(update={"name": "[red]net[/].onnx"})})
    console = Console(width=120, record=True, file=io.StringIO())
    render_terminal(odd, console)
    assert "[red]net[/].onnx" in console.export_text()


def test_compare_marks_the_front(mobilenet: Report) -> None:
    runs = [("a", mobilenet), ("b", slower(mobilenet, 0.7, 0.73)), ("c", slower(mobilenet, 1.2, 0.76))]
    comparison = compare(runs)
    assert comparison.cost == "latency"
    assert [row.best for row in comparison.rows] == [True, True, False]


def test_measured_and_estimated_times_do_not_compare(mobilenet: Report, estimated: Report) -> None:
    comparison = compare([("host", mobilenet), ("pi", estimated)])
    assert comparison.cost == "macs"
    assert any("different targets" in text for text in comparison.cautions)
    assert any("multiply-adds" in text for text in comparison.cautions)


def test_markdown_table_is_well_formed(mobilenet: Report, estimated: Report) -> None:
    text = compare([("a|b*c", mobilenet), ("pi", estimated)]).markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 1 + 2  # header, one original, two runs
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8}
    assert r"a\|b\*c" in text
    assert "20.0 ms (est. ±8%)" in text
    assert "random noise" in text


def test_csv_has_one_line_per_artifact(mobilenet: Report, minimal: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(compare([("a, b", mobilenet), ("m", minimal)]).csv())))
    assert [line["artifact"] for line in lines][-2:] == ["model.int8.tflite", "model.onnx"]
    assert lines[1]["run"] == "a, b"
    assert float(lines[1]["top1"]) == 0.768
    assert (lines[1]["measured"], lines[1]["valid"]) == ("True", "True")
    assert lines[-1]["latency_ms"] == ""


def test_compare_nothing() -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_pareto_by_definition(points: list[tuple[int, int]]) -> None:
    def beaten(p: tuple[int, int]) -> bool:
        return any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)

    assert pareto(points) == sorted({p for p in points if not beaten(p)})


BUSY = "the host is busy: other processes used 0.85 cores during the run"


def test_a_busy_host_is_said_everywhere(mobilenet: Report) -> None:
    """It was in report.json and shown nowhere: page, comparison, terminal, lines, and Markdown say it, with the files."""

    def noticed(artifact):  # type: ignore[no-untyped-def]
        return artifact.model_copy(
            update={"latency": artifact.latency.model_copy(update={"notices": (BUSY,)})}
        )

    first, *others = mobilenet.artifacts
    assert BUSY not in page(mobilenet)
    report = mobilenet.model_copy(update={"artifacts": (noticed(first), *others)})
    line = f"{first.path}: {BUSY}"
    assert facts.remarks(report) == [line]
    assert line in page(report)
    assert line in compare([("a", report), ("b", mobilenet)]).html()
    assert any(line in text for text in summary_lines(report))
    terminal = io.StringIO()
    render_terminal(report, Console(file=terminal, width=200))
    assert line in terminal.getvalue()
    assert BUSY in compare([("a", report)]).markdown()
    everywhere = mobilenet.model_copy(
        update={"artifacts": tuple(map(noticed, mobilenet.artifacts)), "model": noticed(mobilenet.model)}
    )
    assert facts.remarks(everywhere) == [f"All measured times: {BUSY}"]


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"lost": 3}, "Same answer 97.0%; lost 3 of 100 inputs"),
        ({"lost": 3, "count": 100, "won": 1}, "Same answer 97.0%; lost 3 of 100 inputs, won 1"),
        ({"lost": 3, "count": 250, "of": "boxes"}, "Same answer 97.0%; lost 3 of 250 boxes on 100 inputs"),
        ({}, "Same answer 97.0% on 100 inputs"),
    ],
)
def test_how_many_inputs_there_were_is_said_once(figures: dict[str, Any], said: str) -> None:
    assert measure_text(Measure(name="Same answer", value=0.97, samples=100, **figures)) == said


@pytest.mark.parametrize(
    ("name", "value", "limit", "said"),
    [
        ("budget macs=40%", 2865152.0, 2868736.0, "budget macs=40% 2.865 M (limit 2.869 M)"),
        ("budget params=1G", 1.1e9, 1e9, "budget params=1G 1.1 G (limit 1 G)"),
        ("budget size=50%", 63151.0, 64000.0, "budget size=50% 63.15 kB (limit 64 kB)"),
        ("budget size=1kB", 900.0, 1000.0, "budget size=1kB 900 B (limit 1 kB)"),
        ("budget latency=25ms", 24.123, 25.0, "budget latency=25ms 24.12 ms (limit 25 ms)"),
        ("budget latency=25ms", "unknown", "25ms", "budget latency=25ms unknown (limit 25ms)"),
        ("max-drop", -0.006, 0.01, "max-drop -0.6% (limit 1%)"),
    ],
)
def test_a_gate_speaks_in_the_unit_of_what_it_is_about(name: str, value: Any, limit: Any, said: str) -> None:
    assert facts.gate_text(Gate(name=name, passed=True, value=value, limit=limit)) == said
