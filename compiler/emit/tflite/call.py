"""One node being lowered: in which form it runs, what it reads, and where its results go.

A node runs on codes when all its data operands have codes and its result is quantised straight away (or when it only
moves codes). Otherwise it runs on real numbers, between DEQUANTIZE and QUANTIZE. An activation behind it is fused where
the operator has a fused form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.context import Home, Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.layout import Layout, Shape
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.quantisation import CodeForm, code_form
from edgec.graph.spec import LAYERS
from edgec.graph.tflite.schema import ActivationFunctionType as Activation
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import Quantization
from edgec.graph.views import constant, sole_consumer

_BOUNDS = {
    (0.0, np.inf): Activation.RELU,
    (0.0, 6.0): Activation.RELU6,
    (-1.0, 1.0): Activation.RELU_N1_TO_1,
}


@dataclass(frozen=True)
class Sink:
    """Where one result goes: the value it stands for, and the QuantizeLinear outputs that take it directly."""

    value: ir.Value
    codes: tuple[ir.Value, ...]
    form: CodeForm | None
    activation: Activation = Activation.NONE
    fused: ir.Node | None = None


class Call:
    """A node, its operands in the right form, and its results.

    ``data`` are the inputs that carry activations. ``moves`` marks nodes whose result has the codes of its operand
    (Reshape, MaxPool): they run on codes whenever their operands have some. ``void`` takes an activation along that the
    quantiser behind it makes void, for operators without a fused form. ``real`` keeps it on real numbers.
    ``tail`` is the node whose result this call computes, where it takes one behind ``node`` with it.
    """

    def __init__(
        self,
        ctx: Lowering,
        node: ir.Node,
        *,
        data: Sequence[int] = (0,),
        fuse: bool = False,
        void: bool = False,
        moves: bool = False,
        real: bool = False,
        tail: ir.Node | None = None,
    ) -> None:
        self.ctx = ctx
        self.node = node
        self.data: list[int] = [i for i in data if i < len(node.inputs) and node.inputs[i] is not None]
        coded = not real and bool(self.data) and all(self._has_codes(self.operand(i)) for i in self.data)
        coded = coded and self._weight_has_codes()
        self.tail = tail
        outputs = node.outputs if tail is None else tail.outputs
        fuse = (fuse or (void and coded)) and len(outputs) == 1
        self.sinks: list[Sink] = [find_sink(ctx, value, fuse, coded, void) for value in outputs]
        live = [s for s in self.sinks if is_read(s.value)]
        self.quantised: bool = coded and (moves or all(sink.codes for sink in live))

    def _has_codes(self, value: ir.Value) -> bool:
        home = self.ctx.codes(value)
        return home is not None and home.quantization is not None and len(home.quantization.scale) == 1

    def _weight_has_codes(self) -> bool:
        """False for a layer whose constant weight is kept in real numbers: as they are, or as int32 codes (`_keep_float`)."""
        if self.node.op_type not in LAYERS or 1 in self.data:
            return True
        home = self.ctx.codes(self.operand(1))
        return home is not None and (home.array is None or home.array.dtype.itemsize == 1)

    @property
    def sink(self) -> Sink:
        return self.sinks[0]

    @property
    def activation(self) -> Activation:
        return self.sink.activation

    @property
    def name(self) -> str:
        return self.sink.value.name or self.node.name or self.node.op_type

    def operand(self, index: int) -> ir.Value:
        """Input ``index``; refuses one that is left out."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            raise RefusalError(f"input {index} is missing")
        return value

    def home(self, index: int) -> Home:
        """The home of input ``index`` in the form that this call runs in."""
        value = self.operand(index)
        codes = self.ctx.codes(value) if self.quantised else None
        return codes or self.ctx.real(value)

    def take(self, index: int, layout: Layout | None = None, free: Collection[int] = ()) -> Placed:
        """Input ``index`` in ``layout``."""
        return self.ctx.take(self.home(index), layout, free)

    def in_shape(self, index: int = 0) -> Shape:
        """The ONNX shape of input ``index``."""
        return self.ctx.shape(self.operand(index))

    def out_shape(self, output: int = 0) -> Shape:
        """The ONNX shape of a result."""
        return self.ctx.shape(self.sinks[output].value)

    def constant(self, index: int, what: str) -> np.ndarray[Any, np.dtype[Any]]:
        """The array of a constant operand; ``what`` names it in the refusal."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        array = constant(value)
        if array is None:
            raise RefusalError(
                f"its {what} is computed", f"Make the {what} a constant in the source network."
            )
        return array

    def optional(self, index: int, what: str) -> np.ndarray[Any, np.dtype[Any]] | None:
        """As `constant`; None where the operand is left out."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if value is None else self.constant(index, what)

    def form(self, output: int = 0) -> CodeForm | None:
        """The code form that the result is asked in, when the call runs on codes."""
        return self.sinks[output].form if self.quantised else None

    def tensor(
        self,
        layout: Layout,
        *,
        like: Tensor | None = None,
        form: CodeForm | None = None,
        output: int = 0,
        shape: Shape | None = None,
    ) -> Tensor:
        """A new tensor for result ``output``: in the codes of ``like``, in ``form``, or as the sink asks."""
        sink = self.sinks[output]
        form = form or self.form(output)
        kind: TensorType = self.ctx.kind(sink.value)
        quantization: Quantization | None = None
        if self.quantised and like is not None:
            kind, quantization = like.type, like.quantization
        elif self.quantised and form is not None:
            kind, quantization = form.type, form.quantization
        physical = layout.shape(self.out_shape(output)) if shape is None else shape
        return self.ctx.program.tensor(sink.value.name or self.name, kind, physical, quantization)

    def finish(self, tensor: Tensor, layout: Layout, output: int = 0) -> Home:
        """The result is in ``tensor``: requantise it where the graph asks for other codes, and give it its homes."""
        sink = self.sinks[output]
        if sink.fused is not None:
            self.ctx.done.add(sink.fused)
        if self.tail is not None:
            self.ctx.done.add(self.tail)
        if tensor.quantization is None:
            tensor.is_result = True
            return self.ctx.bind(sink.value, Placed(tensor, layout))
        if sink.form is not None:
            name = sink.value.name or self.name
            tensor = self.ctx.requantise(tensor, sink.form.quantization, sink.form.type, name)
        tensor.is_result = True
        shape = self.ctx.shape(sink.value)
        home = Home(
            sink.value.name or self.name, shape, [Placed(tensor, layout)], quantization=tensor.quantization
        )
        for value in sink.codes or (sink.value,):
            self.ctx.bind_codes(value, home)
        return home

    def finish_constant(self, source: Home, array: np.ndarray[Any, np.dtype[Any]]) -> None:
        """The result is the constant ``array``, in the codes of ``source`` where the call runs on codes."""
        sink = self.sink
        home = Home(source.name, tuple(array.shape), array=array, quantization=source.quantization)
        if sink.form is not None and source.quantization != sink.form.quantization:
            placed = self.ctx.take(home)
            self.finish(placed.tensor, placed.layout)
        elif self.quantised:
            for value in sink.codes or (sink.value,):
                self.ctx.bind_codes(value, home)
        else:
            self.ctx.bind_constant(sink.value, home)


