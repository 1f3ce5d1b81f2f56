"""Rounding up the output size of a pool: the last window stays only where it starts on the input or its leading pad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "kept"),
    [
        (2, 1, 2, (0, 0), False),
        (2, 3, 3, (1, 1), False),
        (7, 2, 2, (0, 0), True),
        (8, 3, 2, (0, 0), True),
        (6, 2, 2, (0, 0), False),
    ],
)
def test_shapes_are_those_of_the_runtime(
    canonical: Callable[..., ir.Model], op: str, size: int, kernel: int, stride: int, pads: Any, kept: bool
) -> None:
    import onnxruntime

    model = canonical(
        f"""agraph (float[n,2,{size},{size}] x) => (float[n,2,h,w] y) {{
        y = {op}<ceil_mode=1, kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}],
        pads=[{pads[0]},{pads[0]},{pads[1]},{pads[1]}]>(x) }}"""
    )
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    (y,) = session.run(None, {"x": np.zeros((1, 2, size, size), np.float32)})
    shape = model.graph.outputs[0].shape
    assert shape is not None
    assert tuple(shape)[1:] == y.shape[1:]
    flag = model.graph[0].attributes.get("ceil_mode")
    assert (flag is not None and flag.as_int() == 1) == kept
