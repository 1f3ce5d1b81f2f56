"""`cast-fp16`: weights in half precision, arithmetic in single.

Every float32 constant of a layer is stored as float16 behind a Cast to float32, which runtimes fold when they load the file:
half the bytes, the same speed, and no activation that can overflow. Cases:
1. weights and biases of Conv, ConvTranspose, Gemm and MatMul, slopes of PRelu, per-channel constants: stored as float16;
2. constants that overflow float16, and those of fewer than 8 elements (scalars, clip bounds): stay float32, the overflow named.

A program before and after::

    y = Conv(x, w, b)   ->   y = Conv(x, Cast(float16 w), Cast(float16 b))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgec.graph.tidy import infer_shapes, tidy
from edgec.graph.views import add_initializer, constant, fresh_name
from edgec.passes.base import NUMBER_FORMATS, Context, Note, Pass, PassResult

Array = np.ndarray[Any, np.dtype[Any]]

MIN_ELEMENTS = 8


@dataclass(frozen=True)
class CastFp16(Pass):
    """Store weights as float16 and cast them to float32 when the model is loaded. Halves the file, not the time."""

    name: ClassVar[str] = "cast-fp16"
    summary: ClassVar[str] = "store weights in half precision"
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    def run(self, model: ir.Model, context: Context) -> PassResult:
        notes: list[Note] = []
        count = 0
        for value in list(model.graph.initializers.values()):
            array = constant(value)
            if array is None or array.dtype != np.float32 or array.size < MIN_ELEMENTS:
                continue
            half = halved(array)
            if half is None:
                notes.append(Note(f"{value.name} overflows float16 and stays float32", "warning"))
                continue
            _store_half(model.graph, value, half)
            count += 1
        infer_shapes(model)
        notes.insert(0, Note(f"{count} constants stored as float16"))
        return PassResult(model, modified=count > 0, notes=tuple(notes))


def halved(array: Array) -> Array | None:
    """``array`` in half precision; None where it would overflow. The one place that decides this, for every format."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.isfinite(half).all() else None


def widened(model: ir.Model) -> ir.Model:
    """A copy in which constants stored in half precision are float32 again, with the values that they had in half precision.

    For formats that have a half-precision storage of their own.
    """
    copy = model.clone()
    for node in list(copy.graph):
        stored = node.inputs[0] if node.op_type == "Cast" and node.inputs else None
        half = None if stored is None else constant(stored)
        value = node.outputs[0]
        if stored is None or half is None or half.dtype != np.float16 or value.is_graph_output():
            continue
        plain = add_initializer(copy.graph, f"{stored.name}_wide", half.astype(np.float32))
        value.replace_all_uses_with(plain)
        copy.graph.remove(node, safe=True)
    tidy(copy)
    return copy


def _store_half(graph: ir.Graph, value: ir.Value, half: Array) -> None:
    stored = add_initializer(graph, f"{value.name}_fp16", half)
    cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT.value})
    cast.name = fresh_name(graph, f"{value.name}_cast")
    cast.outputs[0].name = fresh_name(graph, f"{value.name}_fp32")
    cast.outputs[0].dtype = ir.DataType.FLOAT
    cast.outputs[0].shape = value.shape
    first = next(iter(graph))
    graph.insert_before(first, cast)
    value.replace_all_uses_with(cast.outputs[0])
    graph.initializers.pop(value.name or "")
