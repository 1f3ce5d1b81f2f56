"""MobileNet V1 (arXiv 1704.04861), V2 (1801.04381), V3 (1905.02244), with the 1001 classes of the TensorFlow models."""

from __future__ import annotations

import onnx_ir as ir

from edgec.targets.estimator.net import Net, Value, dims, divisible


def mobilenet_v1(width: float, size: int) -> ir.Model:
    """MobileNet V1 with a width multiplier."""
    net = Net("mobilenet_v1", size)
    x = net.relu(net.conv(net.input, int(32 * width), 3, 2))
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in plan:
        x = net.relu(net.depthwise(x, 3, stride))
        x = net.relu(net.conv(x, int(out * width)))
    return net.classifier(x, 1001)


def inverted(
    net: Net,
    x: Value,
    expand: int,
    out: int,
    kernel: int,
    stride: int,
    act: str,
    squeeze: int = 0,
    gate: str = "HardSigmoid",
) -> Value:
    """Inverted residual: pointwise expansion, depthwise, optional gate, linear pointwise projection."""

    def activate(y: Value) -> Value:
        return {"relu": net.relu, "hswish": net.hard_swish, "swish": net.swish}[act](y)

    y = activate(net.conv(x, expand)) if expand != dims(x)[1] else x
    y = net.depthwise(y, kernel, stride)
    if gate == "HardSigmoid":  # MobileNet V3 squeezes before the activation, EfficientNet after it
        y = activate(excite(net, y, squeeze, "relu", gate)) if squeeze else activate(y)
    else:
        y = activate(y)
        y = excite(net, y, squeeze, act, gate) if squeeze else y
    y = net.conv(y, out)
    return net.binary("Add", x, y) if stride == 1 and dims(x) == dims(y) else y


def excite(net: Net, x: Value, squeeze: int, act: str, gate: str) -> Value:
    """Squeeze-and-excite: one gate per channel from the mean of all channels."""
    s = net.conv(net.global_pool(x), squeeze)
    s = net.swish(s) if act == "swish" else net.relu(s)
    return net.binary("Mul", x, net.unary(gate, net.conv(s, dims(x)[1])))


def mobilenet_v2(width: float, size: int) -> ir.Model:
    """MobileNet V2 with a width multiplier."""
    net = Net("mobilenet_v2", size)
    x = net.relu(net.conv(net.input, divisible(32 * width), 3, 2))
    plan = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for factor, out, repeats, stride in plan:
        for i in range(repeats):
            x = inverted(
                net, x, dims(x)[1] * factor, divisible(out * width), 3, stride if i == 0 else 1, "relu"
            )
    return net.classifier(net.relu(net.conv(x, divisible(1280 * max(1.0, width)))), 1001)


# kernel, expansion, out, squeeze?, activation, stride
_LARGE = [
    (3, 16, 16, False, "relu", 1), (3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2), (5, 120, 40, True, "relu", 1), (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hswish", 2), (3, 200, 80, False, "hswish", 1), (3, 184, 80, False, "hswish", 1),
    (3, 184, 80, False, "hswish", 1), (3, 480, 112, True, "hswish", 1), (3, 672, 112, True, "hswish", 1),
    (5, 672, 160, True, "hswish", 2), (5, 960, 160, True, "hswish", 1), (5, 960, 160, True, "hswish", 1),
]  # fmt: skip
_SMALL = [
    (3, 16, 16, True, "relu", 2), (3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hswish", 2), (5, 240, 40, True, "hswish", 1), (5, 240, 40, True, "hswish", 1),
    (5, 120, 48, True, "hswish", 1), (5, 144, 48, True, "hswish", 1), (5, 288, 96, True, "hswish", 2),
    (5, 576, 96, True, "hswish", 1), (5, 576, 96, True, "hswish", 1),
]  # fmt: skip


def mobilenet_v3(large: bool, width: float, size: int) -> ir.Model:
    """MobileNet V3, large or small, with a width multiplier."""
    net = Net("mobilenet_v3", size)
    x = net.hard_swish(net.conv(net.input, divisible(16 * width), 3, 2))
    plan = _LARGE if large else _SMALL
    for kernel, expand, out, squeezed, act, stride in plan:
        wide = divisible(expand * width)
        x = inverted(
            net, x, wide, divisible(out * width), kernel, stride, act, divisible(wide / 4) if squeezed else 0
        )
    x = net.hard_swish(net.conv(x, divisible(6 * dims(x)[1])))
    x = net.global_pool(x)
    x = net.hard_swish(net.conv(x, divisible((1280 if large else 1024) * max(1.0, width))))
    return net.classifier(x, 1001)
