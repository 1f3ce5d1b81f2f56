"""The channel rule for Shrink (soft and hard shrinkage): each channel for itself, so channels stay where they are."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.channels.trace import Trace


def shrink(trace: Trace, node: ir.Node) -> None:
    """The output has the labels of the input. Shrink has no constants that would have to be cut along."""
    trace.set(node.outputs[0], trace.labels(node.inputs[0]))
