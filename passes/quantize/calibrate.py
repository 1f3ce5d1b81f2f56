"""Find ranges by streaming calibration data through the float graph, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_bytes, samples_within
from edgec.graph.errors import DataError, PassError
from edgec.graph.execute import Executor
from edgec.graph.provenance import place
from edgec.graph.read.own_codes import SourceCodes
from edgec.passes.base import Context, Note
from edgec.passes.equalize import Peaks
from edgec.passes.quantize.histogram import Histogram, merge, step_of
from edgec.passes.quantize.planned import Group, Plan
from edgec.passes.quantize.ranges import choose
from edgec.passes.solvers.parallel import prefetch, run_all

if TYPE_CHECKING:
    from edgec.graph.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]
Ends = tuple[float, float]

BATCH_BYTES, MOST = 64 << 20, 32
"""Inner tensors of one calibration batch take no more than this."""
FEW_SAMPLES = 16
OUTLIER_RATIO = 8.0
"""A range this many times wider than that of 99.9% of the values is set by outliers."""


OUTPUT_MARGIN = 1.1
"""Outputs cover this many times the observed range: a saturated logit would tie with the runner-up."""


@dataclass(frozen=True)
class Calibration:
    """Histograms of the tensors that decide ranges, and what was odd about the data."""

    histograms: Mapping[str, Histogram]
    samples: int
    notes: tuple[Note, ...]
    _chosen: dict[object, Ends] = field(default_factory=dict, compare=False, repr=False)
    """Ranges that were searched for already: many graphs are made from one calibration."""

    def ends(
        self, group: Group, method: str, percentile: float, bits: int, *, symmetric: bool = False
    ) -> Ends:
        """The range of a group of tensors that share parameters."""
        key = group.sources, group.useful, group.is_output, method, percentile, bits, symmetric
        if key not in self._chosen:
            merged = merge([self.histograms[name] for name in group.sources]).clipped(*group.useful)
            if group.is_output:
                found = merged.low * OUTPUT_MARGIN, merged.high * OUTPUT_MARGIN
            else:
                found = choose(merged, method, percentile=percentile, bits=bits, symmetric=symmetric)
            self._chosen[key] = found
        return self._chosen[key]


def batch_size(model: ir.Model, tensors: Sequence[str]) -> int:
    """How many samples at once keep ``tensors`` within `BATCH_BYTES`."""
    values = {v.name: v for node in model.graph for v in node.outputs}
    together = sum(sample_bytes(values[name]) for name in tensors if name in values)
    return samples_within(BATCH_BYTES, together + 1, MOST)


def observe(
    model: ir.Model, data: Dataset, tensors: Sequence[str], context: Context, peaks: Peaks | None = None
) -> Calibration:
    """Histograms of ``tensors`` over all of ``data``; ``peaks`` are filled on the way.

    Raises DataError for an empty data set, PassError naming the first node whose output holds NaN or
    infinity.
    """
    beside = () if peaks is None else peaks.axes
    executor = Executor(model, outputs=[*tensors, *beside], threads=context.threads)
    histograms = {name: Histogram() for name in tensors}
    seen: set[bytes] = set()
    samples = constant = duplicates = 0
    size = batch_size(model, executor.outputs)
    made = prefetch(((feeds, executor.run(feeds)) for feeds in data.batches(size)), context.threads)
    for feeds, found in context.progress.over("calibrate", made, -(-len(data) // size)):
        count = len(next(iter(feeds.values())))

        def counted(name: str, found: Mapping[str, Array] = found, count: int = count) -> None:
            values = np.atleast_1d(found[name])
            step = step_of(values.size // len(values), len(data) * len(values) // count)
            histograms[name].add(values, step)

        run_all(counted, histograms, context.threads)
        if peaks is not None:
            peaks.add(found, count)
        for rows in zip(*feeds.values(), strict=True):
            digest = hashlib.blake2b(b"".join(row.tobytes() for row in rows), digest_size=16).digest()
            duplicates += digest in seen
            seen.add(digest)
            constant += all(bool(row.min() == row.max()) for row in rows)
            samples += 1
    if not samples:
        raise DataError("no calibration data", where="quantize", hint="Give --data with at least one input.")
    _check_finite(model, histograms)
    return Calibration(histograms, samples, _data_notes(samples, constant, duplicates))


def ranges(
    calibration: Calibration,
    plan: Plan,
    method: str,
    *,
    percentile: float = 99.99,
    bits: int = 8,
    kept: SourceCodes | None = None,
    symmetric: bool = False,
    cuts: Mapping[str, float] | None = None,
) -> dict[str, tuple[float, float]]:
    """A range for every source tensor of ``plan``; tensors of one group get one. ``kept``: where it had codes, theirs.

    ``cuts``: the share of its longer end that a range keeps, by a member of its group.
    """
    found: dict[str, tuple[float, float]] = {}
    for group in plan.groups:
        if group.fixed is not None or not group.sources:
            continue
        own = [] if kept is None else [e for name in group.sources if (e := kept.range_of(name)) is not None]
        ends = (
            (min(low for low, _ in own), max(high for _, high in own))
            if own
            else calibration.ends(group, method, percentile, bits, symmetric=symmetric)
        )
        share = min((cuts[name] for name in group.members if name in cuts), default=1.0) if cuts else 1.0
        found.update(dict.fromkeys(group.sources, _cut(ends, share)))
    return found


def _cut(ends: Ends, share: float) -> Ends:
    """``ends`` within ``share`` of the longer one of them."""
    reach = share * max(-ends[0], ends[1])
    return max(ends[0], -reach), min(ends[1], reach)


def outlier_notes(calibration: Calibration, plan: Plan) -> tuple[Note, ...]:
    """A warning for every tensor whose range a few outliers set."""
    notes = []
    for name in plan.sources:
        histogram = calibration.histograms[name]
        if histogram.reach == 0.0:
            continue
        typical = max(abs(histogram.quantile(0.0005)), abs(histogram.quantile(0.9995)))
        widest = max(-histogram.low, histogram.high)
        if typical > 0 and widest > OUTLIER_RATIO * typical:
            text = (
                f"the range of {name!r} is set by outliers: {widest:.3g}, but 99.9% lie within {typical:.3g}"
            )
            notes.append(Note(text, "warning", name))
    return tuple(notes)


def _check_finite(model: ir.Model, histograms: Mapping[str, Histogram]) -> None:
    bad = {name for name, histogram in histograms.items() if not histogram.finite}
    if not bad:
        return
    for value in model.graph.inputs:
        if value.name in bad:
            raise DataError("the data holds NaN or infinity", where=f"input {value.name!r}")
    for node in model.graph:
        if any(value.name in bad for value in node.outputs):
            raise PassError(
                "its output holds NaN or infinity on the calibration data",
                where=f"quantize: {place(node)}",
                hint="Check the preprocessing and the weights, or exclude the node.",
            )


def _data_notes(samples: int, constant: int, duplicates: int) -> tuple[Note, ...]:
    notes = []
    if samples < FEW_SAMPLES:
        few = f"only {samples} calibration sample{'s' * (samples != 1)}"
        notes.append(Note(f"{few}: ranges may be too narrow", "warning"))
    if constant:
        notes.append(Note(f"{constant} of {samples} calibration inputs are constant", "warning"))
    if duplicates:
        notes.append(Note(f"{duplicates} of {samples} calibration inputs are duplicates", "warning"))
    return tuple(notes)
