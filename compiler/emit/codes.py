"""An int8 network whose inputs and outputs are codes: nobody turns numbers into codes and back at its ends.

An input that only QuantizeLinear reads, with one scale for all, takes the codes that QuantizeLinear would have made; an output
that DequantizeLinear makes gives the codes that it read. The same arithmetic without the ends. What is not so keeps real numbers:

1. ends whose numbers something else reads or makes too (a Softmax left in float, an input that a float layer reads);
2. codes of 16 bits, and one scale per channel.

int8 and uint8 name the same numbers, the codes and their zero point 128 apart. Where the graph's own are of the other type they
are moved by a pair at that end.

A graph before and after (`x` is float, then uint8)::

    a = QuantizeLinear(x, s, z)  c = DequantizeLinear(a, s, z)   ->   c = DequantizeLinear(x, s, z)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgec.graph.tflite.read import read
from edgec.graph.views import Names, constant
from edgec.runtime.agent.engine import CODES_KEY, codes_said

_APART = 128
"""Between a number's code in uint8 and in int8."""


@dataclass(frozen=True)
class Code:
    """Codes at one end: ``number = scale * (code - zero)``."""

    scale: float
    zero: int


def with_codes(model: ir.Model, kind: str) -> tuple[ir.Model, Mapping[str, Code]]:
    """A copy of ``model`` with codes of ``kind`` ("int8", "uint8") at its ends, and the scales of those that have them."""
    copy = model.clone()
    ends = _Ends(copy, np.dtype(kind))
    for value in list(copy.graph.inputs):
        ends.give(value)
    for place, value in enumerate(list(copy.graph.outputs)):
        ends.take(place, value)
    return copy, ends.found


def with_numbers(model: ir.Model, path: Path) -> ir.Model:
    """The inverse: a copy of ``model``, read from the file ``path`` of a run, that takes and gives real numbers where the file
    says what its codes stand for; itself where it says nothing."""
    found = said_by(path)
    if not found:
        return model
    copy = model.clone()
    names = Names(copy.graph)
    for place, value in enumerate(list(copy.graph.inputs)):
        if (one := found.get(value.name or "")) is not None and value.dtype is not None:
            number = ir.Value(name=value.name, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
            node = _between(copy.graph, names, "QuantizeLinear", number, one, value.dtype)
            ir.convenience.replace_all_uses_with(value, node.outputs[0])
            node.outputs[0].name = names.fresh(f"{value.name}_codes")
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(value.dtype), value.shape
            copy.graph.insert_before(copy.graph[0], node)
            copy.graph.inputs[place] = number
    for place, value in enumerate(list(copy.graph.outputs)):
        if (one := found.get(value.name or "")) is not None and value.dtype is not None:
            node = _between(copy.graph, names, "DequantizeLinear", value, one, value.dtype)
            node.outputs[0].name, value.name = value.name, names.fresh(f"{value.name}_codes")
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
            copy.graph.append(node)
            copy.graph.outputs[place] = node.outputs[0]
    return copy


def _between(
    graph: ir.Graph, names: Names, op: str, value: ir.Value, one: Code, kind: ir.DataType
) -> ir.Node:
    """A node of ``op`` that reads ``value``; not in the graph yet."""
    stem = names.fresh(f"{value.name}_{op}")
    scale = names.initializer(f"{stem}_scale", np.asarray(one.scale, np.float32))
    zero = names.initializer(f"{stem}_zero", np.asarray(one.zero, kind.numpy()))
    return ir.node(op, [value, scale, zero], name=stem)


def said_by(path: Path) -> Mapping[str, Code]:
    """What an ONNX file says of its codes; empty for any other."""
    if path.suffix != ".onnx":
        return {}
    properties = onnx.load(path, load_external_data=False).metadata_props
    said = next((one.value for one in properties if one.key == CODES_KEY), "{}")
    return {name: Code(*pair) for name, pair in codes_said(said).items()}


def as_property(found: Mapping[str, Code]) -> str:
    """What the file says of them, for who reads it."""
    return json.dumps({name: [one.scale, one.zero] for name, one in found.items()}, sort_keys=True)


def told(path: Path) -> str:
    """Which ends of a file take or give codes, and what these stand for, in a line for the user."""
    codes, others = _tflite_ends(path) if path.suffix == ".tflite" else _onnx_ends(path)
    parts = [f"{name} is {kind} codes, {one.scale:.6g} * (code - {one.zero})" for name, kind, one in codes]
    if others:
        parts.append(f"real numbers stay at {', '.join(others)}, which something in float makes or reads")
    return "; ".join(parts)


def _onnx_ends(path: Path) -> tuple[list[tuple[str, str, Code]], list[str]]:
    model, known = onnx.load(path, load_external_data=False), said_by(path)
    ends = {
        value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)
    }
    codes = [(name, ir.DataType(ends[name]).name.lower(), one) for name, one in known.items()]
    return codes, [name for name in ends if name not in known]


