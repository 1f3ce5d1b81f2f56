"""Drive the lowering of one model: inputs, nodes in order, outputs; collect what TFLite cannot take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgec.compiler.emit.tflite.call import find_sink
from edgec.compiler.emit.tflite.context import FixedBatchError, Home, Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.layout import Layout, channels_last, identity
from edgec.compiler.emit.tflite.ops import HANDLERS
from edgec.compiler.emit.tflite.ops.unary import written_out_gelu
from edgec.compiler.emit.tflite.patterns import find_gelus
from edgec.compiler.emit.tflite.program import Program, Tensor
from edgec.graph.errors import UnsupportedError, UsageError
from edgec.graph.inputs import is_channels_last
from edgec.graph.provenance import place
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import Quantization

_SHAPE_ONLY = {"Reshape": 1, "Expand": 1, "Resize": 1, "Upsample": 1, "Squeeze": 1, "Unsqueeze": 1}
"""Operators whose further inputs are shapes, which the shape of the result tells already."""


@dataclass(frozen=True)
class Unsupported:
    """A node that has no TFLite form, why, and what to do."""

    node: str
    op: str
    why: str
    hint: str
    place: str
    """As errors name it (`graph.provenance`)."""


@dataclass(frozen=True)
class Options:
    """How the interface of the file looks; ``codes``: the type of codes that quantised inputs and outputs are left as."""

    channels_last: bool = False
    codes: TensorType | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Lowered:
    """A finished program and the layout of each of its inputs and outputs."""

    program: Program
    layouts: dict[str, tuple[int, ...]]
    batch: int | None


def lower(model: ir.Model, options: Options) -> tuple[Lowered | None, list[Unsupported]]:
    """The program of ``model``, or None and the nodes that stand in its way."""
    if options.batch is not None:
        model = with_batch(model, options.batch)
    try:
        driver = _Driver(model, options)
        driver.nodes(placeholders=True)
        if driver.refused:
            return None, driver.refused
        return driver.finish(), []
    except FixedBatchError:
        if options.batch is not None:
            raise
        return lower(model, replace(options, batch=1))


def runnable_nodes(model: ir.Model) -> tuple[set[ir.Node], list[Unsupported]]:
    """The nodes that can run in TFLite together with all nodes before them, and those that cannot themselves."""
    model_1 = with_batch(model, 1)
    driver = _Driver(model_1, Options())
    driver.nodes(placeholders=False)
    names = {node.name for node in driver.lowered}
    return {node for node in model.graph if node.name in names}, driver.refused


class _Driver:
    def __init__(self, model: ir.Model, options: Options) -> None:
        self.model = model
        self.options = options
        self.ctx = Lowering(model)
        self.layouts: dict[str, tuple[int, ...]] = {}
        self.refused: list[Unsupported] = []
        self.lowered: list[ir.Node] = []
        self.gelus = {gelu.nodes[-1]: gelu for gelu in find_gelus(model.graph)}
        for gelu in self.gelus.values():
            self.ctx.done.update(gelu.nodes[:-1])
        for value in model.graph.inputs:
            self._input(value)

    def _input(self, value: ir.Value) -> None:
        ctx, name = self.ctx, value.name or "input"
        try:
            shape, kind = ctx.shape(value), ctx.kind(value)
        except RefusalError as refusal:
            raise UsageError(
                f"input {name!r} cannot be emitted", why=refusal.why, hint=refusal.hint
            ) from refusal
        layout = identity(len(shape))
        if self.options.channels_last and len(shape) == 4 and not is_channels_last(value):
            layout = channels_last(4)
        sink = find_sink(ctx, value, fuse=False, coded=True)
        self.layouts[name] = layout.perm
        if self.options.codes is not None and sink.form is not None and sink.form.type == TensorType.INT8:
            own, form = sink.form.quantization, self._at_the_end(sink.form.quantization)
            tensor = ctx.program.tensor(name, self.options.codes, layout.shape(shape), form)
            codes_in = ctx.requantise(tensor, own, sink.form.type, f"{name}_codes")
            home = Home(name, shape, [Placed(codes_in, layout)], quantization=own)
            for codes in sink.codes:
                ctx.bind_codes(codes, home)
        else:
            tensor = ctx.program.tensor(name, kind, layout.shape(shape))
            ctx.bind(value, Placed(tensor, layout))
        ctx.program.inputs.append((name, tensor))

    def _at_the_end(self, own: Quantization) -> Quantization:
        """The table of int8 codes, for the type that the file's interface has: the same numbers, unsigned 128 higher."""
        if self.options.codes != TensorType.UINT8:
            return own
        return replace(own, zero_point=tuple(zero + 128 for zero in own.zero_point))

    def nodes(self, placeholders: bool) -> None:
        """Lower every live node. What depends on a refused one is lowered on stand-ins, or skipped."""
        live = live_nodes(self.model.graph)
        for node in self.model.graph:
            if node not in live:
                continue
            if node in self.ctx.done:
                self.lowered.append(node)
                continue
            if not self._ready(node):
                continue
            try:
                self._node(node)
                self.lowered.append(node)
            except RefusalError as refusal:
                self.refused.append(
                    Unsupported(node.name or "", node.op_type, refusal.why, refusal.hint, place(node))
                )
                if placeholders:
                    self._stand_in(node)

    def _ready(self, node: ir.Node) -> bool:
        gelu = self.gelus.get(node)
        operands = node.inputs[: _data_inputs(node)] if gelu is None else (gelu.x,)
        return all(value is None or self.ctx.known(value) for value in operands)

    def _node(self, node: ir.Node) -> None:
        if node in self.gelus:
            written_out_gelu(self.ctx, self.gelus[node])
            return
        if node.domain not in ("", "ai.onnx"):
            raise RefusalError(f"it is an operator of domain {node.domain!r}")
        if node.op_type == "Constant":
            return
        handler = HANDLERS.get(node.op_type)
        if handler is None:
            raise RefusalError("TFLite emission does not know this operator")
        handler(self.ctx, node)

    def _stand_in(self, node: ir.Node) -> None:
        for value in node.outputs:
            try:
                shape, kind = self.ctx.shape(value), self.ctx.kind(value)
            except RefusalError:
                continue  # what reads it is skipped
            tensor = self.ctx.program.tensor(value.name or "", kind, shape)
            self.ctx.bind(value, Placed(tensor, identity(len(shape))))

    def finish(self) -> Lowered:
        """Bind the outputs and drop what nobody reads."""
        for value in self.model.graph.outputs:
            try:
                self._output(value)
            except RefusalError as refusal:
                where = f"output {value.name!r}"
                raise UnsupportedError("it cannot be emitted", where=where, why=refusal.why) from refusal
        self.ctx.program.prune()
        return Lowered(self.ctx.program, self.layouts, self.options.batch)

    def _output(self, value: ir.Value) -> None:
        ctx, name = self.ctx, value.name or "output"
        codes = ctx.codes(value)
        home = codes if codes is not None and codes.array is None else ctx.real(value)
        layout = self._output_layout(home)
        tensor = ctx.take(home, layout).tensor
        if home is codes and self.options.codes is not None and tensor.type == TensorType.INT8:
            assert tensor.quantization is not None  # codes have a scale
            tensor = ctx.requantise(tensor, self._at_the_end(tensor.quantization), self.options.codes, name)
        elif home is codes:
            y = ctx.program.tensor(name, TensorType.FLOAT32, tensor.shape)
            ctx.program.add("DEQUANTIZE", [tensor], [y])
            tensor = y
        taken = [t for _, t in (*ctx.program.inputs, *ctx.program.outputs)]
        if tensor in taken or tensor.data is not None:
            tensor = self._copy(tensor, name)
        tensor.name = name
        self.layouts[name] = layout.perm
        ctx.program.outputs.append((name, tensor))

    def _copy(self, tensor: Tensor, name: str) -> Tensor:
        program = self.ctx.program
        y = program.tensor(name, tensor.type, tensor.shape, tensor.quantization)
        target = self.ctx.ints([-1 if d is None else d for d in tensor.shape])
        program.add("RESHAPE", [tensor, target], [y], {})
        return y

    def _output_layout(self, home: Home) -> Layout:
        plain = identity(len(home.shape))
        if self.options.channels_last and len(home.shape) == 4 and home.array is None:
            lies = home.placements[0].layout
            if lies.perm == channels_last(4).perm and not lies.orders:
                return lies
        return plain


