"""What the headline must not say."""

from __future__ import annotations

import pytest

from edgec.runtime.report import facts
from edgec.runtime.report.schema import IDENTICAL_DB, Quality, Report


def with_quality(report: Report, quality: Quality | None) -> Report:
    """The report with one artifact as large as the source, judged so."""
    artifact = report.artifacts[0].model_copy(
        update={"quality": quality, "bytes": report.model.bytes, "latency": None}
    )
    model = report.model.model_copy(update={"latency": None})
    return report.model_copy(update={"artifacts": (artifact,), "model": model, "quality": {}})


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        (None, "Size and speed unchanged"),
        (Quality(images=100, sqnr_db=43.0), "Size and speed unchanged"),
        (Quality(images=100, sqnr_db=IDENTICAL_DB), "Nothing changed"),
        (Quality(images=100, sqnr_db=3.0), "outputs only 3.0 dB from the original's"),
    ],
)
def test_nothing_changed_is_said_of_what_is_exact_alone(
    minimal: Report, quality: Quality | None, said: str
) -> None:
    assert facts.sentence(with_quality(minimal, quality)) == said


def test_ruined_outputs_are_no_neutral_figure(minimal: Report) -> None:
    found = {
        change.label: change
        for change in facts.changes(with_quality(minimal, Quality(images=50, sqnr_db=6.0)))
    }
    assert found["Signal to error (SQNR)"].good is False
