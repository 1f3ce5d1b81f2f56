"""The pass ``quantize``: static int8 in QDQ form."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from edgec.graph.errors import DataError, PassError, UsageError
from edgec.passes.base import Context, Need, Note, Pass, PassResult, option
from edgec.passes.quantize.calibrate import observe, outlier_notes, ranges
from edgec.passes.quantize.insert import Form, insert
from edgec.passes.quantize.plan import Plan, Table, make_plan, parameters
from edgec.passes.quantize.rewrites import use_global_pools

METHODS = ("minmax", "percentile", "mse", "entropy")


@dataclass(frozen=True)
class Quantize(Pass):
    """Static int8: weights symmetric per channel, activations asymmetric per tensor, TFLite's rules."""

    name: ClassVar[str] = "quantize"
    summary: ClassVar[str] = "static int8 (QDQ) with ranges from calibration data"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    changes_function: ClassVar[bool] = True

    method: str = option("mse", f"how ranges are chosen: {', '.join(METHODS)}")
    percentile: float = option(99.99, "share of values that the percentile method covers, in percent")
    activations: str = option("auto", "activation type of the ONNX file: uint8, int8, or the target's (auto)")
    per_channel: bool = option(True, "one weight scale per output channel instead of one per tensor")
    exclude: str = option("", "node names to leave in float: patterns with * and ?, separated by |")

    def requires(self, model: ir.Model) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"unknown method {self.method!r}", where="quantize", hint=f"Known: {', '.join(METHODS)}."
            )
        if self.activations not in ("auto", "uint8", "int8"):
            raise UsageError(f"unknown activation type {self.activations!r}", where="quantize")
        if not 50.0 < self.percentile <= 100.0:
            raise UsageError(f"percentile {self.percentile} is not within (50, 100]", where="quantize")
        for node in model.graph:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.op_type.startswith("QLinear"):
                raise PassError(
                    "the model is quantised already",
                    where=f"quantize: node {node.name!r} ({node.op_type})",
                    hint="Start from the float model, or leave this pass out.",
                )

    def run(self, model: ir.Model, context: Context) -> PassResult:
        if context.data is None:
            raise DataError(
                "no calibration data", where="quantize", hint="Give --data, or --data random for noise."
            )
        self.requires(model)
        rewritten = use_global_pools(model)
        excluded = _matcher(self.exclude, model)
        plan = make_plan(model, excluded)
        if not plan.nodes:
            note = Note("nothing to quantise: no node has an int8 form", "warning")
            return PassResult(model, bool(rewritten), (note,))
        calibration = observe(model, context.data, plan.sources, context)
        found = ranges(calibration, plan, self.method, percentile=self.percentile)
        table = parameters(plan, model, found)
        form = Form(self._activation_dtype(context), per_channel=self.per_channel)
        insert(model, plan, table, form)
        notes = (*calibration.notes, *outlier_notes(calibration, plan), *_float_notes(plan, model))
        return PassResult(model, True, notes, data=_figures(plan, table, form))

    def _activation_dtype(self, context: Context) -> str:
        if self.activations != "auto":
            return self.activations
        return "uint8" if context.target is None else context.target.activation_dtype


def _matcher(patterns: str, model: ir.Model) -> Callable[[str], bool]:
    """True for names that match one of ``patterns``. Raises UsageError for a pattern that matches no node."""
    wanted = [pattern.strip() for pattern in patterns.split("|") if pattern.strip()]
    names = [node.name or "" for node in model.graph]
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            hint = "edgec inspect --layers lists the names."
            raise UsageError(f"exclude pattern {pattern!r} matches no node", where="quantize", hint=hint)
    return lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)


def _float_notes(plan: Plan, model: ir.Model) -> tuple[Note, ...]:
    kinds = {node.name or "": node.op_type for node in model.graph}
    return tuple(
        Note(f"{name} ({kinds[name]}) stays float: {reason}", "info", name)
        for name, reason in plan.floats.items()
    )


def _figures(plan: Plan, table: Table, form: Form) -> dict[str, object]:
    """The table for the report: parameters by tensor name, zero points in the signed code domain."""
    return {
        "activations": form.activations,
        "quantised_nodes": list(plan.nodes),
        "float_nodes": dict(plan.floats),
        "tensors": {
            name: {"scale": params.scale, "zero_point": params.zero_point}
            for name, params in table.tensors.items()
        },
    }
