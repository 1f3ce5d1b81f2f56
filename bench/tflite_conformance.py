"""ONNX's own node tests, through load -> TFLite -> LiteRT, against the outputs that ONNX expects.

A case counts as *float* when an operator of edgec's TFLite op set runs on float32 data in it. Many cases pass what a
network holds as constants (axes, pads, bounds) as run-time inputs; those inputs are bound as constants for a second try.

    python bench/tflite_conformance.py [--verbose] [NAME-PART...]
"""

from __future__ import annotations

import argparse
import collections
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgec.compiler.emit.tflite import emit
from edgec.compiler.emit.tflite.ops import HANDLERS
from edgec.graph.canonicalise import canonicalise
from edgec.graph.errors import EdgecError

NEWEST_IR, NEWEST_OPSET = 13, 26


def is_float_case(model: onnx.ModelProto) -> bool:
    """True when the case computes with float32 on operators that edgec lowers."""
    ops = {node.op_type for node in model.graph.node}
    types = [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)]
    known = {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}
    first = types[0] if types else 0
    domains = all(node.domain in ("", "ai.onnx") for node in model.graph.node)
    floats = first == onnx.TensorProto.FLOAT or (ops <= {"Where"} and onnx.TensorProto.FLOAT in types)
    return domains and floats and set(types) <= known and ops <= set(HANDLERS) | {"Constant"}


def bind(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:  # type: ignore[type-arg]
    """Make every input but the first one a constant."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    kept = bound.graph.input[0].name
    for value in list(bound.graph.input)[1:]:
        bound.graph.initializer.append(numpy_helper.from_array(feeds[value.name], value.name))
        bound.graph.input.remove(value)
    return bound, {kept: feeds[kept]}


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """Outputs by name, as LiteRT computes them."""
    from ai_edge_litert.interpreter import Interpreter

    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.ir_version = min(
        model.ir_version, NEWEST_IR
    )  # onnxruntime, which `load` checks with, reads no newer one
    for opset in model.opset_import:
        opset.version = min(opset.version, NEWEST_OPSET) if opset.domain == "" else opset.version
    canonical = canonicalise(model)
    data = emit(canonical)
    engine = Interpreter(model_content=data, num_threads=1)
    for detail in engine.get_input_details():
        value = feeds[detail["name"]]
        if tuple(detail["shape"]) != value.shape:
            engine.resize_tensor_input(detail["index"], value.shape)
    engine.allocate_tensors()
    for detail in engine.get_input_details():
        engine.set_tensor(detail["index"], feeds[detail["name"]])
    engine.invoke()
    return {detail["name"]: engine.get_tensor(detail["index"]) for detail in engine.get_output_details()}


def check(case, model: onnx.ModelProto, feeds: dict[str, np.ndarray], wanted: list[np.ndarray]) -> str:  # type: ignore[no-untyped-def, type-arg]
    """'' when every output is as expected, else what is wrong."""
    found = run(model, feeds)
    for value, want in zip(model.graph.output, wanted, strict=True):
        if value.name not in found:
            return f"no output {value.name}"
        have = found[value.name]
        want = np.asarray(want)
        if have.shape != want.shape:
            return f"shape {have.shape}, wanted {want.shape}"
        if have.dtype != want.dtype:
            return f"type {have.dtype}, wanted {want.dtype}"
        if not np.allclose(have, want, rtol=max(case.rtol, 1e-3), atol=1e-5, equal_nan=True):
            return f"off by {np.abs(have.astype(np.float64) - want).max():.3g}"
    return ""


def outcome(case) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    """(kind, detail) of one case: passed, passed bound, refused, failed."""
    inputs, wanted = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    feeds = {name: np.asarray(value) for name, value in zip(names, inputs, strict=False)}
    try:
        wrong = check(case, case.model, feeds, wanted)
        return ("failed", wrong) if wrong else ("passed", "")
    except EdgecError as error:
        reason = str(error)
    try:
        wrong = check(case, *bind(case.model, feeds), wanted)
        return ("failed", f"bound: {wrong}") if wrong else ("bound", "")
    except EdgecError as error:
        return "refused", f"{reason} // {error}".replace("\n", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    cases = [
        c for c in collect_testcases(None) if not options.names or any(n in c.name for n in options.names)
    ]
    total = len(cases)
    cases = [c for c in cases if is_float_case(c.model)]
    by_kind: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
    for case in cases:
        try:
            kind, detail = outcome(case)
        except Exception as error:  # a crash of any library is a finding of this run, not its end
            kind, detail = "failed", f"{type(error).__name__}: {str(error)[:300]}"
        by_kind[kind].append((case.name, detail))
        if options.verbose and kind in ("failed", "refused"):
            print(kind, case.name, detail, flush=True)
    print("| ONNX node cases | count |\n|---|---|")
    print(f"| all, of every operator and type | {total} |")
    print(f"| float32, on operators that edgec emits | {len(cases)} |")
    for kind, text in (
        ("passed", "pass as they are"),
        ("bound", "pass once run-time parameters are bound as constants"),
        ("refused", "refused by name"),
        ("failed", "fail"),
    ):
        print(f"| {text} | {len(by_kind[kind])} |")


if __name__ == "__main__":
    main()
