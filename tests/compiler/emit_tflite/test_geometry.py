"""Windows of every shape: a seeded sample of the grid that bench/tflite_geometry.py runs whole."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgec.compiler.emit.tflite import emit

SIZES = [(8, 8), (7, 9)]
PADS = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 0, 0, 2)]


def conv(size: Any, kernel: Any, stride: Any, dilation: Any, pads: Any, channels: Any) -> str:
    group, c_in, c_out = channels
    kh, kw = kernel
    return f"""agraph (float[n,{c_in},{size[0]},{size[1]}] x) => (float[n,a,b,c] y)
        <float[{c_out},{c_in // group},{kh},{kw}] w, float[{c_out}] bias> {{
        h = Conv<strides={list(stride)}, dilations={list(dilation)}, pads={list(pads)}, group={group}>(x, w, bias)
        y = Relu(h) }}"""


def pool(size: Any, op: str, kernel: Any, stride: Any, pads: Any, include: int) -> str:
    extra = f", count_include_pad={include}" if op == "AveragePool" else ""
    return f"""agraph (float[n,3,{size[0]},{size[1]}] x) => (float[n,a,b,c] y) <float[3,3,1,1] w> {{
        h = Conv(x, w)
        y = {op}<kernel_shape={list(kernel)}, strides={list(stride)}, pads={list(pads)}{extra}>(h) }}"""


def transposed(size: Any, kernel: Any, stride: Any, pads: Any, extra: Any, group: int) -> str:
    return f"""agraph (float[n,4,{size[0]},{size[1]}] x) => (float[n,a,b,c] y)
        <float[4,{6 // group},{kernel[0]},{kernel[1]}] w, float[6] bias> {{
        y = ConvTranspose<strides={list(stride)}, pads={list(pads)}, output_padding={list(extra)}, group={group}>
            (x, w, bias) }}"""


def sample() -> list[str]:
    kernels = [(1, 1), (3, 3), (5, 5), (3, 1)]
    groups = [(1, 4, 6), (2, 4, 6), (4, 4, 8), (1, 1, 4)]
    convs = [
        conv(*c)
        for c in itertools.product(SIZES, kernels, [(1, 1), (2, 2), (2, 1)], [(1, 1), (2, 2)], PADS, groups)
        if c[3] == (1, 1) or c[1] == (3, 3)
    ]
    pools = [
        pool(*c)
        for c in itertools.product(
            SIZES, ["MaxPool", "AveragePool"], [(2, 2), (3, 3), (3, 2)], [(1, 1), (2, 2)], PADS[:3], [0, 1]
        )
    ]
    back = [
        transposed(*c)
        for c in itertools.product(
            [(4, 4), (3, 5)], [(2, 2), (3, 3), (4, 4)], [(2, 2), (2, 3)], PADS[:3], [(0, 0), (1, 1)], [1, 2]
        )
    ]
    rng = random.Random(0)
    return [*rng.sample(convs, 14), *rng.sample(pools, 10), *rng.sample(back, 8)]


@pytest.mark.parametrize("text", sample())
def test_window(
    text: str,
    build: Callable[..., Any],
    feeds: Callable[..., Any],
    quantise: Callable[..., Any],
    tflite: Callable[..., Any],
    onnx_run: Any,
    in_codes: Any,
) -> None:
    model = build(text)
    given = feeds(model, count=1)
    want = onnx_run(model, given)["y"]
    data = emit(model)
    for engine in ("litert", "litert-builtin", "tflite-runtime"):
        np.testing.assert_allclose(tflite(data, given, engine)["y"], want, atol=1e-5)
    coded = quantise(model)
    want = onnx_run(coded, given, fused=False)["y"]
    data = emit(coded, precision="int8")
    for engine in ("litert", "litert-builtin", "tflite-runtime"):
        steps = np.abs(tflite(data, given, engine)["y"] - want) / in_codes(coded)
        assert steps.max() <= 1.01, engine
