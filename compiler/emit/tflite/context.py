"""The state of a lowering: where every value of the ONNX graph lives in the TFLite program.

A value has up to two homes: its real numbers, and, behind a QuantizeLinear or DequantizeLinear, its codes. A home holds
the tensor in one or more layouts; a layout that nobody asked for is never made. Operators of the ``ops`` modules ask for
their operands here, in the form and the layout they need, and hand their results back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.layout import (
    UNIT,
    Layout,
    Shape,
    identity,
    same_bytes,
)
from edgec.compiler.emit.tflite.program import Program, Tensor
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import NUMPY_TYPE, Quantization
from edgec.graph.views import constant

Array = np.ndarray[Any, np.dtype[Any]]

TYPES: dict[ir.DataType, TensorType] = {
    ir.DataType.FLOAT: TensorType.FLOAT32,
    ir.DataType.FLOAT16: TensorType.FLOAT32,
    ir.DataType.DOUBLE: TensorType.FLOAT32,
    ir.DataType.INT32: TensorType.INT32,
    ir.DataType.INT64: TensorType.INT64,
    ir.DataType.BOOL: TensorType.BOOL,
    ir.DataType.INT8: TensorType.INT8,
    ir.DataType.UINT8: TensorType.UINT8,
    ir.DataType.INT16: TensorType.INT16,
    ir.DataType.UINT32: TensorType.UINT32,
}
"""Inputs and outputs of float16 and float64 are float32 in the file: TFLite's kernels know no others."""

MAX_TRANSPOSE_RANK = 6
PLAIN_HINT = "Cut the model before this node with --split-unsupported, or replace it in the source network."


class RefusalError(Exception):
    """TFLite cannot take a node: why, and what to do about it."""

    def __init__(self, why: str, hint: str = PLAIN_HINT) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


class FixedBatchError(Exception):
    """An operator bakes the batch size into a constant; the whole program is emitted anew with batch 1."""


@dataclass(frozen=True)
class Placed:
    """A tensor and the layout in which it holds a value."""

    tensor: Tensor
    layout: Layout


@dataclass(eq=False)
class Home:
    """One form (real numbers or codes) of a value; ``array`` is set for constants, in ONNX order."""

    name: str
    shape: Shape
    placements: list[Placed] = field(default_factory=list)
    array: Array | None = None
    quantization: Quantization | None = None
    unflatten: Callable[[], Placed] | None = None
    """Makes the ONNX-ordered tensor from before a flattening, cheaper than sorting the flattened one."""
    real: Home | None = None
    """Of codes: the dequantised numbers, once somebody asked."""


