"""What of a node costs time: nine amounts that latency is a weighted sum of.

The amounts of a convolution are those of the matrix product that an engine makes of it, with M pixels, K inputs and N
outputs per pixel: multiplications M*K*N, activations packed and stored M*K + M*N, weights read K*N. 3x3 convolutions of
stride 1 are counted apart, because some engines compute them by Winograd's method at a fraction of the multiplications.
So are the copies that a first layer needs (im2col of three channels, too few for a vector), and everything depthwise.

Activation functions behind a layer (Relu, Clip) and reshapes cost nothing in the engines that edgec targets: they are
fused, or only change a description. QDQ pairs stand for int8 kernels and cost nothing themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgec.graph.cost import ModelCost, NodeCost

Vector = np.ndarray[Any, np.dtype[np.float64]]

FEATURES = (
    "macs",  # millions of multiplications: 1x1 and other convolutions, matrix products
    "macs_3x3",  # millions of multiplications of 3x3 convolutions of stride 1
    "activations",  # millions of elements that a convolution packs and stores
    "weights",  # millions of weights that a convolution reads
    "copies",  # millions of elements that im2col writes for a layer of few channels
    "depthwise",  # millions of depthwise multiplications, and 3 for every element read or written
    "linear",  # millions of weights that fully connected layers read
    "moved",  # millions of elements read and written by elementwise, pooling and layout nodes
    "nodes",  # thousands of nodes
)
_FUSED = ("Relu", "Clip", "Identity", "Dropout")
_RENAMED = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Constant")
FREE = frozenset([*_FUSED, *_RENAMED, "QuantizeLinear", "DequantizeLinear"])
_WINOGRAD_CHANNELS = 8
_FEW_CHANNELS = 4


def node_features(node: NodeCost) -> Vector:
    """The nine amounts of one node, in the order of :data:`FEATURES`."""
    amounts = dict.fromkeys(FEATURES, 0.0)
    if node.op not in FREE and node.out_elements > 0:
        amounts["nodes"] = 1e3  # everything is divided by 1e6 below
        if node.kind in ("pointwise", "dense", "transposed", "linear", "matmul") and node.macs > 0:
            _product(node, amounts)
        elif node.kind == "depthwise":
            amounts["depthwise"] = node.macs + 3.0 * (node.in_elements + node.out_elements)
        else:
            amounts["moved"] = float(node.in_elements + node.out_elements) * _PASSES.get(node.op, 1)
    return np.array([amounts[name] for name in FEATURES]) / 1e6


# Nodes that read their input many times, or take many instructions for each element.
_PASSES = {"LRN": 10, "Softmax": 4, "LayerNormalization": 3, "InstanceNormalization": 3}


def features(cost: ModelCost | Iterable[NodeCost]) -> Vector:
    """The sum of :func:`node_features` over a model."""
    nodes = cost.nodes if isinstance(cost, ModelCost) else cost
    total: Vector = np.sum([node_features(node) for node in nodes] or [np.zeros(len(FEATURES))], axis=0)
    return total


def _product(node: NodeCost, amounts: dict[str, float]) -> None:
    inner = node.macs / node.out_elements  # K: inputs of one output, of its group
    outputs = (
        max(1.0, node.params / (inner + 1)) if node.params else 1.0
    )  # N, where a bias counts as one more input
    pixels = max(1.0, round(node.out_elements / outputs))
    if pixels <= 1 and node.params:
        amounts["linear"] = float(node.params)
    elif _winograd(node, inner):
        amounts["macs_3x3"] = float(node.macs)
        amounts["activations"] = 2.0 * (node.in_elements + node.out_elements)
        amounts["weights"] = float(node.params)
    else:
        packed = pixels * inner
        few = node.kind == "dense" and inner <= _FEW_CHANNELS * node.kernel[0] * node.kernel[-1]
        amounts["macs"] = float(node.macs)
        amounts["copies"] = packed if few else 0.0
        amounts["activations"] = node.out_elements + (0.0 if few else packed)
        amounts["weights"] = float(node.params)


def _winograd(node: NodeCost, inner: float) -> bool:
    square = node.kind == "dense" and node.kernel == (3, 3) and node.stride == (1, 1)
    # A grouped convolution reads more channels than one output needs; engines have no Winograd kernel for it.
    channels = node.in_elements / max(1.0, node.out_elements / max(1.0, node.params / (inner + 1)))
    return square and inner >= 9 * _WINOGRAD_CHANNELS and channels < 1.9 * inner / 9
