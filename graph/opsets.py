"""The opset of a model: brought to one that the canonical graph has and that boards can run, its meaning unchanged."""

from __future__ import annotations

import onnx
import onnx.inliner
from onnx import version_converter

from edgec.graph.errors import UnsupportedError
from edgec.graph.lower_opset import lower_opset
from edgec.graph.spec import MIN_OPSET

MIN_IR = 10
"""The file format that knows all number types in use here (onnxruntime 1.19 and newer read it)."""
RUNNABLE_OPSET = 21
"""The newest opset of onnxruntime 1.19, the oldest that boards install."""
OLDEST_RUNNABLE = 7
"""From here on arithmetic broadcasts as numpy does; onnxruntime has nothing older."""


def lowest_equal_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Declare the oldest opset (18 or newer) in which every op of the model means the same.

    Exact, since an op keeps its meaning from the version that introduced it to the next that changes it; and the runtimes
    on boards are older than the exporters on desks.
    """
    entry = next((e for e in model.opset_import if e.domain in ("", "ai.onnx")), None)
    if entry is None or entry.version <= MIN_OPSET:
        return model
    oldest = MIN_OPSET
    graphs = [model.graph, *model.functions]
    for node in (node for graph in graphs for node in graph.node):
        if node.domain not in ("", "ai.onnx"):
            continue
        if any(attribute.HasField("g") for attribute in node.attribute):
            return model
        try:
            schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=entry.version, domain="")
        except onnx.defs.SchemaError:
            return model
        oldest = max(oldest, schema.since_version)
    entry.version = oldest
    for function in model.functions:
        for imported in function.opset_import:
            if imported.domain in ("", "ai.onnx"):
                imported.version = oldest
    try:
        needed = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    except ValueError:
        return model  # a domain that onnx keeps no table of
    model.ir_version = min(model.ir_version, max(needed, MIN_IR))
    return model


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """By onnx's converter, which drops functions: they are inlined first."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return version_converter.convert_version(model, opset)


def runnable_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Newer opsets than runtimes know are converted down where onnx can, older ones up; else onnxruntime says what it lacks."""
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx") or OLDEST_RUNNABLE <= entry.version <= RUNNABLE_OPSET:
            continue
        if entry.version < OLDEST_RUNNABLE and any(map(_places_by_axis, model.graph.node)):
            return (
                model  # onnx's converter places some of them wrongly, and no runtime is left to compare with
            )
        try:
            converted = _converted(model, min(max(entry.version, OLDEST_RUNNABLE), RUNNABLE_OPSET))
        except (RuntimeError, onnx.checker.ValidationError):
            return model
        converted.ir_version = MIN_IR
        del converted.graph.value_info[:]  # some of an old model's have no type
        return converted
    return model


def _places_by_axis(node: onnx.NodeProto) -> bool:
    """Whether an operand's axes are counted as before opset 7: from ``axis`` on, or slopes along the channels."""
    placed = any(attribute.name == "broadcast" and attribute.i for attribute in node.attribute)
    return node.op_type == "PRelu" or (placed and node.op_type != "Gemm")


def sound_pools(model: onnx.ModelProto) -> onnx.ModelProto:
    """Where an AveragePool counts zeros around its input: a copy in an opset in which every onnxruntime computes it.

    Releases from 1.21 to 1.24 divide by the number of values that are there, in opset 19 and newer: for `count_include_pad`, and
    for a Pad in front, which they pull in. The kernel of older opsets is right. A model that has no older form stays.
    """
    version = next((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), 0)
    if version <= MIN_OPSET or not _counts_padding(model.graph) or _has_graphs(model):
        return model
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    try:
        return lower_opset(model, MIN_OPSET)
    except UnsupportedError:
        return model


def _counts_padding(graph: onnx.GraphProto) -> bool:
    """Whether some pool does; where one rounds its size up (`ceil_mode`), older opsets mean something else by that."""
    padded = {name for node in graph.node if node.op_type == "Pad" for name in node.output}
    pools = [node for node in graph.node if node.op_type == "AveragePool" and node.domain in ("", "ai.onnx")]
    said = {one.name for node in pools for one in node.attribute if one.i}
    return "ceil_mode" not in said and (
        "count_include_pad" in said or any(node.input[0] in padded for node in pools)
    )


def _has_graphs(model: onnx.ModelProto) -> bool:
    return any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)


def modern_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Older opsets than the canonical graph's are converted up. Raises UnsupportedError where onnx cannot."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version < MIN_OPSET:
            try:
                return _converted(model, MIN_OPSET)
            except (RuntimeError, onnx.checker.ValidationError) as error:
                refuse_unknown(model)
                why = str(error).strip().splitlines()[0]
                what = f"opset {entry.version} cannot be brought to {MIN_OPSET}"
                raise UnsupportedError(what, why=why) from error
    if all(
        entry.domain not in ("", "ai.onnx") for entry in model.opset_import
    ):  # of other domains' ops alone
        led = onnx.ModelProto()
        led.CopyFrom(model)
        led.opset_import.add(domain="", version=MIN_OPSET)
        return led
    return model


def refuse_unknown(model: onnx.ModelProto) -> None:
    """Raise UnsupportedError at the first op that ONNX does not have: its converter and checker say so in words of their own."""
    opset = max(
        (one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=MIN_OPSET
    )
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(
            node.op_type, max_inclusive_version=opset, domain=""
        ):
            raise UnsupportedError(f"opset {opset} has no such op", where=f"{node.op_type} {node.name!r}")
