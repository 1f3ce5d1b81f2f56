"""The task of a network that suppresses its own boxes: its NonMaxSuppression says what its boxes and scores are."""

from __future__ import annotations

import onnx_ir as ir

from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.heads import Corners, Head
from edgec.graph.parts import sample_shape
from edgec.graph.selection import Selection
from edgec.graph.views import attribute, constant

_TORCH = "pytorch"
"""Its exporter hands boxes to the op as torchvision has them, x before y; the overlap is the same either way."""


def suppressed_task(network: ir.Model, selection: Selection) -> Detection | None:
    """Detection by the boxes and scores that the first suppression reads, where they are outputs of ``network``; else None.

    From the suppression's own threshold on, where it is above edgec's working threshold: boxes below never come out.
    """
    node = next((one for one in selection.model.graph if one.op_type == "NonMaxSuppression"), None)
    picture = sample_shape(network.graph.inputs[0])
    if node is None or picture is None or len(picture) != 3:
        return None
    outputs = {value.name: index for index, value in enumerate(network.graph.outputs)}
    places = [outputs.get(value.name) for value in node.inputs[:2] if value is not None]
    boxes, scores = (None, None) if len(places) < 2 else places
    if boxes is None or scores is None:
        return None
    classes = network.graph.outputs[scores].shape
    known = None if classes is None or not isinstance(classes[1], int) else classes[1]
    least = constant(node.inputs[4]) if len(node.inputs) > 4 else None
    head = Head(
        "nms",
        (picture[1], picture[2]),
        outputs=(boxes, scores),
        classes=known,
        corners=_corners(node, network),
        least=0.0 if least is None else float(least.reshape(-1)[0]),
    )
    return Detection(head)


def _corners(node: ir.Node, network: ir.Model) -> Corners:
    if attribute(node, "center_point_box", 0):
        return "centre"
    return "xy" if network.producer_name == _TORCH else "yx"
