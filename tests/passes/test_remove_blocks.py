"""remove-blocks: what can go, that names stay true, and that what can be absorbed exactly is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgec.graph.cost import cost
from edgec.graph.data import Dataset, open_data
from edgec.graph.errors import PassError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.preprocess import Preprocess
from edgec.graph.verify import verify
from edgec.passes.base import Context
from edgec.passes.blocks.removal import survey, take_out
from edgec.passes.pipeline_string import parse_pipeline, print_pass
from edgec.passes.remove_blocks import RemoveBlocks
from edgec.targets import target
from edgec.targets.estimator import latency_table

HEADER = '<ir_version: 9, opset_import: ["" : 18]>'


def build(text: str, seed: int = 0) -> ir.Model:
    """A model from ONNX text; its inputs but ``x`` become random weights."""
    proto = onnx.parser.parse_model(f"{HEADER}\n{text}")
    rng = np.random.default_rng(seed)
    for value in list(proto.graph.input):
        if value.name != "x":
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            array = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
            proto.graph.input.remove(value)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


PLAIN = """net (float[batch,3,6,6] x, float[8,3,3,3] w0, float[8] b0, float[8,8,3,3] w1, float[8,8,3,3] w2,
    float[8,8,3,3] w3, float[8,8,3,3] w4, float[4,8,6,6] wy) => (float[batch,4,1,1] y) {
    s = Conv<pads=[1,1,1,1]>(x, w0, b0)
    a = Relu(s)
    c1 = Conv<pads=[1,1,1,1]>(a, w1)
    r1 = Relu(c1)
    c2 = Conv<pads=[1,1,1,1]>(r1, w2)
    j1 = Add(c2, a)
    a1 = Relu(j1)
    c3 = Conv<pads=[1,1,1,1]>(a1, w3)
    r3 = Relu(c3)
    c4 = Conv<pads=[1,1,1,1]>(r3, w4)
    j2 = Add(a1, c4)
    a2 = Relu(j2)
    y = Conv(a2, wy)
}"""

# Without activations on the stream: convolutions in front can absorb the blocks exactly.
LINEAR = """net (float[batch,3,6,6] x, float[8,3,3,3] w0, float[8,8,1,1] w1, float[6,8,1,1] wp, float[6,8,1,1] wb,
    float[6] bb, float[4,6,6,6] wy) => (float[batch,4,1,1] y) {
    s = Conv<pads=[1,1,1,1]>(x, w0)
    c1 = Conv(s, w1)
    j1 = Add(c1, s)
    p = Conv(j1, wp)
    c2 = Conv(j1, wb, bb)
    j2 = Add(p, c2)
    y = Conv(j2, wy)
}"""


def noise(model: ir.Model, tmp_path: Path, count: int = 60) -> Dataset:
    x = np.random.default_rng(3).standard_normal((count, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "noise.npz", x=x)
    return open_data(tmp_path / "noise.npz", model, Preprocess())


def context(model: ir.Model, tmp_path: Path, count: int = 60) -> Context:
    return Context(teacher=model.clone(), scratch=tmp_path, data=noise(model, tmp_path, count))


def outputs(model: ir.Model, x: np.ndarray, *names: str) -> list[np.ndarray]:
    found = Executor(model, outputs=names or None).run({"x": x})
    return [found[name] for name in names or ("y",)]


X = np.random.default_rng(5).standard_normal((4, 3, 6, 6)).astype(np.float32)


def test_survey_names_the_absorbers():
    removable, stuck = survey(build(PLAIN))
    assert [(one.absorber, one.features, one.rest) for one in removable] == [
        ("conv_0", "x", None),
        ("conv_4", "r1", "a"),
    ]
    assert stuck == []
    removable, _ = survey(build(LINEAR))
    assert [(one.absorber, one.block.output) for one in removable] == [("conv_0", "j1"), ("conv_3", "j2")]


@pytest.mark.parametrize("which", [0, 1])
def test_taking_out_leaves_the_block_out_and_keeps_names(which):
    model = build(PLAIN)
    for name in ("w2", "w4"):
        initialiser = model.graph.initializers[name]
        initialiser.const_value = ir.tensor(np.zeros((8, 8, 3, 3), np.float32), name=name)
    want = outputs(model, X, "a2", "y")
    block = survey(model)[0][which]
    take_out(model, block)
    verify(model)
    assert len(model.graph) == 8
    for found, wanted in zip(outputs(model, X, "a2", "y"), want, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    names = {value.name for node in model.graph for value in node.outputs}
    assert {block.block.output, "y"} <= names
    assert block.block.input not in names


def test_blocks_that_a_linear_layer_can_absorb_leave_no_damage(tmp_path):
    model = build(LINEAR)
    result = RemoveBlocks(blocks=2, ridge=1e-9).run(model.clone(), context(model, tmp_path))
    verify(result.model)
    assert [node.op_type for node in result.model.graph] == ["Conv", "Conv", "Conv"]
    np.testing.assert_allclose(outputs(result.model, X)[0], outputs(model, X)[0], rtol=1e-3, atol=1e-4)
    assert len(result.layers) == 2
    assert all(layer.kept and layer.error_after < 1e-6 < layer.error_before for layer in result.layers)
    assert [round(entry["damage"], 5) for entry in result.data["removed"]] == [0, 0]


def test_the_least_missed_block_goes_first(tmp_path):
    model = build(PLAIN)
    weight = model.graph.initializers["w4"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * 0.01, name="w4")
    result = RemoveBlocks(blocks=1).run(model, context(model, tmp_path))
    assert [entry["output"] for entry in result.data["removed"]] == ["j2"]
    assert result.data["removed"][0]["damage"] < 0.01
    assert result.modified


def test_fits_that_do_not_help_unseen_rows_are_not_kept(tmp_path):
    """Two images of four pixels for 28 and 73 unknowns: whatever a fit learns of one is wrong for the other."""
    model = build(PLAIN.replace("float[batch,3,6,6] x", "float[batch,3,2,2] x").replace("8,6,6", "8,2,2"))
    x = np.random.default_rng(4).standard_normal((2, 3, 2, 2)).astype(np.float32)
    np.savez(tmp_path / "two.npz", x=x)
    data = open_data(tmp_path / "two.npz", model, Preprocess())
    told = Context(teacher=model.clone(), scratch=tmp_path, data=data)
    result = RemoveBlocks(blocks=2, ridge=0.0).run(model, told)
    for layer in result.layers:
        assert layer.kept == (layer.error_after < layer.error_before)
    assert not all(layer.kept for layer in result.layers)


@pytest.mark.parametrize("lam", [0.0, 1e-3])
def test_what_is_wrong_for_the_opposite_picture_is_not_kept(lam, tmp_path):
    """Behind the Relu a picture and its negative have nothing in common."""
    model = build(PLAIN.replace("float[batch,3,6,6] x", "float[batch,3,2,2] x").replace("8,6,6", "8,2,2"))
    x = np.random.default_rng(4).standard_normal((1, 3, 2, 2)).astype(np.float32)
    np.savez(tmp_path / "two.npz", x=np.concatenate([x, -x]))
    data = open_data(tmp_path / "two.npz", model, Preprocess())
    told = Context(teacher=model.clone(), scratch=tmp_path, data=data)
    layers = RemoveBlocks(blocks=2, ridge=lam).run(model, told).layers
    first = next(layer for layer in layers if layer.node == "conv_0")
    assert not first.kept
    assert first.choices[0].margin < -0.1


def test_stops_at_the_share_of_macs(tmp_path):
    model = build(PLAIN)
    before = cost(model).macs
    result = RemoveBlocks(macs="70%").run(model.clone(), context(model, tmp_path))
    assert len(result.data["removed"]) == 1
    assert cost(result.model).macs <= 0.7 * before
    assert "1 of 2 removable blocks removed" in result.notes[0].text
    far = RemoveBlocks(macs="1%").run(model.clone(), context(model, tmp_path))
    assert [note.level for note in far.notes if "out of reach" in note.text] == ["warning"]
    assert len(far.data["removed"]) == 2


def test_stops_before_the_damage_exceeds_its_limit(tmp_path):
    model = build(PLAIN)
    result = RemoveBlocks(max_damage=1e-9).run(model, context(model, tmp_path))
    assert not result.modified
    assert "stopped after 0 blocks" in result.notes[-1].text


def test_same_seed_same_result(tmp_path):
    model = build(PLAIN)
    runs = [RemoveBlocks(blocks=1).run(model.clone(), context(model, tmp_path)).model for _ in range(2)]
    first, second = (outputs(run, X)[0] for run in runs)
    np.testing.assert_array_equal(first, second)


STUCK = {
    "read elsewhere": (PLAIN.replace("y = Conv(a2, wy)", "z = Add(a2, a)  y = Conv(z, wy)"), "is read elsewhere too"),
    "no conv in front": (
        PLAIN.replace("a = Relu(s)", "q = Sigmoid(s)  a = Mul(q, s)"),
        "Mul 'mul_2' in front of it cannot absorb it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STUCK)
def test_blocks_that_cannot_go_say_why(name):
    text, why = STUCK[name]
    _, stuck = survey(build(text))
    assert why in stuck[0].why


def test_option_a_shortcut_is_stuck():
    body = (
        "p = Constant<value_ints=[0,0,0,0,0,4,0,0]>()  a = Relu(x)  c = Conv<pads=[1,1,1,1]>(a, w)"
        "  q = Pad(a, p)  y = Add(c, q)"
    )
    model = build(f"net (float[1,4,4,4] x, float[8,4,3,3] w) => (float[1,8,4,4] y) {{ {body} }}")
    removable, (stuck,) = survey(model)
    assert removable == []
    assert stuck.why == "its skip ends in no convolution that could absorb the branch"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "when to stop"),
        ({"macs": "lots"}, "not a budget"),
        ({"macs": "120%"}, "between 0% and 100%"),
        ({"latency": "3MB"}, "unknown suffix"),
    ],
)
def test_options_are_checked(options, why):
    with pytest.raises(UsageError, match=why):
        RemoveBlocks(**options)


def test_latency_is_estimated_on_the_target(tmp_path):
    model = build(PLAIN)
    told = replace(context(model, tmp_path), target=target("rpi4"))
    result = RemoveBlocks(latency="80%").run(model.clone(), told)
    (removed,) = result.data["removed"]
    table = latency_table(target("rpi4"))
    assert removed["saved"] == pytest.approx(table.model_ms(cost(model)) - table.model_ms(cost(result.model)))
    with pytest.raises(UsageError, match="needs a target"):
        RemoveBlocks(latency="80%").run(model, context(model, tmp_path))


def test_pipeline_string_round_trip():
    text = "remove-blocks{macs=60% max-damage=0.1}"
    assert " ".join(map(print_pass, parse_pipeline(text))) == text


def test_nothing_to_remove_is_an_error(tmp_path):
    model = build("net (float[batch,3,6,6] x, float[4,3,3,3] w) => (float[batch,4,4,4] y) { y = Conv(x, w) }")
    with pytest.raises(PassError, match="no block can go"):
        RemoveBlocks(blocks=1).run(model, context(model, tmp_path))


def test_without_data_it_refuses(tmp_path):
    model = build(PLAIN)
    with pytest.raises(UsageError, match="remove-blocks needs calibration data"):
        RemoveBlocks(blocks=1).run(model, Context(teacher=model, scratch=tmp_path))
