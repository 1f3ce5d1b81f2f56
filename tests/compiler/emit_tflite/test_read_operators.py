"""Operators that other converters write: each behind a convolution, so that it meets a tensor held channels first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.emit.tflite.program import Program, Tensor
from edgec.compiler.emit.tflite.serialise import serialise
from edgec.graph.errors import UnsupportedError
from edgec.graph.tflite.lift.model import to_onnx
from edgec.graph.tflite.read import read
from edgec.graph.tflite.schema import TensorType

Array = np.ndarray[Any, np.dtype[Any]]
SHAPE = (1, 5, 6, 4)
FLOAT, INT32, INT64, BOOL = TensorType.FLOAT32, TensorType.INT32, TensorType.INT64, TensorType.BOOL
RNG = np.random.default_rng(5)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.asarray(values, np.int32)


X = "the convolution's result"
EVEN = "the same, of four rows"
Case = tuple[str, Sequence[Any], Sequence[tuple[int, ...]], dict[str, Any]]


def window(padding: int, stride: int, **more: int) -> dict[str, Any]:
    return {"padding": padding, "stride_h": stride, "stride_w": stride, **more}


def strided(cells: Sequence[tuple[int, int, int]], out: tuple[int, ...], **masks: int) -> Case:
    """(begin, end, stride) of every entry."""
    columns = [ints(*column) for column in zip(*cells, strict=True)]
    return "STRIDED_SLICE", [X, *columns], [out], {f"{name}_mask": value for name, value in masks.items()}


CASES: dict[str, Case] = {
    "relu1": ("RELU_N1_TO_1", [X], [SHAPE], {}),
    "square": ("SQUARE", [X], [SHAPE], {}),
    "squared difference": ("SQUARED_DIFFERENCE", [X, floats(4)], [SHAPE], {}),
    "add of a row": ("ADD", [X, floats(6, 1)], [SHAPE], {"fused_activation_function": 1}),
    "sub from a picture": ("SUB", [floats(1, 5, 6, 1), X], [SHAPE], {"fused_activation_function": 3}),
    "mul of a scalar": ("MUL", [X, np.float32(3).reshape(())], [SHAPE], {"fused_activation_function": 2}),
    "prelu by channel": ("PRELU", [X, floats(1, 1, 4)], [SHAPE], {}),
    "prelu by cell": ("PRELU", [X, floats(5, 6, 4)], [SHAPE], {}),
    "softmax with beta": ("SOFTMAX", [X], [SHAPE], {"beta": 2.5}),
    "l2 norm": ("L2_NORMALIZATION", [X], [SHAPE], {}),
    "mean of a picture": ("MEAN", [X, ints(1, 2)], [(1, 4)], {"keep_dims": False}),
    "mean of channels": ("MEAN", [X, ints(-1)], [(1, 5, 6)], {"keep_dims": False}),
    "max of rows": ("REDUCE_MAX", [X, ints(1)], [(1, 1, 6, 4)], {"keep_dims": True}),
    "sum of all but the batch": ("SUM", [X, ints(1, 2, 3)], [(1,)], {"keep_dims": False}),
    "arg max of channels": ("ARG_MAX", [X, ints(3)], [(1, 5, 6)], {"output_type": int(INT32)}),
    "arg min of rows": ("ARG_MIN", [X, ints(1)], [(1, 6, 4)], {"output_type": int(INT64)}),
    "transpose": ("TRANSPOSE", [X, ints(0, 2, 3, 1)], [(1, 6, 4, 5)], {}),
    "reshape": ("RESHAPE", [X, ints(1, 30, 4)], [(1, 30, 4)], {}),
    "concat of rows": ("CONCATENATION", [X, floats(1, 2, 6, 4), X], [(1, 12, 6, 4)], {"axis": 1}),
    "concat of channels": ("CONCATENATION", [floats(1, 5, 6, 2), X], [(1, 5, 6, 6)], {"axis": -1}),
    "pack": ("PACK", [X, floats(*SHAPE)], [(1, 5, 6, 4, 2)], {"axis": -1, "values_count": 2}),
    "unpack": ("UNPACK", [X], [(1, 5, 4)] * 6, {"axis": 2, "num": 6}),
    "split": ("SPLIT", [ints(3).reshape(()), X], [(1, 5, 6, 2)] * 2, {"num_splits": 2}),
    "split v": ("SPLIT_V", [X, ints(2, -1), ints(1).reshape(())], [(1, 2, 6, 4), (1, 3, 6, 4)], {"num_splits": 2}),
    "slice": ("SLICE", [X, ints(0, 1, 0, 1), ints(1, -1, 3, 2)], [(1, 4, 3, 2)], {}),
    "strided slice": strided([(0, 1, 1), (0, 5, 2), (5, 0, -2), (0, 4, 1)], (1, 3, 3, 4)),
    "strided slice by masks": strided([(9, 9, 1), (0, -1, 1), (9, 9, 1), (-1, 0, 1)], (1, 4, 6, 1), begin=5, end=13),
    "strided slice that drops an axis": strided([(0, 1, 1), (0, 5, 1), (0, 6, 1), (-2, 9, 1)], (1, 5, 6), shrink_axis=8),
    "strided slice with an ellipsis": strided([(0, 0, 1), (2, 4, 1)], (1, 5, 6, 2), ellipsis=1),
    "strided slice with a new axis": strided([(0, 1, 1), (0, 0, 1), (1, 3, 1)], (1, 1, 2, 6, 4), new_axis=2),
    "gather of channels": ("GATHER", [X, ints(3, 0, 0)], [(1, 5, 6, 3)], {"axis": 3}),
    "reverse": ("REVERSE_V2", [X, ints(2)], [SHAPE], {}),
    "tile": ("TILE", [X, ints(1, 2, 1, 3)], [(1, 10, 6, 12)], {}),
    "pad": ("PAD", [X, ints(0, 0, 1, 2, 0, 1, 0, 3).reshape(4, 2)], [(1, 8, 7, 7)], {}),
    "pad v2": ("PADV2", [X, ints(0, 0, 1, 0, 2, 0, 0, 0).reshape(4, 2), np.float32([-3])], [(1, 6, 8, 4)], {}),
    "mirror": ("MIRROR_PAD", [X, ints(0, 0, 2, 1, 0, 3, 0, 0).reshape(4, 2)], [(1, 8, 9, 4)], {"mode": 0}),
    "mirror that repeats the border": (
        "MIRROR_PAD", [X, ints(0, 0, 2, 1, 0, 3, 0, 0).reshape(4, 2)], [(1, 8, 9, 4)], {"mode": 1}
    ),
    "space to depth": ("SPACE_TO_DEPTH", [EVEN], [(1, 2, 3, 16)], {"block_size": 2}),
    "depth to space": ("DEPTH_TO_SPACE", [X], [(1, 10, 12, 1)], {"block_size": 2}),
    "fully connected": ("FULLY_CONNECTED", [X, floats(3, 120), floats(3)], [(1, 3)], {"fused_activation_function": 1}),
    "fully connected on tokens": ("FULLY_CONNECTED", [X, floats(3, 4), floats(3)], [(30, 3)], {}),
    "fully connected that keeps axes": (
        "FULLY_CONNECTED", [X, floats(3, 4), None], [(1, 5, 6, 3)], {"keep_num_dims": True}
    ),
    "batch matmul": ("BATCH_MATMUL", [X, floats(1, 5, 3, 4)], [(1, 5, 6, 3)], {"adj_y": True}),
    "top k": ("TOPK_V2", [X, ints(2).reshape(())], [(1, 5, 6, 2), (1, 5, 6, 2)], {}),
    "select": ("SELECT_V2", [floats(1, 1, 1, 4) > 0, X, floats(1, 5, 6, 1)], [SHAPE], {}),
    "grouped conv": ("CONV_2D", [X, floats(6, 3, 3, 2), floats(6)], [(1, 3, 3, 6)], window(0, 2)),
    "depthwise with a multiplier": (
        "DEPTHWISE_CONV_2D", [X, floats(1, 3, 2, 8), floats(8)], [(1, 3, 5, 8)],
        window(
            1, 1, depth_multiplier=2, fused_activation_function=3, dilation_w_factor=1, dilation_h_factor=1
        ),
    ),
    **{
        f"transposed conv {name} by {stride}": (
            "TRANSPOSE_CONV", [ints(*out), floats(3, 3, 2, 4), X, floats(3)], [out],
            window(padding, stride, fused_activation_function=1),
        )
        for name, padding, stride, out in (
            ("same", 0, 1, (1, 5, 6, 3)), ("same", 0, 2, (1, 10, 12, 3)), ("odd", 0, 2, (1, 9, 11, 3)),
            ("valid", 1, 1, (1, 7, 7, 3)), ("valid", 1, 2, (1, 11, 12, 3)), ("valid, longer", 1, 3, (1, 16, 18, 3)),
        )
    },
    **{
        f"resize {kind} {rule} to {size}": (
            kind, [X, ints(*size)], [(1, *size, 4)], {rule: True} if rule else {}
        )
        for kind in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
        for rule in ("", "half_pixel_centers", "align_corners")
        for size in ((10, 12), (7, 11), (3, 3))
    },
    **{
        f"{kind} {padding} {size}": (
            kind, [X], [out], window(padding, 2, filter_height=size, filter_width=size, fused_activation_function=3)
        )
        for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
        for padding, size, out in ((0, 3, (1, 3, 3, 4)), (1, 2, (1, 2, 3, 4)), (0, 4, (1, 3, 3, 4)))
    },
}  # fmt: skip
RESULT_TYPES = {"ARG_MAX": INT32, "ARG_MIN": INT64}


def file_of(case: Case) -> bytes:
    """A file of one pointwise convolution and the operator behind it."""
    code, operands, shapes, options = case
    program = Program()
    x = program.tensor("x", FLOAT, (1, 4, 6, 4) if any(one is EVEN for one in operands) else SHAPE)
    h = program.tensor("h", FLOAT, x.shape)
    weight, bias = program.constant("w", floats(4, 1, 1, 4)), program.constant("b", floats(4))
    program.add("CONV_2D", [x, weight, bias], [h], window(0, 1, dilation_w_factor=1, dilation_h_factor=1))
    inputs: list[Tensor | None] = [
        h if isinstance(one, str) else None if one is None else program.constant("c", np.asarray(one))
        for one in operands
    ]
    results = [
        program.tensor(f"y{k}", INT32 if code == "TOPK_V2" and k else RESULT_TYPES.get(code, FLOAT), shape)
        for k, shape in enumerate(shapes)
    ]
    program.add(code, inputs, results, options)
    program.inputs = [("x", x)]
    program.outputs = [(y.name, y) for y in results]
    return serialise(program, {})


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, tflite: Callable[..., Any], onnx_run: Any) -> None:
    data = file_of(CASES[name])
    feeds = {"x": floats(*read(data).tensors[read(data).inputs[0]].shape)}
    want = tflite(data, feeds, "litert-builtin")
    proto = to_onnx(read(data))
    onnx.checker.check_model(proto, full_check=True)
    have = onnx_run(ir.from_proto(proto), feeds)
    assert have.keys() == want.keys()
    for key, value in want.items():
        assert have[key].shape == value.shape
        assert have[key].dtype == value.dtype
        np.testing.assert_allclose(have[key], value, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "name", [n for n in CASES if CASES[n][0] not in ("TRANSPOSE", "RESHAPE", "PACK", "UNPACK")]
)
def test_no_transpose_but_at_the_ends(name: str) -> None:
    """In front of the convolution, before each result, and where an operator reads tokens."""
    nodes = to_onnx(read(file_of(CASES[name]))).graph.node
    turned = [node for node in nodes if node.op_type == "Transpose"]
    assert len(turned) <= 1 + max(len(CASES[name][2]), 1)


@pytest.mark.parametrize(
    "code",
    ["WHERE", "HASHTABLE_FIND", "UNIDIRECTIONAL_SEQUENCE_LSTM", "IF", "WHILE", "NON_MAX_SUPPRESSION_V4"],
)
def test_what_is_not_known_is_refused_by_name(code: str) -> None:
    with pytest.raises(UnsupportedError, match=f"operator 1 \\({code}\\) 'y0'"):
        to_onnx(read(file_of((code, [X], [SHAPE], {}))))
