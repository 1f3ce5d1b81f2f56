"""Channel groups, one operator family at a time: what is coupled, and that removal equals masking."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest

from edgec.graph.channels import ChannelGroup, describe, groups, remove
from edgec.graph.errors import UnsupportedError, UsageError
from edgec.graph.views import attribute, constant

HEAD = "g = GlobalAveragePool({0})  f = Flatten(g)  y = Gemm<transB=1>(f, wy, by)"


def network(body: str, width: int, weights: str, *, size: int = 8) -> str:
    """A graph from a 3-channel image to 5 logits; ``body`` ends in a value ``z`` with ``width`` channels."""
    inputs = f"float[batch,3,{size},{size}] x, {weights}, float[5,{width}] wy, float[5] by"
    return f"""net ({inputs}) => (float[batch,5] y) {{
        {body}
        {HEAD.format("z")}
    }}"""


TRUNK = "c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)  r1 = Relu(c1)"
TRUNK_WEIGHTS = "float[8,3,3,3] w1, float[8] b1"

CASES: dict[str, tuple[str, int, str, set[int]]] = {
    # name: body, channels of z, further weights, sizes of the prunable groups
    "conv": ("z = Conv<pads=[1,1,1,1]>(r1, w2)", 6, "float[6,8,3,3] w2", {8, 6}),
    "strided, dilated": (
        "z = Conv<strides=[2,2], dilations=[2,2], pads=[2,2,2,2]>(r1, w2, b2)", 6,
        "float[6,8,3,3] w2, float[6] b2", {8, 6},
    ),
    "transposed": (
        "z = ConvTranspose<strides=[2,2]>(r1, w2, b2)", 6, "float[8,6,2,2] w2, float[6] b2", {8, 6},
    ),
    "depthwise": (
        "d = Conv<group=8, pads=[1,1,1,1]>(r1, wd, bd)  e = Clip(d)  z = Conv(e, w2)", 6,
        "float[8,1,3,3] wd, float[8] bd, float[6,8,1,1] w2", {8, 6},
    ),
    "depthwise with a multiplier": (
        "d = Conv<group=8>(r1, wd)  z = Conv(d, w2)", 6, "float[16,1,3,3] wd, float[6,16,1,1] w2", {8, 6},
    ),
    "depthwise transposed": (
        "d = ConvTranspose<group=8>(r1, wd, bd)  z = Conv(d, w2)", 6,
        "float[8,1,2,2] wd, float[8] bd, float[6,8,1,1] w2", {8, 6},
    ),
    "grouped, many small groups": (
        "z = Conv<group=4>(r1, w2, b2)", 4, "float[4,2,3,3] w2, float[4] b2", {4},
    ),
    "grouped, few large groups": (
        "z = Conv<group=2>(r1, w2, b2)", 6, "float[6,4,3,3] w2, float[6] b2", {4, 3},
    ),
    "grouped transposed": (
        "z = ConvTranspose<group=2>(r1, w2, b2)", 6, "float[8,3,2,2] w2, float[6] b2", {4, 3},
    ),
    "batch norm": (
        "n = BatchNormalization(r1, s, b, m, pv)  z = Conv(n, w2)", 6,
        "float[8] s, float[8] b, float[8] m, float[8] pv, float[6,8,1,1] w2", {8, 6},
    ),
    "residual": (
        "c2 = Conv<pads=[1,1,1,1]>(r1, w2)  s = Add(c2, r1)  z = Relu(s)", 8, "float[8,8,3,3] w2", {8},
    ),
    "constants per channel": (
        "m = Mul(r1, k)  a = Add(k2, m)  q = Div(a, pd)  t = Sub(q, one)  z = Max(t, k)", 8,
        "float[1,8,1,1] k, float[8,1,1] k2, float[8,1,1] pd, float[1] one", {8},
    ),
    "constant of full shape": ("z = Add(r1, k)", 8, "float[1,8,8,8] k", {8}),
    "prelu": ("z = PRelu(c1, slope)", 8, "float[8,1,1] slope", {8}),
    "silu and hard swish": ("s = Sigmoid(c1)  m = Mul(c1, s)  z = HardSwish(m)", 8, "float[1] unused", {8}),
    "concat": (
        "c2 = Conv<pads=[1,1,1,1]>(r1, w2)  k = Concat<axis=1>(r1, c2)  z = Conv(k, w3)", 5,
        "float[6,8,3,3] w2, float[5,14,1,1] w3", {8, 6, 5},
    ),
    "concat with itself": ("k = Concat<axis=1>(r1, r1)  z = Conv(k, w3)", 5, "float[5,16,1,1] w3", {8, 5}),
    "concat on a spatial axis": (
        "c2 = Conv<pads=[1,1,1,1]>(x, w2)  k = Concat<axis=2>(r1, c2)  z = Conv(k, w3)", 5,
        "float[8,3,3,3] w2, float[5,8,1,1] w3", {8, 5},
    ),
    "split": (
        "a, b = Split<axis=1, num_outputs=2>(r1)  ca = Conv(a, wa)  cb = Conv(b, wb)  z = Add(ca, cb)", 6,
        "float[6,4,1,1] wa, float[6,4,1,1] wb", {4, 6},
    ),
    "split with sizes": (
        "sz = Constant<value_ints=[3,5]>()  a, b = Split<axis=-3>(r1, sz)  k = Concat<axis=1>(b, a)"
        "  z = Conv(k, w2)",
        6, "float[6,8,1,1] w2", {3, 5, 6},
    ),
    "slice": (
        "i = Constant<value_ints=[2]>()  j = Constant<value_ints=[7]>()  o = Constant<value_ints=[1]>()"
        "  s = Slice(r1, i, j, o)  z = Conv(s, w2)", 6, "float[6,5,1,1] w2", {3, 5, 6},
    ),
    "slice with a step, and of space": (
        "i = Constant<value_ints=[0,0]>()  j = Constant<value_ints=[8,8]>()  o = Constant<value_ints=[1,2]>()"
        "  p = Constant<value_ints=[2,2]>()  s = Slice(r1, i, j, o, p)  z = Conv(s, w2)",
        6, "float[6,4,1,1] w2", {4, 6},
    ),
    "slice backwards": (
        "i = Constant<value_ints=[-1]>()  j = Constant<value_ints=[-100]>()  o = Constant<value_ints=[1]>()"
        "  p = Constant<value_ints=[-1]>()  s = Slice(r1, i, j, o, p)  z = Conv(s, w2)",
        6, "float[6,8,1,1] w2", {8, 6},
    ),
    "gather": (
        "i = Constant<value_ints=[7,0,3,3]>()  s = Gather<axis=1>(r1, i)  z = Conv(s, w2)",
        6, "float[6,4,1,1] w2", {2, 5, 6},
    ),
    "pad of channels": (
        "p = Constant<value_ints=[0,2,0,0,0,4,0,0]>()  q = Pad(r1, p)  c2 = Conv<pads=[1,1,1,1]>(x, w2)"
        "  z = Add(q, c2)", 14, "float[14,3,3,3] w2", {8, 6},
    ),
    "pad of channels named by an axis": (
        "p = Constant<value_ints=[2,4]>()  v = Constant<value_float=0.0>()  o = Constant<value_ints=[1]>()"
        "  q = Pad(r1, p, v, o)  c2 = Conv<pads=[1,1,1,1]>(x, w2)  z = Add(q, c2)",
        14, "float[14,3,3,3] w2", {8, 6},
    ),
    "pools and resize": (
        "m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r1)  a = AveragePool<kernel_shape=[2,2]>(m)"
        "  roi = Constant<value_floats=[0.0]>()  sc = Constant<value_floats=[1.0,1.0,2.0,2.0]>()"
        "  z = Resize<mode=\"nearest\">(a, , sc)", 8, "float[1] unused", {8},
    ),
    "shuffle": (
        "t = Constant<value_ints=[-1,2,4,8,8]>()  u = Constant<value_ints=[-1,8,8,8]>()  s = Reshape(r1, t)"
        "  v = Transpose<perm=[0,2,1,3,4]>(s)  q = Reshape(v, u)  z = Conv<group=1>(q, w2)",
        6, "float[6,8,1,1] w2", {8, 6},
    ),
    "reshape into two axes": (
        "t = Constant<value_ints=[-1,2,4,8,8]>()  u = Constant<value_ints=[-1,8,8,8]>()  s = Reshape(r1, t)"
        "  e = Relu(s)  q = Reshape(e, u)  z = Conv(q, w2)", 6, "float[6,8,1,1] w2", {4, 6},
    ),
    "depth to space and back": (
        "s = DepthToSpace<blocksize=2>(r1)  t = SpaceToDepth<blocksize=2>(s)  z = Conv(t, w2)",
        6, "float[6,8,1,1] w2", {2, 6},
    ),
    "depth to space, CRD": (
        "s = DepthToSpace<blocksize=2, mode=\"CRD\">(r1)  z = Conv(s, w2)", 6, "float[6,2,1,1] w2", {2, 6},
    ),
    "channels last": (
        "t = Transpose<perm=[0,2,3,1]>(r1)  m = MatMul(t, w2)  a = Add(m, b2)"
        "  z = Transpose<perm=[0,3,1,2]>(a)",
        6, "float[8,6] w2, float[6] b2", {8, 6},
    ),
    "matmul over space": ("z = MatMul(r1, w2)", 8, "float[8,4] w2", {8}),
    "squeeze-excite": (
        "p = GlobalAveragePool(r1)  s = Conv(p, ws, bs)  t = Relu(s)  e = Conv(t, we, be)  h = HardSigmoid(e)"
        "  z = Mul(r1, h)", 8,
        "float[4,8,1,1] ws, float[4] bs, float[8,4,1,1] we, float[8] be", {8, 4},
    ),
    "spatial attention": ("s = Conv(r1, ws)  h = Sigmoid(s)  z = Mul(r1, h)", 8, "float[1,8,1,1] ws", {8}),
    "softmax over space": ("z = Softmax<axis=3>(r1)", 8, "float[1] unused", {8}),
    "resize to a size": (
        "sz = Constant<value_ints=[1,8,12,12]>()  z = Resize<mode=\"nearest\">(r1, , , sz)", 8,
        "float[1] unused", {8},
    ),
    "resize of some axes": (
        "sz = Constant<value_ints=[8,12,12]>()  z = Resize<axes=[1,2,3]>(r1, , , sz)", 8,
        "float[1] unused", {8},
    ),
    "mean without axes kept": (
        "o = Constant<value_ints=[2,3]>()  m = ReduceMean<keepdims=0>(r1, o)"
        "  u = Unsqueeze(m, o)  q = Squeeze(u, o)  h = MatMul(q, w2)  z = Unsqueeze(h, o)",
        6, "float[8,6] w2", {8, 6},
    ),
    "response norm over maps": (
        "sp = Constant<value_ints=[2,3]>()  ch = Constant<value_ints=[1]>()  e = Constant<value_float=0.01>()"
        "  l = ReduceL2(r1, sp)  m = ReduceMean(l, ch)  d = Add(m, e)  n = Div(l, d)  s = Mul(r1, n)  t = Mul(gr, s)"
        "  u = Add(t, br)  v = Add(u, r1)  z = Conv(v, w2)",
        6, "float[8,1,1] gr, float[8,1,1] br, float[6,8,1,1] w2", {8, 6},
    ),
    "sums over channels": (
        "ch = Constant<value_ints=[1]>()  q = ReduceSumSquare(c1, ch)  a = ReduceL1(c1, ch)  b = ReduceL2(r1, ch)"
        "  c = ReduceSum(r1, ch)  s = Sum(q, a, b, c)  g2 = Sigmoid(s)  m = Mul(r1, g2)  z = Conv(m, w2)",
        6, "float[6,8,1,1] w2", {8, 6},
    ),
    "instance norm": ("z = InstanceNormalization(r1, s, b)", 8, "float[8] s, float[8] b", {8}),
    "where": (
        "t = Constant<value_floats=[0.5]>()  q = Greater(r1, t)  z = Where(q, c1, k)", 8,
        "float[8,1,1] k", {8},
    ),
    "sum of three": (
        "c2 = Conv<pads=[1,1,1,1]>(x, w2)  c3 = Conv(x, w3)  z = Sum(c1, c2, c3)", 8,
        "float[8,3,3,3] w2, float[8,3,1,1] w3", {8},
    ),
    "tile and expand": (
        "n = Constant<value_ints=[1,2,1,1]>()  t = Tile(r1, n)  g0 = GlobalMaxPool(t)"
        "  sh = Constant<value_ints=[1,16,4,4]>()  e = Expand(g0, sh)  z = Conv(e, w2)",
        6, "float[6,16,1,1] w2", {8, 6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_removal_equals_masking(name, build, assert_exact, some_removals):
    body, width, weights, sizes = CASES[name]
    model = build(network(f"{TRUNK}\n{body}", width, f"{TRUNK_WEIGHTS}, {weights}"))
    assert {group.size for group in groups(model) if group.prunable} == sizes
    for seed in range(4):
        assert_exact(model, some_removals(model, seed))


def test_constant_channels_stay(build, assert_exact, some_removals):
    """CoordConv: coordinates joined to a feature map. Nothing makes them, so nobody prunes them."""
    body = "c1 = Conv(x, w1)  k = Concat<axis=1>(c1, coordinates)  y = Conv(k, w2)"
    model = build(
        "net (float[1,3,4,4] x, float[6,3,1,1] w1, float[1,2,4,4] coordinates, float[2,8,1,1] w2)"
        f" => (float[1,2,4,4] y) {{ {body} }}"
    )
    stuck = by_name(model)["concat_1"]
    assert (stuck.size, stuck.reason) == (2, "no layer makes these channels")
    assert_exact(model, some_removals(model, 0))


def by_name(model: ir.Model) -> dict[str, ChannelGroup]:
    return {group.name: group for group in groups(model)}


def node(model: ir.Model, op_type: str) -> ir.Node:
    return next(n for n in model.graph if n.op_type == op_type)


def test_members_map_units_to_positions(build):
    body = "c1 = Conv(x, w1, b1)  k = Concat<axis=1>(c1, c1)  f = Flatten(k)  y = Gemm(f, wg)"
    model = build(
        "net (float[1,2,4,4] x, float[3,2,3,3] w1, float[3] b1, float[24,5] wg)"
        f" => (float[1,5] y) {{ {body} }}"
    )
    group = by_name(model)["conv_0"]
    assert group.prunable
    assert group.size == 3
    (producer,) = group.producers
    assert (producer.node, producer.value, producer.axis, producer.index.tolist()) == (
        "conv_0", "w1", 0, [[0], [1], [2]],
    )  # fmt: skip
    (bias,) = group.parameters
    assert (bias.operand, bias.index.tolist()) == (2, [[0], [1], [2]])
    (consumer,) = group.consumers
    assert consumer.axis == 0
    assert consumer.index[1].tolist() == [4, 5, 6, 7, 16, 17, 18, 19]  # 2x2 pixels, twice


def test_group_conv_keeps_groups_equal(build):
    model = build(network(f"{TRUNK}\nz = Conv<group=4>(r1, w2)", 8, f"{TRUNK_WEIGHTS}, float[8,2,3,3] w2"))
    (group,) = [g for g in groups(model) if g.prunable]
    remove(model, {group.name: [1, 2]})
    conv = [n for n in model.graph if n.op_type == "Conv"][1]
    assert attribute(conv, "group", 1) == 2
    assert constant(conv.inputs[1]).shape == (4, 2, 3, 3)


def test_slice_becomes_gather_only_where_it_must(build):
    body, width, weights, _ = CASES["slice with a step, and of space"]
    text = network(f"{TRUNK}\n{body}", width, f"{TRUNK_WEIGHTS}, {weights}")
    regular = build(text)
    remove(regular, {"conv_0": [1]})  # channels 0 2 4 6 without 2
    assert "Gather" in {n.op_type for n in regular.graph}
    ends = build(text)
    remove(ends, {"conv_0": [0]})
    assert "Gather" not in {n.op_type for n in ends.graph}


def test_pad_amounts_follow_the_removed_padding(build):
    body, width, weights, _ = CASES["pad of channels"]
    model = build(network(f"{TRUNK}\n{body}", width, f"{TRUNK_WEIGHTS}, {weights}"))
    padded = next(g for g in groups(model) if g.size == 6)
    remove(model, {padded.name: [0, 2, 3]})  # the first of two before, the first two of four after
    assert constant(node(model, "Pad").inputs[1]).tolist() == [0, 1, 0, 0, 0, 2, 0, 0]


def test_shuffle_becomes_one_gather(build):
    body, width, weights, _ = CASES["shuffle"]
    model = build(network(f"{TRUNK}\n{body}", width, f"{TRUNK_WEIGHTS}, {weights}"))
    remove(model, {"conv_0": [0, 5, 6]})
    gather = node(model, "Gather")
    assert constant(gather.inputs[1]).tolist() == [3, 0, 1, 2, 4]  # 4 1 2 3 7 of 0 4 1 5 2 6 3 7
    assert not {"Reshape", "Transpose"} & {n.op_type for n in model.graph}


def test_shared_weights_stay_shared(build, assert_exact):
    body = "a = Conv(x1, w, b)  c = Conv(x2, w, b)  s = Conv(a, v)  t = Conv(c, v)  y = Add(s, t)"
    model = build(
        "net (float[1,3,4,4] x1, float[1,3,4,4] x2, float[6,3,1,1] w, float[6] b, float[2,6,1,1] v)"
        f" => (float[1,2,4,4] y) {{ {body} }}"
    )
    (group,) = [g for g in groups(model) if g.prunable]
    assert [m.node for m in group.producers] == ["conv_0", "conv_1"]
    pruned = assert_exact(model, {group.name: [0, 3]})
    assert {name: v.shape[0] for name, v in pruned.graph.initializers.items()} == {"w": 4, "b": 4, "v": 2}


def test_constant_shared_by_unlike_readers_is_split(build, assert_exact):
    body = "c1 = Conv(x, w1, b)  c2 = Conv(c1, w2, b)  y = Conv(c2, w3)"
    model = build(
        "net (float[1,3,4,4] x, float[6,3,1,1] w1, float[6] b, float[6,6,1,1] w2, float[2,6,1,1] w3)"
        f" => (float[1,2,4,4] y) {{ {body} }}"
    )
    pruned = assert_exact(model, {"conv_0": [0], "conv_1": [1, 2]})
    assert sorted(v.shape[0] for name, v in pruned.graph.initializers.items() if name.startswith("b")) == [
        4,
        5,
    ]


REASONS = {
    "graph output": ("y = Conv(c1, w2)", "graph output 'y'", "conv_1"),
    "softmax": (
        "s = Softmax<axis=1>(c1)  y = Conv(s, w2)", "Softmax 'softmax_1' is not traced: it mixes channels",
        "conv_0",
    ),
    "maximum": ("s = ReduceMax(c1, ax)  y = Mul(x0, s)", "it sums over channels", "conv_0"),
    "mean of what is not zero": (
        "sg = Sigmoid(c1)  s = ReduceMean(sg, ax)  y = Mul(x0, s)", "it sums over channels", "conv_0",
    ),
    "layer norm written out": (
        "m = ReduceMean(c1, ax)  d = Sub(c1, m)  q = Mul(d, d)  s = ReduceMean(q, ax)  y = Mul(x0, s)",
        "it sums over channels", "conv_0",
    ),
    "unknown op": ("s = LRN<size=3>(c1)  y = Conv(s, w2)", "LRN 'lrn_1' is not traced", "conv_0"),
    "attention across channels": (
        "sh = Constant<value_ints=[-1,6,16]>()  f = Reshape(c1, sh)  t = Transpose<perm=[0,2,1]>(f)"
        "  s = MatMul(f, t)  a = Softmax<axis=-1>(s)  m = MatMul(a, f)"
        "  sj = Constant<value_ints=[-1,6,4,4]>()  j = Reshape(m, sj)  y = Conv(j, w2)",
        "multiplies each of them with each of other channels", "conv_0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_reasons(name, build):
    body, reason, group = REASONS[name]
    model = build(
        "net (float[1,3,4,4] x, float[1,1,4,4] x0, float[6,3,1,1] w1, float[2,6,1,1] w2)"
        f" => (float[a,b,c,d] y) <int64[1] ax = {{1}}> {{ c1 = Conv(x, w1)  {body} }}"
    )
    found = by_name(model)[group]
    assert not found.prunable
    assert reason in found.reason
    assert reason in found.describe()
    with pytest.raises(UnsupportedError, match="cannot be pruned"):
        remove(model, {group: [0]})


def test_wrong_removals_are_usage_errors(build):
    body, width, weights, _ = CASES["conv"]
    model = build(network(f"{TRUNK}\n{body}", width, f"{TRUNK_WEIGHTS}, {weights}"))
    with pytest.raises(UsageError, match="no channel group 'conv_9'") as error:
        remove(model, {"conv_9": [0]})
    assert "Did you mean" in str(error.value.hint)
    with pytest.raises(UsageError, match="no unit 8"):
        remove(model, {"conv_0": [8]})
    with pytest.raises(UsageError, match="all units would go"):
        remove(model, {"conv_0": range(8)})
    before = ir.to_proto(model).SerializeToString()
    remove(model, {"conv_0": []})
    assert ir.to_proto(model).SerializeToString() == before


def test_describe_lists_prunable_groups_first(build):
    body, width, weights, _ = CASES["depthwise"]
    model = build(network(f"{TRUNK}\n{body}", width, f"{TRUNK_WEIGHTS}, {weights}"))
    lines = describe(groups(model)).splitlines()
    assert lines[0] == "conv_0: 8 units; made by Conv 'conv_0'; read by Conv 'conv_4'; through Conv 'conv_2'"
    assert "not prunable: graph input 'x'" in lines[2]
    record = by_name(model)["conv_0"].as_json()
    assert json.loads(json.dumps(record)) == record
    assert record["consumers"] == [{"node": "conv_4", "op": "Conv", "tensor": "w2", "axis": 1, "per_unit": 1}]