def find_sink(ctx: Lowering, value: ir.Value, fuse: bool, coded: bool, void: bool = False) -> Sink:
    """Follow a result through a fusable activation (``void``: one that does nothing) to the QuantizeLinear nodes."""
    plain = _quantised_sink(value)
    consumer = sole_consumer(value)
    if not fuse or consumer is None or consumer in ctx.done or consumer.op_type not in ("Relu", "Clip"):
        return plain
    bounds = clip_bounds(consumer)
    if bounds is None or consumer.inputs[0] is not value:
        return plain
    behind = _quantised_sink(consumer.outputs[0])
    if bounds in _BOUNDS and not void and not (coded and not behind.codes):
        return Sink(behind.value, behind.codes, behind.form, _BOUNDS[bounds], consumer)
    if coded and behind.form is not None:
        low, high = behind.form.range()
        if bounds[0] <= low and high <= bounds[1]:
            return Sink(behind.value, behind.codes, behind.form, Activation.NONE, consumer)
    return plain


def is_read(value: ir.Value) -> bool:
    """True when a node or the graph's caller reads ``value``."""
    return value.is_graph_output() or bool(value.uses())


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """(low, high) of a Relu or a Clip with constant bounds."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    bounds = [-np.inf, np.inf]
    for index in (1, 2):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        array = constant(value)
        if array is None or array.size != 1:
            return None
        bounds[index - 1] = float(array.reshape(()))
    return bounds[0], bounds[1]


def _quantised_sink(value: ir.Value) -> Sink:
    """The QuantizeLinear nodes that read ``value``, when nothing else does and they agree."""
    uses = tuple(value.uses())
    if not uses or value.is_graph_output() or any(u.node.op_type != "QuantizeLinear" or u.idx for u in uses):
        return Sink(value, (), None)
    forms = {code_form(use.node) for use in uses}
    form = next(iter(forms))
    if len(forms) > 1 or len(form.quantization.scale) > 1 or form.type == TensorType.INT32:
        return Sink(value, (), None)
    return Sink(value, tuple(use.node.outputs[0] for use in uses), form)
