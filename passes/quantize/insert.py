"""Write a plan and its table into the graph as QDQ pairs.

A quantised tensor ``t`` becomes ``t -> QuantizeLinear -> t_codes -> DequantizeLinear -> t_quantised``. All of
its readers read ``t_quantised``, except the float ones where ``t`` itself is computed in float. A graph
output keeps its name: there the tensor in front of the pair is renamed to ``t_float``. Weights are int8
initialisers behind a DequantizeLinear, biases int32 ones at ``s_x * s_w``.

Where the dialect quantises inputs only, nothing but the plan's edges read ``t_quantised``, and biases stay float.
`store` gives the file its own form in the end (for TensorRT: `pairs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgec.graph.read.own_codes import SourceCodes
from edgec.graph.views import Names, attribute, constant, set_constant
from edgec.passes.quantize.dialects import Dialect
from edgec.passes.quantize.pairs import pair_weights, unpair_pads
from edgec.passes.quantize.planned import Plan, Table
from edgec.passes.quantize.qparams import QParams
from edgec.passes.quantize.rules import weight_axis
from edgec.passes.quantize.weights import (
    QuantisedWeight,
    guard_bias,
    quantise_bias,
    quantise_weight,
    weight_scales,
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Form:
    """How one quantisation writes a dialect: range of weight codes, scales per channel or per tensor."""

    dialect: Dialect
    weight_limit: int = 127
    per_channel: bool = True
    float_weights: bool = False
    """Leave weights exact, to see what activations alone cost."""
    kept: SourceCodes | None = None
    """The scales that the source came with, taken wherever it had some."""


def insert(model: ir.Model, plan: Plan, table: Table, form: Form) -> None:
    """Quantise ``model`` in place."""
    least = form.dialect.opset
    model.opset_imports[""] = max(model.opset_imports.get("", least), least)
    _Writer(model, plan, table, form).write()
    RemoveUnusedNodesPass()(model)


def insert_weight(graph: ir.Graph, node: ir.Node) -> None:
    """Only the weight of one linear layer as int8 codes per output channel, in place."""
    weight = constant(node.inputs[1])
    if weight is not None:
        axis = weight_axis(node)
        _write_weight(Names(graph), node, quantise_weight(weight, weight_scales(weight, axis), axis))


def store(model: ir.Model, dialect: Dialect) -> None:
    """Give codes the types and forms of ``dialect``, in place: the same table, for int8 shifted by 128."""
    if dialect.codes == "int8":
        _store_int8(model)
    if dialect.inputs_only:
        unpair_pads(model)
        pair_weights(model)


def _store_int8(model: ir.Model) -> None:
    changed: set[int] = set()
    for node in model.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for value in (node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None):
            array = constant(value)
            if value is None or array is None or array.dtype != np.uint8 or id(value) in changed:
                continue
            set_constant(value, (array.astype(np.int16) - 128).astype(np.int8))
            changed.add(id(value))
        if node.op_type == "QuantizeLinear":
            node.outputs[0].dtype = ir.DataType.INT8


class _Writer:
    def __init__(self, model: ir.Model, plan: Plan, table: Table, form: Form) -> None:
        self.graph = model.graph
        self.names = Names(model.graph)
        self.plan = plan
        self.table = table
        self.form = form
        self.dialect = form.dialect
        self.inputs = {value.name or "": value for value in model.graph.inputs}

    def write(self) -> None:
        nodes = {node.name or "": node for node in self.graph}
        for name in self.plan.nodes:
            self._constants(nodes[name])
        for (name, index), target in self.plan.conversions.items():
            self._convert(nodes[name], index, target)
        for name in self.plan.absorbed:
            if name in self.table.void:
                continue
            self._pair(nodes[name].inputs[0])
        values = {v.name or "": v for node in nodes.values() for v in node.outputs} | self.inputs
        for name in self.plan.tensors:
            self._pair(values[name])
        for node in () if self.dialect.inputs_only else nodes.values():
            is_float = node.name not in self.plan.nodes or self.form.float_weights
            if is_float and node.op_type in ("Conv", "ConvTranspose", "Gemm"):
                self._keep_float(node)

    def _keep_float(self, node: ir.Node) -> None:
        """Write the weight of a float layer behind a DequantizeLinear as int32 codes, exact to 2^-30 of the
        largest.

        onnxruntime quantises a plain float initialiser behind such an input per tensor, whatever the file
        says (its WeightBiasQuantization, 1.20 and later). A weight that comes out of a DequantizeLinear it
        leaves alone, and the bias with it, if the scales lie along an axis that an int8 kernel would not
        take.
        """
        source = None if node.inputs[0] is None else node.inputs[0].producer()
        value = node.inputs[1]
        array = constant(value)
        if source is None or source.op_type != "DequantizeLinear" or value is None or array is None:
            return
        outputs = weight_axis(node)
        axis = next((i for i in range(array.ndim) if i != outputs and array.shape[i] > 1), None)
        if axis is None:
            return
        peak = float(np.abs(array).max(initial=0.0))
        scale = np.float32(2.0 ** (np.ceil(np.log2(peak)) - 30) if peak else 1.0)
        codes = np.rint(array.astype(np.float64) / scale).astype(np.int32)
        stem = value.name or f"{node.name}_weight"
        stored = self.names.initializer(f"{stem}_scale", np.full(array.shape[axis], scale))
        node.replace_input_with(1, _dequantise(self.names, node, stem, codes, stored, None, axis))

    def _constants(self, node: ir.Node) -> None:
        rule = self.plan.nodes[node.name or ""]
        if rule.weight is not None and not self.form.float_weights:
            self._weight(node)
        for index in range(len(node.inputs)):
            key = (node.name or "", index)
            if key in self.plan.constants:
                self._operand(node, index, self.plan.constants[key])

    def _operand(self, node: ir.Node, index: int, target: str | None) -> None:
        """A constant operand (of Add, Mul, Concat...) as codes with one scale."""
        value = node.inputs[index]
        array = constant(value)
        if value is None or array is None:
            return
        ends = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        params = self.dialect.parameters(*ends) if target is None else self.table.tensors[target]
        codes = self.dialect.stored(params.quantise(array))
        scale, zero = self._params(value.name or "constant", params)
        node.replace_input_with(index, _dequantise(self.names, node, value.name or "", codes, scale, zero))

    def _weight(self, node: ir.Node) -> None:
        value, weight = node.inputs[1], constant(node.inputs[1])
        if value is None or weight is None:
            return
        axis = weight_axis(node) if self.form.per_channel else None
        kept, limit = self.form.kept, self.form.weight_limit
        own = None if kept is None else kept.scales_of(value.name or "", weight, axis, limit)
        scales = weight_scales(weight, axis, limit) if own is None else own
        if self.dialect.inputs_only:
            _write_weight(self.names, node, quantise_weight(weight, scales, axis, limit))
            return
        bias_value = node.inputs[2] if len(node.inputs) > 2 else None
        bias, x = constant(bias_value), node.inputs[0]
        x_scale = self.table.tensors[x.name or ""].scale if x is not None else 1.0
        outs = _out_channels(node, weight)
        groups = 1 if axis is None else outs // scales.size
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1), (outs,))
            peaks = bias if axis is None else np.abs(bias).reshape(groups, -1).max(axis=0)
            scales = guard_bias(scales, peaks, x_scale)
        quantised = quantise_weight(weight, scales, axis, limit)
        _write_weight(self.names, node, quantised)
        if bias_value is None or bias is None:
            return
        spread_scales = quantised.scales if groups == 1 else np.tile(quantised.scales, groups)
        codes, product = quantise_bias(bias, x_scale, spread_scales)
        stem = bias_value.name or f"{node.name}_bias"
        scale = self.names.initializer(f"{stem}_scale", product)
        bias_axis = None if axis is None else 0
        node.replace_input_with(2, _dequantise(self.names, node, stem, codes, scale, None, bias_axis))

    def _params(self, stem: str, params: QParams) -> tuple[ir.Value, ir.Value]:
        scale = self.names.initializer(f"{stem}_scale", np.asarray(params.scale, np.float32))
        zero = self.dialect.stored(params.zero_point)
        return scale, self.names.initializer(f"{stem}_zero_point", zero)

    def _convert(self, node: ir.Node, index: int, target: str) -> None:
        """A second pair in front of one input: from the tensor's own parameters to those of ``target``."""
        value = node.inputs[index]
        if value is None:
            return
        params = self._params(f"{node.name}_input{index}", self.table.tensors[target])
        quantise, dequantise = self._pair_nodes(value, f"{node.name}_input{index}", params)
        self.graph.insert_before(node, [quantise, dequantise])
        node.replace_input_with(index, dequantise.outputs[0])

    def _pair(self, value: ir.Value | None) -> None:
        """The Q/DQ pair of a tensor."""
        if value is None:
            return
        name = value.name or ""
        producer, edges = value.producer(), self.plan.edges
        on_codes = producer is not None and producer.name in self.plan.nodes and edges is None
        uses = [use for use in value.uses() if on_codes or self._reads_codes(use.node, use.idx)]
        is_output = value.is_graph_output() and on_codes
        quantise, dequantise = self._pair_nodes(value, name, self._params(name, self.table.tensors[name]))
        if producer is None:
            self.graph.insert_before(self.graph[0], [quantise, dequantise])
        else:
            self.graph.insert_after(producer, [quantise, dequantise])
        result = dequantise.outputs[0]
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        if is_output:
            self._take_output(value, result)

    def _reads_codes(self, node: ir.Node, index: int) -> bool:
        """True where this input of a node belongs to the quantised region (its conversions included)."""
        if self.plan.edges is not None:
            return (node.name or "", index) in self.plan.edges
        return node.op_type == "QuantizeLinear" or node.name in self.plan.nodes

    def _take_output(self, value: ir.Value, result: ir.Value) -> None:
        name = value.name
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = result
        value.name = self.names.fresh(f"{name}_float")
        self.names.taken.discard(result.name or "")
        result.name = name
        result.shape, result.type = value.shape, value.type

    def _pair_nodes(
        self, value: ir.Value, stem: str, params: tuple[ir.Value, ir.Value]
    ) -> tuple[ir.Node, ir.Node]:
        quantise = _node(self.names, "QuantizeLinear", [value, *params], f"{stem}_codes", value, {})
        codes = quantise.outputs[0]
        codes.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(self.dialect.codes)))
        dequantise = _node(self.names, "DequantizeLinear", [codes, *params], f"{stem}_quantised", value, {})
        return quantise, dequantise


