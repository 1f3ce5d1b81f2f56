"""AlexNet (with the two groups and the local response normalisation of 2012), VGG-16 (arXiv 1409.1556), SqueezeNet 1.1."""

from __future__ import annotations

import onnx_ir as ir

from edgec.targets.estimator.net import Net


def alexnet() -> ir.Model:
    """AlexNet, 227 pixels."""
    net = Net("alexnet", 227)
    x = net.relu(net.conv(net.input, 96, 11, 4, pad=0))
    x = net.pool("MaxPool", net.unary("LRN", x, size=5), 3, 2)
    x = net.relu(net.conv(x, 256, 5, 1, 2, pad=2))
    x = net.pool("MaxPool", net.unary("LRN", x, size=5), 3, 2)
    x = net.relu(net.conv(x, 384, 3))
    x = net.relu(net.conv(x, 384, 3, 1, 2))
    x = net.relu(net.conv(x, 256, 3, 1, 2))
    x = net.pool("MaxPool", x, 3, 2)
    x = net.relu(net.fc(x, 4096))
    x = net.relu(net.fc(x, 4096))
    return net.model(net.unary("Softmax", net.fc(x, 1000), axis=1))


def vgg16() -> ir.Model:
    """VGG-16, 224 pixels."""
    net = Net("vgg16", 224)
    x = net.input
    for width, convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convs):
            x = net.relu(net.conv(x, width, 3))
        x = net.pool("MaxPool", x, 2, 2)
    x = net.relu(net.fc(x, 4096))
    x = net.relu(net.fc(x, 4096))
    return net.model(net.unary("Softmax", net.fc(x, 1000), axis=1))


def squeezenet(size: int) -> ir.Model:
    """SqueezeNet 1.1 (arXiv 1602.07360)."""
    net = Net("squeezenet", size)
    x = net.pool("MaxPool", net.relu(net.conv(net.input, 64, 3, 2, pad=0)), 3, 2)
    for i, squeeze in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if i in (2, 4):
            x = net.pool("MaxPool", x, 3, 2)
        s = net.relu(net.conv(x, squeeze))
        x = net.concat(net.relu(net.conv(s, 4 * squeeze)), net.relu(net.conv(s, 4 * squeeze, 3)))
    x = net.global_pool(net.relu(net.conv(x, 1000)))
    return net.model(net.unary("Softmax", net.op("Flatten", [x], [1, 1000], axis=1), axis=1))
