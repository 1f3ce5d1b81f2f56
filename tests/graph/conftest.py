"""Helpers of the tests of channel groups and regions: text models with random weights, and exact masking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgec.graph.channels import Member, groups, remove
from edgec.graph.execute import Executor
from edgec.graph.views import add_initializer, constant, is_constant, own_constant

SUMS = ("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
Removals = Mapping[str, Sequence[int]]


def build(text: str, seed: int = 0, opset: int = 18) -> ir.Model:
    """A model from ONNX text.

    ``text`` is a graph, without a header; of its inputs those whose names begin with ``x`` stay, all others
    become initialisers with random values (positive where the name begins with ``p``).
    """
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{text}')
    rng = np.random.default_rng(seed)
    for value in list(proto.graph.input):
        if value.name.startswith("x"):
            continue
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape).astype(np.float32)
        array = np.abs(array) + 0.5 if value.name.startswith("p") else array
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{number}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))


def mask(model: ir.Model, removals: Removals) -> None:
    """Zero what reads the removed channels, weights, sums and sums of products: what `remove` must equal."""
    by_name = {group.name: group for group in groups(model)}
    nodes = {node.name: node for node in model.graph}
    for name, units in removals.items():
        for member in by_name[name].consumers:
            node = nodes[member.node]
            weight = np.array(constant(node.inputs[member.operand]))
            weight[(slice(None),) * member.axis + (member.index[list(units)].ravel(),)] = 0
            own_constant(model.graph, node, member.operand, weight)
        for member in by_name[name].activations:
            for node in list(model.graph):
                if (
                    node.op_type in ("MatMul", "Einsum")
                    and node.inputs[0].name == member.value
                    and not is_constant(node.inputs[1])
                ):
                    _mask_product(model, node, member, units)
                elif (
                    node.op_type in SUMS
                    and node.inputs[0].name == member.value
                    and node.outputs[0].shape[member.axis] == 1
                ):
                    _mask_input(model, node, member, units)


def _mask_product(model: ir.Model, node: ir.Node, member: Member, units: Sequence[int]) -> None:
    """Zeros in the left factor of a product of two computed tensors where it sums over removed channels."""
    if member.axis == len(node.inputs[0].shape) - 1:
        _mask_input(model, node, member, units)


def _mask_input(model: ir.Model, node: ir.Node, member: Member, units: Sequence[int]) -> None:
    shape = node.inputs[0].shape
    keep = np.ones([shape[axis] if axis == member.axis else 1 for axis in range(len(shape))], np.float32)
    keep[(slice(None),) * member.axis + (member.index[list(units)].ravel(),)] = 0
    kept = add_initializer(model.graph, "keep", keep)
    masked = ir.node("Mul", [node.inputs[0], kept], name=f"{kept.name}_{node.name}")
    masked.outputs[0].name = masked.name
    model.graph.insert_before(node, masked)
    node.replace_input_with(0, masked.outputs[0])


def assert_exact(model: ir.Model, removals: Removals, tolerance: float = 1e-5) -> ir.Model:
    """Remove units from a copy and require a valid graph that equals the masked one; returns the copy."""
    masked, pruned = model.clone(), model.clone()
    mask(masked, removals)
    remove(pruned, removals)
    proto = ir.to_proto(pruned)
    onnx.checker.check_model(proto)
    onnx.shape_inference.infer_shapes(proto, strict_mode=True, check_type=True)
    rng = np.random.default_rng(7)
    feeds = {
        value.name or "": rng.standard_normal(
            [d if isinstance(d, int) else 2 for d in value.shape or ()]
        ).astype("f")
        for value in model.graph.inputs
    }
    expected, found = Executor(masked).run(feeds), Executor(pruned).run(feeds)
    for name, want in expected.items():
        scale = max(float(np.abs(want).max()), 1e-6)
        np.testing.assert_allclose(found[name] / scale, want / scale, atol=tolerance)
    return pruned


def some_removals(model: ir.Model, seed: int, fraction: float = 0.5) -> dict[str, list[int]]:
    """Random units of every prunable group, at least one where the group can spare it."""
    rng = np.random.default_rng(seed)
    chosen = {}
    for group in groups(model):
        if group.prunable:
            count = min(group.size - 1, max(1, int(rng.integers(0, int(group.size * fraction) + 1))))
            chosen[group.name] = sorted(rng.choice(group.size, count, replace=False).tolist())
    return chosen


@pytest.fixture(name="build")
def _build() -> Callable[..., ir.Model]:
    return build


@pytest.fixture(name="assert_exact")
def _assert_exact() -> Callable[..., ir.Model]:
    return assert_exact


@pytest.fixture(name="some_removals")
def _some_removals() -> Callable[..., dict[str, list[int]]]:
    return some_removals
