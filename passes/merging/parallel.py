"""Branches that read one tensor and end in one sum are one convolution (RepVGG, arXiv 2101.03697; MobileOne, 2206.04040).

Cases, for the terms of a tree of Add, Sub and Sum nodes that nothing else reads:
1. convolutions of the same input, strides and grouping whose windows lie on one another: the kernels are added where their taps
   meet, the union of the windows is the new one (3x3 and 1x1 give 3x3);
2. BatchNormalization of that input, and average pooling that counts its zeros: a kernel of one value per channel;
3. that input itself: the identity;
4. per-channel constants: the bias;
5. terms that are subtracted change sign.
Legal where the merged layer costs no more than its parts (1x3 and 3x1 stay, unless a 3x3 takes both), where dilations agree or
windows are single taps, and where every part stands at the same output positions. At least one part is a Conv; a part that
anything else reads stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import constant, fresh_name, shape_of, sole_consumer
from edgec.passes.merging.linear import Linear, identity, linear, placed

Array = np.ndarray[Any, np.dtype[Any]]
SUMS = ("Add", "Sub", "Sum")


@dataclass(frozen=True)
class Term:
    """One summand of a sum of branches."""

    value: ir.Value
    sign: int
    part: Linear | None
    """What it is of its branch's input; None where it is no branch, or something else reads it."""


def merge_parallel(model: ir.Model) -> list[str]:
    """Merge in place; for each merged layer its name and parts."""
    found: list[str] = []
    for node in reversed(list(model.graph)):
        if node.op_type in SUMS and node.outputs[0].shape is not None and not _inside(node):
            found += _merge(model.graph, node)
    return found[::-1]


def _inside(node: ir.Node) -> bool:
    """Whether the sum is a term of a further one."""
    reader = sole_consumer(node.outputs[0])
    return reader is not None and reader.op_type in SUMS and reader.outputs[0].shape == node.outputs[0].shape


def _terms(node: ir.Node, sign: int) -> list[Term]:
    found: list[Term] = []
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        own = -sign if node.op_type == "Sub" and index else sign
        maker = value.producer()
        alone = sole_consumer(value) is node
        if alone and maker is not None and maker.op_type in SUMS and value.shape == node.outputs[0].shape:
            found += _terms(maker, own)
        else:
            found.append(Term(value, own, linear(maker) if alone else None))
    return found


def _merge(graph: ir.Graph, root: ir.Node) -> list[str]:
    terms = _terms(root, 1)
    merged: list[str] = []
    sources = list(dict.fromkeys(term.part.x for term in terms if term.part is not None and term.part.macs))
    for source in sources:
        parts = [term for term in terms if _of(term, source) is not None]
        chosen = _one(source, parts, [t for t in terms if _constant(t, root) is not None], root)
        if chosen is None:
            continue
        made, used = chosen
        name = next(_name(term) for term in used if term.part is not None and term.part.macs)
        node = placed(graph, root, made, f"{name}_merged")
        terms = [Term(node.outputs[0], 1, None), *(term for term in terms if term not in used)]
        merged.append(f"{node.name}: {', '.join(map(_name, used))}")
    if merged:
        _write(graph, root, terms)
    return merged


def _name(term: Term) -> str:
    maker = term.value.producer() if term.part is not None else None
    return term.value.name or "" if maker is None else maker.name or ""


def _of(term: Term, source: ir.Value) -> Linear | None:
    """The term as a convolution of ``source``."""
    if term.part is not None and term.part.x is source:
        return term.part
    if term.value is source:
        shape = shape_of(source)
        return identity(source, shape[1] or 0, len(shape) - 2)
    return None


def _constant(term: Term, root: ir.Node) -> Array | None:
    """One value per channel, where the term is a constant that says no more."""
    array, shape = constant(term.value), shape_of(root.outputs[0])
    if array is None or array.dtype != np.float32 or array.ndim > len(shape) or len(shape) < 3:
        return None
    wide = (1,) * (len(shape) - array.ndim) + array.shape
    if wide[1] not in (1, shape[1]) or any(size != 1 for axis, size in enumerate(wide) if axis != 1):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (shape[1] or 0,))


