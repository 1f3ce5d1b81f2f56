"""MnasNet-B1 (arXiv 1807.11626), EfficientNet-B0 (1905.11946), EfficientNetV2-B0 (2104.00298)."""

from __future__ import annotations

import onnx_ir as ir

from edgec.targets.estimator.net import Net, Value, dims
from latency_models.mobilenet import inverted


def mnasnet() -> ir.Model:
    """MnasNet-B1, width 1, without squeeze-and-excite."""
    net = Net("mnasnet", 224)
    x = net.relu(net.conv(net.input, 32, 3, 2))
    x = net.conv(net.relu(net.depthwise(x)), 16)
    plan = [
        (3, 24, 3, 3, 2),
        (3, 40, 3, 5, 2),
        (6, 80, 3, 5, 2),
        (6, 96, 2, 3, 1),
        (6, 192, 4, 5, 2),
        (6, 320, 1, 3, 1),
    ]
    for factor, out, repeats, kernel, first in plan:
        for i in range(repeats):
            x = inverted(net, x, factor * dims(x)[1], out, kernel, first if i == 0 else 1, "relu")
    return net.classifier(net.relu(net.conv(x, 1280)), 1000)


def efficientnet_b0() -> ir.Model:
    """EfficientNet-B0 with squeeze-and-excite at a quarter of the block's input."""
    net = Net("efficientnet_b0", 224)
    x = net.swish(net.conv(net.input, 32, 3, 2))
    plan = [
        (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2),
        (6, 112, 3, 5, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1),
    ]  # fmt: skip
    for factor, out, repeats, kernel, first in plan:
        for i in range(repeats):
            channels = dims(x)[1]
            stride = first if i == 0 else 1
            x = inverted(net, x, factor * channels, out, kernel, stride, "swish", channels // 4, "Sigmoid")
    return net.classifier(net.swish(net.conv(x, 1280)), 1000)


def _fused(net: Net, x: Value, factor: int, out: int, stride: int) -> Value:
    y = net.swish(net.conv(x, factor * dims(x)[1], 3, stride))
    y = net.conv(y, out)
    return net.binary("Add", x, y) if dims(x) == dims(y) else y


def efficientnetv2_b0() -> ir.Model:
    """EfficientNetV2-B0: fused 3x3 blocks first, then inverted residuals with squeeze-and-excite."""
    net = Net("efficientnetv2_b0", 224)
    x = net.swish(net.conv(net.input, 32, 3, 2))
    x = net.swish(net.conv(x, 16, 3))
    for out, first in ((32, 2), (48, 2)):
        for stride in (first, 1):
            x = _fused(net, x, 4, out, stride)
    for factor, out, repeats, first in ((4, 96, 3, 2), (6, 112, 5, 1), (6, 192, 8, 2)):
        for i in range(repeats):
            channels = dims(x)[1]
            x = inverted(
                net, x, factor * channels, out, 3, first if i == 0 else 1, "swish", channels // 4, "Sigmoid"
            )
    return net.classifier(net.swish(net.conv(x, 1280)), 1000)
