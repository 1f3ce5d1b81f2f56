"""The state of a translation: which ONNX value holds each TFLite tensor, and in which order of axes.

TFLite keeps pictures channels last, ONNX's layers want them channels first. A tensor has one or more homes, each an ONNX value
and the order of its axes; an operator asks for the order that it needs, and an order that nobody asked for is never made. So
Transposes stand at the ends of the network and where the file really mixes axes (a reshape), not around each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.names import free_name
from edgec.graph.read.codes import Params, dequantised
from edgec.graph.tflite.densify import dense
from edgec.graph.tflite.lift.sizes import true_shapes
from edgec.graph.tflite.read import TensorInfo, TfliteFile
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import NUMPY_TYPE, Quantization

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]
Order = tuple[int, ...]
"""Of an ONNX value: for each of its axes the axis of the TFLite tensor."""

CHANNELS_FIRST: Order = (0, 3, 1, 2)
CODES = (TensorType.INT8, TensorType.UINT8, TensorType.INT16)
_PAIRED = (TensorType.INT8, TensorType.UINT8)
"""16-bit codes are symmetric and fine: that they were rounded and where they end tells nothing."""
MOST_BYTES = (1 << 31) - 1
"""Of the constants together: what one protobuf message can hold."""


@dataclass(frozen=True)
class Home:
    """An ONNX value that holds a tensor, and the order of its axes."""

    name: str
    order: Order


class Lifting:
    """ONNX nodes and constants that grow from one file."""

    def __init__(self, file: TfliteFile) -> None:
        self.file = file
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.weights: set[str] = set()
        """Types of stored constants that are not float32: what the note says."""
        self._homes: dict[int, list[Home]] = {}
        self._constants: dict[int, Array] = {}
        self._stored: dict[tuple[int, Order], str] = {}
        self._coded: dict[str, Quantization] = {}
        self._taken: set[str] = set()
        self._left = MOST_BYTES
        self._shapes = true_shapes(file)

    # tensors

    def tensor(self, index: int) -> TensorInfo:
        return self.file.tensors[index]

    def shape(self, index: int) -> Shape:
        """Of a tensor, in the file's order; open axes have the size that they have for one batch of the file's own size."""
        return self._shapes.get(index, self.tensor(index).shape)

    def constant(self, index: int) -> Array | None:
        """The numbers of a constant, in the file's order: codes as the real numbers that they stand for, halves widened."""
        if index not in self._constants and self.tensor(index).data is not None:
            self._constants[index] = self._read(self.tensor(index))
        return self._constants.get(index)

    def _read(self, tensor: TensorInfo) -> Array:
        if tensor.type not in NUMPY_TYPE:
            raise UnsupportedError(
                f"constants of type {tensor.type.name} are not supported", where=f"tensor {tensor.name!r}"
            )
        array = tensor.array() if tensor.sparsity is None else dense(tensor)
        if tensor.type == TensorType.FLOAT16:
            self.weights.add("float16")
            return array.astype(np.float32)
        if tensor.quantization is None or array.dtype.kind not in "iu":
            return array
        if tensor.type in CODES:
            self.weights.add(array.dtype.name)
        return dequantised(array, params_of(tensor.quantization, array.dtype))

    def is_known(self, index: int) -> bool:
        return index in self._homes or self.constant(index) is not None

    # homes

    def preferred(self, index: int) -> Order:
        """The order in which an operator that takes any finds it cheapest to read a tensor."""
        rank = len(self.shape(index))
        if index in self.file.inputs and rank == 4:
            return CHANNELS_FIRST
        homes = self._homes.get(index)
        return tuple(range(rank)) if homes is None else homes[0].order

    def take(self, index: int, order: Order) -> str:
        """The ONNX value that holds a tensor in this order."""
        array = self.constant(index)
        if array is not None:
            if (index, order) not in self._stored:
                self._stored[index, order] = self.store(np.transpose(array, order), self.stem(index))
            return self._stored[index, order]
        homes = self.homes(index)
        for home in homes:
            if home.order == order:
                return home.name
        source = homes[0]
        perm = [source.order.index(axis) for axis in order]
        name = self.op("Transpose", [source.name], f"{self.stem(index)}_transpose", perm=perm)
        homes.append(Home(name, order))
        return name

    def weight(self, index: int, order: Order, stem: str) -> str:
        """A constant weight in this order; signed codes around zero stay codes, which reading then takes the scales of."""
        tensor, array = self.tensor(index), self.constant(index)
        codes = tensor.quantization
        if array is None:
            return self.take(index, order)
        if (
            codes is None
            or tensor.type != TensorType.INT8
            or tensor.sparsity is not None
            or any(codes.zero_point)
        ):
            return self.store(np.transpose(array, order), stem)
        params = params_of(codes, np.dtype(np.int8))
        stored = self.store(np.transpose(tensor.array(), order), f"{stem}_codes")
        scale = self.store(params.scale, f"{stem}_scale")
        axis = None if params.axis is None else order.index(params.axis)
        return self.op("DequantizeLinear", [stored, scale, self._zeros(params, stem)], stem, axis=axis)

    def _zeros(self, params: Params, stem: str) -> str:
        return self.store(np.broadcast_to(params.zero, params.scale.shape), f"{stem}_zero")

    def homes(self, index: int) -> list[Home]:
        """Where a computed tensor lives. Raises ModelError for one that nothing has computed."""
        if index not in self._homes:
            why = f"tensor {self.tensor(index).name!r} is read before anything writes it"
            raise ModelError("the TFLite file is damaged", why=why)
        return self._homes[index]

    def flat(self, index: int) -> str:
        """A value whose elements lie as in the file, whatever its axes are: orders may differ in axes of size 1."""
        if self.constant(index) is None and index not in self.file.inputs:
            shape = self.shape(index)
            for home in self.homes(index):
                wide = [axis for axis in home.order if shape[axis] != 1]
                if wide == sorted(wide):
                    return home.name
        return self.take(index, tuple(range(len(self.shape(index)))))

    def give(self, index: int, name: str, order: Order) -> None:
        """``name`` holds the tensor. Where the file has codes, a pair of Q and DQ says so; reading takes it out again."""
        if self.is_known(index):
            why = f"tensor {self.tensor(index).name!r} is written twice"
            raise ModelError("the TFLite file is damaged", why=why)
        if sorted(order) != list(range(len(self.shape(index)))):
            why = f"tensor {self.tensor(index).name!r} has {len(self.shape(index))} axes, its operator gives {len(order)}"
            raise ModelError("the TFLite file is damaged", why=why)
        tensor = self.tensor(index)
        codes = tensor.quantization
        if codes is not None and tensor.type in _PAIRED and self._coded.get(name) != codes:
            name = self._paired(name, codes, tensor)
        self._homes[index] = [Home(name, order)]

    def give_constant(self, index: int, array: Array) -> None:
        self._constants[index] = array

    def give_input(self, index: int, name: str) -> None:
        self._homes[index] = [Home(name, tuple(range(len(self.shape(index)))))]

    def _paired(self, name: str, codes: Quantization, tensor: TensorInfo) -> str:
        params = params_of(codes, np.dtype(NUMPY_TYPE[tensor.type]))
        if params.scale.size != 1:
            raise UnsupportedError(
                "an activation with a scale per channel",
                where=f"tensor {tensor.name!r}",
                why="TFLite has none",
            )
        parts = [self.store(params.scale, f"{name}_scale"), self.store(params.zero, f"{name}_zero")]
        quantised = self.op("QuantizeLinear", [name, *parts], f"{name}_quantize")
        result = self.op("DequantizeLinear", [quantised, *parts], f"{name}_dequantize")
        self._coded[result] = codes
        return result

    # ONNX

    def op(
        self, op_type: str, inputs: Sequence[str], stem: str, *, domain: str = "", **attributes: Any
    ) -> str:
        """Append a node with one result; the name of both."""
        return self.ops(op_type, inputs, [stem], domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[str],
        stems: Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Append a node with a result for each of ``stems``."""
        names = [self.free(stem) for stem in stems]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, name=names[0], domain=domain, **given)
        )
        return names

    def store(self, array: Array, stem: str) -> str:
        """A new constant; the name of it."""
        self._left -= array.nbytes
        if self._left < 0:
            raise ModelError(
                "models above 2 GB are not supported", why="its constants written out are larger"
            )
        name = self.free(stem)
        self.initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
        return name

    def ints(self, values: Sequence[int], stem: str) -> str:
        """A vector of int64: shapes, axes, pads."""
        return self.store(np.asarray(values, np.int64), stem)

    def stem(self, index: int) -> str:
        """What names derived from a tensor begin with: converters join the names of all that they fused by ';'."""
        return self.tensor(index).name.split(";")[0] or f"tensor_{index}"

    def free(self, stem: str) -> str:
        """``stem``, with a number where it is taken; taken from now on."""
        return free_name(stem, self._taken)


def params_of(codes: Quantization, kind: np.dtype[Any]) -> Params:
    """Scales and zero points as arrays; of one entry each, without an axis, where all codes share them."""
    scale, zero = np.asarray(codes.scale, np.float32), np.asarray(codes.zero_point, np.int64).astype(kind)
    if scale.size != zero.size and zero.size != 1:
        raise ValueError("as many zero points as scales are needed")
    if scale.size == 1:
        return Params(scale.reshape(()), zero.reshape(-1)[:1].reshape(()))
    return Params(scale, zero, axis=codes.axis)
