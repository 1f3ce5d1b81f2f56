"""Bring any ONNX model to the canonical graph (design section 2).

The steps, each a library's work where one does it well:
1. refuse what cannot be taken, by name: subgraphs, recurrent and random ops, custom domains, non-tensor inputs;
2. name every node, inline functions, take initialisers off the input list, fix open dimensions;
3. the oldest opset from 18 on in which the model means the same (onnx.version_converter where it must change), constants and
   shape arithmetic folded (onnxsim);
4. BatchNorm, affine and pad chains fused into convolutions (onnxscript's rewrite rules; `affine`, `affine_ahead`); Einsum written
   out (`einsum`); queries, keys and values that one layer makes are parted (`split_heads`);
5. free a batch axis fixed at 1 where the graph allows it (`batch.free_batch`);
6. names, order, shapes, and a numeric check against the source model on random input;
7. every node is marked with the node of the source model that it stands for (`provenance`).
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from edgec.graph.batch import (
    can_free,
    divide_batch,
    fix_batch,
    fix_open_batch,
    free_batch,
    leads_cleanly,
)
from edgec.graph.boundary import node_name, reading
from edgec.graph.equivalence import ChangedError, Reference
from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.fuse import fuse
from edgec.graph.gelu import keep_gelus_whole
from edgec.graph.listener import CHECKING, CONVERTING, FOLDING, FUSING, INFERRING, RUNNING, Listener
from edgec.graph.names import free_name
from edgec.graph.norms import write_out_norms
from edgec.graph.opsets import (
    lowest_equal_opset,
    modern_opset,
    runnable_opset,
    sound_pools,
)
from edgec.graph.provenance import mark_read
from edgec.graph.quiet import LIBRARIES, quiet_log
from edgec.graph.read.dequantise import dequantise, is_quantised
from edgec.graph.read.floats import to_float32
from edgec.graph.read.metadata import keep_words, notes_in
from edgec.graph.read.own_codes import SourceCodes, keep_codes
from edgec.graph.read.resizing import rewrite_old_resizes
from edgec.graph.simplify import simplify
from edgec.graph.sizes import InputShape, fix_shapes, shape_outputs
from edgec.graph.spec import KNOWN_DOMAINS, REFUSED
from edgec.graph.tidy import infer_shapes, tidy
from edgec.graph.unbatched import add_batch, lacks_batch
from edgec.graph.verify import verify
from edgec.graph.wellformed import check_form, check_sizes

TOLERANCE = 1e-4
"""Of an output's range: what float32 rounding may change when layers are fused."""


def canonicalise(
    source: onnx.ModelProto,
    *,
    input_shape: InputShape | None = None,
    codes: bool = False,
    listener: Listener | None = None,
) -> ir.Model:
    """The canonical graph of ``source``, which is left as it is. ``listener`` hears of each stage before it begins.

    A quantised network becomes one of real numbers; with ``codes`` it stays as it is, node by node, to be looked at.

    Raises UnsupportedError with the node for what cannot be taken, ModelError for a model that is broken.
    """
    with reading(source):
        return _canonicalise(source, input_shape, codes, listener or Listener())


def _canonicalise(
    source: onnx.ModelProto, input_shape: InputShape | None, codes_stay: bool, listener: Listener
) -> ir.Model:
    model = onnx.ModelProto()
    model.CopyFrom(source)
    listener.stage(CHECKING)
    _refuse(model)
    check_form(model)
    _name_nodes(model)
    _settle_switches(model)
    _drop_initialiser_inputs(model)
    if not model.graph.input:
        hint = "Export the network with its input left open."
        raise ModelError("the model takes no input", why="its outputs are always the same", hint=hint)
    fix_shapes(model, input_shape)
    shape_outputs(model)
    listener.stage(CONVERTING)
    model = rewrite_old_resizes(model)
    notes, codes = notes_in(source), SourceCodes()
    notes += [f"the network computes in {name}: float32 inside" for name in to_float32(model)]
    if is_quantised(model) and codes_stay:
        return _as_it_is(source, runnable_opset(model), notes)
    if is_quantised(model):
        notes.append("the network came quantised, and was dequantised: every stage works on real numbers")
        model, codes = dequantise(model)
    model = sound_pools(runnable_opset(lowest_equal_opset(model)))
    listener.stage(INFERRING)
    check_sizes(model)
    original = onnx.ModelProto()
    original.CopyFrom(model)
    listener.stage(FOLDING)
    graph = _folded(model, listener)
    listener.stage(RUNNING)
    graph = _agreeing(original, model, graph, listener)
    if len(graph.graph.inputs[0].shape or ()) > len(model.graph.input[0].type.tensor_type.shape.dim):
        notes.append(
            "the network takes one sample without a batch axis: artifacts take and give a leading axis of 1"
        )
    mark_read(original, graph)
    keep_words(source, graph, notes)
    keep_codes(graph, codes)
    verify(graph)
    return graph


def _as_it_is(source: onnx.ModelProto, model: onnx.ModelProto, notes: list[str]) -> ir.Model:
    """Names, shapes and order, and nothing else: a fold would turn codes over that lie near the middle of two."""
    graph = _to_ir(modern_opset(model))
    _refuse_nodes(graph)
    tidy(graph)
    mark_read(model, graph)
    keep_words(source, graph, notes)
    verify(graph)
    return graph


