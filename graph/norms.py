"""GroupNormalization and MeanVarianceNormalization as the ops that they stand for, which every runtime knows.

onnx itself infers no shapes behind the two.

The first as torch's older exporter writes it::

    x (N, C, H, W) -> Reshape (N, G, -1) -> InstanceNormalization -> Reshape (N, C, H, W)
                   -> Mul scale (C, 1, 1) -> Add bias (C, 1, 1)

Before opset 21, its scale and bias had one number for each group, not for each channel (ONNX, changelog of operators).

The second is ``(x - mean) / (deviation + 1e-9)``, by its own definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.graph.names import free_name

BY_CHANNEL = 21
AXES_ARE_INPUTS = 18
_WRITTEN_OUT = ("GroupNormalization", "MeanVarianceNormalization")


def write_out_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with every such node of known rank written out; itself where it has none."""
    if not any(_is_one(node) for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    ranks = _ranks(model)
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    taken = {name for node in model.graph.node for name in (node.name, *node.input, *node.output)}
    taken |= {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input}
    del made.graph.node[:]
    for node in model.graph.node:
        rank = ranks.get(node.input[0]) if _is_one(node) else None
        if rank is None:
            made.graph.node.append(node)
        else:
            writer = _Writer(made.graph, node, taken)
            if node.op_type == "GroupNormalization":
                writer.by_group(rank, opset >= BY_CHANNEL)
            else:
                writer.by_variance(opset >= AXES_ARE_INPUTS)
    return made


def _is_one(node: onnx.NodeProto) -> bool:
    return node.op_type in _WRITTEN_OUT and node.domain in ("", "ai.onnx")


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """By value. The op itself stops onnx's inference, and keeps its input's shape: so does what stands for it here."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        if _is_one(node):
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    known = onnx.shape_inference.infer_shapes(plain).graph
    values = (*known.input, *known.value_info, *known.output)
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}


class _Writer:
    """Appends the nodes of one normalisation to a graph."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, taken: set[str]) -> None:
        self.graph, self.node, self.taken = graph, node, taken
        self.stem = node.name or f"group_norm_{node.output[0]}"

    def by_group(self, rank: int, by_channel: bool) -> None:
        """``by_channel``: its scale and bias have one number for each channel."""
        given = {one.name: helper.get_attribute_value(one) for one in self.node.attribute}
        x, scale, bias = self.node.input
        groups, result = given["num_groups"], self.node.output[0]
        whole = self._op("Shape", [x], "shape")
        rows = self._op("Reshape", [x, self._constant([0, groups, -1], "by_group")], "rows")
        ones = [
            self._constant(np.ones(groups, np.float32), "one"),
            self._constant(np.zeros(groups, np.float32), "zero"),
        ]
        inner = ones if by_channel else [scale, bias]
        epsilon = given.get("epsilon", 1e-5)
        normal = self._op("InstanceNormalization", [rows, *inner], "normal", epsilon=epsilon)
        if not by_channel:
            self._op("Reshape", [normal, whole], "", result)
            return
        back = self._op("Reshape", [normal, whole], "back")
        axes = self._constant(list(range(1, rank - 1)), "axes")
        factor, term = (
            self._op("Unsqueeze", [one, axes], "along") if rank > 2 else one for one in (scale, bias)
        )
        self._op("Add", [self._op("Mul", [back, factor], "scaled"), term], "", result)

    def by_variance(self, axes_are_inputs: bool) -> None:
        """``axes_are_inputs``: of ReduceMean."""
        given = {one.name: helper.get_attribute_value(one) for one in self.node.attribute}
        axes = list(given.get("axes", (0, 2, 3)))
        x, result = self.node.input[0], self.node.output[0]
        centred = self._op("Sub", [x, self._mean(x, axes, axes_are_inputs, "mean")], "centred")
        variance = self._mean(
            self._op("Mul", [centred, centred], "square"), axes, axes_are_inputs, "variance"
        )
        least = self._constant(np.float32(1e-9), "least")
        divisor = self._op("Add", [self._op("Sqrt", [variance], "deviation"), least], "more")
        self._op("Div", [centred, divisor], "", result)

    def _mean(self, value: str, axes: list[int], are_inputs: bool, suffix: str) -> str:
        if are_inputs:
            return self._op("ReduceMean", [value, self._constant(axes, f"{suffix}_axes")], suffix)
        return self._op("ReduceMean", [value], suffix, axes=axes)

    def _op(
        self, op: str, inputs: list[str], suffix: str, result: str | None = None, **attributes: Any
    ) -> str:
        name = free_name(f"{self.stem}_{suffix}" if suffix else self.stem, self.taken)
        node = helper.make_node(op, inputs, [result or name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.graph.node.append(node)
        return result or name

    def _constant(self, values: object, suffix: str) -> str:
        array = np.asarray(values)
        name = free_name(f"{self.stem}_{suffix}", self.taken)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name
