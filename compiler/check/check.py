"""Check one file against the rules of a target's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from edgec.compiler.check.finding import Finding, worst_first
from edgec.compiler.check.onnx_view import DEQUANTIZE, QUANTIZE, OnnxView
from edgec.compiler.check.onnxruntime_rules import ONNXRUNTIME_RULES, OnnxruntimeView
from edgec.compiler.check.tensorrt_codes import CODE_RULES, TensorrtView
from edgec.compiler.check.tensorrt_placement import PLACEMENT_RULES
from edgec.graph.errors import ModelError
from edgec.targets.jetpack import jetpack

if TYPE_CHECKING:
    from edgec.compiler.emit.artifacts import Emission
    from edgec.targets import Target

TENSORRT_RULES = (*PLACEMENT_RULES, *CODE_RULES)


def check_onnx(model: onnx.ModelProto, target: Target) -> tuple[Finding, ...]:
    """What the target's runtime would say to the file, the worst first."""
    view = OnnxView(model)
    found: list[Finding] = []
    on_codes = any(view.of(QUANTIZE, DEQUANTIZE))
    if target.jetpack is not None and (target.dialect == "tensorrt" or not on_codes):
        subject = TensorrtView(view, jetpack(target.jetpack))
        for rule in TENSORRT_RULES:
            found += rule.check(subject)
    else:
        of_runtime = OnnxruntimeView(view, "uint8" if target.dialect == "ort-x86" else "int8")
        for other in ONNXRUNTIME_RULES:
            found += other.check(of_runtime)
    return worst_first(found)


def checked(emission: Emission, target: Target) -> Mapping[str, tuple[Finding, ...]]:
    """What the target's runtime would say to every artifact of a run, by name."""
    return {one.name: check_file(one.path, target) for one in emission.files}


def check_file(path: Path, target: Target) -> tuple[Finding, ...]:
    """The same for a file, ONNX or TFLite. Raises ModelError where it cannot be read."""
    if path.suffix == ".tflite":
        from edgec.compiler.check.tflite_rules import check_tflite

        return check_tflite(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ModelError("this is no ONNX file", where=str(path), why=str(error).splitlines()[0]) from error
    if not model.graph.output:
        raise ModelError("this is no ONNX file", where=str(path), why="it holds no graph")
    return check_onnx(model, target)
