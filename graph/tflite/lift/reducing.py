"""Operators that gather along axes, and resizing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgec.graph.tflite.lift.call import Call, Handler, plain_order
from edgec.graph.tflite.lift.lifting import CHANNELS_FIRST
from edgec.graph.tflite.lift.moving import reshaped
from edgec.graph.tflite.lift.pointwise import onnx_type
from edgec.graph.tflite.schema import TensorType

_REDUCTIONS = {
    "MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd",
}  # fmt: skip
_GLOBAL = {"MEAN": "GlobalAveragePool", "REDUCE_MAX": "GlobalMaxPool"}


def reduction(call: Call) -> None:
    """MEAN and its kin; over height and width of a picture it is a global pool."""
    rank, order = len(call.shape()), call.preferred()
    axes = sorted({call.axis(axis) for axis in call.ints(1, "axes")})
    keep = bool(call.option("keep_dims", False))
    if order == CHANNELS_FIRST and axes == [1, 2] and call.op.code in _GLOBAL:
        name, kept = call.add(_GLOBAL[call.op.code], [call.take(0, order)]), order
        if not keep:
            shape = call.shape()
            name = reshaped(call, name, (shape[0], shape[3], 1, 1), (shape[0], shape[3]))
            kept = (0, 1)
        call.finish(name, kept)
        return
    places = call.lifting.ints([order.index(axis) for axis in axes], f"{call.stem}_axes")
    name = call.add(_REDUCTIONS[call.op.code], [call.take(0, order), places], keepdims=int(keep))
    left = [axis for axis in range(rank) if axis not in axes]
    call.finish(name, order if keep else tuple(left.index(axis) for axis in order if axis in left))


def arg(call: Call) -> None:
    """ARG_MAX and ARG_MIN, whose axis goes."""
    axis, order = call.axis(call.ints(1, "axis")[0]), call.preferred()
    op_type = "ArgMax" if call.op.code == "ARG_MAX" else "ArgMin"
    name = call.add(op_type, [call.take(0, order)], axis=order.index(axis), keepdims=0)
    kind = call.lifting.tensor(call.output()).type
    if kind != TensorType.INT64:
        name = call.add("Cast", [name], f"{call.stem}_cast", to=onnx_type(call, kind))
    call.finish(name, tuple(a if a < axis else a - 1 for a in order if a != axis))


def softmax(call: Call) -> None:
    """SOFTMAX and LOG_SOFTMAX along the last axis."""
    order = call.preferred()
    x = call.take(0, order)
    beta = float(call.option("beta", 1.0)) if call.op.code == "SOFTMAX" else 1.0
    if beta != 1.0:
        factor = call.lifting.store(np.asarray(beta, np.float32), f"{call.stem}_beta")
        x = call.add("Mul", [x, factor], f"{call.stem}_scaled")
    op_type = "Softmax" if call.op.code == "SOFTMAX" else "LogSoftmax"
    call.finish(call.add(op_type, [x], axis=order.index(len(order) - 1)), order)


def top_k(call: Call) -> None:
    """TOPK_V2 along the last axis."""
    last = len(call.shape()) - 1
    count = call.lifting.ints(call.ints(1, "count"), f"{call.stem}_count")
    stems = [call.lifting.stem(call.output(0)), call.lifting.stem(call.output(1))]
    values, places = call.lifting.ops("TopK", [call.plain(), count], stems, axis=last)
    kind = call.lifting.tensor(call.output(1)).type
    places = call.add("Cast", [places], f"{stems[1]}_cast", to=onnx_type(call, kind))
    call.finish(values, plain_order(last + 1))
    call.finish(places, plain_order(last + 1), 1)


def cumsum(call: Call) -> None:
    """CUMSUM."""
    order = call.preferred()
    axis = order.index(call.axis(call.ints(1, "axis")[0]))
    place = call.lifting.store(np.asarray(axis, np.int64), f"{call.stem}_axis")
    switches: dict[str, Any] = {
        name: int(bool(call.option(name, False))) for name in ("exclusive", "reverse")
    }
    call.finish(call.add("CumSum", [call.take(0, order), place], **switches), order)


def resize(call: Call) -> None:
    """RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR, in their three rules of coordinates.

    TFLite rounds halves up where it takes the nearest of half pixels or of aligned corners, and down to the cell without.
    """
    linear = call.op.code == "RESIZE_BILINEAR"
    half, aligned = bool(call.option("half_pixel_centers", False)), bool(call.option("align_corners", False))
    rule = "align_corners" if aligned else "half_pixel" if half else "asymmetric"
    attributes: dict[str, Any] = {
        "coordinate_transformation_mode": rule,
        "mode": "linear" if linear else "nearest",
    }
    if not linear:
        attributes["nearest_mode"] = "round_prefer_ceil" if half or aligned else "floor"
    batch, height, width, channels = call.shape()
    _, out_height, out_width, _ = call.out_shape()
    x, stem = call.picture(), call.stem
    if out_height % height or out_width % width or aligned:
        sizes = call.lifting.ints([batch, channels, out_height, out_width], f"{stem}_sizes")
        inputs = [x, "", "", sizes]
    else:
        scales = np.asarray([1, 1, out_height / height, out_width / width], np.float32)
        inputs = [x, "", call.lifting.store(scales, f"{stem}_scales")]
    call.finish(call.add("Resize", inputs, **attributes), CHANNELS_FIRST)


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(_REDUCTIONS, reduction), "ARG_MAX": arg, "ARG_MIN": arg, "SOFTMAX": softmax, "LOG_SOFTMAX": softmax,
    "TOPK_V2": top_k, "CUMSUM": cumsum, "RESIZE_BILINEAR": resize, "RESIZE_NEAREST_NEIGHBOR": resize,
}  # fmt: skip
