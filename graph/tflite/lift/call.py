"""One operator of a file being translated: its operands in the orders that it needs, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.tflite.lift.lifting import CHANNELS_FIRST, CODES, Array, Lifting, Order, Shape
from edgec.graph.tflite.read import OperatorInfo, TensorInfo
from edgec.graph.tflite.schema import ActivationFunctionType as Activation

Handler = Callable[["Call"], None]
_BOUNDS = {Activation.RELU_N1_TO_1: (-1.0, 1.0), Activation.RELU6: (0.0, 6.0)}


class Call:
    """``inputs`` and ``outputs`` are tensors of the file, by index; -1 for an operand left out."""

    def __init__(self, lifting: Lifting, op: OperatorInfo, number: int) -> None:
        self.lifting = lifting
        self.op = op
        self.number = number

    @property
    def where(self) -> str:
        """The operator as messages name it."""
        name = self.lifting.stem(self.op.outputs[0]) if self.op.outputs else ""
        return f"operator {self.number} ({self.op.code}) {name!r}"

    @property
    def stem(self) -> str:
        """What names of its nodes begin with: that of its result."""
        return self.lifting.stem(self.output())

    def option(self, name: str, default: Any) -> Any:
        """An option; ``default`` where the file holds no options at all."""
        return self.op.options.get(name, default)

    # operands

    def has(self, at: int) -> bool:
        """Whether operand ``at`` is given."""
        return at < len(self.op.inputs) and self.op.inputs[at] >= 0

    def index(self, at: int = 0) -> int:
        """The tensor of operand ``at``. Raises ModelError where it is missing."""
        if not self.has(at):
            raise ModelError(
                "the TFLite file is damaged", where=self.where, why=f"its operand {at} is missing"
            )
        return self.op.inputs[at]

    def output(self, at: int = 0) -> int:
        """The tensor of a result."""
        if at >= len(self.op.outputs) or self.op.outputs[at] < 0:
            raise ModelError(
                "the TFLite file is damaged", where=self.where, why=f"its result {at} is missing"
            )
        return self.op.outputs[at]

    def tensor(self, at: int = 0) -> TensorInfo:
        return self.lifting.tensor(self.index(at))

    def shape(self, at: int = 0) -> Shape:
        return self.lifting.shape(self.index(at))

    def out_shape(self, at: int = 0) -> Shape:
        return self.lifting.shape(self.output(at))

    def take(self, at: int, order: Order) -> str:
        """Operand ``at`` in this order of axes."""
        return self.lifting.take(self.index(at), order)

    def plain(self, at: int = 0) -> str:
        """Operand ``at`` as it lies in the file."""
        return self.take(at, tuple(range(len(self.shape(at)))))

    def picture(self, at: int = 0) -> str:
        """Operand ``at`` channels first. Raises UnsupportedError for one that is no picture."""
        if len(self.shape(at)) != 4:
            raise self.unsupported(f"its operand has {len(self.shape(at))} axes")
        return self.take(at, CHANNELS_FIRST)

    def preferred(self, at: int = 0) -> Order:
        return self.lifting.preferred(self.index(at))

    def constant(self, at: int, what: str) -> Array:
        """The numbers of a constant operand. Raises UnsupportedError where they are computed."""
        array = self.lifting.constant(self.index(at))
        if array is None:
            raise self.unsupported(f"its {what} is computed")
        return array

    def weight(self, order: Order, own: bool = True) -> str:
        """Operand 1, a layer's weight, in this order of axes; ``own``: its computed form has the layer's name.

        Where the layer makes codes, a weight stays codes until the network is read, which then knows their scales.
        """
        array, stem = self.lifting.constant(self.index(1)), f"{self.stem}_weight"
        if array is not None and self.lifting.tensor(self.output()).type in CODES:
            return self.lifting.weight(self.index(1), order, stem)
        if array is None or not own:
            return self.take(1, order)
        return self.lifting.store(np.transpose(array, order), stem)

    def ints(self, at: int, what: str) -> list[int]:
        """A constant operand as whole numbers."""
        return [int(v) for v in self.constant(at, what).reshape(-1)]

    def axis(self, value: int, rank: int | None = None) -> int:
        """An axis counted from the front. Raises ModelError for one that is not there."""
        rank = len(self.shape()) if rank is None else rank
        if not -rank <= value < rank:
            why = f"axis {value} of {rank}"
            raise ModelError("the TFLite file is damaged", where=self.where, why=why)
        return value % rank

    # results

    def add(self, op_type: str, inputs: Sequence[str], stem: str | None = None, **attributes: Any) -> str:
        """Append an ONNX node; the name of its result."""
        return self.lifting.op(op_type, inputs, stem or self.stem, **attributes)

    def finish(self, name: str, order: Order, at: int = 0) -> None:
        """``name`` is the result in this order of axes, before the activation that is fused into the operator."""
        self.lifting.give(self.output(at), self._activated(name), order)

    def _activated(self, name: str) -> str:
        code = int(self.option("fused_activation_function", 0))
        if code == Activation.NONE:
            return name
        if code == Activation.RELU:
            return self.add("Relu", [name], f"{self.stem}_relu")
        if code == Activation.TANH:
            return self.add("Tanh", [name], f"{self.stem}_tanh")
        if code not in _BOUNDS:
            raise self.unsupported(f"fused activation {code}")
        return self.clip(name, *_BOUNDS[Activation(code)])

    def clip(self, name: str, low: float, high: float) -> str:
        """``name`` between two numbers."""
        bounds = [self.lifting.store(np.asarray(b, np.float32), f"{self.stem}_bound") for b in (low, high)]
        return self.add("Clip", [name, *bounds], f"{self.stem}_clip")

    def unsupported(self, why: str) -> UnsupportedError:
        """An error that names this operator."""
        return UnsupportedError("this operator is not supported", where=self.where, why=why)


def plain_order(rank: int) -> Order:
    """The file's own."""
    return tuple(range(rank))
