"""The entry points of the TFLite emitter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from edgec.compiler.emit.tflite.context import FixedBatchError
from edgec.compiler.emit.tflite.emitter import (
    Lowered,
    Options,
    Unsupported,
    live_nodes,
    lower,
    runnable_nodes,
)
from edgec.compiler.emit.tflite.half import halve_constants, keep_halves
from edgec.compiler.emit.tflite.serialise import serialise
from edgec.compiler.read.fields import IoType
from edgec.graph.errors import UnsupportedError, UsageError
from edgec.graph.tflite.schema import TensorType
from edgec.graph.version import __version__
from edgec.graph.views import is_constant
from edgec.targets.engines import Precision

IoLayout = Literal["nchw", "nhwc"]

METADATA_NAME = "edgec"
_CODES = {"float": None, "int8": TensorType.INT8, "uint8": TensorType.UINT8}


def emit(
    model: ir.Model,
    *,
    precision: Precision = "fp32",
    io_layout: IoLayout = "nchw",
    io_type: IoType = "float",
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The TFLite file of a canonical model.

    ``precision`` ``"fp16"`` stores constants as float16, as weights that are float16 to the bit always are; ``"int8"`` takes a
    model that carries QDQ pairs (8 or 16 bit activations). ``io_layout`` ``"nchw"`` keeps the interface of the ONNX graph, at
    the cost of a TRANSPOSE per image input; ``"nhwc"`` has images channels last. ``io_type`` ``"int8"`` or ``"uint8"``:
    quantised inputs and outputs are codes of that type, where the codes have 8 bits.
    ``batch`` fixes the batch axis; None leaves an open one open. ``metadata`` is stored in the file.

    Raises UnsupportedError naming the first node without a TFLite form, UsageError for a precision that does not fit.
    """
    _check_precision(model, precision)
    options = Options(channels_last=io_layout == "nhwc", codes=_CODES[io_type], batch=batch)
    try:
        lowered, refused = lower(model, options)
    except FixedBatchError:  # with a fixed batch nothing needs one; kept as a user's error, not a crash
        raise UnsupportedError("this batch size cannot be emitted", hint="Leave --batch out.") from None
    if lowered is None:
        raise _refusal(refused)
    if precision == "fp16":
        halve_constants(lowered.program)
    else:
        keep_halves(lowered.program)
    return serialise(
        lowered.program, {METADATA_NAME: _metadata(lowered, precision, io_layout, metadata or {})}
    )


def unsupported(model: ir.Model) -> list[Unsupported]:
    """Every node of ``model`` without a TFLite form, with the reason and what to do; empty when `emit` will work."""
    return lower(model, Options())[1]


@dataclass(frozen=True)
class Split:
    """The part of a model that TFLite runs, the tensors where it ends, and the nodes that ended it."""

    model: ir.Model
    cut: tuple[str, ...]
    refused: tuple[Unsupported, ...]


def split_unsupported(model: ir.Model) -> Split:
    """Cut ``model`` before the nodes that TFLite cannot take, keeping all that does not depend on them.

    Raises UnsupportedError when nothing is left.
    """
    kept, refused = runnable_nodes(model)
    live = live_nodes(model.graph)
    cut: dict[str, None] = {}
    for node in model.graph:
        if node not in live or node in kept:
            continue
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if value is not None and producer in kept and not is_constant(value):
                cut[value.name or ""] = None
    for value in model.graph.outputs:
        if value.producer() in kept:
            cut[value.name or ""] = None
    if not cut:
        raise _refusal(refused)
    prefix = model.clone()
    produced = {value.name or "": value for node in prefix.graph for value in node.outputs}
    prefix.graph.outputs[:] = [produced[name] for name in cut]
    still = live_nodes_with_shapes(prefix.graph)
    prefix.graph.remove([node for node in reversed(list(prefix.graph)) if node not in still], safe=True)
    return Split(prefix, tuple(cut), tuple(refused))


def live_nodes_with_shapes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that the outputs depend on, shape arithmetic included."""
    live: set[ir.Node] = set()
    front: list[ir.Value | None] = list(graph.outputs)
    while front:
        value = front.pop()
        node = None if value is None else value.producer()
        if node is not None and node not in live:
            live.add(node)
            front.extend(node.inputs)
    return live


def _check_precision(model: ir.Model, precision: str) -> None:
    if precision not in ("fp32", "fp16", "int8"):
        raise UsageError(f"no precision {precision!r}", hint="Known: fp32, fp16, int8.")
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph)
    if quantised and precision != "int8":
        raise UsageError(
            f"the model is quantised, {precision} was asked", hint="Emit it as int8, or emit the float model."
        )
    if not quantised and precision == "int8":
        raise UsageError("the model carries no QDQ pairs", hint="Run the quantize pass first.")


def _refusal(refused: list[Unsupported]) -> UnsupportedError:
    first, others = refused[0], refused[1:]
    what = f"TFLite cannot take {first.op}"
    if others:
        names = ", ".join(f"{o.op} {o.node!r}" for o in others[:3])
        more = "" if len(others) <= 3 else f", and {len(others) - 3} more"
        what += f" (nor {names}{more})"
    return UnsupportedError(what, where=first.place, why=first.why, hint=first.hint)


def _metadata(lowered: Lowered, precision: str, io_layout: str, given: Mapping[str, str]) -> bytes:
    content = {
        "edgec": __version__,
        "precision": precision,
        "io_layout": io_layout,
        "axes": {name: list(perm) for name, perm in lowered.layouts.items()},
        **({} if lowered.batch is None else {"batch": lowered.batch}),
        "metadata": dict(given),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
