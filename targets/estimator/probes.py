"""Networks to calibrate a machine with: random members of the known styles, small enough to run in milliseconds.

A third are whole (from an image down to a few pixels), a third a few blocks of one size, a third one kind of node again
and again, so that large and small activations, weights that fit into a cache and weights that do not, and every kind of
node are all met, and layers in pieces too. None is a network that people use: those stay unseen, and judge the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.targets.estimator.net import Net, Value, dims

_MACS = (150_000, 600_000_000)
_PARAMS = 12_000_000
Random = np.random.Generator


def probes(count: int, seed: int = 0) -> Iterator[tuple[str, ir.Model]]:
    """``count`` networks with random weights, the same for the same ``seed``."""
    made, number = 0, 0
    while made < count:
        rng = np.random.default_rng([seed, number])
        number += 1
        model = (_whole, _part, _single)[number % 3](rng, number)
        counted = cost(model)
        if _MACS[0] < counted.macs < _MACS[1] and counted.params < _PARAMS:
            _fill(model, rng)
            made += 1
            yield f"probe_{number}", model


def _whole(rng: Random, number: int) -> ir.Model:
    size = int(rng.choice([32, 32, 48, 64, 96, 128, 160, 192, 224]))
    net = Net(f"probe_{number}", size)
    x = net.relu6(net.conv(net.input, int(rng.choice([8, 16, 24, 32])), 3, 1 if size <= 48 else 2))
    channels, growth = dims(x)[1], float(rng.choice([1.5, 2, 2]))
    limit, style = int(rng.choice([128, 256, 512, 1024])), _style(rng)
    for _ in range(int(rng.integers(2, 5))):
        channels = _eights(min(limit, channels * growth))
        for i in range(int(rng.integers(1, 5))):
            stride = 2 if i == 0 and dims(x)[2] >= 8 else 1
            x = (style if rng.random() < 0.85 else _style(rng))(net, x, channels, stride, rng)
    if rng.random() < 0.4:
        x = net.relu(net.conv(x, int(rng.choice([256, 512, 1024, 1280]))))
    return net.classifier(x, int(rng.choice([2, 10, 100, 1000])))


def _part(rng: Random, number: int) -> ir.Model:
    size = int(rng.choice([4, 7, 8, 14, 16, 20, 28, 32, 40, 56, 64, 80, 112, 160]))
    most = 1024 if size <= 8 else min(1024, 2**17 / size**1.5)
    net = Net(f"probe_{number}", size, _eights(2 ** rng.uniform(3, max(3.1, math.log2(most)))))
    x, style = net.input, _style(rng)
    for _ in range(int(rng.integers(2, 7))):
        out = _eights(min(1024, dims(x)[1] * 2 ** rng.uniform(-0.7, 0.9)))
        large = dims(x)[2] >= 14
        stride = 2 if large and rng.random() < 0.25 else 1
        x = (style if rng.random() < 0.7 else _style(rng))(net, x, out, stride, rng)
        if dims(x)[2] >= 14 and rng.random() < 0.1:
            x = net.pool(str(rng.choice(["MaxPool", "AveragePool"])), x, int(rng.choice([2, 3])), 2)
    return net.classifier(x, int(rng.choice([2, 10, 100, 1000])))


def _single(rng: Random, number: int) -> ir.Model:
    kind = str(
        rng.choice(["first", "depthwise", "pointwise", "kernel", "linear"], p=[0.25, 0.35, 0.1, 0.1, 0.2])
    )
    size = int(rng.choice([8, 14, 28, 40, 56, 80, 112])) if kind != "linear" else 1
    most = min(1024, 2**20 / size**2)
    channels = 3 if kind == "first" else _eights(2 ** rng.uniform(3, math.log2(max(most, 9))))
    net = Net(f"probe_{number}", 2 * size if kind == "first" else size, channels)
    x, act = net.input, net.relu if rng.random() < 0.5 else net.relu6
    if kind == "first":
        stride = int(rng.choice([1, 2, 2]))
        x = act(net.conv(x, int(rng.choice([8, 16, 24, 32, 48, 64])), int(rng.choice([3, 3, 5, 7])), stride))
    elif kind == "linear":
        for _ in range(int(rng.integers(1, 3))):
            x = act(net.fc(x, _eights(2 ** rng.uniform(6, 11))))
    else:
        kernel = 1 if kind == "pointwise" else int(rng.choice([3, 3, 5]))
        for _ in range(int(rng.integers(3, 7))):
            stride = 2 if dims(x)[2] >= 14 and rng.random() < 0.2 else 1
            group = dims(x)[1] if kind == "depthwise" else 1
            x = act(net.conv(x, dims(x)[1], kernel, stride, group))
    return net.classifier(x, int(rng.choice([2, 10, 1000])))


def _eights(channels: float) -> int:
    return max(8, int(channels) // 8 * 8)


Block = Callable[[Net, Value, int, int, Random], Value]


def _plain(net: Net, x: Value, out: int, stride: int, rng: Random) -> Value:
    return net.relu(net.conv(x, out, int(rng.choice([1, 3, 3, 5])), stride))


def _separable(net: Net, x: Value, out: int, stride: int, rng: Random) -> Value:
    act = net.relu6 if rng.random() < 0.5 else net.relu
    return act(net.conv(act(net.depthwise(x, int(rng.choice([3, 3, 5])), stride)), out))


def _inverted(net: Net, x: Value, out: int, stride: int, rng: Random) -> Value:
    draw = rng.random()
    activate = (
        net.swish
        if draw < 0.25
        else net.hard_swish
        if draw < 0.35
        else net.relu
        if draw < 0.65
        else net.relu6
    )
    y = activate(net.conv(x, dims(x)[1] * int(rng.choice([2, 4, 6]))))
    y = activate(net.depthwise(y, int(rng.choice([3, 5])), stride))
    y = net.conv(y, dims(x)[1] if stride == 1 and rng.random() < 0.7 else out)
    return net.binary("Add", x, y) if dims(y) == dims(x) else y


def _residual(net: Net, x: Value, out: int, stride: int, rng: Random) -> Value:
    width = out if stride == 2 else dims(x)[1]
    y = net.conv(net.relu(net.conv(x, width, 3, stride)), width, 3)
    skip = x if dims(y) == dims(x) else net.conv(x, width, 1, stride)
    return net.relu(net.binary("Add", y, skip))


def _bottleneck(net: Net, x: Value, out: int, stride: int, rng: Random) -> Value:
    width = _eights(out / 4)
    y = net.conv(net.relu(net.conv(net.relu(net.conv(x, width)), width, 3, stride)), 4 * width)
    skip = x if dims(y) == dims(x) else net.conv(x, 4 * width, 1, stride)
    return net.relu(net.binary("Add", y, skip))


def _fire(net: Net, x: Value, out: int, stride: int, rng: Random) -> Value:
    squeeze = net.relu(net.conv(x, _eights(dims(x)[1] / 4)))
    half = _eights(out / 2)
    y = net.concat(net.relu(net.conv(squeeze, half)), net.relu(net.conv(squeeze, half, 3)))
    return net.pool("MaxPool", y, 3, 2) if stride == 2 else y


def _pieces(net: Net, x: Value, out: int, stride: int, rng: Random) -> Value:
    """A layer in two of some rank, as the decompositions leave it; ranks are of any width."""
    width = dims(x)[1]
    rank = int(rng.integers(2, max(4, min(width, out))))
    if stride == 1 and rng.random() < 0.6:
        first = int(rng.integers(2))
        return net.relu(net.line(net.line(x, rank, first), out, 1 - first))
    return net.relu(
        net.conv(net.conv(x, rank, int(rng.choice([1, 3])), stride), out, int(rng.choice([1, 3])))
    )


_STYLES: tuple[Block, ...] = (_plain, _separable, _inverted, _residual, _bottleneck, _fire, _pieces)


def _style(rng: Random) -> Block:
    return _STYLES[int(rng.integers(len(_STYLES)))]


def _fill(model: ir.Model, rng: Random) -> None:
    """Random weights of the usual size: constant ones would be quantised to nothing."""
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        shape = value.const_value.shape.numpy()
        if value.dtype != ir.DataType.FLOAT or not shape:
            continue
        scale = np.float32(math.sqrt(2 / max(1, math.prod(shape[1:])))) if len(shape) > 1 else np.float32(0)
        array = rng.standard_normal(shape, dtype=np.float32) * scale
        value.const_value = ir.tensor(array, name=value.name)
