"""The checks around each pass (design section 2): what it needs is there, what it promised holds, nothing else changed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.data import InputSpec
from edgec.graph.equivalence import worst_difference
from edgec.graph.errors import PassError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.verify import verify
from edgec.passes.base import Context, Need, Pass, PassResult

TOLERANCE = 1e-5
"""Relative to an output's range: float32 rounding of a re-arranged sum."""


def check_needs(one: Pass, context: Context) -> None:
    """Raise UsageError, naming the pass, where something it needs is not there."""
    labelled = context.data is not None and context.data.labels is not None
    check_given(one, data=context.data is not None, labels=labelled, target=context.target is not None)


def check_given(one: Pass, *, data: bool, labels: bool, target: bool) -> None:
    """The same, by what is known before anything is loaded."""
    where = f"pass {one.name}"
    if Need.DATA in one.needs and not data:
        hint = "Add --data FOLDER (unlabelled inputs), or ask for noise with --data random."
        raise UsageError("needs calibration data", where=where, hint=hint)
    if Need.LABELS in one.needs and not labels:
        raise UsageError(
            "needs labelled data", where=where, hint="Give an .npz with x and y, or a labels CSV."
        )
    if Need.TARGET in one.needs and not target:
        raise UsageError("needs a target", where=where, hint="Add --target; see `edgec targets list`.")
    if Need.TORCH in one.needs:
        from importlib.util import find_spec

        if find_spec("torch") is None:
            raise UsageError("needs torch", where=where, hint="pip install 'edgec[torch]'")


def check_result(one: Pass, before: ir.Model, result: PassResult) -> None:
    """Raise PassError where the result is not canonical, changed its interface, or changed what it declared it would not."""
    where = f"pass {one.name}"
    verify(result.model)
    interface = [(v.name, str(v.shape)) for v in (*before.graph.inputs, *before.graph.outputs)]
    after = [(v.name, str(v.shape)) for v in (*result.model.graph.inputs, *result.model.graph.outputs)]
    if interface != after:
        raise PassError(
            "it changed the model's inputs or outputs", where=where, why=f"{interface} -> {after}"
        )
    one.ensures(before, result)
    if not one.changes_function:
        _check_same_function(where, before, result.model)


def _check_same_function(where: str, before: ir.Model, after: ir.Model) -> None:
    rng = np.random.default_rng(0)
    feeds = {
        spec.name: rng.standard_normal((1, *spec.shape)).astype(np.float32) for spec in InputSpec.of(before)
    }
    old, new = Executor(before).run(feeds), Executor(after).run(feeds)
    for name, reference in old.items():
        difference = worst_difference(reference, new[name])
        if not difference <= TOLERANCE:
            why = f"output {name!r} moved by {difference:.2g} of its range; {TOLERANCE:g} is allowed"
            raise PassError("it promised to keep the function and did not", where=where, why=why)
