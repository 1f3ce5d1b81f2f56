"""A small network, and arrays that fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.graph.execute import session
from tests.conftest import parse

NET = (
    "net (float[N,3,8,8] x) => (float[N,10] y) <float[4,3,3,3] w, float[4] b, float[10,4] g, float[10] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(t)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)
TWO = (
    "two (float[N,3,8,8] a, float[N,4] b) => (float[N,4] y) <float[4,3,3,3] w>"
    "{ t = Conv<pads=[1,1,1,1]>(a, w)  p = GlobalAveragePool(t)  f = Flatten(p)  y = Add(f, b) }"
)


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return parse(NET)


@pytest.fixture(scope="module")
def x() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def y(net: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the network answers."""
    answers: np.ndarray[Any, Any] = session(net).run(None, {"x": x})[0].argmax(axis=1)
    return answers


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
