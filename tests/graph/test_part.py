"""A part of a graph as a model of its own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest

from edgec.graph.errors import ModelError
from edgec.graph.execute import extract, session


def floats(name: str) -> onnx.ValueInfoProto:
    return oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])


@pytest.fixture
def model() -> ir.Model:
    """``y`` is ``w * b`` where ``flag`` is set, else ``-x``: an If whose branches read values from outside."""
    then = oh.make_graph([oh.make_node("Mul", ["b", "w"], ["yes"])], "then", [], [floats("yes")])
    other = oh.make_graph([oh.make_node("Identity", ["a"], ["no"])], "else", [], [floats("no")])
    nodes = [
        oh.make_node("Neg", ["x"], ["a"]),
        oh.make_node("Abs", ["x"], ["b"]),
        oh.make_node("Exp", ["x"], ["unused"]),
        oh.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    flag = oh.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])
    weights = [onnx.numpy_helper.from_array(np.array([2, 3], np.float32), name) for name in ("w", "v")]
    outputs, inner = [floats("y"), floats("unused")], [floats("a"), floats("b")]
    graph = oh.make_graph(nodes, "g", [floats("x"), flag], outputs, weights, value_info=inner)
    return ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=9))


def test_a_part_holds_what_it_needs_and_computes_the_same(model: ir.Model) -> None:
    part = extract(model, ["unused", "b", "x", "flag"], ["y"])
    assert [node.op_type for node in part.graph.node] == ["Neg", "If"]
    assert [value.name for value in part.graph.input] == ["b", "x", "flag"]
    assert [tensor.name for tensor in part.graph.initializer] == ["w"]
    feeds = {"b": np.array([1, 5], np.float32), "x": np.array([7, -7], np.float32)}
    run = session(part).run
    np.testing.assert_array_equal(run(None, {**feeds, "flag": np.array(True)})[0], [2, 15])
    np.testing.assert_array_equal(run(None, {**feeds, "flag": np.array(False)})[0], [-7, 7])


@pytest.mark.parametrize(("given", "named"), [(["b", "flag"], "x"), (["b", "flag", "nothing"], "nothing")])
def test_what_a_part_lacks_is_named(model: ir.Model, given: list[str], named: str) -> None:
    with pytest.raises(ModelError, match="cannot be cut") as raised:
        extract(model, given, ["y"])
    assert repr(named) in str(raised.value)
