"""Channel groups where channels are no axis 1: signals, tokens, heads, windows; what is coupled, and that removal equals masking."""

from __future__ import annotations

import pytest

from edgec.graph.channels import cost_model, groups
from edgec.graph.cost import cost

ROOT = "s = Constant<value_floats=[0.7]>()"
QKV = """q = MatMul(t, wq)  qb = Add(q, bq)  k = MatMul(t, wk)  v = MatMul(t, wv)  vb = Add(bv, v)"""
QKV_WEIGHTS = "float[12,12] wq, float[12] bq, float[12,12] wk, float[12,18] wv, float[18] bv, float[18,12] wo, float[12] bo"
HEADS = """sh = Constant<value_ints=[0,9,3,4]>()  sv = Constant<value_ints=[-1,9,3,6]>()
    qs = Reshape(qb, sh)  ks = Reshape(k, sh)  vs = Reshape(vb, sv)
    qt = Transpose<perm=[0,2,1,3]>(qs)  kt = Transpose<perm=[0,2,3,1]>(ks)  vt = Transpose<perm=[0,2,1,3]>(vs)"""
ATTEND = """c = Constant<value_floats=[0.5]>()  qc = Mul(qt, c)  a = MatMul(qc, kt)  ab = Add(a, bias)  p = Softmax<axis=-1>(ab)
    o = MatMul(p, vt)  ot = Transpose<perm=[0,2,1,3]>(o)  so = Constant<value_ints=[-1,9,18]>()  of = Reshape(ot, so)
    oo = MatMul(of, wo)  z = Add(oo, bo)"""

