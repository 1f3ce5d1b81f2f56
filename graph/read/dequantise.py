"""A network that comes quantised becomes one of real numbers.

Codes are followed through the graph: each value of codes stands for a real one, and ops on codes become the float ops that they
stand for. Forms: QuantizeLinear and DequantizeLinear pairs, QLinear ops and onnxruntime's, dynamic quantisation (ConvInteger,
MatMulInteger and what onnxruntime fuses them to), weights alone behind DequantizeLinear or in a MatMulNBits. Cases worth knowing:
1. an activation that the quantiser swallowed (its zero point is the lowest code) is written out as Relu, or Clip at 6;
2. codes at an input stay there, behind a Cast; codes at an output become real numbers;
3. what reads codes and is none of these ops is refused by name: a network is dequantised whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.names import free_name
from edgec.graph.read.codes import Array, Params, dequantised, params_of, swallowed
from edgec.graph.read.own_codes import SourceCodes, activation_codes, weight_scales
from edgec.graph.read.packed import BIAS, packed_weight
from edgec.graph.views import attribute, constant

PAIRS = ("QuantizeLinear", "DequantizeLinear")
_INTEGER = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "BatchNormalization"})
"""Ops whose results may be negative: behind one, a quantiser may have swallowed an activation."""
_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul", "QLinearMatMul": "MatMul"}
_UNARY = {
    "QLinearGlobalAveragePool": "GlobalAveragePool", "QLinearAveragePool": "AveragePool",
    "QLinearLeakyRelu": "LeakyRelu", "QLinearSigmoid": "Sigmoid", "QLinearSoftmax": "Softmax",
}  # fmt: skip
_DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
_PASSED = frozenset(
    {
        "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Identity", "Slice", "Gather", "Split",
        "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Resize", "Upsample", "Concat", "Pad",
    }
)  # fmt: skip
"""Ops that move codes and compute nothing from them."""
QUANTISED = (
    {*PAIRS, *_INTEGER, *_BINARY, *_UNARY, *_DYNAMIC}
    | {"QLinearConv", "QLinearConcat", "QGemm", "MatMulNBits"}
)  # fmt: skip


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether any op computes on codes, or makes or reads them."""
    return any(node.op_type in QUANTISED for node in model.graph.node)


def dequantise(model: onnx.ModelProto) -> tuple[onnx.ModelProto, SourceCodes]:
    """The network in float32, and the scales it had. Raises UnsupportedError, naming the node, for what reads codes and is
    not known."""
    graph = ir.from_proto(model)
    walk = _Walk(graph.graph)
    walk.run()
    return ir.to_proto(graph), walk.codes()


