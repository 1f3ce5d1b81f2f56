"""The checks around each pass (design section 2): what it needs is there, what it promised holds, nothing else changed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.data import InputSpec, noise
from edgec.graph.equivalence import moved, noise_from, worst_difference
from edgec.graph.errors import PassError
from edgec.graph.execute import Executor
from edgec.graph.verify import verify
from edgec.passes.base import Context, Pass, PassResult
from edgec.passes.needs import check_given

TOLERANCE = 1e-5
"""Relative to an output's range: float32 rounding of a re-arranged sum; more where the last digits of the inputs decide more."""


def check_needs(one: Pass, context: Context) -> None:
    """Raise UsageError, naming the pass, where something it needs is not there."""
    labelled = context.data is not None and context.data.labels is not None
    check_given(one, data=context.data is not None, labels=labelled, target=context.target is not None)


def check_result(one: Pass, before: ir.Model, result: PassResult) -> None:
    """Raise PassError where the result is not canonical, changed its interface, or changed what it declared it would not."""
    where = f"pass {one.name}"
    verify(result.model)
    interface, after = (_interface(model, sizes=not one.changes_input) for model in (before, result.model))
    if interface != after:
        raise PassError(
            "it changed the model's inputs or outputs", where=where, why=f"{interface} -> {after}"
        )
    one.ensures(before, result)
    if not one.changes_function:
        _check_same_function(where, before, result.model)


def _interface(model: ir.Model, *, sizes: bool) -> list[tuple[str | None, str]]:
    """Names and shapes at both ends; only ranks without ``sizes``."""
    ends = (*model.graph.inputs, *model.graph.outputs)
    return [(v.name, str(v.shape if sizes else len(v.shape or ()))) for v in ends]


def _check_same_function(where: str, before: ir.Model, after: ir.Model) -> None:
    rng = np.random.default_rng(0)
    feeds = {spec.name: noise(rng, (1, *spec.shape), spec.dtype) for spec in InputSpec.of(before)}
    runner = Executor(before)
    old, new = runner.run(feeds), Executor(after).run(feeds)
    differences = {name: worst_difference(reference, new[name]) for name, reference in old.items()}
    if all(difference <= TOLERANCE for difference in differences.values()):
        return
    again = runner.run({name: moved(array, rng) for name, array in feeds.items()})
    for name, difference in differences.items():
        allowed = max(TOLERANCE, noise_from(worst_difference(old[name], again[name])))
        if not difference <= allowed:
            why = f"output {name!r} moved by {difference:.2g} of its range; {allowed:.2g} is allowed"
            raise PassError("it promised to keep the function and did not", where=where, why=why)