CASES: dict[str, tuple[str, str, str, str, set[int]]] = {
    # name: shape of x, shape of the result, body from x to y, weights, sizes of the prunable groups
    "signal": (
        "batch,2,16", "batch,5",
        "c = Conv<kernel_shape=[3], pads=[1,1]>(x, w1, b1)  r = Relu(c)  d = Conv<group=8, pads=[1,1]>(r, wd)"
        "  e = Conv(d, w2)  g = GlobalAveragePool(e)  f = Flatten(g)  y = Gemm<transB=1>(f, w3)",
        "float[8,2,3] w1, float[8] b1, float[8,1,3] wd, float[6,8,1] w2, float[5,6] w3", {8, 6},
    ),
    "volume": (
        "batch,2,4,4,4", "batch,5",
        "c = Conv<pads=[1,1,1,1,1,1]>(x, w1, b1)  r = Relu(c)  e = Conv(r, w2)  g = GlobalAveragePool(e)"
        "  f = Flatten(g)  y = Gemm<transB=1>(f, w3)",
        "float[8,2,3,3,3] w1, float[8] b1, float[6,8,1,1,1] w2, float[5,6] w3", {8, 6},
    ),
    "tokens": (
        "batch,9,7", "batch,9,5",
        "a = MatMul(x, w1)  b = Add(a, b1)  g = Gelu(b)  m = MatMul(g, w2)  y = Add(m, b2)",
        "float[7,8] w1, float[8] b1, float[8,5] w2, float[5] b2", {8},
    ),
    "tokens of one sample": (
        "9,7", "9,5", "a = Gemm(x, w1, b1)  s = Sigmoid(a)  g = Mul(a, s)  y = Gemm(g, w2)",
        "float[7,8] w1, float[8] b1, float[8,5] w2", {8},
    ),
    "channels last between transposes": (
        "batch,4,4,3", "batch,4,4,5",
        "t = Transpose<perm=[0,3,1,2]>(x)  c = Conv(t, w1, b1)  u = Transpose<perm=[0,2,3,1]>(c)  r = Relu(u)"
        "  v = Transpose<perm=[0,3,1,2]>(r)  d = Conv(v, w2)  y = Transpose<perm=[0,2,3,1]>(d)",
        "float[8,3,1,1] w1, float[8] b1, float[5,8,1,1] w2", {8},
    ),
    "layer norm in front of the hidden units": (
        "batch,9,7", "batch,9,7",
        "n = LayerNormalization(x, ls, lb)  a = MatMul(n, w1)  g = Gelu(a)  m = MatMul(g, w2)  y = Add(x, m)",
        "float[7] ls, float[7] lb, float[7,8] w1, float[8,7] w2", {8},
    ),
    "layer norm written out": (
        "batch,9,7", "batch,9,7",
        "o = Constant<value_ints=[-1]>()  e = Constant<value_floats=[0.00001]>()  two = Constant<value_floats=[2.0]>()"
        "  m0 = ReduceMean(x, o)  s0 = Sub(x, m0)  q0 = Pow(s0, two)  v0 = ReduceMean(q0, o)  ve = Add(v0, e)"
        "  sd = Sqrt(ve)  n0 = Div(s0, sd)  n1 = Mul(n0, ls)  n = Add(n1, lb)"
        "  a = MatMul(n, w1)  g = Gelu(a)  m = MatMul(g, w2)  y = Add(x, m)",
        "float[7] ls, float[7] lb, float[7,8] w1, float[8,7] w2", {8},
    ),
    "convnext": (
        "batch,6,4,4", "batch,6,4,4",
        "d = Conv<group=6, pads=[1,1,1,1]>(x, wd)  t = Transpose<perm=[0,2,3,1]>(d)  n = LayerNormalization(t, ls, lb)"
        "  a = MatMul(n, w1)  g = Gelu(a)  m = MatMul(g, w2)  u = Transpose<perm=[0,3,1,2]>(m)  y = Add(x, u)",
        "float[6,1,3,3] wd, float[6] ls, float[6] lb, float[6,8] w1, float[8,6] w2", {8},
    ),
    "group norm": (
        "batch,3,4,4", "batch,5,4,4",
        "c = Conv(x, w1)  sg = Constant<value_ints=[0,4,-1]>()  g = Reshape(c, sg)  n = InstanceNormalization(g, one, zero)"
        "  sb = Constant<value_ints=[0,12,4,4]>()  b = Reshape(n, sb)  m = Mul(b, ms)  r = Relu(m)  y = Conv(r, w2)",
        "float[12,3,1,1] w1, float[4] one, float[4] zero, float[12,1,1] ms, float[5,12,1,1] w2", {4},
    ),
    "three linear layers": (
        "batch,9,12", "batch,9,12", f"t = Relu(x)  {QKV}  {HEADS}  {ATTEND}  y = Add(x, z)",
        f"{QKV_WEIGHTS}, float[1,3,9,9] bias", {4, 6},
    ),
    "scale per head": (
        "batch,9,12", "batch,9,12",
        f"t = Relu(x)  {QKV}  {HEADS.replace('qt = ', 'q0 = ')}  qt = Mul(q0, ph)  {ATTEND}  y = Add(x, z)",
        f"{QKV_WEIGHTS}, float[1,3,9,9] bias, float[3,1,1] ph", {4, 6},
    ),
    "bias per head and dim": (
        "batch,9,12", "batch,9,12",
        f"t = Relu(x)  {QKV}  {HEADS.replace('qt = ', 'q0 = ')}  qt = Add(q0, ph)  {ATTEND}  y = Add(x, z)",
        f"{QKV_WEIGHTS}, float[1,3,9,9] bias, float[1,3,1,4] ph", {4, 6},
    ),
    "attention of convolutions": (
        "batch,5,3,3", "batch,7,3,3",
        "q = Conv(x, wq, bq)  k = Conv(x, wk)  v = Conv(x, wv, bv)"
        "  sk = Constant<value_ints=[0,2,4,9]>()  sv = Constant<value_ints=[0,2,3,9]>()"
        "  q4 = Reshape(q, sk)  k4 = Reshape(k, sk)  v4 = Reshape(v, sv)  qt = Transpose<perm=[0,1,3,2]>(q4)"
        "  a = MatMul(qt, k4)  p = Softmax<axis=-1>(a)  pt = Transpose<perm=[0,1,3,2]>(p)  o = MatMul(v4, pt)"
        "  so = Constant<value_ints=[0,6,3,3]>()  of = Reshape(o, so)  r = Relu(of)  y = Conv(r, wo)",
        "float[8,5,1,1] wq, float[8] bq, float[8,5,1,1] wk, float[6,5,1,1] wv, float[6] bv, float[7,6,1,1] wo", {4, 3},
    ),
    "keys and values in one layer, split behind the heads": (
        "batch,9,6", "batch,9,6",
        "a = MatMul(x, w1)  sh = Constant<value_ints=[0,9,2,11]>()  h = Reshape(a, sh)  t = Transpose<perm=[0,2,1,3]>(h)"
        "  sz = Constant<value_ints=[4,4,3]>()  q, k, v = Split<axis=-1>(t, sz)  kt = Transpose<perm=[0,1,3,2]>(k)"
        "  s = MatMul(q, kt)  p = Softmax<axis=-1>(s)  o = MatMul(p, v)  ot = Transpose<perm=[0,2,1,3]>(o)"
        "  so = Constant<value_ints=[0,9,6]>()  of = Reshape(ot, so)  y = MatMul(of, w2)",
        "float[6,22] w1, float[6,6] w2", {4, 3},
    ),
    "windows": (
        "1,5,4,4", "1,7,4,4",
        "c = Conv(x, w1)  t = Transpose<perm=[0,2,3,1]>(c)  sw = Constant<value_ints=[1,2,2,2,2,8]>()  w = Reshape(t, sw)"
        "  u = Transpose<perm=[0,1,3,2,4,5]>(w)  sf = Constant<value_ints=[-1,4,8]>()  f = Reshape(u, sf)"
        "  m = MatMul(f, w2)  r = Relu(m)  n = MatMul(r, w3)  sb = Constant<value_ints=[1,2,2,2,2,7]>()  b = Reshape(n, sb)"
        "  bt = Transpose<perm=[0,1,3,2,4,5]>(b)  so = Constant<value_ints=[1,4,4,7]>()  o = Reshape(bt, so)"
        "  y = Transpose<perm=[0,3,1,2]>(o)",
        "float[8,5,1,1] w1, float[8,6] w2, float[6,7] w3", {8, 6},
    ),
    "windows of an open batch": (
        "batch,5,4,4", "nb,4,7",
        "c = Conv(x, w1)  t = Transpose<perm=[0,2,3,1]>(c)  sw = Constant<value_ints=[-1,2,2,2,2,8]>()  w = Reshape(t, sw)"
        "  u = Transpose<perm=[0,1,3,2,4,5]>(w)  sf = Constant<value_ints=[-1,4,8]>()  f = Reshape(u, sf)"
        "  y = MatMul(f, w2)",
        "float[8,5,1,1] w1, float[8,7] w2", {8},
    ),
    "class token": (
        "1,4,6", "1,5,7",
        "m = MatMul(x, w1)  k = Concat<axis=1>(token, m)  p = Add(k, places)  y = MatMul(p, w2)",
        "float[6,8] w1, float[1,1,8] token, float[1,5,8] places, float[8,7] w2", {8},
    ),
    "products channel by channel": (
        "batch,3,4,4", "batch,5,4,4",
        "c = Conv(x, w1)  t = Transpose<perm=[0,1,3,2]>(c)  s = MatMul(c, t)  y = Conv(s, w2)",
        "float[8,3,1,1] w1, float[5,8,1,1] w2", {8},
    ),
    "linear attention": (
        "batch,9,6", "batch,9,7",
        "q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  qr = Relu(q)  kr = Relu(k)"
        "  kt = Transpose<perm=[0,2,1]>(kr)  kv = MatMul(kt, v)  o = MatMul(qr, kv)  y = MatMul(o, wo)",
        "float[6,4] wq, float[6,4] wk, float[6,5] wv, float[5,7] wo", {5},
    ),
}  # fmt: skip


