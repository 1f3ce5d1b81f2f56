"""Layers of a TensorRT engine and the nodes of the network that they were made of.

TensorRT joins names as it joins nodes: ``conv + relu``, ``PWN(PWN(sigmoid), mul)``, ``{ForeignNode[first...last]}``, and
differently in every release. So the names are not taken apart by a grammar: the network's own are looked for in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgec.graph.load import read
from edgec.runtime.measurement import LayerTime

_COPY = re.compile(r"^Reformatting CopyNode for (?:Network )?(?:Input|Output)(?: Tensor \d+ to)? ")
_COPIED = "copy between formats"
_CODES = ("QuantizeLinear", "DequantizeLinear")


def mapped(layers: Sequence[LayerTime], model: Path) -> tuple[LayerTime, ...]:
    """``layers`` with the nodes of the ONNX file ``model`` that are in each, and their operators."""
    ops, names = _known(model)
    pattern = _any_of(names)
    return tuple(_with_nodes(layer, ops, names, pattern) for layer in layers)


def _with_nodes(
    layer: LayerTime, ops: Mapping[str, str], names: Mapping[str, str], pattern: re.Pattern[str] | None
) -> LayerTime:
    told = [names[name] for name in layer.nodes if name in names]
    text = _COPY.sub("", layer.name)
    found = told or [names[name] for name in (pattern.findall(text) if pattern else ())]
    nodes = tuple(dict.fromkeys(found))
    if text != layer.name:
        return replace(layer, nodes=nodes, op=_COPIED)
    work = [ops[name] for name in nodes if ops[name] not in _CODES] or [ops[name] for name in nodes]
    return replace(layer, nodes=nodes, op=" + ".join(work))


def _known(model: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Operator of each node by its name, and the name by all that TensorRT may call the node.

    A node without a name goes by its first output, which TensorRT writes behind ``node_of_``.
    """
    ops: dict[str, str] = {}
    names: dict[str, str] = {}
    for node in read(model).graph.node:
        output = next((name for name in node.output if name), None)
        name = node.name or output
        if name is None:
            continue
        ops[name], names[name] = node.op_type, name
        if output is not None:
            names[f"node_of_{output}"] = name
    return ops, names


def _any_of(names: Mapping[str, str]) -> re.Pattern[str] | None:
    """Any of the names where it stands by itself: the longer first, since one may begin like another."""
    if not names:
        return None
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?:(?<=\.\.\.)|(?<![^\s(\[,|]))(?:{words})(?=\.\.\.|[\s)\],|]|$)")