def _one(
    source: ir.Value, terms: Sequence[Term], constants: Sequence[Term], root: ir.Node
) -> tuple[Linear, tuple[Term, ...]] | None:
    """One layer for as many of ``terms`` as can be, with the constants of the sum; None where there are not two."""
    parts = [(term, part) for term in terms if (part := _of(term, source)) is not None]
    lead = max((part for _, part in parts), key=lambda part: part.macs)
    fitting = [(t, p) for t, p in parts if p.strides == lead.strides and p.grouped(lead.group) is not None]
    fitting = [(t, p) for t, p in fitting if p.dilations == lead.dilations or math.prod(p.taps) == 1]
    if len(fitting) < 2:
        return None
    made = _union(lead, [(t.sign, p) for t, p in fitting])
    if made is None or made.macs > sum(part.macs for _, part in fitting):
        return None
    bias = made.bias
    for term in constants:
        array = _constant(term, root)
        bias = bias if array is None else bias + term.sign * array
    used = (*(term for term, _ in fitting), *constants)
    return replace(made, bias=bias, y=root.outputs[0]), used


def _union(lead: Linear, parts: Sequence[tuple[int, Linear]]) -> Linear | None:
    """The sum of ``parts`` as one convolution with the strides, grouping and dilations of ``lead``."""
    rank = len(lead.taps)
    begin = [max(part.pads[axis] for _, part in parts) for axis in range(rank)]
    reach = [max(_reach(part, axis, lead) for _, part in parts) for axis in range(rank)]
    taps = tuple((b + r) // d + 1 for b, r, d in zip(begin, reach, lead.dilations, strict=True))
    end = [_end(lead, [part for _, part in parts], axis, begin[axis], taps[axis]) for axis in range(rank)]
    if any(pad is None for pad in end):
        return None
    kernel, bias = np.zeros((*lead.kernel.shape[:2], *taps)), np.zeros(len(lead.bias))
    for sign, part in parts:
        own = part.grouped(lead.group)
        shifts = [begin[axis] - part.pads[axis] for axis in range(rank)]
        if (
            own is None
            or own.shape[:2] != kernel.shape[:2]
            or any(s % d for s, d in zip(shifts, lead.dilations, strict=True))
        ):
            return None
        places = [
            slice(s // d, s // d + size) for s, d, size in zip(shifts, lead.dilations, part.taps, strict=True)
        ]
        kernel[(slice(None), slice(None), *places)] += sign * own
        bias += sign * part.bias
    outputs = math.prod(size or 1 for size in shape_of(lead.y))
    pads = (*begin, *(pad or 0 for pad in end))
    return replace(lead, kernel=kernel, bias=bias, pads=pads, macs=outputs * math.prod(kernel.shape[1:]))


def _reach(part: Linear, axis: int, lead: Linear) -> int:
    """How far behind its position the last tap of the part reads."""
    return (part.taps[axis] - 1) * lead.dilations[axis] - part.pads[axis]


def _end(lead: Linear, parts: Sequence[Linear], axis: int, begin: int, taps: int) -> int | None:
    """The pad behind the last pixel at which the merged window has the positions of every part; None where none does."""
    size, out = shape_of(lead.x)[axis + 2], shape_of(lead.y)[axis + 2]
    rank, dilation, stride = len(lead.taps), lead.dilations[axis], lead.strides[axis]
    wanted = {
        part.pads[axis + rank] + part.pads[axis] - begin + (taps - part.taps[axis]) * dilation
        for part in parts
    }
    pad = max(*wanted, 0)
    if size is None or out is None:
        return pad if wanted == {pad} else None
    return pad if (size + begin + pad - (taps - 1) * dilation - 1) // stride + 1 == out else None


def _write(graph: ir.Graph, root: ir.Node, terms: Sequence[Term]) -> None:
    """The sum anew, in place of ``root``; what nothing reads any more is left for `tidy`."""
    ordered = sorted(terms, key=lambda term: -term.sign)
    value = ordered[0].value
    for term in ordered[1:]:
        node = ir.node(
            "Add" if term.sign > 0 else "Sub",
            [value, term.value],
            name=fresh_name(graph, f"{root.name}_rest"),
        )
        made, result = node.outputs[0], root.outputs[0]
        made.name, made.type, made.shape = fresh_name(graph, f"{node.name}_output"), result.type, result.shape
        graph.insert_before(root, node)
        value = made
    take_over(graph, root.outputs[0], value)