def _data_inputs(node: ir.Node) -> int:
    return _SHAPE_ONLY.get(node.op_type, len(node.inputs))


def live_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that the outputs depend on; shape arithmetic whose result is known is not among them."""
    live: set[ir.Node] = set()
    front: list[ir.Value | None] = list(graph.outputs)
    while front:
        value = front.pop()
        node = None if value is None else value.producer()
        if node is None or node in live:
            continue
        live.add(node)
        front.extend(node.inputs[: _data_inputs(node)])
    return live


def with_batch(model: ir.Model, batch: int) -> ir.Model:
    """A copy of ``model`` whose open batch axis has this size."""
    symbols = {d.value for v in model.graph.inputs for d in _open_axes(v)}
    if not symbols:
        for value in model.graph.inputs:
            first = value.shape[0] if value.shape is not None and len(value.shape) else batch
            if first != batch and batch != 1:
                hint = "Load the model with a free batch axis, or leave --batch out."
                raise UsageError(
                    f"the model's batch is fixed at {first}", where=f"input {value.name!r}", hint=hint
                )
        return model
    copy = model.clone()
    stale = False
    for value in _values(copy.graph):
        axes = _open_axes(value)
        if value.shape is None or not axes:
            continue
        if all(axis.value in symbols for axis in axes):
            value.shape = ir.Shape([d if isinstance(d, int) else batch for d in value.shape])
        else:
            value.shape, stale = None, True
    if stale:
        from onnx_ir.passes.common import ShapeInferencePass

        copy = ShapeInferencePass()(copy).model
    return copy


def _open_axes(value: ir.Value) -> list[ir.SymbolicDim]:
    return [] if value.shape is None else [d for d in value.shape if isinstance(d, ir.SymbolicDim)]


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
