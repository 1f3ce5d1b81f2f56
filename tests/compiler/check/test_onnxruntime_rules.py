"""Every rule of onnxruntime's form, broken by one change: found, by that rule, and nothing on the file before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgec.compiler.check.check import check_onnx
from edgec.compiler.check.onnxruntime_rules import ONNXRUNTIME_RULES
from edgec.compiler.emit.onnx import emit
from edgec.targets import target
from tests.compiler.check.test_tensorrt_rules import quantised

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    model = quantised(tmp_path_factory.mktemp("scratch"), target("rpi4"))
    return onnx.load_from_string(emit(model))


def _nodes(model: onnx.ModelProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]


def _own(model: onnx.ModelProto, node: onnx.NodeProto, index: int, change: Callable[[Any], Any]) -> None:
    """Give ``node`` a constant input of its own, changed."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    array = numpy_helper.to_array(stored[node.input[index]])
    node.input[index] = "changed"
    model.graph.initializer.append(numpy_helper.from_array(change(array).astype(array.dtype), "changed"))


def _operand(model: onnx.ModelProto, index: int) -> onnx.NodeProto:
    """The DQ of an input of the first layer."""
    makers = {node.output[0]: node for node in model.graph.node}
    return makers[_nodes(model, "Conv")[0].input[index]]


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 22


BROKEN: dict[str, Change] = {
    "opset": _opset,
    "scale-positive": lambda model: _own(model, _operand(model, 1), 1, np.negative),
    "pairs-agree": lambda model: _own(model, _operand(model, 0), 1, lambda scale: scale * 2),
    "weight-form": lambda model: _own(model, _operand(model, 1), 2, lambda zero: zero + 3),
    "bias-scale": lambda model: _own(model, _operand(model, 2), 1, lambda scale: scale * 1.5),
}


def test_the_clean_file_has_no_finding(base: onnx.ModelProto) -> None:
    assert check_onnx(base, target("rpi4")) == ()


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(base: onnx.ModelProto, rule: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(base)
    BROKEN[rule](model)
    assert rule in {one.rule for one in check_onnx(model, target("rpi4"))}


def test_codes_of_another_target_are_slow(base: onnx.ModelProto) -> None:
    assert {
        one.rule for one in check_onnx(base, target("host").model_copy(update={"dialect": "ort-x86"}))
    } == {"code-type"}


def test_every_rule_is_broken_here() -> None:
    assert {rule.name for rule in ONNXRUNTIME_RULES} == {*BROKEN, "code-type"}
