"""One module per family of ONNX operators; each registers how its nodes become TFLite operators."""

from __future__ import annotations

from edgec.compiler.emit.tflite.ops.composite import COMPOSITE
from edgec.compiler.emit.tflite.ops.conv import CONV
from edgec.compiler.emit.tflite.ops.elementwise import ELEMENTWISE
from edgec.compiler.emit.tflite.ops.linear import LINEAR
from edgec.compiler.emit.tflite.ops.pad import PAD
from edgec.compiler.emit.tflite.ops.pool import POOL
from edgec.compiler.emit.tflite.ops.qdq import QDQ
from edgec.compiler.emit.tflite.ops.reduce import REDUCE
from edgec.compiler.emit.tflite.ops.resize import RESIZE
from edgec.compiler.emit.tflite.ops.select import SELECT
from edgec.compiler.emit.tflite.ops.shape import SHAPE
from edgec.compiler.emit.tflite.ops.unary import UNARY
from edgec.compiler.emit.tflite.registry import Handler

HANDLERS: dict[str, Handler] = {
    **CONV, **LINEAR, **ELEMENTWISE, **UNARY, **COMPOSITE, **POOL, **PAD, **REDUCE, **RESIZE, **SELECT, **SHAPE, **QDQ,
}  # fmt: skip
"""How to lower each ONNX operator that has a TFLite form."""