class _Walk:
    """Nodes in order; what each value of codes stands for."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.real: dict[ir.Value, ir.Value] = {}
        self.params: dict[ir.Value, Params] = {}
        self.held: dict[ir.Value, Params] = {}
        """By real value: of the first codes that stand for it."""
        self.written: dict[str, Params] = {}
        self.weights: dict[str, tuple[float, ...]] = {}
        self.taken = {v.name or "" for v in graph.inputs} | set(graph.initializers)
        self.taken |= {v.name or "" for node in graph for v in node.outputs}
        self.at: ir.Node = next(iter(graph))

    def run(self) -> None:
        for node in list(self.graph):
            self.at = node
            if node.op_type in QUANTISED:
                getattr(self, f"_{_HANDLERS.get(node.op_type, node.op_type)}")(node)
            elif any(value in self.real for value in node.inputs if value is not None):
                self._pass_on(node)
        self._outputs()
        for node in list(self.graph):
            if node.op_type == "Mul":
                self._absorb(node)
        self._sweep()

    def codes(self) -> SourceCodes:
        """The scales of all values that had 8-bit codes, by the names that they have now, and of weights.

        What only moves numbers has one scale on both sides: folding may leave either name.
        """
        named = {self.real[codes].name or "": params for codes, params in self.params.items()} | self.written
        moves = [ends for node in self.graph if (ends := _moved(node)) is not None]
        for ways in (moves, [(end, start) for start, end in reversed(moves)]):
            for known, other in ways:
                if known in named:
                    named.setdefault(other, named[known])
        pairs = ((name, activation_codes(params)) for name, params in named.items())
        return SourceCodes({name: found for name, found in pairs if found is not None}, self.weights)

    # ops of QDQ

    def _QuantizeLinear(self, node: ir.Node) -> None:  # noqa: N802  (named as the op)
        x, params = self._given(node, 0), params_of(node)
        self._stand(node.outputs[0], self._unswallowed(x, params), params)

    def _DequantizeLinear(self, node: ir.Node) -> None:  # noqa: N802
        self._become(node, self._operand(node, 0, params_of(node)))

    # ops on codes

    def _QLinearConv(self, node: ir.Node) -> None:  # noqa: N802
        x, w = self._params(node, 1), self._params(node, 4)
        inputs = [self._operand(node, 0, x), self._operand(node, 3, w.along(0))]
        if len(node.inputs) > 8 and node.inputs[8] is not None:
            inputs.append(self._operand(node, 8, w.times(x.scale).without_zero().along(0)))
        self._compute(node, "Conv", inputs, self._params(node, 6))

    def _QGemm(self, node: ir.Node) -> None:  # noqa: N802
        a, b = self._params(node, 1), self._params(node, 4)
        axis = 0 if attribute(node, "transB", 0) else 1
        inputs = [self._operand(node, 0, a), self._operand(node, 3, b.along(axis))]
        alpha = float(attribute(node, "alpha", 1.0))
        if len(node.inputs) > 6 and node.inputs[6] is not None:
            sums = b.times(a.scale).times(np.float32(alpha)).without_zero()
            inputs.append(self._operand(node, 6, sums.along(-1)))
        result = self._params(node, 7) if len(node.inputs) > 7 else None
        self._compute(node, "Gemm", inputs, result)

    def _binary(self, node: ir.Node) -> None:
        weight = self._params(node, 4)
        if node.op_type == "QLinearMatMul":
            weight = weight.along(-1)
        inputs = [self._operand(node, 0, self._params(node, 1)), self._operand(node, 3, weight)]
        self._compute(node, _BINARY[node.op_type], inputs, self._params(node, 6))

    def _unary(self, node: ir.Node) -> None:
        if attribute(node, "channels_last", 0):
            raise self._unknown("it pools channels last")
        inputs = [self._operand(node, 0, self._params(node, 1))]
        self._compute(node, _UNARY[node.op_type], inputs, self._params(node, 3))

    def _QLinearConcat(self, node: ir.Node) -> None:  # noqa: N802
        parts = range(2, len(node.inputs), 3)
        inputs = [self._operand(node, i, self._params(node, i + 1)) for i in parts]
        self._compute(node, "Concat", inputs, self._params(node, 0))

    # dynamic quantisation: the scale is the data's own, so 1 stands for it

    def _DynamicQuantizeLinear(self, node: ir.Node) -> None:  # noqa: N802
        codes, scale, zero = node.outputs
        self._stand(codes, self._given(node, 0), Params(np.ones((), np.float32), np.zeros((), np.uint8)))
        scale.replace_all_uses_with(self._stored(np.ones((), np.float32)))
        zero.replace_all_uses_with(self._stored(np.zeros((), np.uint8)))

    def _integer(self, node: ir.Node) -> None:
        zeros = [constant(node.inputs[i]) if len(node.inputs) > i else None for i in (2, 3)]
        inputs = []
        for index, zero in enumerate(zeros):
            given = self._given(node, index)
            held = self.params.get(given)
            stored = constant(given)
            axis = 0 if node.op_type == "ConvInteger" else -1
            if stored is not None:
                own = Params(np.ones((), np.float32), np.zeros((), stored.dtype) if zero is None else zero)
                inputs.append(self._stored(dequantised(stored, own.along(axis))))
            elif held is not None:
                value = self.real[given]
                whole = bool((held.scale == 1).all())
                inputs.append(
                    value
                    if whole
                    else self._op("Div", [value, self._stored(held.scale)], f"{given.name}_codes")
                )
            else:
                raise self._unknown("its operand was not quantised here")
        self._compute(
            node, _INTEGER[node.op_type], inputs, Params(np.ones((), np.float32), np.zeros((), np.int32))
        )

    def _DynamicQuantizeMatMul(self, node: ir.Node) -> None:  # noqa: N802
        weight = Params(self._number(node, 2), self._number(node, 3, np.zeros((), np.uint8)))
        product = [self._given(node, 0), self._operand(node, 1, weight.along(-1))]
        self._sum(node, product, 4)

    def _MatMulIntegerToFloat(self, node: ir.Node) -> None:  # noqa: N802
        left = self.real.get(self._given(node, 0))
        if left is None:
            raise self._unknown("its operand was not quantised here")
        weight = Params(self._number(node, 3), self._number(node, 5, np.zeros((), np.uint8)))
        self._sum(node, [left, self._operand(node, 1, weight.along(-1))], 6)

    def _MatMulNBits(self, node: ir.Node) -> None:  # noqa: N802
        weight = self._stored(packed_weight(node), f"{node.name}_weight")
        self._sum(node, [self._given(node, 0), weight], BIAS)

    def _sum(self, node: ir.Node, product: list[ir.Value], bias: int) -> None:
        result = self._op("MatMul", product, f"{node.outputs[0].name}_product", name=node.name)
        if len(node.inputs) > bias and node.inputs[bias] is not None:
            result = self._op("Add", [result, self._given(node, bias)], f"{node.outputs[0].name}_sum")
        self._become(node, result)

    # everything else

    def _pass_on(self, node: ir.Node) -> None:
        """An op that only moves codes moves what they stand for; sums of products are cast as the numbers they are."""
        if node.op_type == "Cast" and all(self._is_sum(value) for value in node.inputs):
            self._become(node, self.real[self._given(node, 0)])
            return
        if node.op_type not in _PASSED or node.domain not in ("", "ai.onnx"):
            raise self._unknown("it reads codes")
        held = next(self.params[v] for v in node.inputs if v in self.params)
        for index, value in enumerate(node.inputs):
            if value in self.real:
                node.replace_input_with(index, self.real[value])
            elif node.op_type in ("Pad", "Concat") and index != (1 if node.op_type == "Pad" else -1):
                stored = constant(value)
                if stored is not None and stored.dtype.kind in "iu":
                    node.replace_input_with(index, self._stored(dequantised(stored, held)))
        for value in node.outputs[: None if node.op_type == "Split" else 1]:
            value.dtype = ir.DataType.FLOAT
            self._stand(value, value, held)

    def _is_sum(self, value: ir.Value | None) -> bool:
        return value in self.params and self.params[value].zero.dtype == np.int32

    def _unknown(self, why: str) -> UnsupportedError:
        where = f"node {self.at.name!r} ({self.at.op_type})"
        hint = "Bring the network as it was before it was quantised."
        return UnsupportedError(
            "this quantised network cannot be dequantised", where=where, why=why, hint=hint
        )

    def _given(self, node: ir.Node, index: int) -> ir.Value:
        value = node.inputs[index]
        if value is None:
            raise self._unknown(f"its operand {index} is missing")
        return value

    def _number(self, node: ir.Node, index: int, default: Array | None = None) -> Array:
        value = node.inputs[index] if index < len(node.inputs) else None
        array = default if value is None else constant(value)
        if array is None:
            raise self._unknown("its scale or zero point is computed")
        return array

    def _params(self, node: ir.Node, at: int) -> Params:
        """Scale and zero point from operands ``at`` and the next."""
        return Params(self._number(node, at), self._number(node, at + 1, np.zeros((), np.uint8)))

    def _operand(self, node: ir.Node, index: int, params: Params) -> ir.Value:
        """What an operand of codes stands for."""
        value = self._given(node, index)
        if value in self.real:
            if self._is_sum(value):
                return self._op("Mul", [self.real[value], self._stored(params.scale)], f"{value.name}_real")
            return self.real[value]
        stored = constant(value)
        if stored is not None:
            weight = self._stored(dequantised(stored, params), f"{value.name}_real")
            if (scales := weight_scales(params)) is not None and stored.ndim > 1:
                self.weights[weight.name or ""] = scales
            return weight
        # Codes from outside, or that a float op made: they are numbers.
        cast = self._op("Cast", [value], f"{value.name}_cast", to=int(ir.DataType.FLOAT))
        if params.zero.any():
            cast = self._op(
                "Sub", [cast, self._stored(params.zero.astype(np.float32))], f"{value.name}_shifted"
            )
        return self._op("Mul", [cast, self._stored(params.scale)], f"{value.name}_real")

    def _compute(self, node: ir.Node, op: str, inputs: Sequence[ir.Value], result: Params | None) -> None:
        """``node`` as the float op; ``result``: its codes, or None where it gives real numbers."""
        kept = {k: v for k, v in node.attributes.items() if k not in ("channels_last", "opset")}
        out = node.outputs[0]
        value = self._op(op, inputs, f"{out.name}_real", name=node.name, attributes=kept)
        if result is None:
            self._become(node, value)
        else:
            self._stand(out, self._unswallowed(value, result), result)

    def _unswallowed(self, value: ir.Value, params: Params) -> ir.Value:
        maker = value.producer()
        bounds = swallowed(params) if maker is not None and maker.op_type in _LINEAR else None
        if bounds is None:
            return value
        if bounds[1] is None:
            return self._op("Relu", [value], f"{value.name}_relu")
        limits = [self._stored(np.asarray(bound, np.float32)) for bound in bounds]
        return self._op("Clip", [value, *limits], f"{value.name}_clip")

    def _stand(self, codes: ir.Value, real: ir.Value, params: Params) -> None:
        self.real[codes], self.params[codes] = real, params
        self.held.setdefault(real, params)

    def _become(self, node: ir.Node, value: ir.Value) -> None:
        """What ``node`` wrote is ``value`` from here on, under its own name."""
        held = self.held.get(value)
        if held is not None:
            self.written[node.outputs[0].name or ""] = held
        same = ir.node("Identity", [value], outputs=[out := ir.Value(name=node.outputs[0].name)])
        out.dtype, out.shape = ir.DataType.FLOAT, node.outputs[0].shape
        node.outputs[0].name = self._free(f"{out.name}_quantised")
        node.outputs[0].replace_all_uses_with(out, replace_graph_outputs=True)
        self.graph.insert_before(self.at, same)

    def _op(
        self, op: str, inputs: Sequence[ir.Value], result: str, *, name: str | None = None,
        attributes: dict[str, ir.Attr] | None = None, **more: Any,
    ) -> ir.Value:  # fmt: skip
        node = ir.node(op, inputs, attributes={**(attributes or {}), **more})
        node.name = name or self._free(f"{self.at.name}_{op.lower()}")
        node.outputs[0].name = self._free(result)
        node.outputs[0].dtype = ir.DataType.FLOAT
        self.graph.insert_before(self.at, node)
        return node.outputs[0]

    def _stored(self, array: Array, name: str = "constant") -> ir.Value:
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=self._free(name))
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(np.shape(array))
        value = ir.Value(name=tensor.name, type=kind, shape=shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def _free(self, stem: str) -> str:
        return free_name(stem, self.taken)

    def _outputs(self) -> None:
        """Codes that the network gave out become what they stand for."""
        for value in list(self.graph.outputs):
            maker = value.producer()
            if value in self.real and maker is not None and self.real[value] is not value:
                self.at = maker
                self._become(maker, self.real[value])

    def _absorb(self, node: ir.Node) -> None:
        """A dynamic product's scale, which stands behind it, becomes part of its weight."""
        for left, right in (tuple(node.inputs), tuple(node.inputs)[::-1]):
            maker, scale = _behind(left), _product(right)
            if maker is None or maker.op_type != "MatMul" or scale is None:
                continue
            weight = constant(maker.inputs[1])
            if weight is None or scale.size not in (1, weight.shape[-1]) or len(maker.outputs[0].uses()) > 1:
                continue
            maker.replace_input_with(1, self._stored(np.asarray(weight * scale, np.float32), "weight"))
            self.at = node
            self._become(node, maker.outputs[0])
            return

    def _sweep(self) -> None:
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        RemoveUnusedNodesPass()(ir.Model(self.graph, ir_version=10))


def _moved(node: ir.Node) -> tuple[str, str] | None:
    """The values at both ends of a node that moves numbers and changes none."""
    x = node.inputs[0] if node.inputs else None
    if x is None or node.op_type not in (
        "Identity",
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
    ):
        return None
    return x.name or "", node.outputs[0].name or ""


def _behind(value: ir.Value | None) -> ir.Node | None:
    """What makes ``value``, seen through nodes that hand it on."""
    maker = None if value is None else value.producer()
    while maker is not None and maker.op_type == "Identity" and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    return maker


def _product(value: ir.Value | None) -> Array | None:
    """A constant, or a product of two."""
    maker = None if value is None else value.producer()
    if maker is None or maker.op_type != "Mul":
        return constant(value)
    a, b = (constant(part) for part in maker.inputs)
    return None if a is None or b is None else a * b


_HANDLERS = {
    **dict.fromkeys(_INTEGER, "integer"), **dict.fromkeys(_BINARY, "binary"), **dict.fromkeys(_UNARY, "unary")
}  # fmt: skip
