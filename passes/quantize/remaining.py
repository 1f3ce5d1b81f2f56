"""Weights of layers that stay float in an int8 network, rounded to float16 numbers, as which files store them.

Half a unit of float16 is 2^-11 of a weight: 66 dB below the layer, where codes of 8 bits leave 30 to 40. A file in which the
larger part stays float was larger than a source that stores float16 (MediaPipe's detectors). It is done in the graph, not in a
file, so that what is measured is what is shipped, in every format.

1. the constant weight of a Conv, ConvTranspose, Gemm or MatMul is rounded,
2. but not where an output channel loses more than `MOST` of its norm: numbers below 6e-5 have fewer digits in float16, and above
   65504 there are none;
3. biases stay: they are few, and what is in front of them may cancel.

A layer behind a DequantizeLinear has its weight in int32 codes (`insert`), exact to 2^-30 of the largest and so to the bit for
these numbers: a TFLite file stores halves there too, an ONNX file the codes.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.spec import LAYERS
from edgec.graph.views import constant, set_constant
from edgec.passes.cast_fp16 import halved
from edgec.passes.quantize.rules import weight_axis

Array = np.ndarray[Any, np.dtype[Any]]

MOST = 2.0**-10
"""Of the norm of an output channel."""


def round_remaining(model: ir.Model, quantised: Container[str]) -> None:
    """Round those of all layers in place whose names are not ``quantised``."""
    for node in model.graph:
        stays = node.op_type in LAYERS and len(node.inputs) > 1 and node.name not in quantised
        weight = node.inputs[1] if stays else None
        stored = None if weight is None else constant(weight)
        if weight is None or stored is None or stored.dtype != np.float32:
            continue
        half = halved(stored)
        if half is not None and _near(stored, half.astype(np.float32), weight_axis(node)):
            set_constant(weight, half.astype(np.float32))


def _near(weight: Array, rounded: Array, outputs: int) -> bool:
    lost, whole = (_energy(one, outputs) for one in (weight - rounded, weight))
    return bool((lost <= MOST**2 * whole).all())


def _energy(values: Array, axis: int) -> Array:
    others = tuple(one for one in range(values.ndim) if one != axis)
    found: Array = np.square(values.astype(np.float64)).sum(axis=others)
    return found
