"""What of a node costs time, in more detail: for fits on a machine's own measurements, where there are hundreds.

The published tables (:mod:`edgec.targets.estimator.features`) bear nine amounts; a calibration of the machine at hand
bears three dozen. They are the same convolution, seen from inside a kernel: output channels round up to a vector register
(``block``), inputs are read again for every few output channels, an accumulator is stored after every block of inputs,
the ends of rows run on slower code, each pixel of an indirect or gathered kernel costs the same for few channels as for
many, and what does not fit into a cache waits for the next one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from edgec.graph.cost import ModelCost, NodeCost
from edgec.targets.estimator.features import FREE, Vector

BLOCK = 16
_KINDS = ("pointwise", "kernel", "first")  # 1x1; larger; larger on at most four channels
_CONVOLUTION = ("macs", "stores", "reads", "sums", "edges", "pixels", "ragged", "ragged_pixels")
_DEPTHWISE = ("macs", "stores", "reads", "edges", "pixels", "wide", "strided", "ragged")
_OTHER = (
    "weights", "weights_l2", "weights_l3", "linear", "linear_far", "pooled", "pooled_windows", "layout", "binary",
    "clip", "sigmoid", "hard_swish", "other", "l2", "l3", "nodes", "model",
)  # fmt: skip
FINE = (
    *(f"{kind}_{what}" for kind in _KINDS for what in _CONVOLUTION),
    *(f"depthwise_{what}" for what in _DEPTHWISE),
    *_OTHER,
)


def fine_features(cost: ModelCost | Iterable[NodeCost], item_bytes: int) -> Vector:
    """The amounts of a model whose elements have ``item_bytes`` bytes (1 for int8, 4 for fp32), in order of FINE."""
    total: dict[str, float] = defaultdict(float)
    for node in cost.nodes if isinstance(cost, ModelCost) else cost:
        for name, amount in _node(node, item_bytes).items():
            total[name] += amount
    if isinstance(cost, ModelCost):
        total["model"] += 1e6  # everything is divided by 1e6 below
    return _vector(total)


def fine_node(node: NodeCost, item_bytes: int) -> Vector:
    """The amounts of one node."""
    return _vector(_node(node, item_bytes))


def _vector(amounts: dict[str, float]) -> Vector:
    return np.array([amounts.get(name, 0.0) for name in FINE]) / 1e6


def _node(node: NodeCost, item_bytes: int) -> dict[str, float]:
    found: dict[str, float] = {}
    if node.op == "Clip":  # some engines fuse it into the kernel before it, some into a second pass
        return {"clip": float(node.out_elements)}
    if node.op in FREE or node.out_elements <= 0:
        return found
    moved = node.in_elements + node.out_elements
    found["nodes"] = 1000
    found["l2"] = moved * _share(moved * item_bytes, 3e5, 1.5e6)
    found["l3"] = moved * _share(moved * item_bytes, 4e6, 1.6e7)
    if node.kind == "depthwise":
        _depthwise(node, found)
    elif node.macs > 0:
        _product(node, found, item_bytes)
    elif node.kind == "pool":
        found["pooled"] = node.in_elements
        found["pooled_windows"] = node.out_elements * math.prod(node.kernel) if node.kernel else 0
    else:
        found[_PLAIN.get(node.op, "layout" if node.kind == "layout" else "other")] = moved
    return found


_PLAIN = dict.fromkeys(("Add", "Sub", "Mul", "Div"), "binary") | {
    "Sigmoid": "sigmoid",
    "HardSwish": "hard_swish",
}


def _product(node: NodeCost, found: dict[str, float], item_bytes: int) -> None:
    inner = node.macs / node.out_elements
    outputs = max(1, round(node.params / (inner + 1))) if node.params else 1
    pixels = max(1, round(node.out_elements / outputs))
    if pixels == 1 or node.kind in ("linear", "matmul"):
        size = node.params * item_bytes
        found["linear"] = node.params or node.macs
        found["linear_far"] = node.params * _share(size, 3e5, 3e6)
        return
    window = math.prod(node.kernel) if node.kernel else 1
    channels = inner / window
    wide = _round_up(outputs, BLOCK)
    deep = channels if channels <= 4 else _round_up(channels, 4)
    kind = "pointwise" if window == 1 else "first" if channels <= 4 else "kernel"
    size = node.params * item_bytes
    amounts = {
        f"{kind}_macs": pixels * wide * window * deep,
        f"{kind}_stores": pixels * wide,
        f"{kind}_reads": pixels * window * _round_up(channels, BLOCK) * math.ceil(wide / 64)
        if window == 1
        else pixels * inner,
        f"{kind}_sums": pixels * wide * math.ceil(channels / BLOCK) * (node.kernel[0] if node.kernel else 1),
        f"{kind}_edges": math.sqrt(pixels) * wide * window * deep,
        f"{kind}_pixels": pixels * window,
        f"{kind}_ragged": pixels * wide if outputs % BLOCK else 0,
        f"{kind}_ragged_pixels": pixels * window if round(channels) % BLOCK else 0,
        "weights": node.params,
        "weights_l2": node.params * _share(size, 1.6e4, 2.6e5),
        "weights_l3": node.params * _share(size, 2e6, 1.6e7),
    }
    found.update(amounts)


def _depthwise(node: NodeCost, found: dict[str, float]) -> None:
    window = math.prod(node.kernel) if node.kernel else 1
    channels = max(1.0, node.params / (window + 1)) if node.params else 1.0
    pixels = node.out_elements / channels
    wide = _round_up(channels, BLOCK)
    macs = pixels * wide * window
    amounts = {
        "depthwise_macs": macs,
        "depthwise_stores": pixels * wide,
        "depthwise_reads": node.in_elements * wide / channels,
        "depthwise_edges": math.sqrt(pixels) * wide * window,
        "depthwise_pixels": pixels * window,
        "depthwise_wide": macs if window > 9 else 0,
        # Some kernels have no vector code for the channels that are left over, and fall back for all.
        "depthwise_ragged": macs if round(channels) % BLOCK else 0,
        "depthwise_strided": macs if node.stride and node.stride[0] > 1 else 0,
    }
    found.update(amounts)


def _share(size: float, fits: float, exceeds: float) -> float:
    """0 where ``size`` bytes fit into a cache, 1 where they are well above it, logarithmic between."""
    return min(1.0, max(0.0, math.log(max(size, 1) / fits) / math.log(exceeds / fits)))


def _round_up(value: float, to: int) -> int:
    return -(-round(value) // to) * to
