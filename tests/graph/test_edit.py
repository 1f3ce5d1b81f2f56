"""A value takes over from another: readers, outputs, names, and the node that reads what it replaces."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.execute import Executor
from tests.conftest import parse

TWO = "net (float[1,2] x) => (float[1,2] y) { a = Relu(x)  y = Neg(a) }"


def graph_of(text: str) -> ir.Model:
    return ir.from_proto(parse(text))


def test_readers_get_the_new_value_under_the_old_name() -> None:
    model = graph_of("net (float[1,2] x) => (float[1,2] y) { a = Relu(x)  b = Abs(x)  y = Neg(a) }")
    first, second, reader = list(model.graph)
    take_over(model.graph, first.outputs[0], second.outputs[0])
    assert reader.inputs[0] is second.outputs[0]
    assert (first.outputs[0].name, second.outputs[0].name) == ("a_replaced", "a")
    x = np.array([[-1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(Executor(model).run({"x": x})["y"], [[-1.0, -2.0]])


def test_what_makes_the_new_value_goes_on_reading_the_old_one() -> None:
    model = graph_of(TWO)
    relu = next(iter(model.graph))
    double = ir.node("Add", [relu.outputs[0], relu.outputs[0]], name="double")
    model.graph.insert_after(relu, double)
    take_over(model.graph, relu.outputs[0], double.outputs[0], "single")
    assert [value.name for value in double.inputs if value is not None] == ["a_single", "a_single"]
    x = np.array([[-1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(Executor(model).run({"x": x})["y"], [[0.0, -4.0]])


def test_outputs_of_the_graph_follow_and_keep_their_names() -> None:
    model = graph_of(TWO)
    last = list(model.graph)[-1]
    same = ir.node("Identity", [last.outputs[0]], name="same")
    same.outputs[0].type, same.outputs[0].shape = last.outputs[0].type, last.outputs[0].shape
    model.graph.append(same)
    take_over(model.graph, last.outputs[0], same.outputs[0])
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert model.graph.outputs[0] is same.outputs[0]


def test_a_second_time_finds_another_spare_name() -> None:
    model = graph_of(TWO)
    node = next(iter(model.graph))
    for number in range(2):
        follower = ir.node("Identity", [node.outputs[0]], name=f"follower{number}")
        model.graph.insert_after(node, follower)
        take_over(model.graph, node.outputs[0], follower.outputs[0])
        node = follower
    names = [value.name for each in model.graph for value in each.outputs]
    assert len(set(names)) == len(names)
