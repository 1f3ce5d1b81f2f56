"""TFLite files straight from the canonical graph, with `flatbuffers` only (design section 5).

`emit` writes a file, `unsupported` names what stands in the way, `split_unsupported` cuts the model before it, and
`read` opens any TFLite file again. The emitter translates and decides nothing: scales and zero points of an int8 file
are those of the QDQ pairs in the graph.
"""

from __future__ import annotations

from edgec.compiler.emit.tflite.api import emit, split_unsupported, unsupported
from edgec.compiler.emit.tflite.emitter import Unsupported

__all__ = ["Unsupported", "emit", "split_unsupported", "unsupported"]
