"""Constants that hold one number many times, in arithmetic that broadcasts: one number is enough.

``torch.zeros_like(x)`` and masks filled with a value leave arrays of the feature map's size behind once they are folded.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.spec import BINARY
from edgec.graph.views import add_initializer, constant


def shrink_uniform(model: ir.Model) -> int:
    """Replace every constant of one number whose other operands have its sizes already; how many. In place.

    Vectors along one axis stay: they may be a layer's parameters.
    """
    count = 0
    for node in list(model.graph):
        if node.domain not in ("", "ai.onnx") or node.op_type not in (*BINARY, "Where"):
            continue
        for index, value in enumerate(node.inputs):
            array = constant(value)
            if array is None or value is None or sum(size > 1 for size in array.shape) < 2:
                continue
            others = [one for one in node.inputs if one is not value]
            if (array == array.flat[0]).all() and all(
                size == 1 or any(_has(other, array.ndim - axis, size) for other in others)
                for axis, size in enumerate(array.shape)
            ):
                small = array.reshape(-1)[:1].reshape((1,) * array.ndim)
                node.replace_input_with(
                    index, add_initializer(model.graph, f"{value.name}_once", np.array(small))
                )
                count += 1
    return count


def _has(value: ir.Value | None, from_right: int, size: int) -> bool:
    """Whether ``value``, no constant that may go too, has that size on an axis counted from the right."""
    if value is None or value.shape is None or constant(value) is not None or len(value.shape) < from_right:
        return False
    return value.shape[len(value.shape) - from_right] == size
