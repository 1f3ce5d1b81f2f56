"""By how much a device's numbers may differ from the host's, where both run the same kernels.

Sums of codes are the same to the bit. Sums of real numbers are not: they are added in another order, and functions such as exp
differ in their last digit. Where such a number is rounded to a code, it may fall to the next one, and everything behind it moves.
So a file whose codes come from codes alone is compared bit for bit, what stands in real numbers behind them as real numbers are,
and a file that computes in real numbers between codes by a bound that another answer does not keep.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from edgec.compiler.check.onnx_view import DEQUANTIZE, QUANTIZE, OnnxView, attribute
from edgec.graph.spec import LAYERS
from edgec.graph.tflite.read import read
from edgec.graph.tflite.schema import TensorType

_CARRIES = frozenset(
    {
        "Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather",
        "Pad", "Concat", "Identity", "Min", "Max", "LeakyRelu", "DepthToSpace", "SpaceToDepth", "Expand",
    }
)  # fmt: skip
"""What computes no sums: it is as exact as what it is given."""
_SUMS = LAYERS | {"Add", "Sub", "Mul", "AveragePool", "GlobalAveragePool", "ReduceMean"}
"""What has kernels on codes, where all that it is given has codes."""


FLOAT = 1e-5
"""Of the largest value: sums of real numbers in another order."""
ROUNDED = 0.05
"""Of the largest value: codes that fell to the next one. An 8-bit code is 0.004 of its range."""


def allowed(path: Path, precision: str) -> float:
    """The share of the largest value by which the outputs of an ONNX or a TFLite file may differ; 0: not by a bit."""
    if precision in ("fp32", "fp16"):
        return FLOAT
    exact, ends_in_codes = (_tflite if path.suffix == ".tflite" else _onnx)(path)
    return (0.0 if ends_in_codes else FLOAT) if exact else ROUNDED


def _onnx(path: Path) -> tuple[bool, bool]:
    """Whether every QuantizeLinear of a computed value rounds sums of codes, and whether the outputs are codes."""
    walk = _Walk(OnnxView(onnx.load(path)))
    return walk.is_exact(), walk.ends_in_codes()


class _Walk:
    """From a graph's values back to where they come from."""

    def __init__(self, view: OnnxView) -> None:
        self.view = view

    def is_exact(self) -> bool:
        return all(self._alike(node.input[0]) for node in self.view.of(QUANTIZE))

    def ends_in_codes(self) -> bool:
        return all(map(self._from_codes, self.view.outputs))

    def _from_codes(self, name: str) -> bool:
        """Whether ``name`` carries the values of codes: nothing was summed since they were read."""
        node = self.view.makers.get(name)
        if node is None:
            return False
        if _carries(node):
            return all(one not in self.view.makers or self._from_codes(one) for one in _data(node))
        return node.op_type in (DEQUANTIZE, QUANTIZE, "ArgMax", "Constant")

    def _alike(self, name: str) -> bool:
        """Whether what is rounded is an input, a constant, codes, or sums of codes behind which nothing is summed."""
        node = self.view.makers.get(name)
        if node is None or self._from_codes(name):
            return True
        if _carries(node):
            return all(self._alike(one) for one in _data(node))
        return node.op_type in _SUMS and all(self._from_codes(one) for one in node.input if one)


def _carries(node: onnx.NodeProto) -> bool:
    return node.op_type in _CARRIES or (
        node.op_type == "Resize" and attribute(node, "mode", b"nearest") == b"nearest"
    )


def _data(node: onnx.NodeProto) -> list[str]:
    """The inputs that carry values, not shapes or bounds."""
    several = node.op_type in ("Concat", "Min", "Max")
    return [name for name in (node.input if several else node.input[:1]) if name]


def _tflite(path: Path) -> tuple[bool, bool]:
    """Whether no QUANTIZE in the body reads real numbers that were computed, and whether the outputs are codes."""
    file = read(path)
    makers = {output: op for op in file.operators for output in op.outputs}
    real = (TensorType.FLOAT32, TensorType.FLOAT16)

    def computed(tensor: int) -> bool:
        """Real numbers that are no codes read back."""
        op = makers.get(tensor)
        return op is not None and file.tensors[tensor].type in real and op.code != "DEQUANTIZE"

    exact = not any(op.code == "QUANTIZE" and computed(op.inputs[0]) for op in file.operators)
    return exact, not any(map(computed, file.outputs))