def _tflite_ends(path: Path) -> tuple[list[tuple[str, str, Code]], list[str]]:
    file = read(path)
    codes, others = [], []
    for tensor in (file.tensors[index] for index in (*file.inputs, *file.outputs)):
        form = tensor.quantization
        if form is None or tensor.type.name not in ("INT8", "UINT8"):
            others.append(tensor.name)
        else:
            codes.append((tensor.name, tensor.type.name.lower(), Code(form.scale[0], form.zero_point[0])))
    return codes, others


class _Ends:
    def __init__(self, model: ir.Model, kind: np.dtype[np.generic]) -> None:
        self.graph, self.kind, self.names = model.graph, kind, Names(model.graph)
        self.found: dict[str, Code] = {}

    def give(self, value: ir.Value) -> None:
        """Codes at an input."""
        readers = [use.node for use in value.uses()]
        forms = [_form(node) for node in readers if node.op_type == "QuantizeLinear"]
        form = forms[0] if forms else None
        if (
            value.is_graph_output()
            or form is None
            or len(forms) < len(readers)
            or any(one != form for one in forms)
        ):
            return
        name, own = value.name or "", np.dtype(form.kind)
        self.found[name] = self._code(form)
        value.type = ir.TensorType(
            ir.DataType.from_numpy(self.kind)
        )  # its old one may be that of other copies too
        if own == self.kind:
            for node in readers:
                codes = node.outputs[0]
                ir.convenience.replace_all_uses_with(codes, value, replace_graph_outputs=True)
                self.graph.remove(node, safe=True)
            return
        scale, zero = self._moved(name, form)
        pair = ir.node("DequantizeLinear", [value, scale, zero], name=self.names.fresh(f"{name}_moved"))
        pair.outputs[0].name = pair.name
        pair.outputs[0].type, pair.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        self.graph.insert_before(readers[0], pair)
        for node in readers:
            node.replace_input_with(0, pair.outputs[0])

    def take(self, place: int, value: ir.Value) -> None:
        """Codes at an output."""
        node, name = value.producer(), value.name or ""
        form = None if node is None or node.op_type != "DequantizeLinear" else _form(node)
        codes = None if node is None or form is None else node.inputs[0]
        if node is None or form is None or codes is None or codes.producer() is None:
            return
        if np.dtype(form.kind) == self.kind and not codes.is_graph_output():
            value.name = self.names.fresh(f"{name}_number")
            self.graph.outputs[place] = codes
            codes.name = name
            if not value.uses() and not value.is_graph_output():
                self.graph.remove(node, safe=True)
        else:
            scale, zero = self._moved(name, form)
            pair = ir.node("QuantizeLinear", [value, scale, zero], name=self.names.fresh(f"{name}_moved"))
            value.name = self.names.fresh(f"{name}_number")
            made = pair.outputs[0]
            made.name, made.shape = name, value.shape
            made.type = ir.TensorType(ir.DataType.from_numpy(self.kind))
            self.graph.append(pair)
            self.graph.outputs[place] = made
        self.found[name] = self._code(form)

    def _code(self, form: _Form) -> Code:
        return Code(form.scale, form.zero + self._shift(form))

    def _shift(self, form: _Form) -> int:
        return 0 if form.kind == self.kind.name else (_APART if self.kind.name == "uint8" else -_APART)

    def _moved(self, name: str, form: _Form) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point in the wanted type."""
        zero = np.asarray(form.zero + self._shift(form), self.kind)
        return (
            self.names.initializer(f"{name}_scale", np.asarray(form.scale, np.float32)),
            self.names.initializer(f"{name}_zero", zero),
        )


@dataclass(frozen=True)
class _Form:
    scale: float
    zero: int
    kind: str


def _form(node: ir.Node) -> _Form | None:
    """Of a QuantizeLinear or DequantizeLinear with one scale and codes of 8 bits; else None."""
    scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or zero is None or scale.size != 1 or zero.dtype.name not in ("int8", "uint8"):
        return None
    return _Form(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), zero.dtype.name)
