"""One change each that breaks a rule of TensorRT's explicit form; the validator and TensorRT itself are tried on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


def broken(model: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """``model`` (a residual network of int8 layers) with one rule broken in each, by the rule's name."""
    found = {}
    for name, change in _CHANGES.items():
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        change(_Graph(copy))
        found[name] = copy
    return found


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph

    def made_by(self, name: str) -> onnx.NodeProto | None:
        return next((node for node in self.graph.node if name in node.output), None)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if name in node.input]

    def weight(self, index: int = 1) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]:
        """(Q, DQ, Conv) of a layer's weight."""
        conv = [node for node in self.graph.node if node.op_type == "Conv"][index]
        dequantise = self.made_by(conv.input[1])
        quantise = None if dequantise is None else self.made_by(dequantise.input[0])
        assert dequantise is not None
        assert quantise is not None
        return quantise, dequantise, conv

    def activation(self, index: int = 1) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]:
        """(Q, DQ, Conv) of a layer's input."""
        conv = [node for node in self.graph.node if node.op_type == "Conv"][index]
        dequantise = self.made_by(conv.input[0])
        quantise = None if dequantise is None else self.made_by(dequantise.input[0])
        assert dequantise is not None
        assert quantise is not None
        return quantise, dequantise, conv

    def store(self, name: str, array: Array) -> str:
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def array(self, name: str) -> Array:
        return numpy_helper.to_array(next(one for one in self.graph.initializer if one.name == name))

    def before(self, node: onnx.NodeProto, *made: onnx.NodeProto) -> None:
        place = list(self.graph.node).index(node)
        for offset, one in enumerate(made):
            self.graph.node.insert(place + offset, one)

    def pair(self, source: str, scale: str, zero: str, stem: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
        quantise = helper.make_node("QuantizeLinear", [source, scale, zero], [f"{stem}_q"], name=f"{stem}_q")
        result = helper.make_node(
            "DequantizeLinear", [f"{stem}_q", scale, zero], [f"{stem}_dq"], name=f"{stem}_dq"
        )
        return quantise, result


def _opset(it: _Graph) -> None:
    it.model.opset_import[0].version = 21
    it.model.ir_version = 10


def _zero_point(it: _Graph) -> None:
    zero = it.store("moved", np.int8(3))
    for node in it.activation()[:2]:
        node.input[2] = zero


def _unsigned(it: _Graph) -> None:
    zero = it.store("unsigned", np.uint8(128))
    for node in it.activation()[:2]:
        node.input[2] = zero


def _no_zero_point(it: _Graph) -> None:
    for node in it.weight()[:2]:
        del node.input[2:]


def _int8_weight(it: _Graph) -> None:
    quantise, dequantise, _ = it.weight()
    weight, scale = it.array(quantise.input[0]), it.array(quantise.input[1])
    codes = np.rint(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
    dequantise.input[0] = it.store("codes", codes)
    it.graph.node.remove(quantise)


def _int32_weight(it: _Graph) -> None:
    quantise, dequantise, _ = it.weight()
    codes = np.rint(it.array(quantise.input[0]) * 2.0**24).astype(np.int32)
    scale = it.store("small", np.float32(2.0**-24))
    del dequantise.attribute[:]
    del dequantise.input[:]
    dequantise.input.extend([it.store("codes", codes), scale])
    it.graph.node.remove(quantise)


def _int32_bias(it: _Graph) -> None:
    _, _, conv = it.weight()
    bias = it.array(conv.input[2])
    scale = it.store("bias_scale", np.float32(1e-4))
    codes = it.store("bias_codes", np.rint(bias / 1e-4).astype(np.int32))
    it.before(conv, helper.make_node("DequantizeLinear", [codes, scale], ["bias_dq"], name="bias_dq"))
    conv.input[2] = "bias_dq"


def _axis(it: _Graph) -> None:
    for node in it.weight()[:2]:
        next(one for one in node.attribute if one.name == "axis").i = 1


def _scale_count(it: _Graph) -> None:
    quantise, dequantise, _ = it.weight()
    scale = it.store("short", it.array(quantise.input[1])[:16])
    zero = it.store("short_zero", np.zeros(16, np.int8))
    for node in (quantise, dequantise):
        node.input[1], node.input[2] = scale, zero


def _zero_point_size(it: _Graph) -> None:
    zero = it.store("one_zero", np.int8(0))
    for node in it.weight()[:2]:
        node.input[2] = zero


def _scale_zero(it: _Graph) -> None:
    scale = it.store("nothing", np.float32(0))
    for node in it.activation()[:2]:
        node.input[1] = scale


def _scale_negative(it: _Graph) -> None:
    quantise, dequantise, _ = it.weight()
    scale = it.array(quantise.input[1]).copy()
    scale[3] *= -1
    name = it.store("negative", scale)
    for node in (quantise, dequantise):
        node.input[1] = name


def _activation_axis(it: _Graph) -> None:
    quantise, dequantise, _ = it.activation()
    scale = it.store("many", np.full(32, it.array(quantise.input[1])))
    zero = it.store("many_zero", np.zeros(32, np.int8))
    for node in (quantise, dequantise):
        node.input[1], node.input[2] = scale, zero
        node.attribute.append(helper.make_attribute("axis", 1))


def _computed_scale(it: _Graph) -> None:
    quantise, dequantise, _ = it.activation()
    made = helper.make_node("Abs", [quantise.input[1]], ["computed_scale"], name="computed_scale")
    it.before(quantise, made)
    quantise.input[1] = dequantise.input[1] = "computed_scale"


def _lone_quantise(it: _Graph) -> None:
    quantise, _, _ = it.activation()
    name = quantise.output[0]
    value = helper.make_tensor_value_info(name, TensorProto.INT8, [1, 32, 32, 32])
    it.graph.output.append(value)


def _lone_dequantise(it: _Graph) -> None:
    quantise, _, _ = it.activation(0)
    graph_input = it.graph.input[0]
    graph_input.type.tensor_type.elem_type = TensorProto.INT8
    name = quantise.output[0]
    for node in it.readers(name):
        node.input[0] = graph_input.name
    it.graph.node.remove(quantise)


def _qlinear(it: _Graph) -> None:
    quantise, _, conv = it.activation(2)
    weight_q, _, _ = it.weight(2)
    scale, zero = quantise.input[1], quantise.input[2]
    made = helper.make_node(
        "QLinearConv",
        [
            quantise.output[0],
            scale,
            zero,
            weight_q.output[0],
            weight_q.input[1],
            weight_q.input[2],
            scale,
            zero,
        ],
        ["conv_codes"],
        name="qlinear",
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
    )
    after = helper.make_node(
        "DequantizeLinear", ["conv_codes", scale, zero], [conv.output[0]], name="qlinear_dq"
    )
    it.before(conv, made, after)
    it.graph.node.remove(conv)


def _foreign_domain(it: _Graph) -> None:
    for node in it.activation()[:2]:
        node.domain = "com.microsoft"
    it.model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _dynamic_quantize(it: _Graph) -> None:
    quantise, _, conv = it.activation()
    made = helper.make_node(
        "DynamicQuantizeLinear", [quantise.input[0]], ["dyn", "dyn_s", "dyn_z"], name="dynamic"
    )
    after = helper.make_node("DequantizeLinear", ["dyn", "dyn_s", "dyn_z"], ["dyn_dq"], name="dynamic_dq")
    it.before(conv, made, after)
    conv.input[0] = "dyn_dq"


def _branch(it: _Graph) -> None:
    add = next(node for node in it.graph.node if node.op_type == "Add")
    index = next(i for i in (0, 1) if (maker := it.made_by(add.input[i])) is None or maker.op_type == "Conv")
    quantise, _, _ = it.activation()
    made = it.pair(add.input[index], quantise.input[1], quantise.input[2], "branch")
    it.before(add, *made)
    add.input[index] = made[1].output[0]


def _float_skip(it: _Graph) -> None:
    add = next(node for node in it.graph.node if node.op_type == "Add")
    for index in (0, 1):
        maker = it.made_by(add.input[index])
        if maker is not None and maker.op_type == "DequantizeLinear":
            quantise = it.made_by(maker.input[0])
            assert quantise is not None
            add.input[index] = quantise.input[0]


def _concat(it: _Graph) -> None:
    conv = [node for node in it.graph.node if node.op_type == "Conv"][-1]
    quantise, dequantise, _ = it.activation(len([n for n in it.graph.node if n.op_type == "Conv"]) - 1)
    scale, zero = it.array(quantise.input[1]), quantise.input[2]
    other = it.store("other_scale", np.float32(scale * 1.7))
    shape = helper.make_node("Slice", [quantise.input[0], "from", "to", "along"], ["left"], name="left")
    right = helper.make_node("Slice", [quantise.input[0], "mid", "end", "along"], ["right"], name="right")
    for name, number in (("from", 0), ("to", 16), ("mid", 16), ("end", 32), ("along", 1)):
        it.store(name, np.asarray([number], np.int64))
    first = it.pair("left", quantise.input[1], zero, "first")
    second = it.pair("right", other, zero, "second")
    join = helper.make_node("Concat", ["first_dq", "second_dq"], ["joined"], name="joined", axis=1)
    out = it.pair("joined", quantise.input[1], zero, "out")
    it.before(quantise, shape, right, *first, *second, join, *out)
    conv.input[0] = "out_dq"
    for node in (quantise, dequantise):
        it.graph.node.remove(node)


def _pad(it: _Graph) -> None:
    quantise, _, conv = it.activation(2)
    amounts = it.store("amounts", np.asarray([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    it.before(quantise, helper.make_node("Pad", [quantise.input[0], amounts], ["padded"], name="padded"))
    quantise.input[0] = "padded"
    next(one for one in conv.attribute if one.name == "pads").ints[:] = [0, 0, 0, 0]


def _depthwise_silu(it: _Graph) -> None:
    _narrow_to(it, group=32)
    _, _, conv = it.weight(1)
    relu = next(node for node in it.readers(conv.output[0]))
    gate = helper.make_node("Sigmoid", [conv.output[0]], ["gate"], name="gate")
    it.before(relu, gate, helper.make_node("Mul", [conv.output[0], "gate"], list(relu.output), name="silu"))
    it.graph.node.remove(relu)


def _narrow_to(it: _Graph, group: int) -> None:
    quantise, _, conv = it.weight(1)
    weight = it.array(quantise.input[0])[:, : 32 // group].copy()
    quantise.input[0] = it.store("narrow", weight)
    for attribute in [one for one in conv.attribute if one.name == "group"]:
        conv.attribute.remove(attribute)
    conv.attribute.append(helper.make_attribute("group", group))


def _narrow(it: _Graph) -> None:
    _narrow_to(it, group=4)
    quantise, _, conv = it.weight(1)
    weight = it.array("narrow")[:, :, :1, :1].copy()
    quantise.input[0] = it.store("point", weight)
    next(one for one in conv.attribute if one.name == "kernel_shape").ints[:] = [1, 1]
    next(one for one in conv.attribute if one.name == "pads").ints[:] = [0, 0, 0, 0]


def _dynamic(it: _Graph) -> None:
    for value in (it.graph.input[0], it.graph.output[0]):
        for axis in (2, 3):
            value.type.tensor_type.shape.dim[axis].ClearField("dim_value")
            value.type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"


def _half_scales(it: _Graph) -> None:
    quantise, dequantise, _ = it.activation()
    scale = it.array(quantise.input[1]).astype(np.float16)
    name = it.store("half", scale)
    for node in (quantise, dequantise):
        node.input[1] = name


def _float_weight(it: _Graph) -> None:
    quantise, dequantise, conv = it.weight()
    conv.input[1] = quantise.input[0]
    for node in (quantise, dequantise):
        it.graph.node.remove(node)


_CHANGES: dict[str, Callable[[_Graph], None]] = {
    "opset": _opset,
    "zero_point": _zero_point,
    "unsigned": _unsigned,
    "no_zero_point": _no_zero_point,
    "zero_point_size": _zero_point_size,
    "int8_weight": _int8_weight,
    "int32_weight": _int32_weight,
    "int32_bias": _int32_bias,
    "float_weight": _float_weight,
    "axis": _axis,
    "scale_count": _scale_count,
    "scale_zero": _scale_zero,
    "scale_negative": _scale_negative,
    "computed_scale": _computed_scale,
    "half_scales": _half_scales,
    "activation_axis": _activation_axis,
    "lone_quantise": _lone_quantise,
    "lone_dequantise": _lone_dequantise,
    "qlinear": _qlinear,
    "foreign_domain": _foreign_domain,
    "dynamic_quantize": _dynamic_quantize,
    "branch": _branch,
    "float_skip": _float_skip,
    "concat": _concat,
    "pad": _pad,
    "depthwise_silu": _depthwise_silu,
    "narrow": _narrow,
    "dynamic": _dynamic,
}
