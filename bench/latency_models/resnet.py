"""ResNet-18 and ResNet-50 (arXiv 1512.03385); v1.5 strides in the 3x3 convolution, not the first 1x1."""

from __future__ import annotations

import onnx_ir as ir

from edgec.targets.estimator.net import Net, Value, dims


def _stem(net: Net) -> Value:
    return net.pool("MaxPool", net.relu(net.conv(net.input, 64, 7, 2, pad=3)), 3, 2, 1, ceil=False)


def resnet18() -> ir.Model:
    """ResNet-18."""
    net = Net("resnet18", 224)
    x = _stem(net)
    for width, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            y = net.conv(net.relu(net.conv(x, width, 3, stride, pad=1)), width, 3, pad=1)
            skip = x if dims(x) == dims(y) else net.conv(x, width, 1, stride, pad=0)
            x = net.relu(net.binary("Add", y, skip))
    return net.classifier(x, 1000)


def resnet50(size: int, v15: bool) -> ir.Model:
    """ResNet-50, v1 or v1.5."""
    net = Net("resnet50", size)
    x = _stem(net)
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(blocks):
            stride = first if i == 0 else 1
            y = net.relu(net.conv(x, width, 1, 1 if v15 else stride, pad=0))
            y = net.relu(net.conv(y, width, 3, stride if v15 else 1, pad=1))
            y = net.conv(y, 4 * width)
            skip = x if dims(x) == dims(y) else net.conv(x, 4 * width, 1, stride, pad=0)
            x = net.relu(net.binary("Add", y, skip))
    return net.classifier(x, 1000)
