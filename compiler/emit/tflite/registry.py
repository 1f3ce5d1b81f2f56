"""The table from ONNX operators to the functions that lower them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgec.compiler.emit.tflite.context import Lowering

Handler = Callable[[Lowering, ir.Node], None]


class Registry(dict[str, Handler]):
    """Handlers by ONNX operator name."""

    def register(self, *op_types: str) -> Callable[[Handler], Handler]:
        """Decorator: this function lowers these operators."""

        def add(handler: Handler) -> Handler:
            self.update(dict.fromkeys(op_types, handler))
            return handler

        return add