class Lowering:
    """Operands and results of the nodes of one model, and the program that grows from them."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.program: Program = Program()
        self.done: set[ir.Node] = set()
        """Nodes that an earlier operator took with it: fused activations."""
        self._real: dict[ir.Value, Home] = {}
        self._codes: dict[ir.Value, Home] = {}
        self._reshaped_from: dict[Tensor, Tensor] = {}

    # shapes and types

    def shape(self, value: ir.Value | None) -> Shape:
        """The ONNX shape; None for the open batch axis. Refuses unknown ranks, empty tensors, and further open axes."""
        if value is None or value.shape is None:
            raise RefusalError("the shape of an operand is not known", "Give the input shape: --input-shape.")
        shape = tuple(d if isinstance(d, int) else None for d in value.shape)
        if sum(d is None for d in shape) > 1:
            raise RefusalError(
                f"{value.name!r} has more than one open axis: {value.shape}", "Fix it with --input-shape."
            )
        if 0 in shape:
            raise RefusalError(f"{value.name!r} is an empty tensor")
        return shape

    def kind(self, value: ir.Value) -> TensorType:
        """The TFLite type of a value's real form."""
        if value.dtype is None:
            return TensorType.FLOAT32
        if value.dtype not in TYPES:
            raise RefusalError(
                f"{value.name!r} is of type {value.dtype.name}", "Use float32 in the source network."
            )
        return TYPES[value.dtype]

    # homes

    def real(self, value: ir.Value) -> Home:
        """The real numbers of a value; codes are dequantised."""
        if value in self._real:
            return self._real[value]
        if value in self._codes:
            return self._dequantised(value, self._codes[value])
        array = constant(value)
        if array is None:
            raise RefusalError(f"operand {value.name!r} is computed by a node that TFLite cannot take")
        if array.size == 0:
            raise RefusalError(f"{value.name!r} is an empty constant")
        if array.dtype.name not in NUMPY_TYPE.values():
            raise RefusalError(f"constant {value.name!r} is of type {array.dtype.name}")
        home = Home(value.name or "constant", tuple(array.shape), array=array)
        self._real[value] = home
        return home

    def codes(self, value: ir.Value) -> Home | None:
        """The codes of a value, where it has any."""
        return self._codes.get(value)

    def bind(self, value: ir.Value, placed: Placed) -> Home:
        """``value``'s real numbers are in this tensor."""
        home = Home(value.name or "value", self.shape(value), [placed])
        self._real[value] = home
        return home

    def bind_codes(self, value: ir.Value, home: Home) -> None:
        """``value``'s codes live here."""
        self._codes[value] = home

    def bind_constant(self, value: ir.Value, home: Home) -> None:
        """``value`` is a constant."""
        self._real[value] = home

    def known(self, value: ir.Value) -> bool:
        """True when the value has been computed or is a constant."""
        return value in self._real or value in self._codes or constant(value) is not None

    def _dequantised(self, value: ir.Value, codes: Home) -> Home:
        if codes.real is None:
            codes.real = Home(value.name or codes.name, codes.shape)
            if codes.array is not None:
                codes.real.array = dequantise(codes.array, codes.quantization)
            else:
                source = codes.placements[0]
                shape = source.tensor.shape
                y = self.program.tensor(codes.real.name, TensorType.FLOAT32, shape)
                self.program.add("DEQUANTIZE", [source.tensor], [y])
                codes.real.placements.append(Placed(y, source.layout))
        return codes.real

    # layouts

    def take(self, home: Home, layout: Layout | None = None, free: Collection[int] = ()) -> Placed:
        """``home``'s tensor in ``layout`` (None: as it lies). Shuffles of the ``free`` axes may be any."""
        if home.array is not None:
            layout = layout or identity(len(home.shape))
            array = layout.place(home.array)
            return Placed(self.program.constant(home.name, array, home.quantization), layout)
        if layout is None:
            return home.placements[0]
        for placed in home.placements:
            if _fits(placed.layout, layout, free):
                return placed
        placed = self._converted(home, layout, free)
        home.placements.append(placed)
        return placed

    def take_identity(self, home: Home) -> Placed:
        """In ONNX order."""
        return self.take(home, identity(len(home.shape)))

    def _converted(self, home: Home, layout: Layout, free: Collection[int]) -> Placed:
        for placed in home.placements:
            wanted = _adopt_orders(placed.layout, layout, free)
            if same_bytes(placed.layout, wanted, home.shape):
                return Placed(self.reshape(placed.tensor, wanted.shape(home.shape), home.name), wanted)
        source = home.placements[0]
        wanted = _adopt_orders(source.layout, layout, free)
        if source.layout.orders != wanted.orders:
            if home.unflatten is not None:
                unflatten, home.unflatten = home.unflatten, None
                home.placements.append(unflatten())
                return self.take(home, layout, free)
            source = self._sorted(home, source, wanted)
        return self._transposed(home, source, wanted)

    def _sorted(self, home: Home, source: Placed, wanted: Layout) -> Placed:
        """Bring the shuffles of ``source`` to those of ``wanted`` with one GATHER per axis."""
        tensor, layout = source.tensor, source.layout
        for axis in range(len(home.shape)):
            have, want = layout.order_of(axis), wanted.order_of(axis)
            if have == want:
                continue
            size = home.shape[axis] or 1
            place = np.argsort(np.arange(size) if have is None else np.asarray(have))
            index = place if want is None else place[np.asarray(want)]
            tensor = self.gather(tensor, layout.position(axis), index, home.name)
            layout = layout.with_orders({**dict(layout.orders), axis: want})
        return Placed(tensor, layout)

    def _transposed(self, home: Home, source: Placed, wanted: Layout) -> Placed:
        bare = [axis for axis in source.layout.perm if axis != UNIT]
        tensor = self.reshape(source.tensor, tuple(home.shape[axis] for axis in bare), home.name)
        target = [axis for axis in wanted.perm if axis != UNIT]
        perm = [bare.index(axis) for axis in target]
        if perm != list(range(len(perm))):
            if len(perm) > MAX_TRANSPOSE_RANK:
                raise RefusalError(
                    f"it needs a transposition of {len(perm)} axes, TFLite has {MAX_TRANSPOSE_RANK}"
                )
            shape = tuple(home.shape[axis] for axis in target)
            y = self.program.tensor(home.name, tensor.type, shape, tensor.quantization)
            order = self.program.constant("perm", np.asarray(perm, np.int32))
            self.program.add("TRANSPOSE", [tensor, order], [y])
            tensor = y
        return Placed(self.reshape(tensor, wanted.shape(home.shape), home.name), wanted)

    # small operators that many nodes need

    def reshape(self, tensor: Tensor, shape: Shape, name: str) -> Tensor:
        """``tensor`` under another shape; a chain of reshapes reads from its beginning."""
        if tensor.shape == shape:
            return tensor
        source = self._reshaped_from.get(tensor, tensor)
        if source.shape == shape:
            return source
        if sum(d is None for d in shape) > 1:
            raise FixedBatchError
        y = self.program.tensor(name, tensor.type, shape, tensor.quantization)
        target = self.program.constant("shape", np.asarray([-1 if d is None else d for d in shape], np.int32))
        self.program.add("RESHAPE", [source, target], [y], {})
        self._reshaped_from[y] = source
        return y

    def gather(self, tensor: Tensor, axis: int, index: Array, name: str) -> Tensor:
        """Rows ``index`` of a physical axis."""
        shape = (*tensor.shape[:axis], len(index), *tensor.shape[axis + 1 :])
        y = self.program.tensor(name, tensor.type, shape, tensor.quantization)
        indices = self.program.constant("indices", np.asarray(index, np.int32))
        self.program.add("GATHER", [tensor, indices], [y], {"axis": axis, "batch_dims": 0})
        return y

    def requantise(self, tensor: Tensor, quantization: Quantization, kind: TensorType, name: str) -> Tensor:
        """The same numbers in other codes; from real numbers too."""
        if tensor.quantization == quantization and tensor.type == kind:
            return tensor
        y = self.program.tensor(name, kind, tensor.shape, quantization)
        self.program.add("QUANTIZE", [tensor], [y])
        return y

    def before_reshape(self, tensor: Tensor) -> Tensor:
        """The tensor whose bytes ``tensor`` shows under another shape, or itself."""
        return self._reshaped_from.get(tensor, tensor)

    def ints(self, values: Sequence[int]) -> Tensor:
        """A constant int32 vector: axes, sizes, paddings."""
        return self.program.constant("ints", np.asarray(values, np.int32))


def dequantise(codes: Array, quantization: Quantization | None) -> Array:
    """Real numbers of constant codes, float32."""
    if quantization is None:
        return codes
    scale = np.asarray(quantization.scale, np.float32)
    zero = np.asarray(quantization.zero_point, np.int64)
    if scale.size > 1:
        along = [1] * codes.ndim
        along[quantization.axis] = -1
        scale, zero = scale.reshape(along), zero.reshape(along)
    return ((codes.astype(np.int64) - zero) * scale.astype(np.float64)).astype(np.float32)


def _fits(have: Layout, want: Layout, free: Collection[int]) -> bool:
    return have.perm == want.perm and have.orders == _adopt_orders(have, want, free).orders


def _adopt_orders(have: Layout, want: Layout, free: Collection[int]) -> Layout:
    """``want`` with the shuffles that ``have`` already has on the free axes."""
    orders = dict(want.orders) | {axis: order for axis, order in have.orders if axis in free}
    return want.with_orders(dict(orders))
