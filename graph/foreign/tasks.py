"""What the child does for `models`: the work of `graph.load`, its result as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from google.protobuf.message import EncodeError

from edgec.graph.errors import ModelError
from edgec.graph.listener import Listener
from edgec.graph.load import load as load_here


def load(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    """The canonical graph as the bytes of a ModelProto."""
    model = load_here(
        arguments["source"],
        weights=arguments["weights"],
        input_shape=arguments["input_shape"],
        codes=bool(arguments["codes"]),
        trust=bool(arguments["trust"]),
        listener=listener,
    )
    try:
        return bytes(ir.to_proto(model).SerializeToString())
    except (EncodeError, ValueError) as error:
        raise ModelError("models above 2 GB are not supported", where=arguments["source"]) from error
