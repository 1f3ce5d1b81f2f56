"""Bring an ONNX file down to an older opset, for runtimes that read no newer one: TensorRT on a Jetson reads 13, 17 or 20.

An op that has the same meaning in both opsets only loses attributes at their defaults. One that changed is written in the
older way, one that is new is spelled out in ops that there are; what has no older form is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.graph.errors import UnsupportedError
from edgec.graph.execute import session
from edgec.graph.inputs import noise
from edgec.graph.names import free_name

Array = np.ndarray[Any, np.dtype[Any]]
AGREEMENT = 1e-5
"""Of the largest value, in float32."""
_REDUCE = ("Max", "Min", "Mean", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
_CHANGED_MEANING = frozenset({"GridSample", "RoiAlign", "GroupNormalization", "DFT", "Attention"})
"""Their names stayed and their attributes or defaults did not."""


def lower_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A copy of ``model`` whose default domain is at most ``opset``. Raises UnsupportedError with op and node."""
    if _opset(model) <= opset:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _Lowering(copy, _opset(model), opset).run()
    for one in copy.opset_import:
        if one.domain in ("", "ai.onnx"):
            one.version = opset
    copy.ir_version = min(model.ir_version, helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))
    return copy


def lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """`lower_opset`, and both files compared on noise: they have to agree to `AGREEMENT`. Raises UnsupportedError."""
    made = lower_opset(model, opset)
    if made is model:
        return model
    if not agree(model, made, AGREEMENT):
        what = f"opset {opset} computes something else than opset {_opset(model)}"
        raise UnsupportedError(what, hint="Please report it with the model.")
    return made


def agree(model: onnx.ModelProto, made: onnx.ModelProto, tolerance: float) -> bool:
    """Whether two files give the same on noise, as they are written: within ``tolerance`` of an output's largest value."""
    feeds = _noise(model)
    pairs = zip(*(session(one, fused=False).run(None, feeds) for one in (model, made)), strict=True)
    return all(_near(np.asarray(a), np.asarray(b), tolerance) for a, b in pairs)


