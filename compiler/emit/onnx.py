"""Write a graph as an ONNX file: deterministic bytes, no paths of this machine, one producer line, int8 graphs small."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from edgec.compiler.emit.small import shrink
from edgec.graph.errors import ModelError
from edgec.graph.version import __version__

MAX_BYTES = 2**31 - 1
"""protobuf's limit for one file."""


def emit(model: ir.Model, *, metadata: dict[str, str] | None = None) -> bytes:
    """The file's bytes, checked by onnx. ``metadata`` goes into the model's properties, sorted by key.

    Raises ModelError where onnx's checker refuses the graph or it exceeds protobuf's 2 GB.
    """
    proto = ir.to_proto(model)
    proto.producer_name = "edgec"
    proto.producer_version = __version__
    proto.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    shrink(proto)
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
