"""A short way to write a convolutional network down: each call appends a node and gives what it computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.views import Array

Value = ir.Value
Attribute = int | Sequence[int]


def divisible(channels: float, by: int = 8) -> int:
    """Nearest multiple of ``by``, never more than 10 % below ``channels`` (the MobileNet rule)."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


class Net:
    """A graph under construction; values are NCHW with batch 1."""

    def __init__(self, name: str, size: int, channels: int = 3) -> None:
        self.input: ir.Value = ir.Value(
            name="input", shape=ir.Shape([1, channels, size, size]), type=ir.TensorType(ir.DataType.FLOAT)
        )
        self.graph: ir.Graph = ir.Graph([self.input], [], nodes=[], opset_imports={"": 18}, name=name)

    def model(self, output: Value) -> ir.Model:
        """The finished model with one output."""
        self.graph.outputs.append(output)
        return ir.Model(self.graph, ir_version=10, producer_name="edgec-bench")

    def weight(self, name: str, *shape: int) -> Value:
        """An initialiser of zeros that all share one number in memory."""
        return self._constant(name, np.broadcast_to(np.float32(0), shape))

    def _constant(self, name: str, array: Array) -> Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def op(self, op: str, inputs: Sequence[Value], shape: Sequence[int], **attributes: Attribute) -> Value:
        """One node with one output of the given shape."""
        name = f"{op.lower()}_{len(self.graph)}"
        node = ir.node(op, list(inputs), attributes or None, name=name)
        node.outputs[0].name = f"{name}_out"
        node.outputs[0].shape = ir.Shape(shape)
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        self.graph.append(node)
        return node.outputs[0]

    def conv(
        self, x: Value, out: int, kernel: int = 1, stride: int = 1, group: int = 1, pad: int | None = None
    ) -> Value:
        """Convolution with bias; ``pad`` None keeps the size (divided by the stride, rounded up)."""
        _, channels, height, width = dims(x)
        if pad is None:
            rows, columns = -(-height // stride), -(-width // stride)
            total = max((rows - 1) * stride + kernel - height, 0)
            pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        else:
            rows, columns = ((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
            pads = [pad] * 4
        n = len(self.graph)
        weight = self.weight(f"w{n}", out, channels // group, kernel, kernel)
        return self.op(
            "Conv", [x, weight, self.weight(f"b{n}", out)], [1, out, rows, columns],
            kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pads, group=group,
        )  # fmt: skip

    def line(self, x: Value, out: int, axis: int, kernel: int = 3) -> Value:
        """Convolution along one axis (0: down, 1: across) of stride 1, with bias, the size kept."""
        n, sides = len(self.graph), [kernel if axis == 0 else 1, kernel if axis == 1 else 1]
        pads = [side // 2 for side in sides]
        weight = self.weight(f"w{n}", out, dims(x)[1], *sides)
        return self.op(
            "Conv", [x, weight, self.weight(f"b{n}", out)], [1, out, *dims(x)[2:]],
            kernel_shape=sides, strides=[1, 1], pads=[*pads, *pads], group=1,
        )  # fmt: skip

    def depthwise(self, x: Value, kernel: int = 3, stride: int = 1, pad: int | None = None) -> Value:
        """Depthwise convolution."""
        channels = dims(x)[1]
        return self.conv(x, channels, kernel, stride, channels, pad)

    def fc(self, x: Value, out: int) -> Value:
        """Fully connected layer on a flat value."""
        n, features = len(self.graph), int(np.prod(dims(x)[1:]))
        if len(dims(x)) == 4:
            x = self.op("Flatten", [x], [1, features], axis=1)
        return self.op(
            "Gemm", [x, self.weight(f"w{n}", out, features), self.weight(f"b{n}", out)], [1, out], transB=1
        )

    def unary(self, op: str, x: Value, **attributes: Attribute) -> Value:
        """An elementwise node of one operand."""
        return self.op(op, [x], dims(x), **attributes)

    def relu(self, x: Value) -> Value:
        """Relu."""
        return self.unary("Relu", x)

    def relu6(self, x: Value) -> Value:
        """min(max(x, 0), 6), as exporters write it: a Clip."""
        n = len(self.graph)
        low, high = (self._constant(f"clip{n}_{v}", np.array(v, dtype=np.float32)) for v in (0, 6))
        return self.op("Clip", [x, low, high], dims(x))

    def swish(self, x: Value) -> Value:
        """x * sigmoid(x)."""
        return self.op("Mul", [x, self.unary("Sigmoid", x)], dims(x))

    def hard_swish(self, x: Value) -> Value:
        """x * clip(x + 3, 0, 6) / 6."""
        return self.unary("HardSwish", x)

    def binary(self, op: str, a: Value, b: Value) -> Value:
        """Add or Mul; ``b`` may be broadcast over the pixels of ``a``."""
        return self.op(op, [a, b], dims(a))

    def global_pool(self, x: Value) -> Value:
        """Mean over the pixels."""
        return self.op("GlobalAveragePool", [x], [1, dims(x)[1], 1, 1])

    def pool(self, op: str, x: Value, kernel: int, stride: int, pad: int = 0, ceil: bool = True) -> Value:
        """MaxPool or AveragePool."""
        _, channels, height, width = dims(x)
        size = [
            -(-(n + 2 * pad - kernel) // stride) + 1 if ceil else (n + 2 * pad - kernel) // stride + 1
            for n in (height, width)
        ]
        return self.op(
            op, [x], [1, channels, *size], kernel_shape=[kernel, kernel], strides=[stride, stride],
            pads=[pad] * 4, ceil_mode=int(ceil),
        )  # fmt: skip

    def concat(self, *values: Value) -> Value:
        """Concatenation of channels."""
        _, _, height, width = dims(values[0])
        return self.op("Concat", values, [1, sum(dims(v)[1] for v in values), height, width], axis=1)

    def slice_channels(self, x: Value, start: int, stop: int) -> Value:
        """Channels ``start`` to ``stop``."""
        _, _, height, width = dims(x)
        n = len(self.graph)
        bounds = [
            self._constant(f"{k}{n}", np.array([v]))
            for k, v in (("start", start), ("stop", stop), ("axis", 1))
        ]
        return self.op("Slice", [x, *bounds], [1, stop - start, height, width])

    def shuffle(self, x: Value, groups: int) -> Value:
        """Channel shuffle, as exporters write it: Reshape, Transpose, Reshape."""
        _, channels, height, width = dims(x)
        n, per = len(self.graph), channels // groups
        split = self._constant(f"split{n}", np.array([1, groups, per, height, width]))
        join = self._constant(f"join{n}", np.array([1, channels, height, width]))
        y = self.op("Reshape", [x, split], [1, groups, per, height, width])
        y = self.op("Transpose", [y], [1, per, groups, height, width], perm=[0, 2, 1, 3, 4])
        return self.op("Reshape", [y, join], [1, channels, height, width])

    def classifier(self, x: Value, classes: int) -> ir.Model:
        """Global pool, fully connected layer, softmax: the finished model."""
        if len(dims(x)) == 4 and dims(x)[2] > 1:
            x = self.global_pool(x)
        return self.model(self.unary("Softmax", self.fc(x, classes), axis=1))


def dims(value: Value) -> list[int]:
    """The static shape of a value."""
    assert value.shape is not None
    return [int(d) for d in value.shape.numpy()]
