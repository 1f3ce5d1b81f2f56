"""Estimate an artifact's latency on a target from its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.foreign import Loading, begin
from edgec.targets import target as find_target
from edgec.targets.engines import Precision
from edgec.targets.estimator import Estimate, estimate

if TYPE_CHECKING:
    from edgec.graph.cost import ModelCost


def estimate_file(
    path: Path, target: str, threads: int, engine: str | None = None, loading: Loading | None = None
) -> Estimate:
    """The estimate for an ONNX or TFLite file. Raises EdgecError where the combination is not known."""
    spent, precision = _cost_of_file(path, loading or Loading())
    runtime = engine or ("ai-edge-litert" if path.suffix == ".tflite" else "onnxruntime")
    return estimate(spent, find_target(target), runtime=runtime, precision=precision, threads=threads)


def _cost_of_file(path: Path, loading: Loading) -> tuple[ModelCost, Precision]:
    if path.suffix == ".tflite":
        from edgec.compiler.emit.tflite.file_cost import read_cost

        spent, precision = read_cost(path)
        return spent, cast("Precision", precision)
    with begin(path, loading) as pending:
        model = pending.model()
    return cost(model), precision_of(model)


def precision_of(model: ir.Model) -> Precision:
    """What the weights are stored in: int8 behind DequantizeLinear, float16 behind Cast, else float32."""
    kinds = {value.dtype for value in model.graph.initializers.values()}
    if any(node.op_type == "QuantizeLinear" for node in model.graph):
        return "int8"
    return "fp16" if ir.DataType.FLOAT16 in kinds else "fp32"
