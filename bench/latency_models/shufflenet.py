"""ShuffleNet V1 with three groups (arXiv 1707.01083) and V2 (1807.11164), width 1."""

from __future__ import annotations

import onnx_ir as ir

from edgec.targets.estimator.net import Net, dims


def shufflenet_v1() -> ir.Model:
    """ShuffleNet V1 1x, g = 3."""
    net = Net("shufflenet_v1", 224)
    x = net.pool("MaxPool", net.relu(net.conv(net.input, 24, 3, 2)), 3, 2)
    for out, repeats in ((240, 4), (480, 8), (960, 4)):
        for i in range(repeats):
            channels = dims(x)[1]
            first = i == 0
            wide = (out - channels if first else out) // 4
            y = net.relu(net.conv(x, wide, group=1 if channels == 24 else 3))
            if channels != 24:
                y = net.shuffle(y, 3)
            y = net.depthwise(y, 3, 2 if first else 1)
            y = net.conv(y, out - channels if first else out, group=3)
            x = net.relu(
                net.concat(net.pool("AveragePool", x, 3, 2), y) if first else net.binary("Add", x, y)
            )
    return net.classifier(x, 1000)


def shufflenet_v2() -> ir.Model:
    """ShuffleNet V2 1x."""
    net = Net("shufflenet_v2", 224)
    x = net.pool("MaxPool", net.relu(net.conv(net.input, 24, 3, 2)), 3, 2)
    for out, repeats in ((116, 4), (232, 8), (464, 4)):
        half = out // 2
        for i in range(repeats):
            if i == 0:
                keep = net.relu(net.conv(net.depthwise(x, 3, 2), half))
                work, stride = x, 2
            else:
                keep, work, stride = net.slice_channels(x, 0, half), net.slice_channels(x, half, out), 1
            y = net.relu(net.conv(work, half))
            y = net.relu(net.conv(net.depthwise(y, 3, stride), half))
            x = net.shuffle(net.concat(keep, y), 2)
    return net.classifier(net.relu(net.conv(x, 1024)), 1000)
