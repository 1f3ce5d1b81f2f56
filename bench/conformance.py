"""ONNX's own conformance cases through load -> emit -> onnxruntime: how many pass, how many are refused, and why.

The node cases that the onnx package ships. A case *passes* when the emitted file gives the expected outputs; it is *opaque*
when it passes with a node that edgec does not understand; it is *refused* when loading ends in an EdgecError with exit code 3.
Codes that a quantised case gives out are compared as the real numbers that they stand for, to one step: edgec reads them so.
Anything else is a defect, is listed, and makes this script exit with 1.

usage: python bench/conformance.py [--list REASON]
"""

from __future__ import annotations

import argparse
import collections
import sys
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgec.compiler.emit.onnx import emit
from edgec.graph.canonicalise import canonicalise
from edgec.graph.errors import EdgecError
from edgec.graph.execute import session
from edgec.graph.spec import is_opaque

TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


Sets = list[tuple[list[np.ndarray], list[np.ndarray]]]


def read_case(case) -> tuple[onnx.ModelProto, Sets]:
    """The model of a node case and its data sets, as arrays."""
    return case.model, [([plain(a) for a in ins], [plain(a) for a in outs]) for ins, outs in case.data_sets]


def plain(value) -> np.ndarray:
    """An array, whatever form the case holds it in. Sequences and optionals raise TypeError."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if value is None or isinstance(value, (list, dict)):
        raise TypeError("not a tensor")
    return np.asarray(value)


def is_float(model: onnx.ModelProto) -> bool:
    """Whether all inputs and outputs of the model are float32."""
    values = (*model.graph.input, *model.graph.output)
    return all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in values)


def bound(model: onnx.ModelProto, sets: Sets) -> tuple[onnx.ModelProto, Sets]:
    """The case with all inputs but the first as constants: scales, sizes and axes are never run-time inputs of a network."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    inputs, outputs = sets[0]
    for value, array in list(zip(fixed.graph.input, inputs, strict=True))[1:]:
        fixed.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del fixed.graph.input[1:]
    return fixed, [(inputs[:1], outputs)]


def judge_case(case) -> tuple[str, str]:
    """`judge`, once more with constants bound where the case as it stands is refused."""
    try:
        model, sets = read_case(case)
    except TypeError:
        model, sets = case.model, []
    verdict, reason = judge(case.name, model, sets)
    if "refused" in verdict and len(model.graph.input) > 1 and sets and sets[0][0]:
        again, why = judge(case.name, *bound(model, sets))
        if "refused" not in again:
            return again, why
    return verdict, reason


def judge(name: str, model: onnx.ModelProto, sets: Sets) -> tuple[str, str]:
    """(verdict, reason) of one model with its data."""
    kind = "float" if is_float(model) else "other"
    ops = "+".join(sorted({node.op_type for node in model.graph.node}))
    try:
        graph = canonicalise(model)
        opaque = any(is_opaque(node) for node in graph.graph)
        runner = session(emit(graph))
    except EdgecError as error:
        verdict = "refused" if error.exit_code == 3 else "DEFECT"
        return f"{kind} {verdict}", f"{error.what}" + (
            f": {error.why}"[:100] if error.why else ""
        ) + f" [{ops}]"
    except Exception as error:  # a defect of edgec of any class is a finding of this run, not its end
        return f"{kind} DEFECT", f"{name}: {type(error).__name__}: {error}"[:200]
    for inputs, expected in sets:
        fed = {value.name: array for value, array in zip(model.graph.input, inputs, strict=False)}
        names = {value.name for value in runner.get_inputs()}
        try:
            got = answers(runner, {name: array for name, array in fed.items() if name in names})
        except Exception as error:  # onnxruntime raises a dozen classes without a common base
            return f"{kind} DEFECT", f"{name}: does not run: {error}"[:200]
        for place, (value, reference) in enumerate(zip(got, expected, strict=True)):
            if value.shape != reference.shape or not (
                same(value, reference) or within_a_step(model, place, value, reference)
            ):
                return f"{kind} DIFFERS", f"{name} [{ops}]"
    return f"{kind} {'opaque' if opaque else 'passes'}", ops


