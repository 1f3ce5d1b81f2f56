"""Every rule of TFLite's specification, broken by one change to a file that breaks none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgec.compiler.api import compile as compile_model
from edgec.compiler.check.tflite_rules import TFLITE_RULES, check_tflite
from edgec.graph.tflite.read import OperatorInfo, TfliteFile, read
from edgec.graph.tflite.schema import TensorType
from tests.conftest import parse

NET = """g (float[N,3,8,8] x) => (float[N,4] y) <float[8,3,3,3] w, float[8] b, float[8,1,3,3] d, float[8,8,1,1] s, float[4,8] f> {
    c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  e = Conv<pads=[1,1,1,1], group=8>(r, d)  t = Relu(e)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t)  g0 = Conv(p, s)  h = Sigmoid(g0)  m = Mul(p, h)
    a = GlobalAveragePool(m)  l = Flatten(a)  z = Gemm<transB=1>(l, f)  y = Softmax(z) }"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    compile_model(
        parse(NET), folder / "run", data="random", samples=16, passes="quantize{correct=none}", precision="int8", formats=("tflite",),
        measure=False, threads=1,
    )  # fmt: skip
    return folder / "run" / "model.int8.tflite"


def op_of(file: TfliteFile, code: str) -> OperatorInfo:
    return next(op for op in file.operators if op.code == code)


def changed(
    file: TfliteFile, index: int, kind: TensorType | None = None, **quantization: object
) -> TfliteFile:
    """The file with another quantisation, or another type, of one tensor."""
    old = file.tensors[index]
    assert old.quantization is not None
    new = replace(
        old, type=old.type if kind is None else kind, quantization=replace(old.quantization, **quantization)
    )
    return replace(file, tensors=(*file.tensors[:index], new, *file.tensors[index + 1 :]))


def scaled(file: TfliteFile, index: int, by: float) -> TfliteFile:
    q = file.tensors[index].quantization
    assert q is not None
    return changed(file, index, scale=tuple(by * one for one in q.scale))


BROKEN: dict[str, tuple[str, Callable[[TfliteFile], TfliteFile]]] = {
    "a scale of nothing": ("scale-positive", lambda f: scaled(f, op_of(f, "CONV_2D").outputs[0], 0.0)),
    "a negative scale": ("scale-positive", lambda f: scaled(f, op_of(f, "CONV_2D").outputs[0], -1.0)),
    "a weight's zero point": ("weight-form", lambda f: changed(f, op_of(f, "CONV_2D").inputs[1], zero_point=(3,))),
    "scales along inputs": ("weight-form", lambda f: changed(f, op_of(f, "CONV_2D").inputs[1], axis=3)),
    "scales of a depthwise kernel along rows": (
        "weight-form", lambda f: changed(f, op_of(f, "DEPTHWISE_CONV_2D").inputs[1], axis=1),
    ),
    "a bias at another scale": ("bias-scale", lambda f: scaled(f, op_of(f, "CONV_2D").inputs[2], 1.01)),
    "a bias of another type": ("bias-scale", lambda f: changed(f, op_of(f, "CONV_2D").inputs[2], TensorType.FLOAT32)),
    "a pool that changes the scale": ("same-parameters", lambda f: scaled(f, op_of(f, "MAX_POOL_2D").outputs[0], 1.5)),
    "a Sigmoid with a range of its own": ("fixed-parameters", lambda f: scaled(f, op_of(f, "LOGISTIC").outputs[0], 0.9)),
}  # fmt: skip


def test_a_file_of_edgec_breaks_none(path: Path) -> None:
    assert check_tflite(path) == ()
    assert {op.code for op in read(path).operators} >= {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "MAX_POOL_2D",
        "LOGISTIC",
        "FULLY_CONNECTED",
    }


@pytest.mark.parametrize("case", BROKEN)
def test_each_is_found_by_its_rule(case: str, path: Path) -> None:
    wanted, change = BROKEN[case]
    file = change(read(path))
    found = {rule.name: list(rule.check(file)) for rule in TFLITE_RULES}
    assert found[wanted], case
    assert all(one.level == "error" for one in found[wanted])


def test_every_rule_has_its_case() -> None:
    assert {rule for rule, _ in BROKEN.values()} == {rule.name for rule in TFLITE_RULES}
