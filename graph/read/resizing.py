"""Resizing as opsets 7 to 10 had it: Upsample, and the first Resize.

Both map coordinates by ``asymmetric`` and round down where they take the nearest; later opsets say so in attributes. onnx's
converter takes ``nearest`` only, so these nodes are written as Resize of opset 11, and the model is lifted to it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

_MODES = {b"nearest": "nearest", b"linear": "linear", b"bilinear": "linear"}
_OLDEST, _NEWEST = 7, 10


def rewrite_old_resizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` in opset 11 with every Upsample and old Resize as its Resize; itself where it has none, or is newer."""
    entry = next((e for e in model.opset_import if e.domain in ("", "ai.onnx")), None)
    old = [node for node in model.graph.node if node.op_type in ("Upsample", "Resize") and not node.domain]
    if entry is None or not _OLDEST <= entry.version <= _NEWEST or not old:
        return model
    kept = {node.name: _resize(model, node) for node in old}
    for node in old:  # the converter passes over an Identity, which stands in meanwhile
        node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output, name=node.name))
    del model.graph.value_info[:]  # the shapes behind a resize are not an Identity's
    outputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in model.graph.output]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    lifted = version_converter.convert_version(model, 11)
    for node in lifted.graph.node:
        if node.name in kept and node.op_type == "Identity":
            node.CopyFrom(kept[node.name])
    del lifted.graph.output[:], lifted.graph.value_info[:]
    lifted.graph.output.extend(outputs)
    return lifted


def _resize(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto:
    """The same in opset 11, where a Resize must have regions of interest: none."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    mode = _MODES.get(attributes["mode"].s if "mode" in attributes else b"nearest", "nearest")
    scales = node.input[1] if len(node.input) > 1 else ""
    if not scales:
        scales = _stored(model, f"{node.output[0]}_scales", attributes["scales"].floats)
    regions = _stored(model, f"{node.output[0]}_roi", [])
    coordinates = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    inputs = [node.input[0], regions, scales]
    return helper.make_node("Resize", inputs, node.output, name=node.name, mode=mode, **coordinates)


def _stored(model: onnx.ModelProto, name: str, numbers: object) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(numbers, np.float32), name))
    return name
