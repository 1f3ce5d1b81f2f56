"""A grid over the geometry of conv, pool, transposed conv and pad, in fp32 and int8, on every engine.

fp32 is compared with onnxruntime; int8 with the same QDQ graph computed in float as written, in codes of the output.
Cases whose output shape onnxruntime and ONNX's shape inference see differently (ceil_mode) are left out.

    python bench/tflite_geometry.py [--every N]
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from tflite_networks import ENGINES, onnx_runner, quiet, tflite_runner

from edgec.compiler.emit.tflite import emit
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.errors import EdgecError
from edgec.graph.preprocess import Preprocess


@dataclass(frozen=True)
class Case:
    """One node on one input shape."""

    op: str
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    weight: tuple[int, ...] | None = None
    tail: str | None = None

    def __str__(self) -> str:
        return f"{self.op} {self.shape} {self.attributes} {self.weight or ''} {self.tail or ''}"


def convolutions() -> Iterator[Case]:
    groups = [(1, 4, 6), (2, 4, 6), (4, 4, 4), (4, 4, 8), (1, 1, 4)]
    for (height, width), kernel, stride, dilation, pads, (group, c_in, c_out) in itertools.product(
        [(8, 8), (7, 9)],
        [(1, 1), (3, 3), (5, 5), (2, 2), (3, 1)],
        [(1, 1), (2, 2), (2, 1)],
        [(1, 1), (2, 2)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 0, 0, 2), (2, 2, 2, 2)],
        groups,
    ):
        extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        if height + pads[0] + pads[2] < extent[0] or width + pads[1] + pads[3] < extent[1]:
            continue
        if dilation != (1, 1) and kernel == (1, 1):
            continue
        attributes = {
            "kernel_shape": kernel,
            "strides": stride,
            "dilations": dilation,
            "pads": pads,
            "group": group,
        }
        yield Case("Conv", (1, c_in, height, width), attributes, (c_out, c_in // group, *kernel), "Relu")
    for length, kernel, stride, pads in itertools.product(
        [9, 10], [1, 3, 4], [1, 2], [(0, 0), (1, 1), (0, 2)]
    ):
        attributes = {"kernel_shape": (kernel,), "strides": (stride,), "pads": pads}
        yield Case("Conv", (1, 3, length), attributes, (5, 3, kernel))


def pools() -> Iterator[Case]:
    for op, size, kernel, stride, pads, ceil in itertools.product(
        ["MaxPool", "AveragePool"],
        [(8, 8), (7, 9)],
        [(2, 2), (3, 3), (3, 2)],
        [(1, 1), (2, 2), (3, 2)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 0, 0, 1)],
        [0, 1],
    ):
        attributes = {"kernel_shape": kernel, "strides": stride, "pads": pads, "ceil_mode": ceil}
        yield Case(op, (1, 3, *size), attributes)
        if op == "AveragePool" and any(pads):
            yield Case(op, (1, 3, *size), {**attributes, "count_include_pad": 1})
        elif op == "MaxPool" and ceil == 0:
            yield Case(op, (1, 3, *size), {**attributes, "dilations": (2, 2)})


def transposed() -> Iterator[Case]:
    for size, kernel, stride, pads, extra, group in itertools.product(
        [(4, 4), (3, 5)],
        [(2, 2), (3, 3), (4, 4)],
        [(1, 1), (2, 2), (2, 3)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 0, 0, 1)],
        [(0, 0), (1, 1)],
        [1, 2],
    ):
        if any(e >= s for e, s in zip(extra, stride, strict=True)):
            continue
        attributes = {
            "kernel_shape": kernel, "strides": stride, "pads": pads, "output_padding": extra, "group": group,
        }  # fmt: skip
        yield Case("ConvTranspose", (1, 4, *size), attributes, (4, 6 // group, *kernel))


def paddings() -> Iterator[Case]:
    for mode, pads in itertools.product(
        ["constant", "reflect", "edge", "wrap"],
        [
            (0, 0, 1, 1, 0, 0, 1, 1),
            (0, 0, 0, 2, 0, 0, 3, 1),
            (0, 1, 0, 0, 0, 1, 0, 0),
            (0, 0, -1, 1, 0, 0, 0, -1),
        ],
    ):
        yield Case("Pad", (1, 3, 5, 6), {"mode": mode, "pads": pads})


def grid() -> list[Case]:
    """Every case whose output is not empty."""
    return [*convolutions(), *pools(), *transposed(), *paddings()]


def build(case: Case, seed: int = 0) -> ir.Model:
    """A model of the one node, behind an Identity-like Relu for pads so that int8 has a region."""
    rng = np.random.default_rng(seed)
    inputs, initialisers, attributes = ["x"], [], dict(case.attributes)
    if case.weight is not None:
        weight = rng.standard_normal(case.weight).astype(np.float32) * 0.3
        outs = case.weight[0] if case.op == "Conv" else case.weight[1] * attributes.get("group", 1)
        initialisers.append(numpy_helper.from_array(weight, "w"))
        initialisers.append(numpy_helper.from_array(rng.standard_normal(outs).astype(np.float32) * 0.1, "b"))
        inputs += ["w", "b"]
    if case.op == "Pad":
        initialisers.append(numpy_helper.from_array(np.asarray(attributes.pop("pads"), np.int64), "pads"))
        inputs.append("pads")
    nodes = []
    if case.weight is None:  # a pointwise convolution in front makes an int8 region around the node
        channels = case.shape[1]
        kernel = np.eye(channels, dtype=np.float32).reshape(channels, channels, *(1,) * (len(case.shape) - 2))
        initialisers.append(numpy_helper.from_array(kernel, "eye"))
        nodes.append(helper.make_node("Conv", ["x", "eye"], ["front"], name="front"))
        inputs[0] = "front"
    nodes.append(helper.make_node(case.op, inputs, ["y0" if case.tail else "y"], name="node", **attributes))
    if case.tail:
        nodes.append(helper.make_node(case.tail, ["y0"], ["y"], name="tail"))
    rank = len(case.shape)
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *case.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return ir.from_proto(model)


def quantise(model: ir.Model, samples: np.ndarray) -> ir.Model:  # type: ignore[type-arg]
    """The int8 twin with min/max ranges over ``samples``."""
    import tempfile
    from pathlib import Path

    from edgec.passes.base import Context
    from edgec.passes.quantize import Quantize

    specs = InputSpec.of(model)
    source = ArraySource({"x": samples}, Preprocess(layout="nchw"), specs)
    data = Dataset("grid", source, tuple(range(len(samples))))
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(teacher=model, scratch=Path(scratch), data=data)
        return Quantize(method="minmax").run(model.clone(), context).model


def check(case: Case, engines: tuple[str, ...] = ENGINES) -> dict[str, float]:
    """Worst error per precision and engine: of the output's range in fp32, in codes in int8."""
    model = build(case)
    samples = np.random.default_rng(1).standard_normal((4, *case.shape[1:])).astype(np.float32)
    feed = {"x": samples[:1]}
    worst: dict[str, float] = {}
    want = onnx_runner(model)(feed)[0]
    if want.shape[1:] != tuple(model.graph.outputs[0].shape)[1:]:
        return {}
    data = emit(model)
    for engine in engines:
        have = tflite_runner(data, engine, ["y"])(feed)[0]
        worst[f"fp32 {engine}"] = float(np.abs(have - want).max() / max(np.abs(want).max(), 1e-6))
    coded = quantise(model, samples)
    want = onnx_runner(coded, fused=False)(feed)[0]
    producer = coded.graph.outputs[0].producer()
    step = 1.0
    if producer is not None and producer.op_type == "DequantizeLinear":
        scale = producer.inputs[1]
        step = (
            float(scale.const_value.numpy()) if scale is not None and scale.const_value is not None else 1.0
        )
    data = emit(coded, precision="int8")
    for engine in engines:
        have = tflite_runner(data, engine, ["y"])(feed)[0]
        worst[f"int8 {engine}"] = float(np.abs(have - want).max() / step)
    return worst


LIMITS = {"fp32": 1e-5, "int8": 1.01}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="take one case in N")
    options = parser.parse_args()
    quiet()
    cases = grid()
    random.Random(0).shuffle(cases)
    cases = cases[:: options.every]
    counts: collections.Counter[str] = collections.Counter()
    worst: dict[str, float] = collections.defaultdict(float)
    failures = []
    for case in cases:
        counts[case.op] += 1
        try:
            errors = check(case)
        except (RuntimeError, ValueError, EdgecError) as error:
            failures.append(f"{case}: {' '.join(str(error).split())[:200]}")
            continue
        for key, value in errors.items():
            worst[key] = max(worst[key], value)
            if value > LIMITS[key.split()[0]]:
                failures.append(f"{case}: {key} {value:.3g}")
    print(f"{len(cases)} cases: {dict(counts)}; {len(failures)} failures\n")
    print("| engine | fp32, worst error of the range | int8, worst difference in codes |\n|---|---|---|")
    for engine in ENGINES:
        print(f"| {engine} | {worst[f'fp32 {engine}']:.1e} | {worst[f'int8 {engine}']:.2f} |")
    for failure in failures:
        print("*", failure)


if __name__ == "__main__":
    main()
