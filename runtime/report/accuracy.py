"""What a report says of quality: the measure that says most, with its 95% interval, and no more than the samples carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgec.graph.intervals import wilson
from edgec.runtime.report import words
from edgec.runtime.report.schema import IDENTICAL_DB, Measure, Quality

MINUS = "\u2212"
RUINED_DB = 20.0
"""Below it a tenth of the outputs' signal is error: the headline says so."""
FEW_TO_JUDGE = 30
"""Of fewer inputs a rate is no claim: of 30 without a fault the interval still begins at 89%."""


@dataclass(frozen=True)
class Change:
    """One tile of the headline; ``good`` None is neutral."""

    label: str
    before_text: str
    after_text: str
    verdict: str
    good: bool | None
    share: float | None
    """After over before, for the bar; None where a ratio means nothing."""
    basis: str = ""
    """Where the figure comes from: 'measured on …', 'estimated, ±8%', 'on 1000 labelled images'."""
    estimated: bool = False
    phrase: str = ""
    """The verdict as part of the headline; empty where the headline has nothing to say of it."""


@dataclass(frozen=True)
class Accuracy:
    """The best measure of quality that a report has: the task's own, else top-1, boxes kept, agreement with the source, SQNR."""

    label: str
    key: str
    """The field of `Quality`; ``measures``: the one of them with this label."""
    percent: bool
    unit: str = "dB"
    """Where it is no share."""
    best: float | None = None
    """The value of the original itself, where it is compared with itself."""

    def value(self, quality: Quality | None) -> float | None:
        """The figure of ``quality``; None where it has none."""
        if quality is None:
            return None
        if self.key == "measures":
            return next((one.value for one in quality.measures if one.name == self.label), None)
        found: float | None = getattr(quality, self.key)
        return found

    def text(self, value: float | None) -> str:
        """The figure in words, ``–`` where there is none."""
        if value is None:
            return "–"
        if self.percent:
            return f"{100 * value:.1f}%"
        if self.unit != "dB":
            return f"{value:.3g} {self.unit}".rstrip()
        return "exact" if value >= IDENTICAL_DB else f"{value:.1f} dB"

    @property
    def axis(self) -> str:
        """The label of an axis of a plot."""
        unit = "%" if self.percent else self.unit
        return self.label.lower() + (f", {unit}" if unit else "")


TOP1 = Accuracy("Top-1 accuracy", "top1", percent=True)
BOXES = Accuracy("Boxes of the original still found", "boxes_kept", percent=True, best=1.0)
AGREEMENT = Accuracy("Same answer as the original", "agreement", percent=True, best=1.0)
SQNR = Accuracy("Signal to error (SQNR)", "sqnr_db", percent=False)
_BY_FIELD = (TOP1, BOXES, AGREEMENT, SQNR)


def accuracy_of(qualities: Sequence[Quality | None]) -> Accuracy | None:
    """The first measure that any of ``qualities`` has; those against labels before those against the source."""
    known = [quality for quality in qualities if quality is not None]
    first = [quality.measures[0] for quality in known if quality.measures]
    for one in sorted(first, key=lambda one: one.against != "labels"):
        return _of_measure(one)
    for measure in _BY_FIELD:
        if any(measure.value(quality) is not None for quality in known):
            return measure
    return None


def _of_measure(one: Measure) -> Accuracy:
    known = next((field for field in _BY_FIELD if field.label == one.name), None)
    best = one.best if one.against == "source" else None
    return known or Accuracy(one.name, "measures", one.unit == "%", one.unit, best)


def accuracy_change(quality: Quality, teacher: Quality | None) -> Change | None:
    """The tile of ``quality``; ``teacher``: that of the original, where it was judged too.

    Where an output that it does not speak of is ruined, it says so, and is no good news.
    """
    found = _answers_change(quality, teacher)
    ruined = quality.outputs.get(quality.beside)
    if found is None or ruined is None or ruined >= RUINED_DB:
        return found
    told = words.OUTPUT_RUINED.format(part=quality.beside, figure=SQNR.text(ruined))
    verdict, phrase = (f"{one}; {told}" if one else told for one in (found.verdict, found.phrase))
    return replace(found, verdict=verdict, phrase=phrase, good=False)