def network(name: str) -> str:
    source, result, body, weights, _ = CASES[name]
    return f"net (float[{source}] x, {weights}) => (float[{result}] y) {{ {body} }}"


@pytest.mark.parametrize("name", CASES)
def test_removal_equals_masking_and_cost_is_foretold(name, build, assert_exact, some_removals):
    model = build(network(name), opset=20)
    found = groups(model)
    assert {group.size for group in found if group.prunable} == CASES[name][-1]
    assert all(group.reason for group in found if not group.prunable)
    for seed in range(3):
        removals = some_removals(model, seed)
        pruned = assert_exact(model, removals)
        left = {group.name: group.size - len(removals.get(group.name, ())) for group in found}
        priced, real = cost_model(model), cost(pruned)
        assert (priced.macs({}), priced.params({})) == (cost(model).macs, cost(model).params)
        assert (priced.macs(left), priced.params(left)) == (real.macs, real.params)


def test_a_layer_norm_says_why_its_channels_stay(build):
    body = "a = MatMul(x, w0)  n = LayerNormalization(a, ls, lb)  y = MatMul(n, w1)"
    weights = "float[7,6] w0, float[6] ls, float[6] lb, float[6,7] w1"
    (stuck,) = [
        group
        for group in groups(
            build(f"net (float[batch,9,7] x, {weights}) => (float[batch,9,7] y) {{ {body} }}")
        )
        if group.name == "matmul_0"
    ]
    assert stuck.reason == (
        "LayerNormalization 'layernormalization_1' takes mean and variance over these channels: fewer would change both"
    )