def _near(a: Array, b: Array, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return False
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    return bool((np.abs(a - b) <= tolerance * max(float(np.abs(a).max(initial=0.0)), 1e-30)).all())


def _noise(model: onnx.ModelProto) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    stored = {one.name for one in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in stored:
            dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feeds[value.name] = noise(rng, dims, np.dtype(kind))
    return feeds


def _opset(model: onnx.ModelProto) -> int:
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)


class _Lowering:
    def __init__(self, model: onnx.ModelProto, source: int, target: int) -> None:
        self.graph = model.graph
        self.source, self.target = source, target
        self.constants = {one.name: one for one in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.shapes = _shapes(model)
        self.names = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self.nodes = {node.name for node in model.graph.node}

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            nodes.extend([node] if node.domain not in ("", "ai.onnx") else self._lowered(node))
        made = [_copied(node) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(made)

    def _lowered(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        now = onnx.defs.get_schema(node.op_type, self.source, "")
        if now.since_version <= self.target:
            return [node]
        change = _WAYS.get(node.op_type)
        if change is not None:
            nodes = change(self, node)
        elif node.op_type in _CHANGED_MEANING:
            raise self.refusal(node, "means something else there")
        else:
            nodes = [node]
        for one in nodes:
            self._strip(one)
        return nodes

    def _strip(self, node: onnx.NodeProto) -> None:
        """Take out attributes that the older op does not have, and the inputs; both must say nothing."""
        try:
            old = onnx.defs.get_schema(node.op_type, self.target, "")
        except onnx.defs.SchemaError:
            raise self.refusal(node, "does not exist there") from None
        now = onnx.defs.get_schema(node.op_type, self.source, "")
        for attribute in list(node.attribute):
            if attribute.name in old.attributes:
                continue
            default = now.attributes[attribute.name].default_value
            value = helper.get_attribute_value(attribute)
            empty = not default.name and value in (0, b"", [])
            if not empty and (not default.name or value != helper.get_attribute_value(default)):
                raise self.refusal(node, f"has no attribute {attribute.name} there")
            node.attribute.remove(attribute)
        while len(node.input) > old.max_input:
            if node.input[-1]:
                raise self.refusal(node, f"takes {old.max_input} inputs there")
            del node.input[-1]

    def refusal(self, node: onnx.NodeProto, why: str) -> UnsupportedError:
        """The error that names the node."""
        what = f"opset {self.target} cannot hold this network"
        hint = "Take a target whose runtime reads a newer opset, or export the network without it."
        return UnsupportedError(
            what, where=f"{node.op_type} {node.name!r}", why=f"{node.op_type} {why}", hint=hint
        )

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        """The constant at an input; None where there is no such input. Raises UnsupportedError for a computed one."""
        if index >= len(node.input) or not node.input[index]:
            return None
        if node.input[index] not in self.constants:
            raise self.refusal(node, f"has its input {index} computed, which is an attribute there")
        return numpy_helper.to_array(self.constants[node.input[index]])

    def shape(self, node: onnx.NodeProto) -> list[int | None]:
        """Of the first input. Raises UnsupportedError where not even the rank is known."""
        found = self.shapes.get(node.input[0])
        if found is None:
            raise self.refusal(node, "needs a rank that is not known")
        return found

    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        return free_name(stem, self.names)

    def called(self, stem: str) -> str:
        """A node's name that no node has: exporters number theirs too."""
        return free_name(stem, self.nodes)

    def store(self, stem: str, array: Array) -> str:
        """A new initialiser's name."""
        name = self.fresh(stem)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name


def _reduce(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    axes = lowering.constant(node, 1)
    quiet = (
        helper.get_node_attr_value(node, "noop_with_empty_axes") if _has(node, "noop_with_empty_axes") else 0
    )
    del node.input[1:]
    _drop(node, "noop_with_empty_axes")
    if axes is not None and axes.size:
        node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes]))
    elif quiet:  # what each value alone gives
        op = {"ReduceL1": "Abs", "ReduceL2": "Abs", "ReduceLogSum": "Log", "ReduceSumSquare": "Mul"}.get(
            node.op_type, "Identity"
        )
        given = [node.input[0]] * (2 if op == "Mul" else 1)
        return [helper.make_node(op, given, list(node.output), name=node.name)]
    return [node]


def _pad(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    axes = lowering.constant(node, 3)
    if axes is not None:
        given, rank = lowering.constant(node, 1), len(lowering.shape(node))
        if given is None:
            raise lowering.refusal(node, "has no amounts")
        amounts = np.zeros(2 * rank, np.int64)
        for index, axis in enumerate(int(axis) % rank for axis in axes):
            amounts[axis], amounts[rank + axis] = given[index], given[len(axes) + index]
        node.input[1] = lowering.store(f"{node.name}_pads", amounts)
        del node.input[3:]
    if _has(node, "mode") and helper.get_node_attr_value(node, "mode") == b"wrap":
        raise lowering.refusal(node, "cannot wrap there")
    return [node]


def _resize(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    if _has(node, "coordinate_transformation_mode"):
        way = helper.get_node_attr_value(node, "coordinate_transformation_mode")
        if way == b"half_pixel_symmetric":
            raise lowering.refusal(node, "has no half_pixel_symmetric there")
    if _has(node, "axes"):
        axes, shape = helper.get_node_attr_value(node, "axes"), lowering.shape(node)
        for index, neutral in ((2, 1.0), (3, None)):
            given = lowering.constant(node, index)
            if given is None or not given.size:
                continue
            whole = [neutral if neutral is not None else size for size in shape]
            for place, axis in enumerate(axes):
                whole[axis % len(shape)] = given[place].item()
            if None in whole:
                raise lowering.refusal(node, "needs every size there")
            node.input[index] = lowering.store(f"{node.name}_whole", np.asarray(whole, given.dtype))
        _drop(node, "axes")
    return [node]


def _split(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    if not _has(node, "num_outputs"):
        return [node]
    count, shape = len(node.output), lowering.shape(node)
    axis = helper.get_node_attr_value(node, "axis") if _has(node, "axis") else 0
    size = shape[axis]
    if size is None:
        raise lowering.refusal(node, "needs the size that it splits")
    part = math.ceil(size / count)
    sizes = [part] * (count - 1) + [size - part * (count - 1)]
    _drop(node, "num_outputs")
    del node.input[1:]
    node.input.append(lowering.store(f"{node.name}_sizes", np.asarray(sizes, np.int64)))
    return [node]


_Step = tuple[str, tuple[str, ...], dict[str, Any]]
"""Op, inputs, attributes."""


def _spelled(*steps: _Step) -> Callable[..., list[onnx.NodeProto]]:
    """A way to write an op of one input in several; each step is op, inputs (``x`` and numbers of steps), attributes."""

    def write(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        names = {"x": node.input[0]}
        nodes = []
        for number, (op, inputs, attributes) in enumerate(steps):
            last = number == len(steps) - 1
            names[str(number)] = node.output[0] if last else lowering.fresh(f"{node.output[0]}_{number}")
            given = [
                names[key]
                if key in names
                else lowering.store(f"{node.name}_c", np.asarray(float(key[1:]), np.float32))
                for key in inputs
            ]
            name = node.name if last else lowering.called(f"{node.name}_{number}")
            nodes.append(helper.make_node(op, given, [names[str(number)]], name=name, **attributes))
        return nodes

    return write


_HARD_SWISH = _spelled(("HardSigmoid", ("x",), {"alpha": 1 / 6, "beta": 0.5}), ("Mul", ("x", "0"), {}))
_MISH = _spelled(("Softplus", ("x",), {}), ("Tanh", ("0",), {}), ("Mul", ("x", "1"), {}))
_GELU = _spelled(
    ("Mul", ("x", f"={math.sqrt(0.5)!r}"), {}),
    ("Erf", ("0",), {}),
    ("Add", ("1", "=1"), {}),
    ("Mul", ("x", "2"), {}),
    ("Mul", ("3", "=0.5"), {}),
)
_GELU_TANH = _spelled(
    ("Mul", ("x", "x"), {}),
    ("Mul", ("0", "x"), {}),
    ("Mul", ("1", "=0.044715"), {}),
    ("Add", ("x", "2"), {}),
    ("Mul", ("3", f"={math.sqrt(2 / math.pi)!r}"), {}),
    ("Tanh", ("4",), {}),
    ("Add", ("5", "=1"), {}),
    ("Mul", ("x", "6"), {}),
    ("Mul", ("7", "=0.5"), {}),
)
_SILU = _spelled(("Sigmoid", ("x",), {}), ("Mul", ("x", "0"), {}))


def _gelu(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    tanh = _has(node, "approximate") and helper.get_node_attr_value(node, "approximate") == b"tanh"
    return (_GELU_TANH if tanh else _GELU)(lowering, node)


def _swish(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    alpha = helper.get_node_attr_value(node, "alpha") if _has(node, "alpha") else 1.0
    if alpha == 1.0:
        return _SILU(lowering, node)
    scaled: _Step = ("Mul", ("x", f"={alpha!r}"), {})
    return _spelled(scaled, ("Sigmoid", ("0",), {}), ("Mul", ("x", "1"), {}))(lowering, node)


def _layer_norm(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    if len([name for name in node.output if name]) > 1:
        raise lowering.refusal(node, "gives its mean too")
    rank = len(lowering.shape(node))
    axis = (helper.get_node_attr_value(node, "axis") if _has(node, "axis") else -1) % rank
    epsilon = helper.get_node_attr_value(node, "epsilon") if _has(node, "epsilon") else 1e-5
    axes = list(range(axis, rank))
    steps: list[_Step] = [
        ("ReduceMean", ("x",), {"axes": axes, "keepdims": 1}),
        ("Sub", ("x", "0"), {}),
        ("Mul", ("1", "1"), {}),
        ("ReduceMean", ("2",), {"axes": axes, "keepdims": 1}),
        ("Add", ("3", f"={epsilon!r}"), {}),
        ("Sqrt", ("4",), {}),
        ("Div", ("1", "5"), {}),
    ]
    nodes = _spelled(*steps)(lowering, node)
    for op, index in (("Mul", 1), ("Add", 2)):
        if len(node.input) > index and node.input[index]:
            inner = lowering.fresh(f"{node.output[0]}_{op}")
            nodes[-1].output[0] = inner
            nodes.append(
                helper.make_node(
                    op,
                    [inner, node.input[index]],
                    [node.output[0]],
                    name=lowering.called(f"{node.name}_{op}"),
                )
            )
    return nodes


def _pool(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Dilations of 1 say nothing; the attribute has no default that would tell."""
    if _has(node, "dilations") and set(helper.get_node_attr_value(node, "dilations")) == {1}:
        _drop(node, "dilations")
    return [node]


def _reshape(lowering: _Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """`allowzero` is about zeros in the shape; where there are none it says nothing."""
    if _has(node, "allowzero") and node.input[1] in lowering.constants:
        shape = lowering.constant(node, 1)
        if shape is not None and shape.all():
            _drop(node, "allowzero")
    return [node]


_WAYS: Mapping[str, Callable[[_Lowering, onnx.NodeProto], list[onnx.NodeProto]]] = {
    **{f"Reduce{kind}": _reduce for kind in _REDUCE},
    "Pad": _pad,
    "AveragePool": _pool,
    "Reshape": _reshape,
    "Resize": _resize,
    "Split": _split,
    "HardSwish": _HARD_SWISH,
    "Mish": _MISH,
    "Gelu": _gelu,
    "Swish": _swish,
    "LayerNormalization": _layer_norm,
}


def _has(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name for attribute in node.attribute)


def _drop(node: onnx.NodeProto, name: str) -> None:
    for attribute in [one for one in node.attribute if one.name == name]:
        node.attribute.remove(attribute)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    return found