def _answers_change(quality: Quality, teacher: Quality | None) -> Change | None:
    measure = accuracy_of([quality])
    if measure is None:
        return None
    own = next((one for one in quality.measures if one.name == measure.label), None)
    if own is not None and own.value is not None:
        return (
            _labelled(measure, own, teacher) if own.against == "labels" else _compared(measure, own, quality)
        )
    after = measure.value(quality) or 0.0
    new, on = measure.text(after), _on(quality.images)
    if measure is SQNR:
        basis = f"{on}{words.AGAINST_ORIGINAL}{_worst_part(quality)}"
        if after >= RUINED_DB:
            return Change(measure.label, "", new, "", None, None, basis)
        verdict, phrase = words.TENTH_IS_ERROR, words.FAR_OFF.format(figure=new)
        return Change(measure.label, "", new, verdict, False, None, basis, phrase=phrase)
    if measure is BOXES and quality.detection is not None:
        found = quality.detection
        lost = words.LOST.format(lost=found.lost, count=found.boxes, things="boxes")
        return Change(measure.label, "", new, "", None, after, _boxes_basis(quality, on, lost), phrase=lost)
    if measure is AGREEMENT:
        verdict, phrase = judged_rate(after, quality.images, words.SAME_ANSWER.format(figure=new))
        return Change(measure.label, "", new, verdict, None, after, f"{on}inputs", phrase=phrase)
    before = measure.value(teacher)
    if before is None:
        return Change(measure.label, "", new, "", None, after, f"{on}labelled inputs")
    verdict, good, phrase = points(before, after)
    share = after / before if before else None
    return Change(
        measure.label, measure.text(before), new, verdict, good, share, f"{on}labelled inputs", phrase=phrase
    )


def _on(samples: int) -> str:
    return f"on {samples:,} ".replace(",", "\u202f")


def _boxes_basis(quality: Quality, on: str, lost: str) -> str:
    at = "" if quality.detection is None else f" at score {quality.detection.threshold:g}"
    return f"{on}inputs: {lost}{at}"


def _compared(measure: Accuracy, own: Measure, quality: Quality) -> Change:
    """A measure of agreement with the original."""
    value, on = own.value or 0.0, _on(own.samples)
    text = measure.text(value)
    between = aside = interval(measure, own)
    basis = f"{on}inputs"
    phrase = f"{measure.label[:1].lower()}{measure.label[1:]} {text}"
    if measure is AGREEMENT:
        phrase = words.SAME_ANSWER.format(figure=text)
    elif own.lost is not None and own.count:
        phrase = words.LOST.format(lost=own.lost, count=own.count, things=own.of)
        basis = _boxes_basis(quality, on, phrase) if measure is BOXES else f"{basis}: {phrase}"
        if between:
            aside = words.KEPT.format(interval=between)
        elif not own.lost:
            aside = words.TOO_FEW_TO_TELL
    verdict = _within(between) if between else ""
    if own.samples < FEW_TO_JUDGE:
        verdict = words.TOO_FEW_TO_JUDGE + (f": {verdict}" if verdict else "")
        phrase = words.TOO_FEW_INPUTS.format(count=own.samples)
    elif aside:
        phrase += f" ({aside})"
    return Change(measure.label, "", text, verdict, None, _bar(measure, value), basis, phrase=phrase)


def _labelled(measure: Accuracy, own: Measure, teacher: Quality | None) -> Change:
    """A measure against labels: what was lost of it, how sure that is, and in how many samples."""
    after, on = own.value or 0.0, _on(own.samples)
    before = measure.value(teacher)
    by = f", by {own.evaluator}" if own.evaluator else ""
    basis = f"{on}labelled inputs{by}"
    if own.lost is not None and own.won is not None:
        counted = own.count or own.samples
        basis += f": {words.LOST_AND_WON.format(lost=own.lost, count=counted, won=own.won)}"
    new = measure.text(after)
    if before is None:
        return Change(measure.label, "", new, "", None, _bar(measure, after), basis)
    verdict, good, phrase = points(before, after) if measure.percent else _units(measure, own, before, after)
    sure = _sure(measure, own)
    if sure and own.change_low is not None and own.change_high is not None:
        if (
            good and after != before and own.change_low <= 0 <= own.change_high
        ):  # a gain that may be none claims none
            good = None
            phrase, beside = (words.NO_ACCURACY_LOST, f"{verdict}, ") if measure.percent else (phrase, "")
        else:
            beside = ""
        verdict, phrase = f"{verdict} ({sure})", f"{phrase} ({beside}{sure})"
    if own.samples < FEW_TO_JUDGE:
        verdict, good, phrase = (
            f"{words.TOO_FEW_TO_JUDGE}: {verdict}",
            None,
            words.TOO_FEW_INPUTS.format(count=own.samples),
        )
    share = after / before if before and measure.percent else None
    return Change(measure.label, measure.text(before), new, verdict, good, share, basis, phrase=phrase)