def _folded(model: onnx.ModelProto, listener: Listener) -> ir.Model:
    """Constants and shape arithmetic folded, layers fused, names and shapes in order."""
    written_out = write_out_norms(keep_gelus_whole(model))
    graph = _to_ir(modern_opset(simplify(written_out)))
    _refuse_nodes(graph)
    listener.stage(FUSING)
    fuse(graph)
    tidy(graph)
    return graph


def _agreeing(
    original: onnx.ModelProto, model: onnx.ModelProto, graph: ir.Model, listener: Listener
) -> ir.Model:
    """The form of ``graph`` that computes what ``original`` does: with a free batch axis, or one sample at a time.

    What onnxruntime makes of the original may itself be wrong: 1.21 pulls a Pad into an AveragePool that does not count what was
    padded. So where nothing agrees, the original is asked once more, node by node as it is written, and how sure it is itself.
    """
    try:
        reference = Reference.of(original)
        return _freely(model, graph, reference, listener) or _fixed(model, reference, listener)
    except ChangedError:
        reference = Reference.of(original, fused=False).with_noise(original)
        return _freely(model, graph, reference, listener) or _fixed(model, reference, listener)


def _freely(
    source: onnx.ModelProto, graph: ir.Model, reference: Reference, listener: Listener
) -> ir.Model | None:
    """``graph`` with a free batch axis. Shape arithmetic that only the open batch kept from folding is folded at batch 1."""
    free = freed(graph, reference)
    if free is None or not any(node.op_type == "Shape" for node in free.graph):
        return free
    alone = onnx.ModelProto()
    alone.CopyFrom(source)
    folded = fix_open_batch(alone) and freed(_folded(alone, listener), reference)
    return folded or free


def freed(model: ir.Model, reference: Reference) -> ir.Model | None:
    """A copy of ``model`` with a free batch axis, where it then computes what ``reference`` does and leads with the batch."""
    if not can_free(model):
        return None
    free = model.clone()
    free_batch(free)
    infer_shapes(free)
    single = free.clone()
    fix_batch(single)
    infer_shapes(single)
    return free if leads_cleanly(free, single) and reference.matches_batched(free, TOLERANCE) else None


def _fixed(source: onnx.ModelProto, reference: Reference, listener: Listener) -> ir.Model:
    """``source`` one sample at a time: its open axes are 1 before it is folded, which may leave a graph that can be freed."""
    alone = onnx.ModelProto()
    alone.CopyFrom(source)
    opened = fix_open_batch(alone)
    graph = _folded(alone, listener)
    if opened and (free := freed(graph, reference)) is not None:
        return free
    if can_free(graph) and not opened:
        single = graph.clone()
        divide_batch(single)
        infer_shapes(single)
        if reference.matches_singly(single, TOLERANCE):
            return single
    if lacks_batch(graph):
        add_batch(graph)
        tidy(graph)
        reference = reference.with_batch()
        if (free := freed(graph, reference)) is not None:
            return free
    reference.check(graph, TOLERANCE)
    return graph


def _refuse(model: onnx.ModelProto) -> None:
    if not model.graph.node and not model.graph.output:
        raise ModelError("the model is empty")
    for value in model.graph.input:
        kind = value.type.WhichOneof("value")
        if kind not in ("tensor_type", None):
            what = f"an input of type {kind} is not supported"
            raise UnsupportedError(what, where=f"input {value.name!r}")
    functions = {(f.domain, f.name) for f in model.functions}
    for node in model.graph.node:
        where = node_name(node)
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in functions:
            hint = "Replace it by standard ONNX ops, or export with functions included."
            raise UnsupportedError(f"custom op of domain {node.domain!r}", where=where, hint=hint)
        if node.domain in ("", "ai.onnx") and node.op_type in (*_RECURRENT_AND_RANDOM,):
            raise UnsupportedError("this op is not supported", where=where, why=REFUSED[node.op_type])


_RECURRENT_AND_RANDOM = frozenset(REFUSED) - {"If"}  # an If on a constant may still fold away


def _refuse_nodes(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type in REFUSED and node.domain in ("", "ai.onnx"):
            where = f"node {node.name!r} ({node.op_type})"
            raise UnsupportedError("this op is not supported", where=where, why=REFUSED[node.op_type])


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give nameless nodes the name of their op and position, so that messages and reports can speak of them."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        node.name = free_name(node.name or f"{node.op_type}_{index}", taken)


def _settle_switches(model: onnx.ModelProto) -> None:
    """keepdims other than 0 and 1 means 0 to onnxruntime and to shape inference; what reads it later need not know."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "keepdims" and attribute.i not in (0, 1):
                attribute.i = 0


def _drop_initialiser_inputs(model: onnx.ModelProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    if len(kept) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)


def _to_ir(model: onnx.ModelProto) -> ir.Model:
    graph = ir.from_proto(model)
    with quiet_log(*LIBRARIES):
        common.InlinePass()(graph)
        common.RemoveUnusedFunctionsPass()(graph)  # type: ignore[no-untyped-call]
        common.ClearMetadataAndDocStringPass()(graph)
    return graph
