"""The networks of the published latency tables, as ONNX graphs whose weights are zeros that take no memory.

``build(name)`` gives the graph of a row of ``device_latency.csv``; ``family(name)`` says which rows are left out
together when an estimator is validated. Architectures after the papers named in each module; where the benchmark that
published the latencies uses a variant (groups, squeeze sizes, the classifier), the variant is followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from latency_models import classic, efficientnet, mobilenet, resnet, shufflenet

_MOBILENET = re.compile(r"mobilenet_(v1|v2|v3_large|v3_small)_(\d\.\d+|\d\.\d)_(\d+)")
_TABLE: dict[str, Callable[[], ir.Model]] = {
    "alexnet_227": classic.alexnet,
    "vgg16_224": classic.vgg16,
    "squeezenet_1.1_227": partial(classic.squeezenet, 227),
    "resnet18_224": resnet.resnet18,
    "resnet50_224": partial(resnet.resnet50, 224, False),
    "resnet50_v1.5_224": partial(resnet.resnet50, 224, True),
    "shufflenet_v1_224": shufflenet.shufflenet_v1,
    "shufflenet_v2_1.0_224": shufflenet.shufflenet_v2,
    "mnasnet_224": efficientnet.mnasnet,
    "efficientnet_b0_224": efficientnet.efficientnet_b0,
    "efficientnetv2_b0_224": efficientnet.efficientnetv2_b0,
}


def known(name: str) -> bool:
    """Whether ``name`` can be built."""
    return name in _TABLE or _MOBILENET.fullmatch(name) is not None


def build(name: str) -> ir.Model:
    """The graph of the network called ``name`` in the latency table, batch 1."""
    if name in _TABLE:
        return _TABLE[name]()
    match = _MOBILENET.fullmatch(name)
    if match is None:
        raise KeyError(name)
    kind, width, size = match[1], float(match[2]), int(match[3])
    if kind == "v1":
        return mobilenet.mobilenet_v1(width, size)
    if kind == "v2":
        return mobilenet.mobilenet_v2(width, size)
    return mobilenet.mobilenet_v3(kind == "v3_large", width, size)


def family(name: str) -> str:
    """The family of a network: what is held out together, so that no sibling of a test row is trained on."""
    for prefix in (
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3",
        "resnet",
        "efficientnetv2",
        "efficientnet",
    ):
        if name.startswith(prefix):
            return prefix
    return name.split("_")[0] if not name.startswith("shufflenet") else "_".join(name.split("_")[:2])
