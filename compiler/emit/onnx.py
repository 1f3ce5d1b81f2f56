"""Write a graph as an ONNX file: deterministic bytes, no paths of this machine, one producer line, int8 graphs small."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from edgec.compiler.emit.small import shrink
from edgec.compiler.emit.typed import typed
from edgec.graph.errors import ModelError
from edgec.graph.lower_opset import lowered
from edgec.graph.version import __version__

MAX_BYTES = 2**31 - 1
"""protobuf's limit for one file."""


def emit(
    model: ir.Model,
    *,
    metadata: dict[str, str] | None = None,
    opset: int | None = None,
    batch: int | None = None,
    half: bool = False,
) -> bytes:
    """The file's bytes, checked by onnx.

    ``metadata`` goes into the model's properties, sorted by key; ``opset`` is the newest that the runtime reads, which then gets
    its constants as they are (None: any, and weights that are float16 to the bit may stand behind a Cast);
    ``batch`` the size that a free batch axis gets (None: it stays free); ``half``: with float16 types in the file (`typed`).

    Raises ModelError where onnx's checker refuses the graph or it exceeds protobuf's 2 GB, UnsupportedError where the network
    has no form in the older opset.
    """
    proto = ir.to_proto(model)
    proto.producer_name = "edgec"
    proto.producer_version = __version__
    proto.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    if batch is not None:
        fix_batch(proto, batch)
    shrink(proto, halves=opset is None and not half)
    if half:
        proto = typed(proto)
    elif opset is not None:
        proto = lowered(proto, opset)
    del proto.metadata_props[:]
    for key, value in sorted((metadata or {}).items()):
        proto.metadata_props.add(key=key, value=value)
    if proto.ByteSize() > MAX_BYTES:
        raise ModelError("the model is larger than 2 GB", why="one ONNX file cannot hold it")
    data: bytes = proto.SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        raise ModelError("onnx refuses the emitted graph", why=str(error).strip().splitlines()[0]) from error
    return data


def fix_batch(proto: onnx.ModelProto, size: int) -> None:
    """Give the free first axis of the inputs, and whatever bears its name, ``size``; in place."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    names = set()
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in stored and dims and not dims[0].HasField("dim_value"):
            names.add(dims[0].dim_param)
            dims[0].dim_value = size
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and dim.dim_param in names and dim.dim_param:
                dim.dim_value = size
