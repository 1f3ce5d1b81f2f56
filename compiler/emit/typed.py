"""A network whose types are in the file: fp16 with Q and DQ, float32 at its inputs and outputs; TensorRT 11 reads no flags.

TensorRT 10 builds the same file with ``--stronglyTyped``. Earlier releases take the float32 file with ``--fp16 --int8``.
Cases:
1. float constants become float16; what overflows it is refused by name, but for bounds of Clip and Pad, which end at its largest;
2. a weight's Q and DQ become int8 codes behind a DQ with a float16 scale, codes rounded anew for that scale;
3. ops that have no float16 form (onnx's own schemas say which) stand between Casts, as inputs and outputs of the network do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.graph.errors import UnsupportedError
from edgec.graph.lower_opset import agree

Array = np.ndarray[Any, np.dtype[Any]]
OPSET = 20
"""float16 scales need 19."""
ROUNDING = 0.1
"""Of the largest output, on noise: int8 codes that turn over included."""
_LARGEST = float(np.finfo(np.float16).max)
_BOUNDS = {"Clip": (1, 2), "Pad": (2,)}
_PLAIN = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that stay float32 beside float16 data."""
_RENAMED = frozenset({"GridSample", "DFT"})


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A typed copy of a float32 or QDQ model. Raises UnsupportedError with the node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _Typing(copy).run()
    if not agree(model, copy, ROUNDING):
        why = "its values leave the range of float16"
        raise UnsupportedError(
            "no typed form", why=why, hint="Take a JetPack before 7.2, or --precision fp32."
        )
    return copy


class _Typing:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self.made: dict[str, Array] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """In place."""
        if entry := next((one for one in self.model.opset_import if one.domain in ("", "ai.onnx")), None):
            entry.version = max(entry.version, OPSET)
            self.opset = entry.version
        kinds = _types(self.model)
        ends = {value.name: value for value in self.graph.output}
        halves = {
            value.name: f"{value.name}_half"
            for value in self.graph.input
            if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in self.arrays
        }
        for name, half in halves.items():
            self._cast(name, half, TensorProto.FLOAT16)
        for node in self.graph.node:
            self._node(node, kinds, halves)
        for node in self.nodes:
            for index, name in enumerate(node.output):
                if (
                    name in ends
                    and ends[name].type.tensor_type.elem_type == TensorProto.FLOAT
                    and node.op_type != "Cast"
                ):
                    node.output[index] = f"{name}_half"
                    halves[name] = f"{name}_half"
        for node in self.nodes:
            if not (node.op_type == "Cast" and node.output[0] in halves.values()):
                for index, name in enumerate(node.input):
                    node.input[index] = halves.get(name, name) if name in ends else name
        for name in [name for name in ends if name in halves]:
            self._cast(halves[name], name, TensorProto.FLOAT)
        self._finish()

    def _node(self, node: onnx.NodeProto, kinds: dict[str, int], halves: dict[str, str]) -> None:
        if node.op_type == "Constant":
            return
        if node.domain in ("", "ai.onnx") and node.op_type in _RENAMED:
            raise UnsupportedError(
                "no typed form",
                where=f"{node.op_type} {node.name!r}",
                why="its attributes changed their names",
            )
        if node.op_type == "QuantizeLinear" and node.input[0] in self.arrays:
            return  # its DQ takes the codes
        made = onnx.NodeProto()
        made.CopyFrom(node)
        weight = self._codes(node)
        if weight is not None:
            made.input[0], made.input[1] = weight
        single = not self._has_half(node)
        for index, name in enumerate(node.input):
            if weight is not None and index < 2:
                continue
            if name in self.arrays and self.arrays[name].dtype == np.float32:
                plain = single or index in _PLAIN.get(node.op_type, ())
                made.input[index] = name if plain else self._half(node, index, name)
                if plain:
                    self.made[name] = self.arrays[name]
            elif name in self.arrays:
                self.made[name] = self.arrays[name]
            elif kinds.get(name) == TensorProto.FLOAT:
                half = halves.get(name, name)
                made.input[index] = self._wide(half) if single else half
        if node.op_type == "Cast":
            for attribute in made.attribute:
                attribute.i = TensorProto.FLOAT16 if attribute.i == TensorProto.FLOAT else attribute.i
        self.nodes.append(made)
        if single:
            for index, name in enumerate(made.output):
                if kinds.get(name) == TensorProto.FLOAT:
                    made.output[index] = f"{name}_single"
                    self._cast(f"{name}_single", name, TensorProto.FLOAT16)

    def _codes(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """Names of int8 codes and float16 scales in the place of a weight's pair."""
        if node.op_type != "DequantizeLinear":
            return None
        quantise = next((one for one in self.graph.node if node.input[0] in one.output), None)
        if quantise is None or quantise.op_type != "QuantizeLinear" or quantise.input[0] not in self.arrays:
            return None
        weight, scale = self.arrays[quantise.input[0]], self.arrays[node.input[1]]
        half = np.maximum(scale.astype(np.float16), np.finfo(np.float16).smallest_subnormal)
        shape = [1] * weight.ndim
        if scale.ndim:
            shape[next((one.i for one in node.attribute if one.name == "axis"), 1)] = -1
        codes = np.clip(np.rint(weight / half.astype(np.float32).reshape(shape)), -127, 127).astype(np.int8)
        names = f"{quantise.input[0]}_int8", f"{quantise.input[0]}_half_scale"
        self.made[names[0]], self.made[names[1]] = codes, half
        return names

    def _half(self, node: onnx.NodeProto, index: int, name: str) -> str:
        array = self.arrays[name]
        if index in _BOUNDS.get(node.op_type, ()):
            array = np.clip(array, -_LARGEST, _LARGEST)
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            why = f"{name!r} holds {float(np.abs(array).max()):g}, and float16 ends at {_LARGEST:g}"
            raise UnsupportedError("no typed form", where=f"{node.op_type} {node.name!r}", why=why)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not (half > 0).all():
            half = np.maximum(half, np.finfo(np.float16).smallest_subnormal)
        self.made[f"{name}_half"] = half
        return f"{name}_half"

    def _has_half(self, node: onnx.NodeProto) -> bool:
        """Whether onnx's schema admits float16 where the node has float32."""
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        except onnx.defs.SchemaError:
            return False
        formal = schema.inputs[0] if schema.inputs else None
        return formal is None or "tensor(float)" not in formal.types or "tensor(float16)" in formal.types

    def _wide(self, name: str) -> str:
        wide = f"{name}_wide"
        if not any(wide in node.output for node in self.nodes):
            self._cast(name, wide, TensorProto.FLOAT)
        return wide

    def _cast(self, source: str, made: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [made], name=f"{made}_cast", to=kind))

    def _finish(self) -> None:
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input}
        tensors = [numpy_helper.from_array(array, name) for name, array in self.made.items() if name in read]
        self.graph.initializer.extend(tensors)
        self.model.ir_version = max(self.model.ir_version, 9)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