def _write_weight(names: Names, node: ir.Node, quantised: QuantisedWeight) -> None:
    """Put int8 codes and a DequantizeLinear in the place of the weight of ``node``."""
    value = node.inputs[1]
    stem = (None if value is None else value.name) or f"{node.name}_weight"
    scale = names.initializer(f"{stem}_scale", quantised.scales)
    zero = names.initializer(f"{stem}_zero_point", np.zeros(quantised.scales.shape, np.int8))
    node.replace_input_with(1, _dequantise(names, node, stem, quantised.codes, scale, zero, quantised.axis))


def _dequantise(
    names: Names,
    node: ir.Node,
    stem: str,
    codes: Array,
    scale: ir.Value,
    zero: ir.Value | None,
    axis: int | None = None,
) -> ir.Value:
    """An initialiser of codes behind a DequantizeLinear in front of ``node``."""
    stored = names.initializer(f"{stem}_codes", codes)
    attributes = {} if axis is None else {"axis": axis}
    inputs = [stored, scale] if zero is None else [stored, scale, zero]
    dequantise = _node(names, "DequantizeLinear", inputs, f"{stem}_quantised", stored, attributes)
    names.graph.insert_before(node, dequantise)
    return dequantise.outputs[0]


def _node(
    names: Names, op: str, inputs: list[ir.Value], output: str, like: ir.Value, attributes: dict[str, int]
) -> ir.Node:
    node = ir.node(op, inputs=inputs, attributes=attributes, name=names.fresh(f"{output}_{op}"))
    node.outputs[0].name = names.fresh(output)
    node.outputs[0].shape = like.shape
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return node


def _out_channels(node: ir.Node, weight: Array) -> int:
    """How many biases a linear node has; a grouped ConvTranspose counts them per group in its weight."""
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1] * attribute(node, "group", 1))
    return int(weight.shape[weight_axis(node)])
