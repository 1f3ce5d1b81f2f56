"""Random small graphs: whatever is prunable, removal equals masking, and the cost model tells the cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgec.graph.channels import cost_model, groups
from edgec.graph.cost import cost


class Builder:
    """Grows a graph; feature maps are (name, channels), all of 6 x 6 pixels."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.maps: list[tuple[str, int]] = [("x", 3)]
        self.used: set[str] = set()

    def constant(self, array: np.ndarray) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        scaled = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return self.constant(scaled.astype(np.float32))

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes: object) -> list[str]:
        number = len(self.nodes)
        names = [f"v{number}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op.lower()}_{number}", **attributes))
        self.used.update(inputs)
        return names

    def pick(self) -> tuple[str, int]:
        return self.maps[int(self.rng.integers(max(0, len(self.maps) - 4), len(self.maps)))]

    def keep(self, names: list[str], channels: list[int]) -> None:
        self.maps.extend(zip(names, channels, strict=True))

    def model(self) -> ir.Model:
        ends = [(name, c) for name, c in self.maps if name not in self.used and name != "x"]
        if not ends:
            ends = [self.maps[-1]]
        pooled = [self.add("GlobalAveragePool", [name])[0] for name, _ in ends]
        (joined,) = self.add("Concat", pooled, axis=1)
        (flat,) = self.add("Flatten", [joined])
        width = sum(c for _, c in ends)
        self.nodes.append(
            helper.make_node(
                "Gemm", [flat, self.weight(4, width), self.weight(4)], ["y"], name="head", transB=1
            )
        )
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 6, 6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))


def conv(b: Builder) -> None:
    x, c = b.pick()
    out, k = int(b.rng.integers(2, 9)), int(b.rng.choice([1, 3]))
    b.keep(b.add("Conv", [x, b.weight(out, c, k, k), b.weight(out)], pads=[k // 2] * 4), [out])


def depthwise(b: Builder) -> None:
    x, c = b.pick()
    m = int(b.rng.integers(1, 3))
    b.keep(b.add("Conv", [x, b.weight(c * m, 1, 3, 3)], group=c, pads=[1] * 4), [c * m])


def grouped(b: Builder) -> None:
    x, c = b.pick()
    divisors = [g for g in range(2, c) if c % g == 0]
    if divisors:
        g = int(b.rng.choice(divisors))
        out = g * int(b.rng.integers(1, 4))
        b.keep(b.add("Conv", [x, b.weight(out, c // g, 1, 1), b.weight(out)], group=g), [out])


def unary(b: Builder) -> None:
    x, c = b.pick()
    b.keep(b.add(str(b.rng.choice(["Relu", "Sigmoid", "HardSwish", "Tanh"])), [x]), [c])


def scale(b: Builder) -> None:
    x, c = b.pick()
    shape = [(c, 1, 1), (1, c, 1, 1), (1,), (1, 1, 6, 6), (1, c, 6, 6)][int(b.rng.integers(5))]
    b.keep(b.add(str(b.rng.choice(["Mul", "Add", "Sub", "PRelu"])), [x, b.weight(*shape)]), [c])


def join(b: Builder) -> None:
    """Add or multiply two maps, after a conv that gives them the same channels where they differ."""
    (x, c), (z, d) = b.pick(), b.pick()
    if c != d:
        (z,) = b.add("Conv", [z, b.weight(c, d, 1, 1)])
    b.keep(b.add(str(b.rng.choice(["Add", "Mul", "Max"])), [x, z]), [c])


def excite(b: Builder) -> None:
    x, c = b.pick()
    (p,) = b.add("GlobalAveragePool", [x])
    (s,) = b.add("Conv", [p, b.weight(c, c, 1, 1), b.weight(c)])
    b.keep(b.add("Mul", [x, *b.add("Sigmoid", [s])]), [c])


def concat(b: Builder) -> None:
    (x, c), (z, d) = b.pick(), b.pick()
    if c + d <= 24:
        b.keep(b.add("Concat", [x, z], axis=1), [c + d])


def split(b: Builder) -> None:
    x, c = b.pick()
    first = int(b.rng.integers(1, c)) if c > 1 else 0
    if first:
        sizes = b.constant(np.array([first, c - first], np.int64))
        b.keep(b.add("Split", [x, sizes], outputs=2, axis=1), [first, c - first])


def slice_(b: Builder) -> None:
    x, c = b.pick()
    start, step = int(b.rng.integers(0, max(1, c // 2))), int(b.rng.integers(1, 3))
    settings_ = [b.constant(np.array([v], np.int64)) for v in (start, c, 1, step)]
    b.keep(b.add("Slice", [x, *settings_]), [len(range(start, c, step))])


def gather(b: Builder) -> None:
    x, c = b.pick()
    taken = b.rng.integers(0, c, int(b.rng.integers(1, c + 1)))
    b.keep(b.add("Gather", [x, b.constant(taken.astype(np.int64))], axis=1), [len(taken)])


def pad(b: Builder) -> None:
    x, c = b.pick()
    before, after = int(b.rng.integers(0, 3)), int(b.rng.integers(0, 3))
    amounts = b.constant(np.array([0, before, 0, 0, 0, after, 0, 0], np.int64))
    b.keep(b.add("Pad", [x, amounts]), [c + before + after])


def shuffle(b: Builder) -> None:
    x, c = b.pick()
    divisors = [g for g in range(2, c) if c % g == 0]
    if divisors:
        g = int(b.rng.choice(divisors))
        (s,) = b.add("Reshape", [x, b.constant(np.array([-1, g, c // g, 6, 6], np.int64))])
        (t,) = b.add("Transpose", [s], perm=[0, 2, 1, 3, 4])
        (t,) = b.add("Relu", [t]) if b.rng.random() < 0.3 else (t,)
        b.keep(b.add("Reshape", [t, b.constant(np.array([-1, c, 6, 6], np.int64))]), [c])


STEPS: list[Callable[[Builder], None]] = [
    conv, conv, conv, depthwise, grouped, unary, scale, join, excite, concat, split, slice_, gather,
    pad, shuffle,
]  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(0, len(STEPS) - 1), min_size=3, max_size=14)
)
def test_removal_equals_masking_and_cost_is_foretold(assert_exact, some_removals, seed, steps):
    builder = Builder(seed)
    conv(builder)
    for step in steps:
        STEPS[step](builder)
    model = builder.model()
    removals = some_removals(model, seed)
    pruned = assert_exact(model, removals)
    left = {group.name: group.size - len(removals.get(group.name, ())) for group in groups(model)}
    priced, real = cost_model(model), cost(pruned)
    assert (priced.macs({}), priced.params({})) == (cost(model).macs, cost(model).params)
    assert (priced.macs(left), priced.params(left)) == (real.macs, real.params)