def answers(runner, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a canonical graph gives for a case's inputs, in the case's shapes.

    Where a case has no batch axis, or one that cannot be freed, the graph takes one sample: with a leading axis of 1 that the
    case lacks, or the case's samples one by one (docs/compile.md).
    """
    shapes = {value.name: value.shape for value in runner.get_inputs()}
    if any(array.ndim < len(shapes[name]) for name, array in fed.items()):
        return [array[0] for array in runner.run(None, {name: array[None] for name, array in fed.items()})]
    counts = {len(array) for name, array in fed.items() if array.ndim and shapes[name][0] == 1}
    if counts <= {1} or any(shapes[name][0] != 1 for name in fed):
        return list(runner.run(None, fed))
    singly = [
        runner.run(None, {name: array[i : i + 1] for name, array in fed.items()}) for i in range(max(counts))
    ]
    return [np.concatenate(parts) for parts in zip(*singly, strict=True)]


def same(value: np.ndarray, reference: np.ndarray) -> bool:
    if value.dtype.kind in "fc" or reference.dtype.kind in "fc":
        return np.allclose(
            value.astype(np.float64), reference.astype(np.float64), equal_nan=True, **TOLERANCE
        )
    return bool(np.array_equal(value, reference))


def within_a_step(model: onnx.ModelProto, place: int, value: np.ndarray, reference: np.ndarray) -> bool:
    """Whether codes of ``value`` are those of the case: what came quantised is read as real numbers, which end at no code."""
    name = model.graph.output[place].name
    maker = next(node for node in model.graph.node if name in node.output)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if value.dtype.kind != "f" or not maker.op_type.startswith("QLinear"):
        return False
    scale, zero = (constants[one].astype(np.float64) for one in maker.input[-2:])
    limits = np.iinfo(reference.dtype)
    codes = np.clip(value / scale + zero, limits.min, limits.max)
    return bool(np.abs(codes - reference).max() <= 1.01)


def onnxruntime_alone(case) -> str:
    """What onnxruntime makes of the original file: a case that it fails by itself is not edgec's."""
    try:
        model, sets = read_case(case)
        runner = session(model)
        for inputs, expected in sets:
            fed = {value.name: array for value, array in zip(runner.get_inputs(), inputs, strict=False)}
            if not all(same(v, r) for v, r in zip(runner.run(None, fed), expected, strict=True)):
                return "differs too"
    except Exception:  # whatever it is, onnxruntime alone fails as well
        return "fails too"
    return "passes"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", metavar="VERDICT", help="print every case with this verdict")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = collect_testcases(None)
    counts: collections.Counter[str] = collections.Counter()
    reasons: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    bad: list[str] = []
    for case in cases:
        verdict, reason = judge_case(case)
        if verdict.endswith(("DIFFERS", "DEFECT")):
            alone = onnxruntime_alone(case)
            if alone != "passes":
                verdict, reason = f"{verdict.split()[0]} onnxruntime {alone}", reason
            else:
                bad.append(f"{verdict}: {reason}")
        counts[verdict] += 1
        reasons[verdict][reason] += 1
        if chosen.list and chosen.list in verdict:
            print(f"  {case.name}: {reason}")
    print(f"\n{len(cases)} node cases of onnx {onnx.__version__}\n")
    print("| verdict | cases |\n|---|---|")
    for verdict, count in sorted(counts.items()):
        print(f"| {verdict} | {count} |")
    print("\n| refused because | cases |\n|---|---|")
    grouped: collections.Counter[str] = collections.Counter()
    for verdict, found in reasons.items():
        if "refused" in verdict:
            for reason, count in found.items():
                grouped[reason.split(" [")[0].split(":")[0]] += count
    for reason, count in grouped.most_common():
        print(f"| {reason} | {count} |")
    for line in bad:
        print(line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