def interval(measure: Accuracy, own: Measure) -> str:
    """``96.5 to 98.9%``; empty where nothing is known."""
    if own.low is None or own.high is None:
        return ""
    if measure.percent:
        return f"{100 * own.low:.1f} to {100 * own.high:.1f}%"
    return f"{own.low:.3g} to {own.high:.3g} {measure.unit}".rstrip()


def _within(between: str) -> str:
    low, _, high = between.partition(" to ")
    return words.INTERVAL.format(low=low, high=high)


def _sure(measure: Accuracy, own: Measure) -> str:
    if own.change_low is None or own.change_high is None:
        return ""
    low, high = own.change_low, own.change_high
    if measure.percent:
        return words.INTERVAL.format(low=_signed(f"{100 * low:+.1f}"), high=_signed(f"{100 * high:+.1f}"))
    return words.INTERVAL.format(low=_signed(f"{low:+.2g}"), high=_signed(f"{high:+.2g}"))


def _units(measure: Accuracy, own: Measure, before: float, after: float) -> tuple[str, bool | None, str]:
    """As `points`, of a figure in units of its own."""
    gap = after - before
    if not gap:
        return words.UNCHANGED, True, words.MEASURE_UNCHANGED.format(measure=measure.label)
    better = (gap < 0) == own.lower_is_better
    text = f"{_signed(f'{gap:+.2g}')} {measure.unit}".rstrip()
    return text, True if better else None, f"{measure.label} {text}"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def _bar(measure: Accuracy, value: float) -> float | None:
    return value if measure.percent else None


def judged_rate(rate: float, images: int, phrase: str) -> tuple[str, str]:
    """(the 95% interval, or that there are too few inputs; ``phrase`` as far as they carry it)."""
    low, high = wilson(rate, images)
    between = words.INTERVAL.format(low=f"{100 * low:.1f}", high=f"{100 * high:.1f}%")
    if images < FEW_TO_JUDGE:
        return f"{words.TOO_FEW_TO_JUDGE}: {between}", words.TOO_FEW_INPUTS.format(count=images)
    return between, f"{phrase} ({100 * low:.1f} to {100 * high:.1f}%)"


def _worst_part(quality: Quality) -> str:
    """Which output, or part of one, the SQNR is that of; reports of edgec 0.1 speak of all outputs together."""
    worst = [name for name, decibels in quality.outputs.items() if decibels == quality.sqnr_db]
    return words.WORST_PART.format(part=worst[0], count=len(quality.outputs)) if worst else ""


def points(before: float, after: float) -> tuple[str, bool | None, str]:
    """The difference of two accuracies in points: as a verdict, whether it is good, and as a phrase.

    A loss of up to two points is neither good nor bad: whether it is worth it is the reader's to say.
    """
    gap = 100 * (after - before)
    if abs(gap) < 0.05:
        return words.NO_LOSS, True, words.NO_ACCURACY_LOST
    if gap > 0:
        return f"+{gap:.1f} points", True, words.MORE_ACCURATE.format(points=f"{gap:.1f}")
    less = words.LESS_ACCURATE.format(points=f"{-gap:.1f}")
    return f"{MINUS}{-gap:.1f} points", None if gap > -2.0 else False, less


def measure_text(one: Measure) -> str:
    """One of the task's measures in a line: ``Mean IoU with the original's masks 97.2% (96.8 to 97.5%) on 200 inputs``."""
    measure = _of_measure(one)
    between = interval(measure, one)
    change = _sure(measure, one)
    found = f"{one.name} {measure.text(one.value)}" + (f" ({between})" if between else "")
    found += f", {words.AGAINST_ITS.format(change=change)}" if change else ""
    counted = one.count or one.samples, one.of
    if one.lost is not None:
        things = f"{counted[0]} {counted[1]}"
        found += (
            f"; {words.LOST_AND_WON.format(lost=one.lost, count=things, won=one.won)}"
            if one.won is not None
            else f"; {words.ONLY_LOST.format(lost=one.lost, count=things)}"
        )
    if one.lost is None or counted != (one.samples, "inputs"):  # else it was said
        found += f" {_on(one.samples)}inputs"
    return found + (f", by {one.evaluator}" if one.evaluator else "")
