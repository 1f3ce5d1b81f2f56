"""Regions: residual blocks with their forks and joins, cut points, and the part between two values."""

from __future__ import annotations

import pytest

from edgec.graph.errors import UsageError
from edgec.graph.load import load
from edgec.graph.regions import between, region, regions

RESIDUAL = """net (
    float[1,3,4,4] x, float[3,3,3,3] w1, float[3,3,3,3] w2, float[3,3,3,3] w3, float[3,3,1,1] w4
) => (float[1,3,4,4] y) {
    a = Relu(x)
    b = Conv<pads=[1,1,1,1]>(a, w1)
    c = Relu(b)
    d = Conv<pads=[1,1,1,1]>(c, w2)
    e = Add(d, a)
    f = Relu(e)
    g = Conv<pads=[1,1,1,1]>(f, w3)
    h = Conv(f, w4)
    i = Add(h, g)
    y = Relu(i)
}"""


def test_residual_blocks_have_fork_join_and_skip(build):
    first, second = regions(build(RESIDUAL))
    assert (first.name, first.input, first.output, first.skip) == ("block1", "a", "e", ())
    assert first.has_identity
    assert first.nodes == ("conv_1", "relu_2", "conv_3", "add_4")
    assert first.branch == ("conv_1", "relu_2", "conv_3")
    assert (second.name, second.input, second.output, second.skip) == ("block2", "f", "i", ("conv_7",))
    assert second.branch == ("conv_6",)
    assert not second.has_identity


def test_values_that_lead_nowhere_or_come_from_constants_make_no_block(build):
    model = build(
        "net (float[1,3,4,4] x, float[3,3,1,1] w, float[1] k) => (float[1,3,4,4] y)"
        " { a = Conv(x, w)  s = Sigmoid(k)  dead = Relu(a)  y = Mul(a, s) }"
    )
    assert regions(model) == ()


def test_a_block_that_is_read_from_elsewhere_is_no_block(build):
    model = build(
        "net (float[1,3,4,4] x, float[3,3,1,1] w) => (float[1,3,4,4] y, float[1,3,4,4] z)"
        " { a = Conv(x, w)  b = Relu(a)  s = Add(b, x)  y = Relu(s)  z = Tanh(b) }"
    )
    assert regions(model) == ()


def test_nested_blocks(build):
    model = build(
        "net (float[1,3,4,4] x, float[3,3,1,1] w, float[3,3,1,1] v) => (float[1,3,4,4] z)"
        " { a = Conv(x, w)  b = Conv(a, v)  c = Add(b, a)  d = Relu(c)  e = Add(d, x)  z = Relu(e) }"
    )
    inner, outer = regions(model)
    assert (inner.input, inner.output) == ("a", "c")
    assert (outer.input, outer.output, outer.skip) == ("x", "e", ())
    assert set(inner.nodes) < set(outer.nodes)


def test_blocks_take_the_name_of_their_module(build):
    model = build(RESIDUAL)
    for node in model.graph:
        node.name = f"/layer1/layer1.{int(node.name.split('_')[1]) // 6}/{node.name}"
    assert [block.name for block in regions(model)] == ["layer1.0", "layer1.1"]


def test_between_takes_what_lies_between_two_values(build):
    part = between(build(RESIDUAL), "a", "f")
    assert part.nodes == ("conv_1", "relu_2", "conv_3", "add_4", "relu_5")
    assert (part.input, part.output, part.skip) == ("a", "f", None)
    assert part.branch == part.nodes


@pytest.mark.parametrize(
    ("start", "end", "what", "hint"),
    [
        ("a", "d", None, None),
        ("nope", "d", "no value 'nope'", "Known"),
        ("d", "b", "'b' does not depend on 'd'", None),
        ("b", "f", "also reads 'a', which is made before 'b'", "start the region at or before its fork"),
        ("x", "d", "'a' is read by Add 'add_4' outside", "end the region at or after its join"),
    ],
)
def test_between_refuses_what_is_no_region(build, start, end, what, hint):
    model = build(RESIDUAL)
    if what is None:
        assert between(model, start, end).output == end
        return
    with pytest.raises(UsageError) as error:
        between(model, start, end)
    assert what in str(error.value)
    assert hint is None or hint in str(error.value)
    assert f"region '{start}..{end}'" in str(error.value)


def test_a_graph_output_inside_is_a_second_output(build):
    model = build(
        "net (float[1,3,4,4] x) => (float[1,3,4,4] y, float[1,3,4,4] z) { y = Relu(x)  z = Tanh(y) }"
    )
    with pytest.raises(UsageError, match="one input and one output"):
        between(model, "x", "z")


def test_region_by_name_and_range(build):
    model = build(RESIDUAL)
    assert region(model, "block2").input == "f"
    both = region(model, "block1..block2")
    assert (both.name, both.input, both.output) == ("block1..block2", "a", "i")
    assert region(model, "a..block1").nodes == region(model, "block1").nodes
    with pytest.raises(UsageError, match="no region 'block9'") as error:
        region(model, "block9")
    assert "Did you mean 'block" in str(error.value.hint)


def test_a_network_without_blocks_says_how_to_name_a_region(build):
    model = build("net (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match="name two values"):
        region(model, "block1")


def test_resnet56(shared):
    model = load(shared / "data" / "models" / "resnet56_cifar10.onnx")
    blocks = regions(model)
    assert len(blocks) == 27
    assert [number for number, block in enumerate(blocks, 1) if not block.has_identity] == [10, 19]
    last_stage = region(model, f"{blocks[18].name}..{blocks[26].name}")
    assert len(last_stage.nodes) == 9 * 5 - 1 + 2  # conv, relu, conv, add, relu; no last relu; Slice and Pad


def test_mobilenet_v2(shared):
    model = load(shared / "data" / "models" / "mobilenet_v2_1.0_224_dequantised.onnx")
    blocks = regions(model)
    assert len(blocks) == 10
    assert all(block.has_identity and len(block.branch) == 5 for block in blocks)
